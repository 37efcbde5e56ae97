package rpc_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
	"oneport/services/echo"
)

// Generated stubs do on a Conn what they do on a connection, for all four kinds.
func TestGeneratedStubs(t *testing.T) {
	onRoads(t, rpc.Config{}, echo.Register, func(t *testing.T, cc grpc.ClientConnInterface) {
		client := echopb.NewEchoServiceClient(cc)
		res, err := client.Echo(t.Context(), &echopb.EchoRequest{Message: "a"})
		if err != nil || res.GetMessage() != "a" {
			t.Errorf("Echo = %v, %v, want a", res, err)
		}

		expand, err := client.Expand(t.Context(), &echopb.ExpandRequest{Message: "b", Count: 3})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if res, err := expand.Recv(); err != nil || res.GetMessage() != "b" {
				t.Errorf("Expand, message %d: %v, %v, want b", i, res, err)
			}
		}
		for range 2 {
			if _, err := expand.Recv(); err != io.EOF {
				t.Errorf("Expand after the last message: %v, want io.EOF", err)
			}
		}

		collect, err := client.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := collect.Send(&echopb.CollectRequest{Message: fmt.Sprint(i)}); err != nil {
				t.Errorf("Collect, send %d: %v", i, err)
			}
		}
		all, err := collect.CloseAndRecv()
		if err != nil || strings.Join(all.GetMessages(), "") != "012" {
			t.Errorf("Collect = %v, %v, want 0, 1, 2", all, err)
		}

		converse, err := client.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			want := fmt.Sprint(i)
			if err := converse.Send(&echopb.ConverseRequest{Message: want}); err != nil {
				t.Fatal(err)
			}
			if res, err := converse.Recv(); err != nil || res.GetMessage() != want {
				t.Errorf("Converse = %v, %v, want %s", res, err, want)
			}
		}
		if err := converse.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := converse.Recv(); err != io.EOF {
			t.Errorf("Converse after CloseSend: %v, want io.EOF", err)
		}
	})
}

// A caller that uses a method as another kind than it is gets what grpc-go gives.
func TestKindsThatDoNotMatch(t *testing.T) {
	s := &script{
		unary: func(_ context.Context, in *text) (*text, error) { return in, nil },
		stream: func(ss grpc.ServerStream) error {
			for {
				in := new(text)
				if err := ss.RecvMsg(in); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := ss.SendMsg(in); err != nil {
					return err
				}
			}
		},
	}
	onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
		reply := new(text)
		if err := cc.Invoke(t.Context(), scriptBidi, wrapperspb.String("a"), reply); err != nil || reply.Value != "a" {
			t.Errorf("Invoke of a bidi method = %q, %v, want a", reply.Value, err)
		}
		for _, tt := range []struct {
			name, method string
			desc         *grpc.StreamDesc
			send         []string
			want         string
			ok           bool
		}{
			{"a unary method as a stream", scriptUnary, bothStream, []string{"a"}, "a", true},
			{"a unary method, two messages", scriptUnary, bothStream, []string{"a", "b"}, "", false},
			{"a unary method, no message", scriptUnary, bothStream, nil, "", false},
			{"a server-streaming method, two messages", scriptServer, bothStream, []string{"a", "b"}, "", false},
			{"a bidi method as a client-streaming one, one answer", scriptBidi, clientStreams, []string{"a"}, "a", true},
			{"a bidi method as a client-streaming one, two answers", scriptBidi, clientStreams, []string{"a", "b"}, "", false},
			{"a bidi method as a client-streaming one, no answer", scriptBidi, clientStreams, nil, "", false},
		} {
			got, err := streamCall(t, cc, tt.desc, tt.method, tt.send...)
			if s := strings.Join(got.messages, " "); s != tt.want || (err == nil) != tt.ok {
				t.Errorf("%s: %q, %v, want %q, OK: %t", tt.name, s, err, tt.want, tt.ok)
			}
			// grpc-go's server says INTERNAL where the gRPC documents, and this
			// package, say UNIMPLEMENTED.
			if c := status.Code(err); c != codes.OK && c != codes.Internal && c != codes.Unimplemented {
				t.Errorf("%s: code %v", tt.name, c)
			}
		}
	})
}

