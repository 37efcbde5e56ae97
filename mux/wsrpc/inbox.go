package wsrpc

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// What may wait for the handler of one socket: a message of any size that is
// allowed at all, and more as long as they are small together. While more would
// be too much the socket is read no further, so that the client feels TCP's
// back-pressure; pings wait then, and the end of the client is noticed only when
// one of ours finds nobody.
const (
	inboxBytes    = 64 << 10
	inboxMessages = 1024
	inboxMemory   = 4 << 20 // of the buffers, which may be much larger than the messages in them
)

// inbox holds the messages of a client that its handler has not received yet.
// One goroutine may put while one takes.
type inbox struct {
	filled chan struct{} // holds a token when there may be something to take
	freed  chan struct{} // likewise when there may be room

	mu     sync.Mutex
	queue  []*socket.Message // guarded by mu
	bytes  int               // of queue; guarded by mu
	memory int               // likewise
	closed bool              // the client has half-closed; guarded by mu
}

func newInbox() *inbox {
	return &inbox{filled: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
}

// put adds m, waiting for room. It reports false if ctx has ended first; m is
// then still the caller's.
func (b *inbox) put(ctx context.Context, m *socket.Message) bool {
	for !b.tryPut(m) {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return false
		}
	}
	signal(b.filled)
	return true
}

func (b *inbox) tryPut(m *socket.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.queue)
	if n >= inboxMessages || n > 0 && (b.bytes+len(m.Data) > inboxBytes || b.memory+cap(m.Data) > inboxMemory) {
		return false
	}
	b.queue = append(b.queue, m)
	b.bytes += len(m.Data)
	b.memory += cap(m.Data)
	return true
}

// take removes the next message. Without one it reports io.EOF after close, else
// false; filled tells when to try again.
func (b *inbox) take() (m *socket.Message, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		if b.closed {
			return nil, false, io.EOF
		}
		return nil, false, nil
	}
	m = b.queue[0]
	b.queue[0] = nil
	b.queue = b.queue[1:]
	b.bytes -= len(m.Data)
	b.memory -= cap(m.Data)
	signal(b.freed)
	return m, true, nil
}

// receive is take that waits for a message. When ctx ends first its error is the status
// of that.
func (b *inbox) receive(ctx context.Context) (*socket.Message, error) {
	for {
		m, ok, err := b.take()
		if ok || err != nil {
			return m, err
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (b *inbox) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// filledOrClosed reports whether take would return a message or io.EOF.
func (b *inbox) filledOrClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) > 0 || b.closed
}

// close says that the client has half-closed. It may be called again.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	signal(b.filled)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
