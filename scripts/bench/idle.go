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
	c, err := unaryCall(32)
	if err != nil {
		return nil, err
	}
	open := func(p *process) (client, error) {
		conn, err := p.dial(p.addr, c)
		if err != nil {
			return nil, err
		}
		return conn, callOnce(conn)
	}
	var results []*idleResult
	for _, v := range variants {
		results = append(results, &idleResult{Variant: v.name})
	}
	for range b.plan.Idle.Rounds {
		for i, v := range variants {
			s, err := b.measureMemory(idleName, v, b.plan.Idle.Conns, open)
			if err != nil {
				return nil, err
			}
			results[i].Rounds = append(results[i].Rounds, s)
		}
	}
	sumUpIdle(results)
	return results, nil
}

func (s idleSample) resident() float64 { return s.Resident }
func (s idleSample) heap() float64     { return s.Heap }
func (s idleSample) stack() float64    { return s.Stack }

func sumUpIdle(results []*idleResult) {
	for _, r := range results {
		r.sumUp()
		r.HeapRatio = make(map[string]spread)
		for _, to := range results {
			r.HeapRatio[to.Variant] = spreadOf(ratios(r.Rounds, to.Rounds, idleSample.heap))
		}
	}
}

// sumUp fills in what follows from the rounds of r alone.
func (r *idleResult) sumUp() {
	r.Resident = spreadOf(each(r.Rounds, idleSample.resident))
	r.Heap = spreadOf(each(r.Rounds, idleSample.heap))
	r.Stack = spreadOf(each(r.Rounds, idleSample.stack))
}

// measureMemory measures what a new process holds for n connections. open makes one,
// and may return it with an error too.
func (b *bench) measureMemory(name string, v variant, n int, open func(*process) (client, error)) (s idleSample, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %s: %w", name, v.name, err)
		}
	}()
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
	few, err := openMany(server, 100, open)
	closeAll(few)
	if err != nil {
		return s, err
	}
	time.Sleep(settle)
	before, err := server.ask("memory")
	if err != nil {
		return s, err
	}
	many, err := openMany(server, n, open)
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
		if _, err := server.ask("heap %s", b.profileName(name, v.name, "heap")); err != nil {
			return s, err
		}
	}
	for _, c := range many { // which are to have been as they should all the while
		if err := callOnce(c); err != nil {
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

// openMany opens n connections. It returns those that are open, also with an error.
func openMany(server *process, n int, open func(*process) (client, error)) ([]client, error) {
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
				conn, err := open(server)
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
