// Command bench measures what calls cost a server: user and system CPU time of its
// process for each call or message, and heap allocations. Each variant of the server
// is a process of its own, this one is the load. A round visits each variant, in an
// order that turns from round to round, so that what else happens on the machine
// meets all alike; ratios are taken within a round.
//
// It needs Linux, and is not for numbers with --quick.
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

func main() {
	serve := flag.String("serve", "", "be the server of `VARIANT`, for a bench that is on standard input and output")
	quick := flag.Bool("quick", false, "run everything for a moment, to see whether it works")
	only := flag.String("only", "", "run what `REGEXP` matches of workload/variant")
	rounds := flag.Int("rounds", 7, "number of rounds")
	round := flag.Duration("round", 700*time.Millisecond, "time for each variant in a round")
	profile := flag.String("profile", "", "write profiles of CPU and of allocations so far, for each workload and variant, into `DIR`")
	flag.Parse()
	if err := run(*serve, *quick, *only, *rounds, *round, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(serve string, quick bool, only string, rounds int, round time.Duration, profile string) error {
	if serve != "" {
		v, err := findVariant(serve)
		if err != nil {
			return err
		}
		return runServer(v, os.Stdin, os.Stdout)
	}
	b := &bench{plan: plan{rounds: rounds, round: round, warmUp: round / 3}}
	if quick {
		b.plan = plan{rounds: 2, round: 50 * time.Millisecond}
	}
	if rounds < 1 {
		return errors.New("--rounds must be above zero")
	}
	var err error
	if b.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if profile != "" {
		if b.profile, err = filepath.Abs(profile); err != nil {
			return err
		}
		if err := os.MkdirAll(b.profile, 0o777); err != nil {
			return err
		}
	}
	err = b.start()
	if err == nil {
		err = b.measure()
	}
	return errors.Join(err, b.stop())
}
