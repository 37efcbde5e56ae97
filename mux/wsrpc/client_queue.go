package wsrpc

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"oneport/mux/internal/socket"
)

// clientQueue gathers the frames of a socket and writes them in order, those that have
// come meanwhile in one system call. Its goroutine runs while there is something to
// write.
type clientQueue struct {
	conn   net.Conn
	wrote  func()      // called when the server has taken a part of what is written
	failed func(error) // called when a write has failed, after abandon

	flushing sync.WaitGroup

	mu     sync.Mutex
	buf    []byte        // WebSocket frames that wait; guarded by mu
	spare  []byte        // for the next buf; guarded by mu
	pongs  int           // in buf; guarded by mu
	busy   bool          // flush runs; guarded by mu
	freed  chan struct{} // closed when buf is taken to be written, nil if nobody waits; guarded by mu
	closed bool          // nothing is taken any more; guarded by mu
}

const (
	// clientQueueBytes may wait before messages have to; those go in one at a time,
	// so the queue is that and one message at most, and small frames of calls.
	clientQueueBytes = 64 << 10

	// clientQueuePongs may wait for a server that sends pings and reads nothing.
	clientQueuePongs = 1024

	// clientWriteTimeout bounds each write, of clientQueueBytes at most: a server
	// reads, whatever its calls do.
	clientWriteTimeout = 20 * time.Second
)

var (
	errQueueFull   = errors.New("wsrpc: the queue is full")
	errQueueClosed = errors.New("wsrpc: the socket has ended")
)

// room is nil if a message may be pushed, else closed when that may be so.
func (q *clientQueue) room() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.buf) < clientQueueBytes {
		return nil
	}
	if q.freed == nil {
		q.freed = make(chan struct{})
	}
	return q.freed
}

// pushMessage takes a frame with a message, or is errQueueFull.
func (q *clientQueue) pushMessage(f *frame, text bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed && len(q.buf) >= clientQueueBytes {
		return errQueueFull
	}
	return q.pushLocked(f, text)
}

// push takes a frame that does not wait.
func (q *clientQueue) push(f *frame, text bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pushLocked(f, text)
}

// pong takes a frame that answers the server, or is errQueueFull.
func (q *clientQueue) pong(f *frame, text bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pongs++; q.pongs > clientQueuePongs {
		return errQueueFull
	}
	return q.pushLocked(f, text)
}

// rawPong takes a pong of WebSocket, or is errQueueFull.
func (q *clientQueue) rawPong(p string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pongs++; q.pongs > clientQueuePongs {
		return errQueueFull
	}
	return q.frame(websocket.PongMessage, func(b []byte) ([]byte, error) { return append(b, p...), nil })
}

// last takes a close frame, after which no other is taken.
func (q *clientQueue) last(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frame(websocket.CloseMessage, func(b []byte) ([]byte, error) { return append(b, p...), nil })
	q.closeLocked()
	q.conn.SetWriteDeadline(time.Now().Add(clientCloseTimeout)) // of a write under way as well
}

// abandon drops what waits, for the connection is of no more use.
func (q *clientQueue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.buf = nil
	q.closeLocked()
}

func (q *clientQueue) closeLocked() {
	q.closed = true
	q.freeLocked()
}

// settle waits until nobody writes. It is called after last or abandon.
func (q *clientQueue) settle() { q.flushing.Wait() }

func (q *clientQueue) pushLocked(f *frame, text bool) error {
	opcode, kind := byte(websocket.BinaryMessage), socket.Binary
	if text {
		opcode, kind = websocket.TextMessage, socket.Text
	}
	return q.frame(opcode, func(b []byte) ([]byte, error) {
		start := len(b)
		b, err := f.append(b, kind)
		if err == nil && len(b)-start-len(f.message) > frameRoom {
			err = errTooMuch
		}
		return b, err
	})
}

// frame appends a WebSocket frame with the payload that add appends, and sees to it
// that it is written. Called with q.mu held.
func (q *clientQueue) frame(opcode byte, add func([]byte) ([]byte, error)) error {
	if q.closed {
		return errQueueClosed
	}
	start := len(q.buf)
	b, err := add(append(q.buf, make([]byte, socket.MaxClientHeader)...))
	if err != nil {
		return err
	}
	q.buf = socket.MaskFrame(b, start, opcode)
	if !q.busy {
		q.busy = true
		q.flushing.Go(q.flush)
	}
	return nil
}

// flush writes what waits until nothing does, or a write fails.
func (q *clientQueue) flush() {
	for {
		q.mu.Lock()
		out := q.buf
		if len(out) == 0 {
			q.buf, q.spare = nil, nil // an idle socket keeps no buffers
			q.busy = false
			q.mu.Unlock()
			return
		}
		q.buf, q.spare = q.spare[:0], nil
		q.pongs = 0
		q.freeLocked()
		q.mu.Unlock()
		if err := q.write(out); err != nil {
			q.abandon()
			q.failed(err)
		}
		q.mu.Lock()
		if cap(out) <= 2*clientQueueBytes {
			q.spare = out
		}
		q.mu.Unlock()
	}
}

// write writes all of p, in parts that each have their time.
func (q *clientQueue) write(p []byte) error {
	for {
		n := min(len(p), clientQueueBytes)
		q.deadline()
		if _, err := q.conn.Write(p[:n]); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		q.wrote()
	}
}

// deadline gives the next write its time; once the close frame waits, that has been
// given to all.
func (q *clientQueue) deadline() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.conn.SetWriteDeadline(time.Now().Add(clientWriteTimeout))
	}
}

// freeLocked wakes all who wait for room.
func (q *clientQueue) freeLocked() {
	if q.freed != nil {
		close(q.freed)
		q.freed = nil
	}
}
