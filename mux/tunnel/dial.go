//go:build !js

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"oneport/mux/internal/socket"
)

func dial(ctx context.Context, u *url.URL, opts DialOptions) (net.Conn, error) {
	ws, err := socket.Dial(ctx, u, socket.DialConfig{
		Subprotocol:    Subprotocol,
		Path:           Path,
		MaxFrames:      maxFrames,
		TLSConfig:      opts.TLSConfig,
		Header:         opts.Header,
		NetDialContext: opts.NetDialContext,
	})
	if err != nil {
		return nil, err
	}
	in, out := net.Pipe()
	c := &clientConn{reader: reader{in: in}, ws: ws, nc: ws.NetConn(), done: make(chan struct{}), writing: make(turn, 1)}
	ws.Begin(nil, c.wrong)
	ws.SetReadLimit(maxMessage)
	ws.SetPingHandler(c.pinged)
	ws.SetCloseHandler(c.closed)
	go c.run(out)
	if t, ok := c.nc.(tlsConn); ok {
		return &tlsClientConn{c, t}, nil
	}
	return c, nil
}

// clientConn is a tunnel as its client sees it.
type clientConn struct {
	reader
	ws   *socket.ClientConn // read by run
	nc   net.Conn           // what ws writes to
	done chan struct{}      // closed when run has returned

	closing sync.Once // of Close
	ending  sync.Once // of expire

	writing turn
	failed  error // of all further writes; guarded by writing
}

type tlsConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

// tlsClientConn is a clientConn whose WebSocket is in TLS.
type tlsClientConn struct {
	*clientConn
	tls tlsConn
}

var _ net.Conn = (*clientConn)(nil)

func (c *tlsClientConn) ConnectionState() tls.ConnectionState { return inside(c.tls.ConnectionState()) }

// run makes what the server sends readable. It ends when the connection does, at the
// latest a moment after Close.
func (c *clientConn) run(out net.Conn) {
	defer close(c.done)
	c.end = c.receive(out)
	out.Close()
	// The server is to read the close frame, and to close the connection. Closed at
	// once, with what it has sent unread, it could be reset before.
	c.expire()
	io.Copy(io.Discard, c.nc)
	c.ws.Kill()
}

// expire ends the connection in a moment, whatever the server does.
func (c *clientConn) expire() {
	c.ending.Do(func() { c.nc.SetDeadline(time.Now().Add(closeTimeout)) })
}

// receive returns io.EOF when the server has closed the tunnel.
func (c *clientConn) receive(out net.Conn) error {
	for {
		kind, r, err := c.ws.NextReader()
		if err == nil && kind == websocket.TextMessage {
			c.last(socket.CloseUnsupported)
			err = errors.New("a text message came")
		}
		if err == nil {
			err = copyMessage(out, r)
		}
		if err == nil {
			continue
		}
		if ce, ok := errors.AsType[*websocket.CloseError](err); ok && isEnd(ce.Code) {
			return io.EOF
		}
		return fmt.Errorf("tunnel: %w", err)
	}
}

var parts = sync.Pool{New: func() any { return new([maxWrite]byte) }}

func copyMessage(w io.Writer, r io.Reader) error {
	part := parts.Get().(*[maxWrite]byte)
	defer parts.Put(part)
	_, err := io.CopyBuffer(w, r, part[:])
	return err
}

// pinged is called by gorilla in run. Where a Write is under way, that is the sign of
// life, and run must not wait for it.
func (c *clientConn) pinged(data string) error {
	if !c.writing.tryTake() {
		return nil
	}
	defer c.writing.give()
	// What is wrong the next Write tells, or Read.
	_ = c.frame(websocket.PongMessage, []byte(data))
	return nil
}

// closed is called by gorilla in run, with the server's close frame.
func (c *clientConn) closed(code int, _ string) error {
	if code == websocket.CloseNoStatusReceived {
		code = websocket.CloseNormalClosure
	}
	c.last(code)
	return nil
}

// wrong is called in run with the close frame to send for what is not WebSocket, or too
// much.
func (c *clientConn) wrong(code int, _ string) { c.last(code) }

// last sends a close frame, after which there is no other.
func (c *clientConn) last(code int) {
	c.expire() // and with it a Write under way
	c.writing.take()
	defer c.writing.give()
	// The connection ends either way.
	_ = c.frame(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
	if c.failed == nil {
		c.failed = net.ErrClosed
	}
}

var frames = sync.Pool{New: func() any { return new([socket.MaxClientHeader + maxWrite]byte) }}

// frame writes a frame of at most maxWrite bytes in one piece. Called with c.writing taken.
func (c *clientConn) frame(opcode byte, payload []byte) error {
	if c.failed != nil {
		return c.failed
	}
	b := frames.Get().(*[socket.MaxClientHeader + maxWrite]byte)
	defer frames.Put(b)
	size := socket.MaxClientHeader + copy(b[socket.MaxClientHeader:], payload)
	n, err := c.nc.Write(socket.MaskFrame(b[:size], 0, opcode))
	if err != nil && n > 0 {
		c.failed = err // a part of it has gone
	}
	return err
}

// Write sends p as one message or, if it is long, as several.
func (c *clientConn) Write(p []byte) (n int, err error) {
	c.writing.take()
	defer c.writing.give()
	for n < len(p) {
		part := p[n:min(n+maxWrite, len(p))]
		if err := c.frame(websocket.BinaryMessage, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (c *clientConn) Close() error {
	c.closing.Do(func() {
		c.in.Close()
		c.last(websocket.CloseNormalClosure)
	})
	<-c.done
	return nil
}

func (c *clientConn) LocalAddr() net.Addr  { return c.nc.LocalAddr() }
func (c *clientConn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

func (c *clientConn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

func (c *clientConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.nc.SetWriteDeadline(t)
}
