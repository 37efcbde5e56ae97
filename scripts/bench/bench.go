package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"time"
)

// plan is how often and how long to measure each variant.
type plan struct {
	Rounds int           `json:"rounds"`
	Turns  int           `json:"turns"` // in a round
	Turn   time.Duration `json:"turn_ns"`
	WarmUp time.Duration `json:"warm_up_ns"` // before the first round
	Idle   idlePlan      `json:"idle"`

	// Quick is a plan that shows that all works; its figures mean nothing.
	Quick bool `json:"quick"`

	// Stalled is that of memory; the latency has the rounds above.
	Stalled idlePlan `json:"stalled"`
}

// bench is one run of the command.
type bench struct {
	plan    plan
	only    *regexp.Regexp
	profile string // directory, or empty
	out     io.Writer

	servers map[string]*process // by variant
}

// run measures all that is asked for, and prints it on the way.
func (b *bench) run() (r *report, err error) {
	if r, err = newReport(b.plan); err != nil {
		return nil, err
	}
	if err := r.printHead(b.out); err != nil {
		return nil, err
	}
	b.servers = make(map[string]*process)
	defer func() {
		for _, p := range b.servers {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, w := range workloads {
		results, err := b.measure(w)
		if err != nil {
			return nil, err
		}
		if len(results) == 0 {
			continue
		}
		r.Results = append(r.Results, results...)
		to, too := "native", "dialling"
		if w.rest {
			to, too = "grpc-gateway", "rest"
		}
		if err := printResults(b.out, results, to, too); err != nil {
			return nil, err
		}
	}
	for _, v := range b.chosen(stalledName, false) {
		if v.name != stalledVariant {
			continue
		}
		if r.Stalled, err = b.measureStalled(v); err != nil {
			return nil, err
		}
		if err := printStalled(b.out, b.plan.Stalled, r.Stalled); err != nil {
			return nil, err
		}
	}
	if chosen := b.chosen(idleName, false); len(chosen) > 0 {
		if r.Idle, err = b.measureIdle(chosen); err != nil {
			return nil, err
		}
		if err := printIdle(b.out, b.plan.Idle, r.Idle); err != nil {
			return nil, err
		}
	}
	r.Goals = r.goals()
	if b.plan.Quick {
		_, err := fmt.Fprintln(b.out, "a quick run: its figures mean nothing, so it is held to no goal")
		return r, err
	}
	return r, printGoals(b.out, r.Goals)
}

// chosen are the variants to measure under a workload.
func (b *bench) chosen(workload string, rest bool) []variant {
	var chosen []variant
	for _, v := range variants {
		if v.rest == rest && b.only.MatchString(workload+"/"+v.name) {
			chosen = append(chosen, v)
		}
	}
	return chosen
}

// server starts the process of a variant, once.
func (b *bench) server(v variant) (*process, error) {
	if p, ok := b.servers[v.name]; ok {
		return p, nil
	}
	p, err := startProcess(v)
	if err == nil {
		b.servers[v.name] = p
	}
	return p, err
}

// measure runs one workload with the variants in turn.
func (b *bench) measure(w workload) (results []*result, err error) {
	var loads []*load
	defer func() {
		for _, l := range loads {
			err = errors.Join(err, l.close())
		}
	}()
	for _, v := range b.chosen(w.name, w.rest) {
		p, err := b.server(v)
		if err != nil {
			return nil, err
		}
		l, err := newLoad(w, p)
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
		results = append(results, &result{Workload: w.name, Variant: v.name})
		if _, err := l.measure(b.plan.WarmUp); err != nil {
			return nil, err
		}
		if err := b.tellProfile(p, w.name, "profile", "cpu"); err != nil {
			return nil, err
		}
	}
	for round := range b.plan.Rounds {
		sums, err := b.measureRound(round, loads)
		if err != nil {
			return nil, err
		}
		for i, r := range results {
			r.Rounds = append(r.Rounds, sums[i])
		}
	}
	for _, l := range loads {
		if err := b.tellProfile(l.server, w.name, "profiled", "allocs"); err != nil {
			return nil, err
		}
	}
	sumUp(results)
	return results, nil
}

// measureRound gives each load its turns.
func (b *bench) measureRound(round int, loads []*load) ([]sample, error) {
	sums := make([]sample, len(loads))
	for turn := range b.plan.Turns {
		for i := range loads {
			i = (i + turn + round) % len(loads)
			s, err := loads[i].measure(b.plan.Turn)
			if err != nil {
				return nil, err
			}
			sums[i].add(s)
		}
	}
	return sums, nil
}

// tellProfile tells a server to begin or end its profiles.
func (b *bench) tellProfile(p *process, workload, verb, kind string) error {
	if b.profile == "" {
		return nil
	}
	_, err := p.ask("%s %s", verb, b.profileName(workload, p.name, kind))
	return err
}

func (b *bench) profileName(workload, variant, kind string) string {
	return filepath.Join(b.profile, workload+"."+variant+"."+kind+".pprof")
}
