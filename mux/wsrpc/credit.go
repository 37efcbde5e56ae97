package wsrpc

import (
	"bytes"
	"context"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// Flow control of one call (PROTOCOL.md, section 4).
const (
	window      = 64 << 10 // of requests
	messageCost = 16       // of each message, beside its length
	maxCredit   = 1<<31 - 1
)

// credit is what the server may still send of a call. One goroutine at a time waits
// and spends, while another adds.
type credit struct {
	left atomic.Int64

	mu   sync.Mutex
	more chan struct{} // a token when left has grown; nil until somebody waits; guarded by mu
}

// add reports false if that makes more than there may be.
func (c *credit) add(n uint32) bool {
	if c.left.Add(int64(n)) > maxCredit {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more != nil {
		signal(c.more)
	}
	return true
}

// stopped is no credit, and so far from any that nothing added or spent makes it some.
const stopped = math.MinInt64 / 2

// stop takes the credit away for good.
func (c *credit) stop() {
	c.left.Store(stopped)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more != nil {
		signal(c.more)
	}
}

// wait returns nil as soon as there is credit, or the error of ctx; context.Canceled after
// stop.
func (c *credit) wait(ctx context.Context) error {
	for c.left.Load() <= 0 {
		c.mu.Lock()
		if c.more == nil {
			c.more = make(chan struct{}, 1)
		}
		more := c.more
		c.mu.Unlock()
		switch left := c.left.Load(); { // again, should that have been before there was more
		case left > 0:
			return nil
		case left < stopped/2:
			return context.Canceled
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// spend takes off what a message of size bytes costs.
func (c *credit) spend(size int) { c.left.Add(-int64(size) - messageCost) }

// request is one message of a client.
type request struct {
	kind socket.Kind
	data []byte
	buf  *socket.Message // that data is a part of, or nil
}

// cost is what the message is counted for.
func (r *request) cost() int64 { return int64(len(r.data)) + messageCost }

func (r *request) release() {
	if r.buf != nil {
		r.buf.Release()
	}
}

// requests are the messages of one call that its handler has not received yet. They
// are bounded by the credit that the client has. One goroutine may put while one takes.
type requests struct {
	single bool     // the method takes one message
	all    *backlog // of the socket

	mu     sync.Mutex
	first  [1]request    // of queue, so that one that comes alone needs no memory; guarded by mu
	queue  []request     // guarded by mu
	left   int64         // credit of the client; guarded by mu
	taken  int64         // cost of what was taken and not given back; guarded by mu
	closed bool          // nothing more may come; guarded by mu
	over   bool          // nothing more is wanted; guarded by mu
	filled chan struct{} // a token when there may be something to take; nil until somebody waits; guarded by mu
}

var (
	errNoCredit = status.Error(codes.ResourceExhausted, "message without credit")
	errBacklog  = status.Error(codes.ResourceExhausted, "too much of the socket's calls waits for their handlers")
	errSurplus  = status.Error(codes.Unimplemented, "message after the half-close, or a second one where the method takes one")
)

// put adds a message, whose bytes are in m or a copy, and reports whether it has kept
// m. The error ends the call. ctx is of the socket.
func (q *requests) put(ctx context.Context, data []byte, m *socket.Message) (kept bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.over:
		return false, nil
	case q.closed:
		return false, errSurplus
	case q.left <= 0:
		return false, errNoCredit
	}
	r := request{kind: m.Kind, data: data}
	if !q.all.add(r.cost()) {
		q.mu.Unlock()
		added := q.all.wait(ctx, r.cost())
		q.mu.Lock()
		if added && q.over {
			q.all.remove(r.cost())
		}
		if q.over {
			return false, nil
		}
		if !added {
			return false, errBacklog
		}
	}
	if m.Kind == socket.Binary { // of JSON the decoder has made a copy
		// What waits is to hold little more memory than it counts for.
		if room := 2 * len(data); cap(m.Data) <= room || len(q.queue) == 0 && cap(m.Data) <= 16<<10 {
			r.buf, kept = m, true
		} else {
			r.data = bytes.Clone(data)
		}
	}
	if q.queue == nil {
		q.queue = q.first[:0]
	}
	q.queue = append(q.queue, r)
	q.left -= r.cost()
	q.closed = q.single
	q.wake()
	return kept, nil
}

// close says that the client has half-closed. It may be called again.
func (q *requests) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

// drop forgets what waits and what still comes.
func (q *requests) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	for i := range q.queue {
		q.all.remove(q.queue[i].cost())
		q.queue[i].release()
	}
	q.queue = nil
}

// wake is called with q.mu held.
func (q *requests) wake() {
	if q.filled != nil {
		signal(q.filled)
	}
}

// take removes the next message, waiting for it, and returns the credit that the
// client is to be given, if any. The error is io.EOF after the half-close, context.Canceled
// after drop, else that of ctx.
func (q *requests) take(ctx context.Context) (r request, give uint32, err error) {
	for {
		q.mu.Lock()
		switch {
		case len(q.queue) > 0:
			r = q.queue[0]
			q.queue[0] = request{}
			if q.queue = q.queue[1:]; len(q.queue) == 0 {
				q.queue = nil
			}
			q.all.take(r.cost())
			give = q.giveLocked(r.cost())
			q.mu.Unlock()
			return r, give, nil
		case q.over: // and what was dropped is missing
			q.mu.Unlock()
			return request{}, 0, context.Canceled
		case q.closed:
			q.mu.Unlock()
			return request{}, 0, io.EOF
		}
		if q.filled == nil {
			q.filled = make(chan struct{}, 1)
		}
		filled := q.filled
		q.mu.Unlock()
		select {
		case <-filled:
		case <-ctx.Done():
			return request{}, 0, ctx.Err()
		}
	}
}

// giveLocked counts a message of this cost as taken. Credit is given back in parts of
// a quarter of the window, so that a client never has to wait for a handler that keeps
// up; not when the client has nothing more to send.
func (q *requests) giveLocked(cost int64) uint32 {
	q.taken += cost
	if q.closed || q.taken < window/4 {
		return 0
	}
	give := uint32(q.taken)
	q.left += q.taken
	q.taken = 0
	return give
}
