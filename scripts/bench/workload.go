package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// workload is what the load process does with a server for a while. An operation is a
// message from the server: a unary call has one.
type workload struct {
	name  string
	call  func() (*call, error)
	conns int
	calls int  // in flight on each connection
	once  bool // each connection makes one call and is closed
	rest  bool // for the variants that have REST, and no others
}

func unary(size int) func() (*call, error) {
	return func() (*call, error) { return unaryCall(size) }
}

func push(size int) func() (*call, error) {
	return func() (*call, error) { return pushCall(size, 10_000) }
}

var workloads = []workload{
	{name: "unary-32B-64-on-1", call: unary(32), conns: 1, calls: 64},
	{name: "unary-32B-64-on-4", call: unary(32), conns: 4, calls: 16},
	{name: "unary-4KiB-64-on-4", call: unary(4 << 10), conns: 4, calls: 16},
	{name: "unary-32B-1-on-1", call: unary(32), conns: 1, calls: 1},
	{name: "push-32B", call: push(32), conns: 1, calls: 1},
	{name: "push-4KiB", call: push(4 << 10), conns: 1, calls: 1},
	{name: "connect", call: unary(32), conns: 16, calls: 1, once: true},
	{name: "rest-unary-get", call: func() (*call, error) { return restGet(32) }, conns: 16, calls: 1, rest: true},
	{name: "rest-unary-post", call: func() (*call, error) { return restPost(32) }, conns: 16, calls: 1, rest: true},
	{name: "rest-unary-post-4KiB", call: func() (*call, error) { return restPost(4 << 10) }, conns: 16, calls: 1, rest: true},
}

// sample is one measurement.
type sample struct {
	Ops     int           `json:"ops"`
	Elapsed time.Duration `json:"elapsed_ns"`
	CPU     time.Duration `json:"cpu_ns"`      // of the server
	LoadCPU time.Duration `json:"load_cpu_ns"` // of this process
	Allocs  uint64        `json:"allocs"`      // on the server's heap
}

func (s *sample) add(t sample) {
	s.Ops += t.Ops
	s.Elapsed += t.Elapsed
	s.CPU += t.CPU
	s.LoadCPU += t.LoadCPU
	s.Allocs += t.Allocs
}

// load is a workload with connections to one server.
type load struct {
	workload
	server  *process
	call    *call
	clients []client // none of a workload that opens one for each call
}

// newLoad connects, and makes one call on each connection.
func newLoad(w workload, server *process) (*load, error) {
	l := &load{workload: w, server: server}
	var err error
	if l.call, err = w.call(); err != nil {
		return nil, err
	}
	if w.once {
		return l, l.connect()
	}
	for range w.conns {
		c, err := server.dial(server.addr, l.call)
		if err != nil {
			return nil, errors.Join(l.wrap(err), l.close())
		}
		l.clients = append(l.clients, c)
		if err := callOnce(c); err != nil {
			return nil, errors.Join(l.wrap(err), l.close())
		}
	}
	return l, nil
}

func (l *load) wrap(err error) error {
	return fmt.Errorf("%s: %s: %w", l.name, l.server.name, err)
}

func (l *load) close() error {
	var errs []error
	for _, c := range l.clients {
		errs = append(errs, c.finish())
	}
	l.clients = nil
	return errors.Join(errs...)
}

// timeout is how long what goes on may take to end.
const timeout = 10 * time.Second

// callOnce makes one call.
func callOnce(c client) error {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := drive(c, 1, func() bool { return true })
	return err
}

// connect opens a connection, makes one call, and closes it.
func (l *load) connect() error {
	c, err := l.server.dial(l.server.addr, l.call)
	if err != nil {
		return l.wrap(err)
	}
	if err := callOnce(c); err != nil {
		c.Close()
		return l.wrap(err)
	}
	if err := c.finish(); err != nil {
		return l.wrap(err)
	}
	return nil
}

// measure runs the load for d.
func (l *load) measure(d time.Duration) (sample, error) {
	before, err := l.server.ask("usage")
	if err != nil {
		return sample{}, err
	}
	loadBefore, err := cpuTime()
	if err != nil {
		return sample{}, err
	}
	var ops atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	errs := make([]error, l.conns)
	begin := time.Now()
	stop := time.AfterFunc(d, func() { over.Store(true) })
	defer stop.Stop()
	for i := range l.conns {
		all.Go(func() {
			var n int
			n, errs[i] = l.run(i, begin.Add(d+timeout), over.Load)
			ops.Add(int64(n))
		})
	}
	all.Wait()
	elapsed := time.Since(begin)
	loadAfter, loadErr := cpuTime()
	after, err := l.server.ask("usage")
	if err := errors.Join(append(errs, loadErr, err)...); err != nil {
		return sample{}, err
	}
	return sample{
		Ops:     int(ops.Load()),
		Elapsed: elapsed,
		CPU:     after.Usage.CPU - before.Usage.CPU,
		LoadCPU: loadAfter - loadBefore,
		Allocs:  after.Usage.Mallocs - before.Usage.Mallocs,
	}, nil
}

// run is the part of connection i.
func (l *load) run(i int, deadline time.Time, enough func() bool) (ops int, err error) {
	if l.once {
		for !enough() {
			if err := l.connect(); err != nil {
				return ops, err
			}
			ops++
		}
		return ops, nil
	}
	c := l.clients[i]
	if err := c.SetDeadline(deadline); err != nil {
		return 0, l.wrap(err)
	}
	if ops, err = drive(c, l.calls, enough); err != nil {
		return ops, l.wrap(err)
	}
	return ops, nil
}
