package wsrpc

import (
	"errors"
	"runtime"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// crew runs the calls of a socket on workers, and knows which are not over. While calls
// run it keeps the workers that have no call.
//
// A worker takes one call after another, so that calls which come together and end soon
// need few. Since any may block, another worker is on its way whenever calls wait.
type crew struct {
	conn  *socket.Conn
	bench *bench
	work  sync.WaitGroup // running

	mu       sync.Mutex
	calls    map[uint32]*call // those that are not over for the client; may be nil; guarded by mu
	last     uint32           // the last call that was opened; guarded by mu
	running  int              // calls that no worker is done with; guarded by mu
	draining bool             // no call is taken any more, and the last one ends the socket; guarded by mu
	first    *call            // of those that wait for a worker; guarded by mu
	final    *call            // the last of them, or nil; guarded by mu
	coming   bool             // a worker is on its way; guarded by mu
	resting  *worker          // guarded by mu
}

// maxTurn is how many calls a worker runs before it lets other goroutines go first.
const maxTurn = 16

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
	w.work.Add(1)
	if w.first == nil {
		w.first = c
	} else {
		w.final.after = c
	}
	w.final = c
	rested, needed := w.needWorker()
	w.mu.Unlock()
	if needed {
		w.sendWorker(rested)
	}
	return nil
}

// needWorker tells whether sendWorker is to be called, and with what. Called with w.mu held.
func (w *crew) needWorker() (rested *worker, needed bool) {
	if w.first == nil || w.coming {
		return nil, false
	}
	w.coming = true
	if rested = w.resting; rested != nil {
		w.resting = rested.below
	}
	return rested, true
}

// sendWorker has a worker come: this one, or if there is none one of the bench or a new one.
func (w *crew) sendWorker(rested *worker) {
	if rested == nil {
		rested = w.bench.take()
	}
	if rested != nil {
		rested.next <- w
	} else {
		go (&worker{next: make(chan *crew, 1)}).run(w)
	}
}

// serve has a worker that has come run calls while some wait.
func (w *crew) serve(self *worker) {
	c := w.next(self, false)
	for turn := 1; c != nil; turn++ {
		c.run()
		if turn%maxTurn == 0 {
			runtime.Gosched()
		}
		c = w.next(self, true)
	}
}

// next is called when a worker has come or, with done, is done with a call. It returns the
// call to run then; else the worker rests, and is told sooner or later what is next.
// Without a worker, which the handler has ended, none is taken.
func (w *crew) next(self *worker, done bool) *call {
	w.mu.Lock()
	if done {
		w.running--
	} else {
		w.coming = false
	}
	var c *call
	switch {
	case self == nil:
	case w.first != nil:
		c = w.first
		if w.first, c.after = c.after, nil; w.first == nil {
			w.final = nil // through which an idle socket would keep the call
		}
	default:
		self.below, w.resting = w.resting, self
	}
	another, needed := w.needWorker()
	var idle *worker
	if w.running == 0 {
		idle, w.resting = w.resting, nil
	}
	leave := w.running == 0 && w.draining && done
	w.mu.Unlock()
	if needed {
		w.sendWorker(another)
	}
	if idle != nil {
		w.bench.give(idle)
	}
	if leave {
		w.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
	if done {
		w.work.Done()
	}
	return c
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
