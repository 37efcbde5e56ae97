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

// connState notes when an http.Server takes a connection into its books, and when it
// strikes it out. Those that count for HTTP/2 have it once it is active: net/http would
// not tell one that is new of a shutdown, and would wait for it.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		s.arriving.end(c)
	case http.StateClosed, http.StateHijacked:
		s.arriving.end(c)
		s.conns.leave(c, state)
	}
}

// http1State is connState for HTTP/1, where a connection counts from the first.
func (s *Server) http1State(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.arriving.end(c)
	}
	s.between.note(c, state)
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
			r.TLS = &info.State
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