func TestNilMessages(t *testing.T) {
	var reply *text
	s := &script{unary: func(_ context.Context, in *text) (*text, error) {
		if in.Value != "" {
			t.Errorf("request %v, want an empty one", in)
		}
		return reply, nil
	}}
	nothing := func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) { return nil, nil }
	for _, cfg := range []rpc.Config{{}, {UnaryInterceptors: []grpc.UnaryServerInterceptor{nothing}}} {
		onRoads(t, cfg, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
			for _, args := range []any{(*text)(nil), nil} {
				got := wrapperspb.String("old")
				if err := cc.Invoke(t.Context(), scriptUnary, args, got); err != nil || got.Value != "" {
					t.Errorf("request %#v: %v, %v, want an empty answer", args, got, err)
				}
			}
		})
	}
}

// Messages of different Go types meet by their encoding.
func TestInvokeOtherTypes(t *testing.T) {
	cc := rpc.NewConn(newRegistry(rpc.Config{}, echo.Register))
	const method = echopb.EchoService_Echo_FullMethodName
	desc := new(echopb.EchoRequest).ProtoReflect().Descriptor()
	req := dynamicpb.NewMessage(desc)
	req.Set(desc.Fields().ByName("message"), new(echopb.EchoRequest).ProtoReflect().NewField(desc.Fields().ByName("message")))
	if err := proto.Unmarshal([]byte("\x0a\x01a"), req); err != nil {
		t.Fatal(err)
	}
	want := &echopb.EchoResponse{Message: "a"}
	dynamic := dynamicpb.NewMessage(want.ProtoReflect().Descriptor())
	old := new(oldMessage)
	for _, reply := range []any{dynamic, old} {
		if err := cc.Invoke(t.Context(), method, req, reply); err != nil {
			t.Errorf("Invoke into %T = %v", reply, err)
		}
	}
	if diff := cmp.Diff(proto.Message(want), proto.Message(dynamic), protocmp.Transform()); diff != "" || old.Message != "a" {
		t.Errorf("dynamic reply (-want +got):\n%s\nold one %q, want a", diff, old.Message)
	}
	if err := cc.Invoke(t.Context(), method, "text", new(echopb.EchoResponse)); status.Code(err) != codes.Internal {
		t.Errorf("Invoke of a string = %v, want INTERNAL", err)
	}
	if err := cc.Invoke(t.Context(), method, req, new(int)); status.Code(err) != codes.Internal {
		t.Errorf("Invoke into an int = %v, want INTERNAL", err)
	}
}

