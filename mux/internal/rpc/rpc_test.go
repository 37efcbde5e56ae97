package rpc_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is the message of the scripted service, in both directions.
type text = wrapperspb.StringValue

// script is a service whose handlers a test writes itself. Every streaming
// method runs stream.
type script struct {
	unary  func(context.Context, *text) (*text, error)
	stream func(grpc.ServerStream) error
}

const (
	scriptUnary   = "/test.Script/Unary"
	scriptServer  = "/test.Script/ServerStream"
	scriptClient  = "/test.Script/ClientStream"
	scriptBidi    = "/test.Script/Bidi"
	scriptMissing = "/test.Script/Missing"
)

var (
	serverStreams = &grpc.StreamDesc{ServerStreams: true}
	clientStreams = &grpc.StreamDesc{ClientStreams: true}
	bothStream    = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
)

func (s *script) register(r grpc.ServiceRegistrar) {
	stream := func(srv any, ss grpc.ServerStream) error { return srv.(*script).stream(ss) }
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Script",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unaryHandler}},
		Streams: []grpc.StreamDesc{
			{StreamName: "ServerStream", Handler: stream, ServerStreams: true},
			{StreamName: "ClientStream", Handler: stream, ClientStreams: true},
			{StreamName: "Bidi", Handler: stream, ServerStreams: true, ClientStreams: true},
		},
	}, s)
}

// unaryHandler is what protoc-gen-go-grpc generates for a unary method.
func unaryHandler(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(text)
	if err := dec(in); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return srv.(*script).unary(ctx, in)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: scriptUnary}
	return interceptor(ctx, in, info, func(ctx context.Context, req any) (any, error) {
		return srv.(*script).unary(ctx, req.(*text))
	})
}

// onRoads runs test on a Conn and on a grpc.Server with the same configuration,
// whose behaviour is the model.
func onRoads(t *testing.T, cfg rpc.Config, register func(grpc.ServiceRegistrar), test func(*testing.T, grpc.ClientConnInterface)) {
	t.Run("inprocess", func(t *testing.T) { test(t, rpc.NewConn(newRegistry(cfg, register))) })
	t.Run("native", func(t *testing.T) { test(t, native(t, newRegistry(cfg, register))) })
}

func newRegistry(cfg rpc.Config, register func(grpc.ServiceRegistrar)) *rpc.Registry {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	reg := rpc.NewRegistry(cfg)
	register(reg)
	return reg
}

// native serves reg by a grpc.Server until the test ends.
func native(t testing.TB, reg *rpc.Registry) *grpc.ClientConn {
	t.Helper()
	ln := bufconn.Listen(64 << 10)
	srv := grpc.NewServer(reg.ServerOptions()...)
	reg.RegisterOn(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	cc, err := grpc.NewClient("passthrough:bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		srv.Stop()
		if err := <-served; err != nil && err != grpc.ErrServerStopped { // which a server gets that never began
			t.Errorf("Serve = %v", err)
		}
	})
	return cc
}

// wire is an adapter's stream as a test needs it. A nil recv gives one empty
// message, then io.EOF.
type wire struct {
	recv   func(ctx context.Context, m any) (int, error)
	send   func(ctx context.Context, m any) (int, error)
	header func(metadata.MD) error

	received bool
	log      []string // what was called on the sending side
	headers  metadata.MD
}

func (w *wire) RecvMsg(ctx context.Context, m any) (int, error) {
	if w.recv != nil {
		return w.recv(ctx, m)
	}
	if w.received {
		return 0, io.EOF
	}
	w.received = true
	return 0, nil
}

func (w *wire) SendHeader(md metadata.MD) error {
	w.log, w.headers = append(w.log, "header"), md
	if w.header != nil {
		return w.header(md)
	}
	return nil
}

func (w *wire) SendMsg(ctx context.Context, m any) (int, error) {
	w.log = append(w.log, "message")
	if w.send != nil {
		return w.send(ctx, m)
	}
	return 0, nil
}

// lookup finds a method of a service that is known to have it.
func lookup(t testing.TB, reg *rpc.Registry, fullName string) *rpc.Method {
	t.Helper()
	m, err := reg.Lookup(fullName)
	if err != nil {
		t.Fatalf("Lookup(%q) = %v", fullName, err)
	}
	return m
}

func newCall() *rpc.Call { return &rpc.Call{Peer: new(peer.Peer)} }

// result is what a caller sees of a stream besides its status.
type result struct {
	header, trailer metadata.MD
	messages        []string
}

// streamCall runs a call of any kind: it sends all messages, then reads all.
func streamCall(t testing.TB, cc grpc.ClientConnInterface, desc *grpc.StreamDesc, method string, send ...string) (result, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cs, err := cc.NewStream(ctx, desc, method)
	if err != nil {
		t.Fatalf("NewStream(%s) = %v", method, err)
	}
	for _, s := range send {
		if err := cs.SendMsg(wrapperspb.String(s)); err == io.EOF {
			break // the status tells why
		} else if err != nil {
			t.Fatalf("SendMsg = %v", err)
		}
	}
	if err := cs.CloseSend(); err != nil {
		t.Fatalf("CloseSend = %v", err)
	}
	var r result
	if r.header, err = cs.Header(); err != nil {
		t.Fatalf("Header = %v", err)
	}
	for err == nil {
		m := new(text)
		if err = cs.RecvMsg(m); err != nil {
			break
		}
		r.messages = append(r.messages, m.Value)
		if !desc.ServerStreams {
			err = io.EOF
		}
	}
	r.trailer = cs.Trailer()
	r.header.Delete("content-type") // HTTP/2's, in a trailer when there is no header
	r.trailer.Delete("content-type")
	if err == io.EOF {
		err = nil
	}
	return r, err
}
