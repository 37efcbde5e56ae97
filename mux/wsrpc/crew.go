package wsrpc

import (
	"errors"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// crew runs the calls of a socket, each on a worker, and knows which are not over. While
// calls run it keeps the workers of those that have ended.
type crew struct {
	conn  *socket.Conn
	bench *bench
	work  sync.WaitGroup // running; only the reader of the socket adds

	mu       sync.Mutex
	calls    map[uint32]*call // those that are not over for the client; may be nil; guarded by mu
	last     uint32           // the last call that was opened; guarded by mu
	running  int              // calls whose worker is not done with them; guarded by mu
	draining bool             // no call is taken any more, and the last one ends the socket; guarded by mu
	resting  *worker          // guarded by mu
}

// errLeaving is why a call is not taken while the server drains. The client has been
// told or will be.
var errLeaving = errors.New("wsrpc: " + leavingReason)

// pass counts a call that is not to run. It is errLeaving while the server drains.
func (w *crew) pass(number uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = number
	if w.draining {
		return errLeaving
	}
	return nil
}

// start has a worker run the call, or returns why not.
func (w *crew) start(c *call) error {
	w.mu.Lock()
	w.last = c.number
	var err error
	switch {
	case w.draining:
		err = errLeaving
	case len(w.calls) >= maxCalls, w.running >= 2*maxCalls:
		err = status.Errorf(codes.ResourceExhausted, "more than %d calls at once", maxCalls)
	}
	if err != nil {
		w.mu.Unlock()
		return err
	}
	if w.calls == nil {
		w.calls = make(map[uint32]*call)
	}
	w.calls[c.number] = c
	w.running++
	rested := w.resting
	if rested != nil {
		w.resting = rested.below
	}
	w.mu.Unlock()
	w.work.Add(1)
	if rested == nil {
		rested = w.bench.take()
	}
	if rested != nil {
		rested.next <- c
	} else {
		go (&worker{next: make(chan *call, 1)}).run(c)
	}
	return nil
}

// find returns a call that is not over, or nil.
func (w *crew) find(number uint32) *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[number]
}

// remove makes a call one that is over for the client. It reports false if it was
// before.
func (w *crew) remove(c *call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.calls[c.number]
	delete(w.calls, c.number)
	return ok
}

// several tells whether more than one call runs.
func (w *crew) several() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running > 1
}

// done is called when a worker is done with a call. Unless it is nil, it is told sooner
// or later what is next.
func (w *crew) done(self *worker) {
	w.mu.Lock()
	w.running--
	if self != nil {
		self.below, w.resting = w.resting, self
	}
	var rested *worker
	if w.running == 0 {
		rested, w.resting = w.resting, nil
	}
	leave := w.running == 0 && w.draining
	w.mu.Unlock()
	w.bench.give(rested)
	if leave {
		w.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
	w.work.Done()
}

// rest lets go of the memory for calls, if there are none.
func (w *crew) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.calls = nil
	}
}

// drain takes no calls from now on; the last one that runs ends the socket. It returns
// what the last one taken was, and whether none runs.
func (w *crew) drain() (last uint32, idle bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	return w.last, w.running == 0
}

// wait returns when no call runs any more.
func (w *crew) wait() { w.work.Wait() }
