package muxtest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a connection in memory.
type conn struct {
	in, out       *pipe
	local, remote net.Addr
}

var _ net.Conn = (*conn)(nil)

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close lets the peer read what has been written to it, then io.EOF.
func (c *conn) Close() error {
	c.in.set(func() {
		c.in.noReader = true
		c.in.reader.stop()
		c.in.buf = bytes.Buffer{}
	})
	c.out.set(func() {
		c.out.noWriter = true
		c.out.writer.stop()
	})
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.reader, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writer, t)
	return nil
}

// pipe is one direction of a connection.
type pipe struct {
	mu                 sync.Mutex
	changed            sync.Cond    // on mu
	buf                bytes.Buffer // written and not yet read; guarded by mu
	noReader, noWriter bool         // closed at that end; guarded by mu
	reader, writer     deadline     // guarded by mu
}

// pipeBytes is how much a pipe holds, as much as a socket might.
const pipeBytes = 64 << 10

type deadline struct {
	timer  *time.Timer // of the deadline that is set and still to come
	passed bool
}

// stop ends the waiting for d, which in a bubble, where time may stand still, can be without
// an end, and would keep the connection in memory.
func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func newPipe() *pipe {
	p := new(pipe)
	p.changed.L = &p.mu
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.noReader:
			return 0, net.ErrClosed
		case p.reader.passed:
			return 0, os.ErrDeadlineExceeded
		case p.buf.Len() > 0:
			p.changed.Broadcast()
			return p.buf.Read(b)
		case p.noWriter:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch room := pipeBytes - p.buf.Len(); {
		case p.noWriter:
			return n, net.ErrClosed
		case p.noReader:
			return n, io.ErrClosedPipe
		case p.writer.passed:
			return n, os.ErrDeadlineExceeded
		case n == len(b):
			return n, nil
		case room > 0:
			k, _ := p.buf.Write(b[n:min(n+room, len(b))])
			n += k
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

// set changes the state of p.
func (p *pipe) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

// setDeadline sets d, one of p's, to t. Zero means none.
func (p *pipe) setDeadline(d *deadline, t time.Time) {
	p.set(func() {
		d.stop()
		wait := time.Until(t)
		d.passed = !t.IsZero() && wait <= 0
		if t.IsZero() || d.passed || p.noReader && d == &p.reader || p.noWriter && d == &p.writer {
			return
		}
		var timer *time.Timer
		timer = time.AfterFunc(wait, func() {
			p.set(func() {
				if d.timer == timer { // else replaced meanwhile
					d.passed = true
				}
			})
		})
		d.timer = timer
	})
}
