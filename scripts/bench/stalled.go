package main

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// stalledName is that of the workload with a call whose client takes what its window has
// room for and gives no credit, so that the handler stands in Send: what the others of the
// socket feel of it, and what the server holds for it. Of the variants only one has
// credit on a WebSocket.
const (
	stalledName    = "stalled"
	stalledVariant = "grpc-ws.v1"
)

const (
	// stalledOthers is how many calls are in flight beside it, or without it.
	stalledOthers = 100

	stalledWindow = 64 << 10
	stalledSize   = 4 << 10 // of its messages
)

// latencySample is how long the calls of one round took, from when they were written.
type latencySample struct {
	Calls int           `json:"calls"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
}

func newLatencySample(latencies []time.Duration) latencySample {
	slices.Sort(latencies)
	return latencySample{Calls: len(latencies), P50: quantile(latencies, 0.50), P99: quantile(latencies, 0.99)}
}

// p50 and p99 are in microseconds.
func (s latencySample) p50() float64 { return s.P50.Seconds() * 1e6 }
func (s latencySample) p99() float64 { return s.P99.Seconds() * 1e6 }

type latencyResult struct {
	Rounds []latencySample `json:"rounds"`
	P50    spread          `json:"p50_us"`
	P99    spread          `json:"p99_us"`
}

// stalledResult is what was measured of one variant.
type stalledResult struct {
	Variant  string        `json:"variant"`
	Without  latencyResult `json:"without"`
	Beside   latencyResult `json:"beside"`
	P99Ratio spread        `json:"p99_ratio"` // of beside to without, in each round

	Quiet   idleResult `json:"quiet"` // with a call on each connection of which nothing is sent
	Stalled idleResult `json:"stalled"`
	Held    spread     `json:"held_kib"` // heap and stack of a stalled call, less those of a quiet one
}

// stalledCalls are those that the workload makes.
type stalledCalls struct {
	other   *call
	stalled *call
}

func newStalledCalls() (*stalledCalls, error) {
	other, err := unaryCall(32)
	if err != nil {
		return nil, err
	}
	stalled, err := pushCall(stalledSize, math.MaxInt32)
	return &stalledCalls{other: other, stalled: stalled}, err
}

func (b *bench) measureStalled(v variant) (*stalledResult, error) {
	calls, err := newStalledCalls()
	if err != nil {
		return nil, err
	}
	r := &stalledResult{Variant: v.name, Quiet: idleResult{Variant: v.name}, Stalled: idleResult{Variant: v.name}}
	p, err := b.server(v)
	if err != nil {
		return nil, err
	}
	if err := b.tellProfile(p, stalledName, "profile", "cpu"); err != nil {
		return nil, err
	}
	for round := range b.plan.Rounds {
		without, beside, err := b.measureLatency(round, p.addr, calls)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", stalledName, v.name, err)
		}
		r.Without.Rounds = append(r.Without.Rounds, without)
		r.Beside.Rounds = append(r.Beside.Rounds, beside)
	}
	if err := b.tellProfile(p, stalledName, "profiled", "allocs"); err != nil {
		return nil, err
	}
	for range b.plan.Stalled.Rounds {
		quiet, err := b.measureMemory(stalledName+"-quiet", v, b.plan.Stalled.Conns, calls.openQuiet)
		if err != nil {
			return nil, err
		}
		stalled, err := b.measureMemory(stalledName, v, b.plan.Stalled.Conns, calls.openStalled)
		if err != nil {
			return nil, err
		}
		r.Quiet.Rounds = append(r.Quiet.Rounds, quiet)
		r.Stalled.Rounds = append(r.Stalled.Rounds, stalled)
	}
	r.sumUp()
	return r, nil
}

func (r *stalledResult) sumUp() {
	for _, l := range []*latencyResult{&r.Without, &r.Beside} {
		l.P50 = spreadOf(each(l.Rounds, latencySample.p50))
		l.P99 = spreadOf(each(l.Rounds, latencySample.p99))
	}
	r.P99Ratio = spreadOf(ratios(r.Beside.Rounds, r.Without.Rounds, latencySample.p99))
	r.Quiet.sumUp()
	r.Stalled.sumUp()
	var held []float64
	for i, s := range r.Stalled.Rounds {
		q := r.Quiet.Rounds[i]
		held = append(held, s.Heap+s.Stack-q.Heap-q.Stack)
	}
	r.Held = spreadOf(held)
}

// measureLatency gives both sides their turns, each on a new socket.
func (b *bench) measureLatency(round int, addr string, calls *stalledCalls) (without, beside latencySample, err error) {
	var latencies [2][]time.Duration // without, beside
	for turn := range b.plan.Turns {
		for i := range latencies {
			i = (i + turn + round) % len(latencies)
			l, err := calls.measure(addr, i == 1, b.plan.Turn)
			if err != nil {
				return without, beside, err
			}
			latencies[i] = append(latencies[i], l...)
		}
	}
	return newLatencySample(latencies[0]), newLatencySample(latencies[1]), nil
}

// measure opens a socket and returns the latencies of the calls that d has room for.
func (c *stalledCalls) measure(addr string, stall bool, d time.Duration) (latencies []time.Duration, err error) {
	s, err := dialWindow(addr, c.other, stalledWindow)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(d + 2*timeout)); err != nil {
		return nil, err
	}
	var stalled *socketCall
	if stall {
		if stalled, err = s.stall(c.stalled); err != nil {
			return nil, err
		}
	}
	// The first calls of a socket are dearer.
	if err := driveFor(s, d/5); err != nil {
		return nil, err
	}
	s.timed = true
	if err := driveFor(s, d); err != nil {
		return nil, err
	}
	s.timed = false
	if stall {
		if err := s.checkStalled(stalled); err != nil {
			return nil, err
		}
	}
	return s.latencies, s.finish()
}

func driveFor(c client, d time.Duration) error {
	var over atomic.Bool
	stop := time.AfterFunc(d, func() { over.Store(true) })
	defer stop.Stop()
	_, err := drive(c, stalledOthers, over.Load)
	return err
}

// stall begins a call and gives it no credit. It returns when the window is full. A
// message beyond it, or the end of the call, is from then on an error of exchange.
func (s *socketClient) stall(c *call) (*socketCall, error) {
	s.stingy = true
	stalled := s.begin(c, openCall(c))
	for stalled.owed < s.window {
		if _, _, err := s.exchange(); err != nil {
			return nil, err
		}
	}
	return stalled, nil
}

// checkStalled returns an error if c does not stand in Send: with credit for one message
// one comes, and no other before the answer to a later call.
func (s *socketClient) checkStalled(c *socketCall) error {
	before := c.messages
	s.credit(c, c.cost())
	for c.messages == before {
		if _, _, err := s.exchange(); err != nil {
			return err
		}
	}
	return callOnce(s)
}

// openStalled opens a connection with a stalled call.
func (c *stalledCalls) openStalled(p *process) (client, error) {
	return c.open(p, func(s *socketClient) error {
		_, err := s.stall(c.stalled)
		return err
	})
}

// openQuiet opens a connection with a call whose handler waits for a message.
func (c *stalledCalls) openQuiet(p *process) (client, error) {
	return c.open(p, func(s *socketClient) error {
		s.begin(&call{method: converseMethod}, openMethod(converseMethod))
		return nil
	})
}

func (c *stalledCalls) open(p *process, begin func(*socketClient) error) (client, error) {
	s, err := dialWindow(p.addr, c.other, stalledWindow)
	if err != nil {
		return nil, err
	}
	if err := s.SetDeadline(time.Now().Add(timeout)); err != nil {
		return s, err
	}
	if err := begin(s); err != nil {
		return s, err
	}
	return s, callOnce(s) // when it is answered, the server has read what began the first
}
