package xconnect

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// maxHead bounds the text by which a handler answers the upgrade.
const maxHead = 16 << 10

// conn is a stream as the connection of an upgrade. Its methods may be called concurrently.
type conn struct {
	body          io.ReadCloser
	stream        http.ResponseWriter
	control       *http.ResponseController // of stream
	local, remote net.Addr

	in, out half
	closed  chan struct{}

	// What the writer knows.
	head     []byte // of the answer, until it is whole
	answered bool   // it has been sent
	dropping bool   // it was a refusal, whose body is dropped
}

var _ net.Conn = (*conn)(nil)

func newConn(w http.ResponseWriter, r *http.Request) *conn {
	c := &conn{
		body:    r.Body,
		stream:  w,
		control: http.NewResponseController(w),
		closed:  make(chan struct{}),
	}
	c.local, c.remote = addresses(r)
	// Who waits to read has left nothing unread that closing could drop.
	c.in.cut = func() { c.body.Close() }
	c.out.cut = func() { c.control.SetWriteDeadline(time.Unix(1, 0)) } // resets the stream
	return c
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.in.begin(); err != nil {
		return 0, err
	}
	n, err := c.body.Read(p)
	return n, c.in.end(err)
}

// Write sends p at once. Before that it takes the answer to the upgrade.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.out.begin(); err != nil {
		return 0, err
	}
	n, err := c.write(p)
	return n, c.out.end(err)
}

func (c *conn) write(p []byte) (int, error) {
	rest := p
	if !c.answered {
		var err error
		if rest, err = c.answer(p); err != nil {
			return 0, err
		}
	}
	if len(rest) == 0 || c.dropping {
		return len(p), nil
	}
	n, err := c.stream.Write(rest)
	if err == nil {
		err = c.control.Flush()
	}
	return len(p) - len(rest) + n, err
}

// answer takes bytes of the answer to the upgrade, sends it when it is whole, and returns
// what comes after it.
func (c *conn) answer(p []byte) (rest []byte, err error) {
	c.head = append(c.head, p...)
	end := []byte("\r\n\r\n")
	at := bytes.Index(c.head, end)
	switch {
	case at < 0 && len(c.head) > maxHead:
		return nil, errors.New("xconnect: the answer to the upgrade has no end")
	case at < 0:
		return nil, nil
	}
	text, rest := c.head[:at+len(end)], c.head[at+len(end):]
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
	if err != nil {
		return nil, err
	}
	c.head, c.answered = nil, true
	h := c.stream.Header()
	maps.Copy(h, res.Header)
	delete(h, "Content-Length") // of a body that HTTP/1 would bound otherwise
	if res.StatusCode == http.StatusSwitchingProtocols {
		stripHop(h)
		delete(h, "Sec-Websocket-Accept")
		c.stream.WriteHeader(http.StatusOK)
	} else {
		answer(c.stream, res.StatusCode)
		c.dropping = true
	}
	return rest, c.control.Flush()
}

// Close ends the stream in both directions, and a Read or Write that is under way.
func (c *conn) Close() error {
	if !c.in.close() {
		return net.ErrClosed
	}
	c.out.close()
	c.body.Close()
	close(c.closed)
	return nil
}

// CloseWrite is Close: net/http ends one direction only together with the other. What the
// peer still sends is dropped then, without that it could miss what it was sent before.
func (c *conn) CloseWrite() error { return c.Close() }

// wait returns when c is closed and does not use the stream any more. It panics if no
// answer was sent, so that net/http does not send one.
func (c *conn) wait() {
	<-c.closed
	c.in.settle()
	c.out.settle()
	if !c.answered {
		panic(http.ErrAbortHandler)
	}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.setDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.setDeadline(t) }

// half is one direction of a conn. The deadlines of the stream itself are of no use: they
// end it also while nobody reads or writes.
type half struct {
	cut func() // ends what is under way, and whatever could come after it

	use sync.Mutex // held by who reads or writes

	mu       sync.Mutex
	deadline time.Time   // zero is none; guarded by mu
	timer    *time.Timer // calls lapse, while busy; nil before the first deadline; guarded by mu
	busy     bool        // guarded by mu
	late     bool        // cut by the deadline; guarded by mu
	closed   bool        // guarded by mu
}

// begin must be followed by end, unless it returns an error.
func (h *half) begin() error {
	h.use.Lock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.err(); err != nil {
		h.use.Unlock()
		return err
	}
	h.busy = true
	h.arm()
	return nil
}

// end returns err, or why h was cut.
func (h *half) end(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = false
	if h.timer != nil {
		h.timer.Stop()
	}
	h.use.Unlock()
	switch {
	case err == nil || err == io.EOF:
		return err
	case h.closed:
		return net.ErrClosed
	case h.late:
		return os.ErrDeadlineExceeded
	}
	return err
}

// err is why nobody may begin. Called with h.mu held.
func (h *half) err() error {
	switch {
	case h.closed:
		return net.ErrClosed
	case h.late || h.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// passed is called with h.mu held.
func (h *half) passed() bool { return !h.deadline.IsZero() && !time.Now().Before(h.deadline) }

// arm starts the timer, for who is busy. Called with h.mu held.
func (h *half) arm() {
	switch {
	case h.deadline.IsZero():
	case h.timer == nil:
		h.timer = time.AfterFunc(time.Until(h.deadline), h.lapse)
	default:
		h.timer.Reset(time.Until(h.deadline))
	}
}

// lapse is called by the timer, perhaps when it has been stopped or set anew just before.
func (h *half) lapse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy && !h.closed && h.passed() {
		h.late = true
		h.cut()
	}
}

func (h *half) setDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return net.ErrClosed
	}
	h.deadline = t
	if h.busy {
		if h.timer != nil {
			h.timer.Stop()
		}
		h.arm()
	}
	return nil
}

// close cuts what is under way. It is false if h was closed before.
func (h *half) close() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.closed = true
	if h.busy {
		h.cut()
	}
	return true
}

// settle waits, once h is closed, until nobody is busy.
func (h *half) settle() {
	h.use.Lock()
	h.use.Unlock() //lint:ignore SA2001 who comes later finds h closed
}