// Caller and handler may do with their messages, metadata and errors what they
// like, at once: under -race this finds what they share.
func TestNothingIsShared(t *testing.T) {
	detail := &errdetails.ErrorInfo{Reason: "R", Metadata: map[string]string{"k": "v"}}
	scribble := func(md metadata.MD) {
		for k := range md {
			md[k][0] = "scribbled"
		}
		md["x"] = nil
	}
	work := func(ctx context.Context, in *wrapperspb.BytesValue) *wrapperspb.BytesValue {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("a"); string(in.Value) != "request" || len(got) != 1 || got[0] != "1" {
			t.Errorf("handler got %q, %q", in.Value, md)
		}
		header, trailer := metadata.Pairs("h", "1"), metadata.Pairs("t", "1")
		grpc.SetHeader(ctx, header)
		grpc.SetTrailer(ctx, trailer)
		scribble(md)
		scribble(header)
		scribble(trailer)
		in.Value[0] = 'X'
		return wrapperspb.Bytes([]byte("reply"))
	}
	var kept []*wrapperspb.BytesValue // by the handler
	fail := func() error {
		st, err := status.New(codes.NotFound, "no").WithDetails(detail)
		if err != nil {
			t.Error(err)
		}
		return st.Err()
	}
	register := func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: "test.Bytes", HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.BytesValue)
				if err := dec(in); err != nil || len(in.Value) == 0 {
					return nil, fail()
				}
				out := work(ctx, in)
				kept = append(kept, in, out)
				return out, nil
			}}},
			Streams: []grpc.StreamDesc{{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
				in := new(wrapperspb.BytesValue)
				if err := ss.RecvMsg(in); err != nil || len(in.Value) == 0 {
					return fail()
				}
				out := work(ss.Context(), in)
				defer func() { out.Value[0] = 'X' }()
				return ss.SendMsg(out)
			}}},
		}, nil)
	}
	cc := rpc.NewConn(newRegistry(rpc.Config{}, register))
	outgoing := metadata.Pairs("a", "1")
	ctx := metadata.NewOutgoingContext(t.Context(), outgoing)
	checkError := func(err error) {
		t.Helper()
		for range 2 {
			details := status.Convert(err).Details()
			if len(details) != 1 || details[0].(*errdetails.ErrorInfo).Metadata["k"] != "v" {
				t.Fatalf("error %v with details %v", err, details)
			}
			details[0].(*errdetails.ErrorInfo).Metadata["k"] = "scribbled"
			detail.Reason = "scribbled"
		}
	}

	args, reply := wrapperspb.Bytes([]byte("request")), new(wrapperspb.BytesValue)
	var header, trailer metadata.MD
	if err := cc.Invoke(ctx, "/test.Bytes/Unary", args, reply, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	kept[1].Value[0] = 'X'
	if string(args.Value) != "request" || string(reply.Value) != "reply" || header["h"][0] != "1" || trailer["t"][0] != "1" || outgoing["a"][0] != "1" {
		t.Errorf("the caller has %q, %q, %q, %q, %q", args.Value, reply.Value, header, trailer, outgoing)
	}
	checkError(cc.Invoke(ctx, "/test.Bytes/Unary", new(wrapperspb.BytesValue), reply))

	cs, err := cc.NewStream(ctx, bothStream, "/test.Bytes/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.SendMsg(args); err != nil {
		t.Fatal(err)
	}
	args.Value[0] = 'Y'
	if err := cs.RecvMsg(reply); err != nil || string(reply.Value) != "reply" {
		t.Errorf("RecvMsg = %q, %v, want reply", reply.Value, err)
	}
	if err := cs.RecvMsg(reply); err != io.EOF {
		t.Errorf("RecvMsg = %v, want io.EOF", err)
	}
	for range 2 {
		header, err := cs.Header()
		if trailer := cs.Trailer(); err != nil || header["h"][0] != "1" || trailer["t"][0] != "1" {
			t.Errorf("header %q, %v, trailer %q, want 1", header, err, trailer)
		}
		scribble(header)
		scribble(cs.Trailer())
	}
	if cs, err = cc.NewStream(ctx, bothStream, "/test.Bytes/Bidi"); err != nil {
		t.Fatal(err)
	}
	if err := cs.SendMsg(new(wrapperspb.BytesValue)); err != nil {
		t.Fatal(err)
	}
	checkError(cs.RecvMsg(reply))
}

