package muxtest

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"oneport/mux/tunnel"
	"oneport/mux/wsrpc"
)

// GRPC returns a native gRPC client in cleartext. opts come after those that
// lead to s and may replace them.
//
// For a client without a connection there is Conn, of mux.Server.
func (s *Server) GRPC(opts ...grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	return s.grpc(insecure.NewCredentials(), opts)
}

// GRPCTLS is GRPC over TLS.
func (s *Server) GRPCTLS(opts ...grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	return s.grpc(credentials.NewTLS(s.ClientTLS), opts)
}

func (s *Server) grpc(creds credentials.TransportCredentials, opts []grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	ours := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return s.DialContext(ctx, "tcp", address)
		}),
	}
	cc, err := grpc.NewClient("passthrough:///"+host, append(ours, opts...)...)
	if err != nil {
		s.tb.Fatalf("muxtest: %v", err)
	}
	s.tb.Cleanup(func() { cc.Close() })
	return cc
}

// HTTP1 returns a client that speaks HTTP/1.1: in cleartext below URL, over TLS
// below URLTLS. As with any http.Client response bodies must be closed, or the
// bubble that they are in does not end.
func (s *Server) HTTP1() *http.Client {
	var p http.Protocols
	p.SetHTTP1(true)
	return s.http(p)
}

// HTTP2 returns a client that speaks HTTP/2: with prior knowledge (RFC 9113 §3.3)
// below URL, by ALPN over TLS below URLTLS.
func (s *Server) HTTP2() *http.Client {
	var p http.Protocols
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return s.http(p)
}

func (s *Server) http(p http.Protocols) *http.Client {
	t := &http.Transport{Protocols: &p, DialContext: s.DialContext, TLSClientConfig: s.ClientTLS.Clone()}
	s.tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// Socket returns a client of grpc-ws.v1 in cleartext: one WebSocket for all calls.
// What leads to s is filled into opts, unless they have a NetDialContext.
func (s *Server) Socket(opts wsrpc.DialOptions) *wsrpc.ClientConn {
	s.tb.Helper()
	return s.socket("ws://"+host, opts)
}

// SocketTLS is Socket over TLS.
func (s *Server) SocketTLS(opts wsrpc.DialOptions) *wsrpc.ClientConn {
	s.tb.Helper()
	opts.TLSConfig = s.ClientTLS.Clone()
	return s.socket("wss://"+host, opts)
}

func (s *Server) socket(url string, opts wsrpc.DialOptions) *wsrpc.ClientConn {
	s.tb.Helper()
	if opts.NetDialContext == nil {
		opts.NetDialContext = s.DialContext
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cc, err := wsrpc.Dial(ctx, url, &opts)
	if err != nil {
		s.tb.Fatalf("muxtest: %v", err)
	}
	s.tb.Cleanup(func() { cc.Close() })
	return cc
}

// Tunnel returns a native gRPC client whose connection comes through a WebSocket. opts
// are as for GRPC.
func (s *Server) Tunnel(opts ...grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	return s.tunnel("ws://"+host, insecure.NewCredentials(), opts)
}

// TunnelTLS is Tunnel with the WebSocket over TLS.
func (s *Server) TunnelTLS(opts ...grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	return s.tunnel("wss://"+host, tunnel.Credentials(), opts)
}

func (s *Server) tunnel(url string, creds credentials.TransportCredentials, opts []grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	to := &tunnel.DialOptions{TLSConfig: s.ClientTLS.Clone(), NetDialContext: s.DialContext}
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return tunnel.Dial(ctx, url, to)
	})
	return s.grpc(creds, append([]grpc.DialOption{dial}, opts...))
}

// WebSocket opens a WebSocket in cleartext. The path begins with a slash; header
// may be nil.
func (s *Server) WebSocket(path string, header http.Header) *websocket.Conn {
	s.tb.Helper()
	return s.webSocket("ws://"+host+path, header)
}

// WebSocketTLS is WebSocket over TLS.
func (s *Server) WebSocketTLS(path string, header http.Header) *websocket.Conn {
	s.tb.Helper()
	return s.webSocket("wss://"+host+path, header)
}

func (s *Server) webSocket(url string, header http.Header) *websocket.Conn {
	s.tb.Helper()
	d := websocket.Dialer{NetDialContext: s.DialContext, TLSClientConfig: s.ClientTLS.Clone(), HandshakeTimeout: 10 * time.Second}
	c, res, err := d.Dial(url, header)
	if err != nil {
		if res != nil {
			s.tb.Fatalf("muxtest: %s: %v: %s", url, err, res.Status)
		}
		s.tb.Fatalf("muxtest: %s: %v", url, err)
	}
	s.tb.Cleanup(func() { c.Close() })
	return c
}
