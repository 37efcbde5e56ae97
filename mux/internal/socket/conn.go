package socket

import (
	"context"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"oneport/mux/internal/ready"
)

// Kind tells text messages from binary ones. Its values are the opcodes of RFC
// 6455 §5.2.
type Kind byte

const (
	Text   Kind = 1
	Binary Kind = 2
)

// Conn is one socket. One goroutine at a time may call Read or Copy, and none may after
// the handler has returned; everything else may be called concurrently.
//
// The handler must keep a Read or Copy going, or come back to it soon: meanwhile pings
// wait for their pongs, and the end of the peer goes unnoticed. A peer is not
// given up for having been kept waiting that way.
type Conn struct {
	server *Server
	ws     *websocket.Conn // for reading only
	wire   *wire
	out    queue

	// ctx stands in a struct because it is the socket's own: its lifetime is
	// that of the socket, not of a call.
	ctx    context.Context
	cancel context.CancelCauseFunc

	drained func() // what OnDrain was given, or nil; guarded by server.mu

	// The reader's own.
	limit    int           // bytes of a message
	farewell []byte        // the last message to the peer if one of it is larger; nil: none
	readErr  error         // the first error of gorilla's, which must not be asked again
	resume   func(*Conn)   // what Rest was given, until it is called
	rested   bool          // and nothing has been asked for since
	pings    *rate.Limiter // of the peer's pings and pongs; nil before the first

	mu     sync.Mutex
	timer  *time.Timer  // pings, then the end of waiting for the peer's close frame; guarded by mu
	pingAt time.Time    // guarded by mu
	ticket ready.Ticket // of the rest; guarded by mu
	sent   bool         // our close frame has been written; guarded by mu
	hurry  bool         // TCP is to be closed as soon as sent; guarded by mu
	over   bool         // TCP is closed; guarded by mu
}

func newConn(s *Server, ctx context.Context, ws *websocket.Conn, w *wire) *Conn {
	c := &Conn{
		server: s,
		ws:     ws,
		wire:   w,
		limit:  s.cfg.MaxMessageBytes,
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.out.c = c
	w.closeFrame = c.gorillaClosed
	ws.SetReadLimit(int64(c.limit))
	ws.SetPingHandler(c.pinged)
	ws.SetPongHandler(c.ponged)
	ws.SetCloseHandler(c.peerClosed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pingAt = time.Now().Add(s.cfg.PingInterval)
	c.timer = time.AfterFunc(s.cfg.PingInterval, c.ping)
	return c
}

// Context returns the context of the socket. It has the values of the request
// that was upgraded and ends when the socket does, or begins to by [Conn.CloseWith];
// context.Cause then tells why: a [*CloseError], or an error of the network.
func (c *Conn) Context() context.Context { return c.ctx }

// Draining returns a context that ends when the server begins to shut down. The
// handler is then to finish the calls it has, take no new ones, and close the
// socket with CloseGoingAway. Use [context.AfterFunc] rather than a goroutine that
// waits.
func (c *Conn) Draining() context.Context { return c.server.Draining() }

// OnDrain has f called once when the server begins to shut down; at once, if it has. f
// must not wait, and may be called after the socket has ended. OnDrain is called once, and
// costs a socket less than a function on the context of Draining.
func (c *Conn) OnDrain(f func()) { c.server.onDrain(c, f) }

// Subprotocol returns the negotiated subprotocol, "" if there is none.
func (c *Conn) Subprotocol() string { return c.ws.Subprotocol() }

// Write sends p as one message; text must be valid UTF-8. It returns when the
// message waits in the socket's queue, of which p is then independent, or, if it
// is larger than that, when it has been written. While the queue is full, Write
// waits; the end of ctx ends that wait with ctx's error, and nothing has been sent.
//
// Any other error means that the socket has ended; it is the cause of that and
// the same for all later Writes. An earlier message may then be lost though its
// Write returned nil.
func (c *Conn) Write(ctx context.Context, kind Kind, p []byte) error {
	return c.out.write(ctx, byte(kind), p, false)
}

// WriteHere is Write for the last message of a goroutine that has nothing else to do:
// unless somebody writes to the network just then, the caller does so itself, all that
// waits, for as long as WriteTimeout allows each time. That spares waking a goroutine.
func (c *Conn) WriteHere(ctx context.Context, kind Kind, p []byte) error {
	return c.out.write(ctx, byte(kind), p, true)
}

// Gather has each write to the network give way to the goroutines that are about to add
// to it, while more returns true and they do. Where it returns false, a write that follows
// much else may wait for a moment, about a millisecond on an idle machine, while there is
// little to write. It must be called before the first Write; more must not wait.
func (c *Conn) Gather(more func() bool) { c.out.gather = more }

// TryWrite is Write for a message that is sent only if that need not wait; it reports
// false if it does. After the end of the socket it reports true.
func (c *Conn) TryWrite(kind Kind, p []byte) bool { return c.out.tryWrite(byte(kind), p) }

// WriteNow is Write for messages that are short and that the peer cannot have many
// of: it takes p though the queue is full, ahead of the writers who wait. After the
// end of the socket it does nothing.
func (c *Conn) WriteNow(kind Kind, p []byte) { c.out.control(byte(kind), p) }

// SetLimit makes n the largest message accepted, in bytes, in place of the Server's
// MaxMessageBytes. The goroutine that reads may call it.
func (c *Conn) SetLimit(n int) {
	c.limit = n
	c.ws.SetReadLimit(int64(n))
}

// SetFarewell has message, which is binary, sent before the close frame should a message
// of the peer be larger than the limit, for peers that take no reason from that. It must
// not be changed. The goroutine that reads may call it.
func (c *Conn) SetFarewell(message []byte) { c.farewell = message }

func earlier(t, u time.Time) time.Time {
	if u.Before(t) {
		return u
	}
	return t
}

// ping asks the peer for a sign of life, and gives up one that has given none while the
// socket rests. It is called by c.timer.
func (c *Conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent || c.over {
		return
	}
	now := time.Now()
	if !now.Before(c.pingAt) {
		if !c.out.control(opPing, nil) {
			return
		}
		c.pingAt = now.Add(c.server.cfg.PingInterval)
	}
	next := c.pingAt
	if c.ticket != 0 {
		if until := c.wire.until; until.After(now) {
			next = earlier(next, until)
		} else {
			c.server.lot.Leave(c.ticket)
		}
	}
	c.timer.Reset(next.Sub(now))
}
