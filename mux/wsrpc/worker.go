package wsrpc

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// worker is a goroutine that runs calls of a socket. It ends when none runs any more,
// or with a handler that ends its goroutine.
type worker struct {
	next  chan *call // nil: there is nothing more to do
	below *worker    // the next one that rests
}

// add enters a call that the client has opened. It reports false if it is not taken:
// with an error for the client, or without a word while the server drains.
func (s *multiplexer) add(c *call) (taken bool, refused error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = c.number
	switch {
	case s.draining:
		return false, nil
	case len(s.calls) >= maxCalls, s.running >= 2*maxCalls:
		return false, status.Errorf(codes.ResourceExhausted, "more than %d calls at once", maxCalls)
	}
	s.calls[c.number] = c
	s.running++
	return true, nil
}

// find returns a call that is not over, or nil.
func (s *multiplexer) find(number uint32) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[number]
}

// remove makes a call one that is over for the client. It reports false if it was
// before.
func (s *multiplexer) remove(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.calls[c.number]
	delete(s.calls, c.number)
	return ok
}

// start has a worker run the call.
func (s *multiplexer) start(c *call) {
	s.mu.Lock()
	w := s.resting
	if w != nil {
		s.resting = w.below
	}
	s.mu.Unlock()
	if w != nil {
		w.next <- c // which has room
		return
	}
	s.workers.Go(func() { s.work(c) })
}

func (s *multiplexer) work(c *call) {
	w := &worker{next: make(chan *call, 1)}
	for c != nil {
		s.serve(c)
		c = s.rest(w)
	}
}

func (s *multiplexer) serve(c *call) {
	defer s.served() // also when the handler ends this goroutine
	c.run()
}

// served ends what add has begun.
func (s *multiplexer) served() {
	s.mu.Lock()
	s.running--
	var resting *worker
	if s.running == 0 {
		resting, s.resting = s.resting, nil
	}
	leave := s.running == 0 && s.draining
	s.mu.Unlock()
	for ; resting != nil; resting = resting.below {
		resting.next <- nil
	}
	if leave {
		s.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
}

// rest waits for the next call; there is none once no call runs.
func (s *multiplexer) rest(w *worker) *call {
	s.mu.Lock()
	if s.running == 0 {
		s.mu.Unlock()
		return nil
	}
	w.below, s.resting = s.resting, w
	s.mu.Unlock()
	return <-w.next
}
