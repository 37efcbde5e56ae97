package socket

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

// Message is one message of the peer.
type Message struct {
	Kind Kind
	Data []byte // whole; valid UTF-8 if Kind is Text
}

var messages = sync.Pool{New: func() any { return &Message{Data: make([]byte, 0, 2<<10)} }}

// Release gives m back for reuse; neither m nor Data may be used thereafter. A
// message that is not released is left to the garbage collector.
func (m *Message) Release() {
	if cap(m.Data) <= maxPooled {
		messages.Put(m)
	}
}

// Read returns the next message, which belongs to the caller until released. It
// answers pings and close frames meanwhile. An error means that the socket has
// ended and is the cause of that; after [Conn.CloseWith] Read drops what still
// comes and returns when the peer has answered, or has had its second for that.
func (c *Conn) Read() (*Message, error) { return c.read(0) }

// ErrQuiet is no end of the socket, but tells that nothing has come for a while.
var ErrQuiet = errors.New("socket: quiet")

// ReadSoon is Read for a handler that can do without its goroutine. It returns ErrQuiet
// if nothing comes within the Patience, and the handler is then to call [Conn.Rest]. Where an idle
// socket would keep more than a goroutine that waits, as with TLS, it never does so.
func (c *Conn) ReadSoon() (*Message, error) { return c.read(c.server.cfg.Patience) }

// Rest has resume called, in place of the handler and on a goroutine of its own, once
// there is something to read or the socket has ended. The handler must return at once:
// meanwhile the socket has no goroutine. Rest may only be called after ErrQuiet.
func (c *Conn) Rest(resume func(*Conn)) { c.resume = resume }

// park has the socket wait without a goroutine.
func (c *Conn) park() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.ticket, err = c.server.lot.Park(c.wire.tcp, (*parked)(c)); err != nil {
		go (*parked)(c).Wake() // to be told the reason, or read on as before
		return
	}
	if !c.sent && !c.over && c.wire.until.Before(c.pingAt) {
		c.timer.Reset(time.Until(c.wire.until))
	}
}

// parked is a Conn that rests.
type parked Conn

// Wake is the goroutine of a socket that has rested.
func (p *parked) Wake() {
	c := (*Conn)(p)
	c.mu.Lock()
	c.ticket = 0
	c.mu.Unlock()
	c.rested = true
	resume := c.resume
	c.resume = nil
	c.server.run(c, resume)
}

// unpark wakes the socket, if it rests.
func (c *Conn) unpark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ticket != 0 {
		c.server.lot.Leave(c.ticket)
	}
}

func (c *Conn) read(patience time.Duration) (*Message, error) {
	for {
		if c.await(patience) {
			return nil, ErrQuiet
		}
		m, err := c.next()
		if err != nil {
			return nil, c.readFailed(err)
		}
		if c.ctx.Err() == nil {
			return m, nil
		}
		m.Release()
	}
}

// partBytes is how much Copy holds at most.
const partBytes = 32 << 10

var parts = sync.Pool{New: func() any { return new([partBytes]byte) }}

