// Command bench measures what calls cost a server: user and system CPU time of its
// process for each call or message, heap allocations, and the memory of idle
// connections; and what one call that stalls does to the others of its socket. Each
// variant of the server is a process of its own, this one is the load. In a round the
// variants take turns, in an order that changes, so that what else happens on the
// machine meets all alike; ratios are taken within a round.
//
// It needs Linux. An answer that is not as it should be ends it with an error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// flags are the command line.
type flags struct {
	serve   string
	quick   bool
	only    string
	rounds  int
	json    string
	profile string
}

func main() {
	var f flags
	flag.StringVar(&f.serve, "serve", "", "be the server of `VARIANT`, for a bench that is on standard input and output")
	flag.BoolVar(&f.quick, "quick", false, "run everything for a moment, to see whether it works: the figures mean nothing")
	flag.StringVar(&f.only, "only", "", "measure what `REGEXP` matches of workload/variant, such as push-32B/native")
	flag.IntVar(&f.rounds, "rounds", 7, "number of rounds, of 0.7 s for each variant; of those that measure memory there are three at most")
	flag.StringVar(&f.json, "json", "", "write all rounds, sums, ratios and goals to `FILE` as well")
	flag.StringVar(&f.profile, "profile", "", "write to `DIR`, for each workload and variant, a profile of the server's CPU and one of its allocations since its start; of idle connections one of the heap")
	flag.Parse()
	if err := f.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (f *flags) run() error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if f.serve != "" {
		v, err := findVariant(f.serve)
		if err != nil {
			return err
		}
		return runServer(v, os.Stdin, os.Stdout)
	}
	b, err := f.bench()
	if err != nil {
		return err
	}
	r, err := b.run()
	if err != nil || f.json == "" {
		return err
	}
	return r.writeJSON(f.json)
}

// bench is what the flags ask for.
func (f *flags) bench() (*bench, error) {
	if f.rounds < 1 {
		return nil, errors.New("-rounds must be above zero")
	}
	b := &bench{out: os.Stdout, plan: plan{
		Rounds: f.rounds, Turns: 7, Turn: 100 * time.Millisecond, WarmUp: 200 * time.Millisecond,
		Idle:    idlePlan{Rounds: min(f.rounds, 3), Conns: 5000},
		Stalled: idlePlan{Rounds: min(f.rounds, 3), Conns: 200},
	}}
	if f.quick {
		b.plan = plan{Quick: true, Rounds: 2, Turns: 1, Turn: 20 * time.Millisecond,
			Idle: idlePlan{Rounds: 1, Conns: 200}, Stalled: idlePlan{Rounds: 1, Conns: 20}}
	}
	var err error
	if b.only, err = regexp.Compile(f.only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if f.profile != "" {
		// The servers are told of it, and may be elsewhere.
		if b.profile, err = filepath.Abs(f.profile); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(b.profile, 0o777); err != nil {
			return nil, err
		}
	}
	return b, nil
}
