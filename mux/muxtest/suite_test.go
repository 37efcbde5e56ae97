package muxtest_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2/connecthttp"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/mux/wsrpc"
	pb "oneport/proto/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// road is one way to a method. What the suite asserts holds on each of them.
type road struct {
	name    string
	options []mux.Option
	connect func(*muxtest.Server) grpc.ClientConnInterface

	secure  bool // over TLS
	local   bool // in this process: no connection, no host name, no user agent
	socket  bool // WebSocket, one method each
	calls   bool // WebSocket, all calls on one
	tunnel  bool // native gRPC through a WebSocket
	json    bool // messages are encoded so
	rest    bool // by the paths of google.api.http
	message int  // of a socket, the kind of its messages
	http    int  // version of HTTP of one of the web's protocols

	grpcTimeout bool // sent as gRPC's header
}

var (
	native  = road{name: "grpc", grpcTimeout: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.GRPC() }}
	inside  = road{name: "in-process", local: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.Conn() }}
	sockets = []road{
		socketRoad("ws-binary", websocket.BinaryMessage, false),
		socketRoad("ws-json", websocket.TextMessage, false),
		socketRoad("wss-binary", websocket.BinaryMessage, true),
		socketRoad("wss-json", websocket.TextMessage, true),
	}
	// Every protocol over HTTP/1.1, HTTP/2 and TLS, which do not depend on each
	// other: so not in every combination. But every encoding in cleartext too, where
	// TestEqual makes most of its calls.
	web = []road{
		webRoad("connect-http1", 1, false),
		webRoad("connect-gzip-http2", 2, false, connecthttp.WithSendGzip()),
		webRoad("connect-gzip-http2-tls", 2, true, connecthttp.WithSendGzip()),
		webRoad("connect-json-http1-tls", 1, true, connecthttp.WithProtoJSON()),
		webRoad("connect-json-http2", 2, false, connecthttp.WithProtoJSON()),
		webRoad("grpc-web-http1", 1, false, connecthttp.WithGRPCWeb()),
		webRoad("grpc-web-gzip-http2", 2, false, connecthttp.WithGRPCWeb(), connecthttp.WithSendGzip()),
		webRoad("grpc-web-gzip-http2-tls", 2, true, connecthttp.WithGRPCWeb(), connecthttp.WithSendGzip()),
		webRoad("grpc-web-text-http1-tls", 1, true, connecthttp.WithGRPCWeb()),
		webRoad("grpc-web-text-http2", 2, false, connecthttp.WithGRPCWeb()),
	}
	rest = []road{
		restRoad("rest-http1", 1, false),
		restRoad("rest-events-http1-tls", 1, true),
		restRoad("rest-http2-tls", 2, true),
		restRoad("rest-events-http2", 2, false),
	}
	multiplexed = []road{
		callsRoad("grpc-ws", false, false),
		callsRoad("grpc-ws-json", true, false),
		callsRoad("grpc-ws-json-tls", true, true),
	}
	webSockets = []road{
		webSocketRoad("grpc-websockets", false),
		webSocketRoad("grpc-websockets-tls", true),
	}
	// Sockets that are streams of HTTP/2, in a process that has them (TestHTTP2Sockets).
	streams = []road{
		{name: "grpc-ws-over-http2", calls: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return s.Socket(wsrpc.DialOptions{NetDialContext: overHTTP2(s, false)})
		}},
		{name: "grpc-ws-json-over-http2-tls", calls: true, json: true, secure: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return s.Socket(wsrpc.DialOptions{JSON: true, NetDialContext: overHTTP2(s, true)})
		}},
		{name: "grpc-websockets-over-http2-tls", secure: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return &webSocketConn{dialer{server: s, secure: true, http2: true}}
		}},
		{name: "ws-json-over-http2", socket: true, json: true, message: websocket.TextMessage, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return &socketConn{dialer: dialer{server: s, http2: true}, message: websocket.TextMessage}
		}},
	}
	tunnels = []road{
		{name: "grpc-ws-tunnel", tunnel: true, grpcTimeout: true,
			connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.Tunnel() }},
		{name: "grpc-ws-tunnel-tls", tunnel: true, grpcTimeout: true, secure: true,
			connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.TunnelTLS() }},
		{name: "shared-grpc-ws-tunnel", tunnel: true, grpcTimeout: true, options: []mux.Option{mux.WithSharedHTTP2()},
			connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.Tunnel() }},
	}
	connections = slices.Concat([]road{
		native,
		{name: "grpc-gzip", grpcTimeout: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return s.GRPC(grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip")))
		}},
		{name: "grpc-tls", grpcTimeout: true, secure: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.GRPCTLS() }},
		{name: "shared-http2", grpcTimeout: true, connect: native.connect, options: []mux.Option{mux.WithSharedHTTP2()}},
		{name: "shared-http2-tls", grpcTimeout: true, secure: true, options: []mux.Option{mux.WithSharedHTTP2()},
			connect: func(s *muxtest.Server) grpc.ClientConnInterface { return s.GRPCTLS() }},
	}, web, rest, multiplexed, webSockets, ifEnabled(streams), tunnels, sockets)
	everywhere = append([]road{inside}, connections...)
)

