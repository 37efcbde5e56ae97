package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// A server behind the split is handed a wrapper, so net/http leaves Request.TLS
// nil and grpc-go knows of no AuthInfo. This file gives both back, from the one
// place that still knows the connection.

// connectionPeer describes the client at the other end of c.
func connectionPeer(c net.Conn) *peer.Peer {
	p := &peer.Peer{Addr: c.RemoteAddr(), LocalAddr: c.LocalAddr()}
	if t, ok := c.(interface{ TLS() *tls.ConnectionState }); ok {
		if state := t.TLS(); state != nil {
			p.AuthInfo = tlsInfo(*state)
		}
	}
	return p
}

func tlsInfo(state tls.ConnectionState) credentials.TLSInfo {
	info := credentials.TLSInfo{State: state}
	info.SecurityLevel = credentials.PrivacyAndIntegrity
	if len(state.PeerCertificates) > 0 {
		for _, uri := range state.PeerCertificates[0].URIs {
			if uri.Scheme == "spiffe" {
				info.SPIFFEID = uri
				break
			}
		}
	}
	return info
}

// connContext puts the client into the context of every request on c.
func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	return s.conns.begin(peer.NewContext(ctx, connectionPeer(c)), c)
}

// http1Context is connContext with the connection itself.
func (s *Server) http1Context(ctx context.Context, c net.Conn) context.Context {
	ctx = s.connContext(ctx, c)
	return context.WithValue(ctx, connKey{}, &http1Conn{conn: c, ctx: ctx})
}

// connectionOnly gives a request that is to become a WebSocket the context of its
// connection, with the same values. In that of net/http the socket would keep all that
// serves to cancel a request.
func connectionOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*http1Conn)
		if ok && c.request == r.Context() { // and not one with values of the program
			ctx := context.WithValue(c.ctx, http.LocalAddrContextKey, r.Context().Value(http.LocalAddrContextKey))
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// connState notes when an http.Server has something to do with a connection, and when it
// strikes it out of its books. A connection that is new does not count: of HTTP/2, as
// net/http would not tell it of a shutdown and would wait for it; of HTTP/1, as net/http
// would read its request and drop it.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		s.arriving.end(c)
	case http.StateClosed, http.StateHijacked:
		s.arriving.end(c)
		s.conns.leave(c, state)
	}
}

// http1State is connState for HTTP/1.
func (s *Server) http1State(c net.Conn, state http.ConnState) {
	s.between.note(c, state) // first, as it takes over from arriving
	s.connState(c, state)
}

// withIdentity returns r with its client as peer in the context and, for a
// connection from the split, r.TLS. A request from another http.Server is
// described by what that one has put into it.
func withIdentity(r *http.Request) *http.Request {
	if p, ok := peer.FromContext(r.Context()); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && r.TLS == nil {
			// Set in place: r is net/http's until the first handler, which
			// this is, and a copy would cost every request one.
			state := info.State
			r.TLS = &state
		}
		return r
	}
	p := &peer.Peer{Addr: textAddr(r.RemoteAddr)}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.Addr = net.TCPAddrFromAddrPort(ap)
	}
	p.LocalAddr, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if r.TLS != nil {
		p.AuthInfo = tlsInfo(*r.TLS)
	}
	return r.WithContext(peer.NewContext(r.Context(), p))
}

// textAddr is an address of which only the text is known.
type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

// splitCredentials tells grpc-go about connections whose TLS the split has
// already terminated. It is for servers only.
type splitCredentials struct {
	arrived func(net.Conn) // called with each connection that the server has taken
}

var _ credentials.TransportCredentials = splitCredentials{}

func (s splitCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	s.arrived(c)
	if t, ok := c.(interface{ TCP() *net.TCPConn }); ok && t.TCP() != nil {
		// As grpc-go would, did it not see a wrapper: a ping that nobody
		// acknowledges would otherwise wait for the kernel's patience.
		setUserTimeout(t.TCP(), pingTimeout)
	}
	return c, connectionPeer(c).AuthInfo, nil
}

func (splitCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("mux: these credentials are for servers only")
}

func (splitCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c splitCredentials) Clone() credentials.TransportCredentials { return c }

func (splitCredentials) OverrideServerName(string) error { return nil }
