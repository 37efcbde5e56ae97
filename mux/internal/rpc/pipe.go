package rpc

import (
	"context"
	"io"
	"sync"
)

// pipeBytes is how much of one direction of a call in process may wait to be
// read. grpc-go lets a caller send 270 to 380 KB to a handler that echoes before
// it must read the first answer, both directions together: code that works over
// a network does not block here.
const pipeBytes = 192 << 10

// messageOverhead is the envelope that gRPC puts before a message. Counting it
// bounds the number of empty messages too.
const messageOverhead = 5

// pipe carries the messages of one direction of a call in process, encoded, so
// that caller and handler never share one. One goroutine may push while one
// pops.
type pipe struct {
	readable chan struct{} // holds a token when a popper may find something new
	writable chan struct{} // likewise for a pusher

	mu    sync.Mutex
	queue [][]byte // guarded by mu
	bytes int      // of queue, with overhead; guarded by mu
	ended bool     // no more pushes; guarded by mu
}

func newPipe() *pipe {
	return &pipe{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

// push queues b, which then belongs to the pipe. It waits while the queue is
// full, however large b is: one message always fits into an empty queue. It
// returns io.EOF after end, and the error of ctx once that has ended.
func (p *pipe) push(ctx context.Context, b []byte) error {
	if b == nil {
		b = []byte{} // an empty message is not the absence of one
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch ok, err := p.tryPush(b); {
		case err != nil:
			return err
		case ok:
			signal(p.readable)
			return nil
		}
		select {
		case <-p.writable:
		case <-ctx.Done():
		}
	}
}

func (p *pipe) tryPush(b []byte) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false, io.EOF
	}
	n := len(b) + messageOverhead
	if p.bytes > 0 && p.bytes+n > pipeBytes {
		return false, nil
	}
	p.queue = append(p.queue, b)
	p.bytes += n
	return true, nil
}

// pop returns the next message; io.EOF when there is none and there will be
// none; the error of ctx when that ends before one comes.
func (p *pipe) pop(ctx context.Context) ([]byte, error) {
	for {
		switch b, ended := p.tryPop(); {
		case b != nil:
			signal(p.writable)
			return b, nil
		case ended:
			return nil, io.EOF
		}
		select {
		case <-p.readable:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *pipe) tryPop() (b []byte, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, p.ended
	}
	b = p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	p.bytes -= len(b) + messageOverhead
	return b, false
}

// end lets pop drain the queue and then return io.EOF, and fails further pushes.
// It may be called again and from anywhere.
func (p *pipe) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	signal(p.readable)
	signal(p.writable)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
