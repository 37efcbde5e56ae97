package muxtest

import (
	"slices"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/wsrpc"
)

// roads are the ways to a method on which there is a grpc.ClientConnInterface.
var roads = []struct {
	name    string
	options []mux.Option
	client  func(*Server) grpc.ClientConnInterface
}{
	{"grpc", nil, cleartext},
	{"grpc-tls", nil, secure},
	{"shared-http2", []mux.Option{mux.WithSharedHTTP2()}, cleartext},
	{"shared-http2-tls", []mux.Option{mux.WithSharedHTTP2()}, secure},
	{"connect-http1", nil, func(s *Server) grpc.ClientConnInterface { return s.Connect(s.HTTP1()) }},
	{"connect", nil, func(s *Server) grpc.ClientConnInterface { return s.Connect(s.HTTP2()) }},
	{"connect-tls", nil, func(s *Server) grpc.ClientConnInterface { return s.ConnectTLS(s.HTTP2()) }},
	{"connect-json", nil, func(s *Server) grpc.ClientConnInterface {
		return s.Connect(s.HTTP2(), connecthttp.WithProtoJSON())
	}},
	{"grpc-web-http1", nil, func(s *Server) grpc.ClientConnInterface {
		return s.Connect(s.HTTP1(), connecthttp.WithGRPCWeb())
	}},
	{"grpc-web", nil, func(s *Server) grpc.ClientConnInterface {
		return s.Connect(s.HTTP2(), connecthttp.WithGRPCWeb())
	}},
	{"grpc-web-tls", nil, func(s *Server) grpc.ClientConnInterface {
		return s.ConnectTLS(s.HTTP2(), connecthttp.WithGRPCWeb())
	}},
	{"grpc-ws", nil, func(s *Server) grpc.ClientConnInterface { return s.Socket(wsrpc.DialOptions{}) }},
	{"grpc-ws-tls", nil, func(s *Server) grpc.ClientConnInterface { return s.SocketTLS(wsrpc.DialOptions{}) }},
	{"grpc-ws-tunnel", nil, func(s *Server) grpc.ClientConnInterface { return s.Tunnel() }},
	{"grpc-ws-tunnel-tls", nil, func(s *Server) grpc.ClientConnInterface { return s.TunnelTLS() }},
	{"in-process", nil, func(s *Server) grpc.ClientConnInterface { return s.Conn() }},
}

func cleartext(s *Server) grpc.ClientConnInterface { return s.GRPC() }
func secure(s *Server) grpc.ClientConnInterface    { return s.GRPCTLS() }

// Run runs f as a subtest for each road to a method on which there is a client for
// generated stubs:
//
//   - native gRPC in cleartext ("grpc") and TLS ("grpc-tls"), the same with
//     mux.WithSharedHTTP2 ("shared-http2", "shared-http2-tls")
//   - Connect over HTTP/1.1 ("connect-http1") and HTTP/2 ("connect", "connect-tls",
//     "connect-json")
//   - gRPC-Web over HTTP/1.1 ("grpc-web-http1") and HTTP/2 ("grpc-web", "grpc-web-tls")
//   - grpc-ws.v1, many calls on a WebSocket ("grpc-ws", "grpc-ws-tls")
//   - native gRPC through a WebSocket ("grpc-ws-tunnel", "grpc-ws-tunnel-tls")
//   - the client in process ("in-process")
//
// What f asserts then holds whichever of these ways a call comes. REST, gRPC-Web over
// WebSocket and WebSockets of one method are not among them: a test reaches those by
// HTTP1, HTTP2 and WebSocket. Over HTTP/1.1 a handler that waits may learn a second
// later than over the others that its client has gone, by the clock of the bubble.
//
// Each subtest has a server of its own, made by New with register and opts, and
// runs in a bubble of its own. So register makes what the handlers use, rather
// than share it; f calls neither t.Run nor t.Parallel, which a bubble forbids;
// and what f starts must end when its context, t.Context(), does.
func Run(t *testing.T, register func(*mux.Server), f func(t *testing.T, cc grpc.ClientConnInterface), opts ...mux.Option) {
	t.Helper()
	for _, r := range roads {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(t, register, slices.Concat(r.options, opts)...)
				f(t, r.client(s))
			})
		})
	}
}