// No value crosses, but the deadline and the end of the context do.
func TestCallersContext(t *testing.T) {
	type key struct{}
	outer, cancelOuter := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
	defer cancelOuter()
	outer = metadata.NewIncomingContext(outer, metadata.Pairs("b", "1"))
	outer = metadata.AppendToOutgoingContext(outer, "a", "1", "grpc-timeout", "1S", "user-agent", "x")
	outer = peer.NewContext(outer, new(peer.Peer))
	deadline, _ := outer.Deadline()
	var end context.CancelFunc // of the caller's context
	check := func(handlers context.Context) error {
		if got := handlers.Value(key{}); got != nil {
			t.Errorf("value %v", got)
		}
		if md, ok := metadata.FromOutgoingContext(handlers); ok {
			t.Errorf("outgoing metadata %q", md)
		}
		if md, _ := metadata.FromIncomingContext(handlers); len(md) != 1 || md.Get("a")[0] != "1" {
			t.Errorf("metadata %q, want only a", md)
		}
		if d, ok := handlers.Deadline(); !ok || !d.Equal(deadline) {
			t.Errorf("deadline %v, want %v", d, deadline)
		}
		if p, ok := peer.FromContext(handlers); !ok || p.Addr.Network() != "inprocess" || p.LocalAddr == nil || p.AuthInfo.AuthType() != "inprocess" {
			t.Errorf("peer %v", p)
		}
		if handlers.Err() != nil {
			t.Errorf("context has ended: %v", handlers.Err())
		}
		end()
		<-handlers.Done()
		return handlers.Err()
	}
	s := &script{
		unary:  func(ctx context.Context, _ *text) (*text, error) { return nil, check(ctx) },
		stream: func(ss grpc.ServerStream) error { return check(ss.Context()) },
	}
	cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	end = cancel
	if err := cc.Invoke(ctx, scriptUnary, new(text), new(text)); status.Code(err) != codes.Canceled {
		t.Errorf("Invoke = %v, want CANCELLED", err)
	}
	ctx, cancel = context.WithCancel(outer)
	defer cancel()
	end = cancel
	cs, err := cc.NewStream(ctx, bothStream, scriptBidi)
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.RecvMsg(new(text)); status.Code(err) != codes.Canceled {
		t.Errorf("RecvMsg = %v, want CANCELLED", err)
	}
	if err := cc.Shutdown(t.Context()); err != nil { // the handler is done with t
		t.Error(err)
	}
}

// A unary call runs where its caller is and opens nothing.
func TestInvokeRunsOnTheCallersGoroutine(t *testing.T) {
	goroutine := func() string {
		b := make([]byte, 64)
		return strings.Fields(string(b[:runtime.Stack(b, false)]))[1]
	}
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // no Linux
		}
		return len(entries)
	}
	var handlers string
	var open int
	s := &script{unary: func(context.Context, *text) (*text, error) {
		handlers, open = goroutine(), files()
		return new(text), nil
	}}
	cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
	before := files()
	if err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text)); err != nil {
		t.Fatal(err)
	}
	if handlers != goroutine() || open != before {
		t.Errorf("handler on goroutine %s with %d files open, caller on %s with %d", handlers, open, goroutine(), before)
	}
}

func TestInvokeAllocations(t *testing.T) {
	cc := rpc.NewConn(newRegistry(rpc.Config{}, echo.Register))
	args, reply := &echopb.EchoRequest{Message: "a message of some length"}, new(echopb.EchoResponse)
	got := testing.AllocsPerRun(1000, func() {
		if err := cc.Invoke(t.Context(), echopb.EchoService_Echo_FullMethodName, args, reply); err != nil {
			t.Fatal(err)
		}
	})
	if got > 24 { // 19 when this was written
		t.Errorf("a unary call makes %v allocations, want at most 24", got)
	}
}

func TestConcurrentCalls(t *testing.T) {
	cc := rpc.NewConn(newRegistry(rpc.Config{}, echo.Register))
	client := echopb.NewEchoServiceClient(cc)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Sprint(i)
			for range 20 {
				if res, err := client.Echo(t.Context(), &echopb.EchoRequest{Message: want}); err != nil || res.Message != want {
					t.Errorf("Echo = %v, %v, want %s", res, err, want)
				}
				got, err := streamCall(t, cc, bothStream, echopb.EchoService_Converse_FullMethodName, want, want)
				if err != nil || strings.Join(got.messages, " ") != want+" "+want {
					t.Errorf("Converse = %q, %v, want %s twice", got.messages, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestInvokeUnknownMethod(t *testing.T) {
	cc := rpc.NewConn(newRegistry(rpc.Config{}, new(script).register))
	if err := cc.Invoke(t.Context(), scriptMissing, new(emptypb.Empty), new(emptypb.Empty)); status.Code(err) != codes.Unimplemented {
		t.Errorf("Invoke = %v, want UNIMPLEMENTED", err)
	}
	if _, err := cc.NewStream(t.Context(), bothStream, scriptMissing); status.Code(err) != codes.Unimplemented {
		t.Errorf("NewStream = %v, want UNIMPLEMENTED", err)
	}
}