// callsRoad is one socket of grpc-ws.v1 for all calls.
func callsRoad(name string, json, secure bool) road {
	return road{name: name, calls: true, json: json, secure: secure, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
		if secure {
			return s.SocketTLS(wsrpc.DialOptions{JSON: json})
		}
		return s.Socket(wsrpc.DialOptions{JSON: json})
	}}
}

func socketRoad(name string, message int, secure bool) road {
	return road{name: name, socket: true, message: message, json: message == websocket.TextMessage, secure: secure,
		connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			return &socketConn{dialer: dialer{server: s, secure: secure}, message: message}
		}}
}

// fullStatus are the roads that carry header, trailer and status details, for
// which the one-method form of WebSocket has no place.
func fullStatus() []road {
	var rs []road
	for _, r := range everywhere {
		if !r.socket {
			rs = append(rs, r)
		}
	}
	return rs
}

// on runs f in a bubble for each road.
func on(t *testing.T, roads []road, f func(t *testing.T, r road)) {
	t.Helper()
	for _, r := range roads {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, r) })
		})
	}
}

// client is a stub on one road.
type client struct {
	pb.EchoServiceClient
	cc     grpc.ClientConnInterface
	server *muxtest.Server
}

// to starts a server with svc and takes the road to it.
func (r road) to(t *testing.T, svc pb.EchoServiceServer, opts ...mux.Option) client {
	t.Helper()
	return r.toAll(t, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, svc) }, opts...)
}

func (r road) toAll(t *testing.T, register func(*mux.Server), opts ...mux.Option) client {
	t.Helper()
	return r.client(muxtest.New(t, register, append(opts, r.options...)...))
}

// client takes the road to s.
func (r road) client(s *muxtest.Server) client {
	cc := r.connect(s)
	return client{pb.NewEchoServiceClient(cc), cc, s}
}

// disconnect cuts the connections of c.
func (c client) disconnect() { c.cc.(io.Closer).Close() }

// service has handlers that each test brings itself; the others are
// unimplemented.
type service struct {
	pb.UnimplementedEchoServiceServer
	echo     func(context.Context, *pb.EchoRequest) (*pb.EchoResponse, error)
	expand   func(*pb.ExpandRequest, grpc.ServerStreamingServer[pb.ExpandResponse]) error
	collect  func(grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error
	converse func(grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error
}

func (s service) Echo(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	if s.echo == nil {
		return s.UnimplementedEchoServiceServer.Echo(ctx, req)
	}
	return s.echo(ctx, req)
}

func (s service) Expand(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	if s.expand == nil {
		return s.UnimplementedEchoServiceServer.Expand(req, stream)
	}
	return s.expand(req, stream)
}

func (s service) Collect(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
	if s.collect == nil {
		return s.UnimplementedEchoServiceServer.Collect(stream)
	}
	return s.collect(stream)
}

func (s service) Converse(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
	if s.converse == nil {
		return s.UnimplementedEchoServiceServer.Converse(stream)
	}
	return s.converse(stream)
}
