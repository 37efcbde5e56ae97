package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
)

// bench is one run of the command.
type bench struct {
	plan    plan
	only    *regexp.Regexp
	profile string // directory, or empty

	servers []*process
	results []*result
}

// start starts the servers that are needed.
func (b *bench) start() error {
	for _, v := range variants {
		for _, w := range workloads {
			if b.only.MatchString(w.name + "/" + v.name) {
				p, err := startProcess(v)
				if err != nil {
					return err
				}
				b.servers = append(b.servers, p)
				break
			}
		}
	}
	return nil
}

func (b *bench) stop() error {
	var errs []error
	for _, p := range b.servers {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// measure runs the workloads one after the other, each with all servers in turn.
func (b *bench) measure() error {
	for _, w := range workloads {
		var servers []*process
		for _, p := range b.servers {
			if b.only.MatchString(w.name + "/" + p.name) {
				servers = append(servers, p)
			}
		}
		if len(servers) == 0 {
			continue
		}
		results, err := b.run(w, servers)
		if err != nil {
			return err
		}
		sumUp(results)
		b.results = append(b.results, results...)
		if err := printResults(os.Stdout, results); err != nil {
			return err
		}
	}
	return nil
}

// run measures one workload.
func (b *bench) run(w workload, servers []*process) (results []*result, err error) {
	var loads []*load
	defer func() {
		for _, l := range loads {
			err = errors.Join(err, l.close())
		}
	}()
	for _, p := range servers {
		l, err := newLoad(w, p)
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
		results = append(results, &result{Workload: w.name, Variant: p.name})
		if b.plan.warmUp > 0 {
			if _, err := l.measure(b.plan.warmUp); err != nil {
				return nil, err
			}
		}
		if b.profile != "" {
			if _, err := p.ask("profile %s", b.profileName(w, p, "cpu")); err != nil {
				return nil, err
			}
		}
	}
	for round := range b.plan.rounds {
		for i := range loads {
			i = (i + round) % len(loads)
			s, err := loads[i].measure(b.plan.round)
			if err != nil {
				return nil, err
			}
			results[i].Rounds = append(results[i].Rounds, s)
		}
	}
	if b.profile != "" {
		for _, p := range servers {
			if _, err := p.ask("profiled %s", b.profileName(w, p, "allocs")); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

func (b *bench) profileName(w workload, p *process, kind string) string {
	return filepath.Join(b.profile, w.name+"."+p.name+"."+kind+".pprof")
}
