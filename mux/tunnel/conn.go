package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"oneport/mux/internal/socket"
)

// serverConn is a tunnel as its server sees it: what a client would have if it had
// connected directly.
type serverConn struct {
	reader
	ws            *socket.Conn
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
func (c *serverConn) run(out net.Conn) {
	c.ws.SetLimit(maxMessage)
	err := c.ws.Copy(out)
	c.end = fmt.Errorf("tunnel: %w", err)
	if ce, ok := errors.AsType[*socket.CloseError](err); ok && ce.ByPeer && isEnd(ce.Code) {
		c.end = io.EOF
	}
	out.Close()
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

func (c *serverConn) SetWriteDeadline(t time.Time) error {
	c.late.set(t)
	return nil
}

func (c *serverConn) SetDeadline(t time.Time) error {
	c.late.set(t)
	return c.SetReadDeadline(t)
}
