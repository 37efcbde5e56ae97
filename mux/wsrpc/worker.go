package wsrpc

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// linger is how long a socket without calls keeps its workers.
const linger = time.Second

// crew runs the calls of a socket, each on a worker, and knows which are not over.
type crew struct {
	conn    *socket.Conn
	workers sync.WaitGroup

	mu        sync.Mutex
	calls     map[uint32]*call // those that are not over for the client; guarded by mu
	last      uint32           // the last call that was opened; guarded by mu
	running   int              // calls whose worker is not done with them; guarded by mu
	draining  bool             // no call is taken any more, and the last one ends the socket; guarded by mu
	ended     bool             // likewise, as the socket has ended; guarded by mu
	resting   *worker          // guarded by mu
	lingering bool             // tire is to be called; guarded by mu
	since     uint32           // what last was when that was decided; guarded by mu
	timer     *time.Timer      // that calls tire; guarded by mu
}

// worker is a goroutine that runs one call after another, since the stack that it has
// grown is worth more than a new one.
type worker struct {
	next  chan *call // nil: there is nothing more to do
	below *worker    // the next one that rests
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
	w.calls[c.number] = c
	w.running++
	rested := w.resting
	if rested != nil {
		w.resting = rested.below
	}
	w.mu.Unlock()
	if rested != nil {
		rested.next <- c // which has room
	} else {
		w.workers.Go(func() { w.work(c) })
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

func (w *crew) work(c *call) {
	self := &worker{next: make(chan *call, 1)}
	defer func() {
		if c != nil { // whose handler has ended this goroutine
			w.done(nil)
		}
	}()
	for c != nil {
		c.run()
		rests := w.done(self)
		c = nil
		if rests {
			c = <-self.next
		}
	}
}

// done is called when a worker is done with a call. It reports whether the worker, if
// not nil, rests and will be told what is next.
func (w *crew) done(self *worker) bool {
	w.mu.Lock()
	w.running--
	leave := w.running == 0 && w.draining
	rests := self != nil && !w.draining && !w.ended
	if rests {
		self.below, w.resting = w.resting, self
		if w.running == 0 && !w.lingering {
			w.lingerLocked()
		}
	}
	w.mu.Unlock()
	if leave {
		w.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
	return rests
}

func (w *crew) lingerLocked() {
	w.lingering = true
	w.since = w.last
	if w.timer == nil {
		w.timer = time.AfterFunc(linger, w.tire)
	} else {
		w.timer.Reset(linger)
	}
}

// tire lets the workers go if there has been no call since lingerLocked.
func (w *crew) tire() {
	w.mu.Lock()
	w.lingering = false
	var resting *worker
	switch {
	case w.running > 0: // the last to end will see to it
	case w.last != w.since:
		w.lingerLocked()
	default:
		resting, w.resting = w.resting, nil
		w.timer = nil
	}
	w.mu.Unlock()
	dismiss(resting)
}

// drain takes no calls from now on; the last one that runs ends the socket. It returns
// what the last one taken was, and whether none runs.
func (w *crew) drain() (last uint32, idle bool) {
	w.mu.Lock()
	w.draining = true
	resting := w.resting
	w.resting = nil
	last, idle = w.last, w.running == 0
	w.mu.Unlock()
	dismiss(resting)
	return last, idle
}

// wait returns when all workers have ended. It is called when the socket has ended,
// and with it the contexts of the calls.
func (w *crew) wait() {
	w.mu.Lock()
	w.ended = true
	resting := w.resting
	w.resting = nil
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	dismiss(resting)
	w.workers.Wait()
}

func dismiss(resting *worker) {
	for ; resting != nil; resting = resting.below {
		resting.next <- nil
	}
}
