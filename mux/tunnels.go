package mux

import (
	"net"
	"net/http"
	"sync"

	"golang.org/x/net/http2"
)

// A tunnel is a connection like those of a listener: a split of its own takes it, with
// the same look at its first bytes, the same servers for what they are, and the same
// end. It is made for the first tunnel.
//
//	tunnel.Handler ─► tunnelListener ─► split ┬ gRPC ───► Server.native
//	                                          ├ HTTP/2 ─► Server.tunneled
//	                                          └ other ──► refused with a reason

// tunnelText tells the refused what to do instead.
const tunnelText = "a tunnel carries gRPC, by HTTP/2 with prior knowledge and without TLS of its own"

func newTunnelSplit(s *Server, ln net.Listener) *split {
	sp := &split{s: s}
	st := sp.add(ln)
	st.serveHTTP2(s.tunneled)
	st.open(http2.ErrCodeProtocol, tunnelText)
	return sp
}

// acceptTunnel gives c to the split. It is false if the server takes no connections any
// more.
func (s *Server) acceptTunnel(c net.Conn) bool {
	s.mu.Lock()
	if s.within == nil && s.state == running {
		s.within = newTunnelListener()
		sp := newTunnelSplit(s, s.within)
		s.splits[sp] = struct{}{}
		// It ends with the server, as the listener does not fail.
		s.tunneling.Go(func() { sp.serve() })
	}
	ln := s.within
	s.mu.Unlock()
	return ln != nil && ln.put(c)
}

// serveTunneled answers a request that has come through a tunnel. A tunnel is for
// calls: to a page that may open one (origin.go) it shall not give the answers of the
// program's handlers, who may know better whom to tell. And a tunnel in a tunnel, in
// which there could be another, would be without bound. No call is a CONNECT, of which
// a WebSocket could come.
func (s *Server) serveTunneled(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect || !s.isCall(r) {
		plain(w, http.StatusForbidden, tunnelText+"; connect directly for other requests\n")
		return
	}
	s.ServeHTTP(w, r)
}

// tunnelListener accepts what put is given.
type tunnelListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newTunnelListener() *tunnelListener {
	l := &tunnelListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// put waits for Accept, which is called as long as the listener is open. It is false
// when that is closed.
func (l *tunnelListener) put(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

func (l *tunnelListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tunnelListener) Close() error {
	l.close()
	return nil
}

// Addr is told in logs only: each connection has addresses of its own.
func (l *tunnelListener) Addr() net.Addr { return textAddr("tunnel") }