// Copy is Read for those to whom the bounds of messages mean nothing. It writes the
// bytes of all that come to w, in parts and as they come, so that no message is ever
// held whole; while w does not take them the peer has to wait. Text ends the socket
// with 1003. It returns an error of w, or what Read would.
func (c *Conn) Copy(w io.Writer) error {
	for {
		c.await(0)
		kind, r, err := c.nextReader()
		if err != nil {
			return c.readFailed(err)
		}
		if kind == Text {
			c.CloseWith(CloseUnsupported, "this endpoint takes binary messages, no text")
			<-c.ctx.Done() // also if somebody else has ended the socket just now
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err := c.copyMessage(w, r); err != nil {
			return err
		}
	}
}

// copyMessage copies one message.
func (c *Conn) copyMessage(w io.Writer, r io.Reader) error {
	part := parts.Get().(*[partBytes]byte)
	defer parts.Put(part)
	for {
		c.wire.heard = true // of a stream every byte is a sign of life
		n, err := r.Read(part[:])
		if n > 0 {
			if _, err := w.Write(part[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			c.readErr = err
			return c.readFailed(err)
		}
	}
}

// await waits for something of a message, or an error that nextReader returns. It reports
// true if nothing has come within the patience; zero is to wait as long as the peer has.
func (c *Conn) await(patience time.Duration) (quiet bool) {
	// However long the handler has kept the peer waiting, from now on it has
	// its full time.
	if !c.rested {
		c.wire.heard = true
	}
	c.rested = false
	for c.readErr == nil {
		if c.wire.await(patience) {
			return true
		}
		if !c.control() {
			break
		}
	}
	return false
}

// control takes a ping or pong, if that is next.
func (c *Conn) control() bool {
	opcode, data, ok := c.wire.control()
	switch {
	case !ok:
		return false
	case opcode == opPing:
		c.readErr = c.pinged(data)
	default:
		c.readErr = c.ponged(data)
	}
	return true
}

// nextReader returns the next message. The errors of gorilla are final.
func (c *Conn) nextReader() (Kind, io.Reader, error) {
	if c.readErr != nil {
		return 0, nil, c.readErr
	}
	kind, r, err := c.ws.NextReader()
	c.readErr = err
	return Kind(kind), r, err
}

// next reads a message.
func (c *Conn) next() (*Message, error) {
	kind, r, err := c.nextReader()
	if err != nil {
		return nil, err
	}
	m := messages.Get().(*Message)
	m.Kind, m.Data = kind, m.Data[:0]
	if err := c.fill(m, r); err != nil {
		m.Release()
		c.readErr = err
		return nil, err
	}
	return m, nil
}

// fill reads the rest of a message. Its buffer grows with what has arrived, never
// with what has been announced.
func (c *Conn) fill(m *Message, r io.Reader) error {
	heard := 0 // bytes for which the peer has been credited
	valid := 0 // bytes known to be whole, valid runes
	for {
		if len(m.Data) == cap(m.Data) {
			// One byte above the limit, so that there is room to find the end.
			grown := make([]byte, len(m.Data), min(2*cap(m.Data), c.limit)+1)
			copy(grown, m.Data)
			m.Data = grown
		}
		n, err := r.Read(m.Data[len(m.Data):cap(m.Data)])
		m.Data = m.Data[:len(m.Data)+n]
		if m.Kind == Text {
			ok := false
			if valid, ok = validUTF8(m.Data, valid, err == io.EOF); !ok {
				return &CloseError{Code: CloseInvalid, Reason: "text is not valid UTF-8"}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(m.Data)-heard >= 16<<10 {
			heard = len(m.Data)
			c.wire.heard = true
		}
	}
}

// validUTF8 tells whether p, valid up to from, is valid UTF-8 and up to where it
// is known to be. Unless p is the end of its text, it may end inside a rune.
func validUTF8(p []byte, from int, end bool) (int, bool) {
	to := len(p)
	for i := len(p) - 1; !end && i >= max(from, len(p)-3); i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				to = i
			}
			break
		}
	}
	return to, utf8.Valid(p[from:to])
}

// readFailed ends the socket because of an error of next, unless it has ended,
// and returns the cause of its end.
func (c *Conn) readFailed(err error) error {
	if c.wire.told {
		err = c.wire.err // of which gorilla hides the kind
	}
	ours, ok := errors.AsType[*CloseError](err)
	switch {
	case ok:
		c.CloseWith(ours.Code, ours.Reason)
	case c.wire.told:
		c.fail(c.wire.failure())
	case err == websocket.ErrReadLimit:
		c.tooBig() // gorilla sends nothing if the sum of lengths overflows
	default:
		// Nothing new: gorilla has called gorillaClosed or peerClosed.
		c.CloseWith(CloseInternal, "")
	}
	// Where another goroutine has ended the socket first, the context ends
	// only now.
	<-c.ctx.Done()
	return context.Cause(c.ctx)
}

var errFlood = &CloseError{Code: ClosePolicy, Reason: "too many pings or pongs"}

// allow counts a ping or pong of the peer: ten a second after a burst of twenty, for
// clients ping every few seconds, at most.
func (c *Conn) allow() bool {
	if c.pings == nil {
		c.pings = rate.NewLimiter(10, 20)
	}
	return c.pings.Allow()
}

// pinged and ponged are called in Read, also by gorilla.
func (c *Conn) pinged(data string) error {
	if !c.allow() {
		return errFlood
	}
	c.out.control(opPong, []byte(data))
	return nil
}

func (c *Conn) ponged(string) error {
	if !c.allow() {
		return errFlood
	}
	c.wire.heard = true
	return nil
}
