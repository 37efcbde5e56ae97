package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"oneport/mux/internal/socket"
)

// serverConn is a tunnel as its server sees it: what a client would have if it had
// connected directly.
type serverConn struct {
	ws            *socket.Conn
	in            net.Conn // of a net.Pipe, to the other end of which run writes
	local, remote net.Addr

	writing turn     // of Write
	late    deadline // likewise
}

// tlsServerConn is a serverConn whose WebSocket is in TLS. In cleartext there is no
// ConnectionState, which is how one is told from the other.
type tlsServerConn struct {
	*serverConn
	state tls.ConnectionState
}

var _ net.Conn = (*serverConn)(nil)

func (c *tlsServerConn) ConnectionState() tls.ConnectionState { return inside(c.state) }

// inside is the state of a WebSocket's connection as that of a tunnel. What ALPN has
// chosen was for the WebSocket; inside nothing was negotiated.
func inside(state tls.ConnectionState) tls.ConnectionState {
	state.NegotiatedProtocol = ""
	return state
}

// run makes what the client sends readable. It is on the goroutine of the socket, and
// returns when that has ended or c has been closed.
func run(ws *socket.Conn, out net.Conn) {
	defer out.Close()
	ws.SetLimit(maxMessage)
	// How it ends c tells its reader.
	_ = ws.Copy(out)
}

func (c *serverConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	switch err {
	case io.EOF:
		err = c.ended()
	case io.ErrClosedPipe:
		err = net.ErrClosed
	}
	return n, err
}

// ended is what Read returns after the end of the socket.
func (c *serverConn) ended() error {
	err := context.Cause(c.ws.Context())
	ce, ok := errors.AsType[*socket.CloseError](err)
	if ok && ce.ByPeer && isEnd(ce.Code) {
		return io.EOF
	}
	return fmt.Errorf("tunnel: %w", err)
}

// Write sends p as one message or, if it is long, as several. It returns when they wait
// to be written, within the bounds of the socket.
func (c *serverConn) Write(p []byte) (n int, err error) {
	c.writing.take()
	defer c.writing.give()
	ctx := c.late.context()
	for n < len(p) {
		part := p[n:min(n+maxWrite, len(p))]
		err := ctx.Err() // of which the socket asks only when it has to wait
		if err == nil {
			err = c.ws.Write(ctx, socket.Binary, part)
		}
		if err != nil {
			return n, c.writeFailed(err)
		}
		n += len(part)
	}
	return n, nil
}

func (c *serverConn) writeFailed(err error) error {
	if ce, ok := errors.AsType[*socket.CloseError](err); ok && !ce.ByPeer {
		return net.ErrClosed
	}
	if err == context.Canceled {
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("tunnel: %w", err)
}

// Close sends a close frame after all that was written. It does not wait for the
// client's, for which the connection stays open a second at most.
func (c *serverConn) Close() error {
	if c.ws.Draining().Err() != nil {
		c.ws.CloseWith(socket.CloseGoingAway, "server is shutting down")
	}
	c.ws.CloseWith(socket.CloseNormal, "")
	c.late.set(time.Time{})
	return c.in.Close()
}

func (c *serverConn) LocalAddr() net.Addr  { return c.local }
func (c *serverConn) RemoteAddr() net.Addr { return c.remote }

func (c *serverConn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

func (c *serverConn) SetWriteDeadline(t time.Time) error {
	c.late.set(t)
	return nil
}

func (c *serverConn) SetDeadline(t time.Time) error {
	c.late.set(t)
	return c.in.SetReadDeadline(t)
}

// turn is a mutex that may be held while its holder waits for the other end: to a bubble
// of testing/synctest, unlike a sync.Mutex, those who wait for it wait for that as well.
// It is a channel with room for one.
type turn chan struct{}

func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// deadline is that of the writes of a connection. The zero value is none.
type deadline struct {
	mu     sync.Mutex
	ctx    context.Context // ends when the deadline passes; guarded by mu
	cancel func()          // ends ctx; guarded by mu
	timer  *time.Timer     // calls cancel; guarded by mu
}

// context returns one that ends with the deadline, also if that is changed meanwhile.
func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.contextLocked()
}

func (d *deadline) contextLocked() context.Context {
	if d.ctx == nil {
		d.ctx, d.cancel = context.WithCancel(context.Background())
	}
	return d.ctx
}

// set makes t the deadline. The zero Time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired := d.timer != nil && !d.timer.Stop()
	d.timer = nil
	if fired || d.ctx != nil && d.ctx.Err() != nil {
		d.ctx = nil // the last one has passed, for those who wait
	}
	if t.IsZero() {
		return
	}
	d.contextLocked()
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, d.cancel)
	} else {
		d.cancel()
	}
}
