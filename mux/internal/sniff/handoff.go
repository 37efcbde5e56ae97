package sniff

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/soheilhy/cmux"

	"oneport/mux/internal/ready"
)

// Handoff takes a connection that a child listener of cmux accepted from its [Listener], and lifts its deadline and
// budget. The connection returned replaces c, which must neither have been read before nor be used after. It gives
// the bytes that were looked at, then reads from the accepted connection. A connection that is not of a Listener is
// returned as it is.
//
// What is returned has, beside the methods of net.Conn,
//
//   - NetConn() net.Conn: the accepted connection, once nothing stands between: the bytes looked at were read and what
//     the early SETTINGS made superfluous was left out. Before that, an equivalent of the connection itself. So it can always
//     be used in its place, as after a WebSocket handshake.
//   - TLS() *tls.ConnectionState: the state of the accepted connection, nil in cleartext. It is not called
//     ConnectionState because net/http looks for that, and then refuses HTTP/2 to a connection that is not a *tls.Conn.
//   - TCP() *net.TCPConn: what is under it all, also beneath TLS, to set options of the socket; nil if it is not TCP.
//   - CloseWrite() error, which is errors.ErrUnsupported where the accepted connection has none.
//   - On a TCP connection, ReadOnReady, by which grpc-go waits for bytes without holding a buffer; and unless SETTINGS
//     were written early or it is GRPC, all other methods of *net.TCPConn: so gathered writes and sendfile work.
//
// A GRPC connection ends with an error when its client sends a SETTINGS frame of more than 128 bytes.
//
// As on any net.Conn, methods may be called concurrently, but Read, WriteTo, ReadOnReady and NetConn only one at a time.
func Handoff(c net.Conn) net.Conn {
	s, ok := sniffed(c)
	if !ok {
		return c
	}
	s.release()
	if s.kind == GRPC {
		return newGRPCConn(s.handed(), s.ln.cfg.Foreign)
	}
	return s.handed()
}

// A handed is what Handoff promises of every connection.
type handed interface {
	net.Conn
	NetConn() net.Conn
	TLS() *tls.ConnectionState
	TCP() *net.TCPConn
	CloseWrite() error
}

// handed returns what replaces c.
func (c *Conn) handed() handed {
	tcp, isTCP := c.Conn.(*net.TCPConn)
	switch {
	case isTCP && !c.greeted:
		return &tcpConn{TCPConn: tcp, prefix: c.head}
	case isTCP:
		return &tcpGreetedConn{greetedConn: newGreetedConn(tcp, c.head, c.opening, c.ln.greeting), tcp: tcp}
	case c.greeted:
		return newGreetedConn(c.Conn, c.head, c.opening, c.ln.greeting)
	default:
		return &conn{Conn: c.Conn, prefix: c.head}
	}
}

// sniffed finds the Conn under a connection that cmux gave out.
func sniffed(c net.Conn) (s *Conn, ok bool) {
	if m, isMux := c.(*cmux.MuxConn); isMux {
		c = m.Conn
	}
	s, ok = c.(*Conn)
	return s, ok
}

// release lifts the limits of c, unless it has been closed.
func (c *Conn) release() {
	if c.ln.forget(c) {
		c.Conn.SetDeadline(time.Time{})
	}
}

// A prefix is what is left of the bytes looked at.
type prefix []byte

// read moves bytes to b.
func (p *prefix) read(b []byte) int {
	n := copy(b, *p)
	p.drop(n)
	return n
}

// drop forgets n bytes, and the array under them with the last.
func (p *prefix) drop(n int) {
	if *p = (*p)[n:]; len(*p) == 0 {
		*p = nil
	}
}

// A conn replays a prefix before any connection.
type conn struct {
	net.Conn
	prefix prefix
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		return c.prefix.read(p), nil
	}
	return c.Conn.Read(p)
}

func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *conn) NetConn() net.Conn {
	if len(c.prefix) > 0 {
		return c
	}
	return c.Conn
}

func (c *conn) TLS() *tls.ConnectionState { return tlsState(c.Conn) }

func (c *conn) TCP() *net.TCPConn {
	under := c.Conn
	if t, ok := under.(*tls.Conn); ok {
		under = t.NetConn()
	}
	switch u := under.(type) {
	case *net.TCPConn:
		return u
	case interface{ TCP() *net.TCPConn }: // handed off once before, for TLS
		return u.TCP()
	default:
		return nil
	}
}

// A tcpConn replays a prefix before a TCP connection. It embeds the concrete type because net finds the system call
// for gathered writes by a method of its own.
type tcpConn struct {
	*net.TCPConn
	prefix prefix
	ready  ready.Reader
}

func (c *tcpConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		return c.prefix.read(p), nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo is what io.Copy calls; the promoted one would miss the prefix.
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	var n int64
	if len(c.prefix) > 0 {
		m, err := w.Write(c.prefix)
		c.prefix.drop(m)
		n = int64(m)
		if err != nil {
			return n, err
		}
	}
	m, err := c.TCPConn.WriteTo(w)
	return n + m, err
}

func (c *tcpConn) NetConn() net.Conn {
	if len(c.prefix) > 0 {
		return c
	}
	return c.TCPConn
}

func (c *tcpConn) TLS() *tls.ConnectionState { return nil }

func (c *tcpConn) TCP() *net.TCPConn { return c.TCPConn }
