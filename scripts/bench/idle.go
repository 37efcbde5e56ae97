package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// idleName is that of the workload that is none: what connections hold that have made
// a call and now make none.
const idleName = "idle"

// idlePlan is how often and with how many connections to measure that.
type idlePlan struct {
	Rounds int `json:"rounds"`
	Conns  int `json:"conns"`
}

// idleSample is one measurement, in KiB for each connection, garbage collected.
type idleSample struct {
	Resident float64 `json:"resident_kib"` // of the process
	Heap     float64 `json:"heap_kib"`
	Stack    float64 `json:"stack_kib"`
}

// idleResult is what was measured of one variant.
type idleResult struct {
	Variant  string       `json:"variant"`
	Rounds   []idleSample `json:"rounds"`
	Resident spread       `json:"resident_kib"`
	Heap     spread       `json:"heap_kib"`
	Stack    spread       `json:"stack_kib"`

	HeapRatio map[string]spread `json:"heap_ratio"` // as result.CPURatio
}

// settle is how long a server has to end what a call or a connection leaves behind.
const settle = 3 * time.Second

// measureIdle measures the variants in turn, each time in a new process.
func (b *bench) measureIdle(variants []variant) ([]*idleResult, error) {
	var results []*idleResult
	for _, v := range variants {
		results = append(results, &idleResult{Variant: v.name})
	}
	for range b.plan.Idle.Rounds {
		for i, v := range variants {
			s, err := b.measureIdleOnce(v, b.plan.Idle.Conns)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", idleName, v.name, err)
			}
			results[i].Rounds = append(results[i].Rounds, s)
		}
	}
	sumUpIdle(results)
	return results, nil
}

func sumUpIdle(results []*idleResult) {
	resident := func(s idleSample) float64 { return s.Resident }
	heap := func(s idleSample) float64 { return s.Heap }
	stack := func(s idleSample) float64 { return s.Stack }
	for _, r := range results {
		r.Resident = spreadOf(each(r.Rounds, resident))
		r.Heap = spreadOf(each(r.Rounds, heap))
		r.Stack = spreadOf(each(r.Rounds, stack))
		r.HeapRatio = make(map[string]spread)
		for _, to := range results {
			r.HeapRatio[to.Variant] = spreadOf(ratios(r.Rounds, to.Rounds, heap))
		}
	}
}

func (b *bench) measureIdleOnce(v variant, n int) (s idleSample, err error) {
	var env []string
	if b.profile != "" {
		env = append(env, "GODEBUG=memprofilerate=4096") // else of a few KiB each one in a hundred is in it
	}
	server, err := startProcess(v, env...)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	// What the first connections leave behind is not of the later ones.
	few, err := openIdle(server, 100)
	closeAll(few)
	if err != nil {
		return s, err
	}
	time.Sleep(settle)
	before, err := server.ask("memory")
	if err != nil {
		return s, err
	}
	many, err := openIdle(server, n)
	defer closeAll(many)
	if err != nil {
		return s, err
	}
	time.Sleep(settle)
	after, err := server.ask("memory")
	if err != nil {
		return s, err
	}
	if b.profile != "" {
		if _, err := server.ask("heap %s", b.profileName(idleName, v.name, "heap")); err != nil {
			return s, err
		}
	}
	kib := func(before, after uint64) float64 { return (float64(after) - float64(before)) / float64(n) / 1024 }
	return idleSample{
		Resident: kib(before.Memory.Resident, after.Memory.Resident),
		Heap:     kib(before.Memory.Heap, after.Memory.Heap),
		Stack:    kib(before.Memory.Stack, after.Memory.Stack),
	}, nil
}

// openIdle opens n connections and makes a call on each. It returns those that are
// open, also with an error.
func openIdle(server *process, n int) ([]client, error) {
	c, err := unaryCall(32)
	if err != nil {
		return nil, err
	}
	const dialers = 16
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		conns []client
		errs  []error
	)
	for i := range dialers {
		all.Go(func() {
			for range (n + i) / dialers { // n in all
				conn, err := server.dial(server.addr, c)
				if err == nil {
					err = callOnce(conn)
				}
				mu.Lock()
				if conn != nil {
					conns = append(conns, conn)
				}
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return conns, errors.Join(errs...)
}

func closeAll(conns []client) {
	for _, c := range conns {
		c.Close()
	}
}
