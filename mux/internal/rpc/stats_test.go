package rpc_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
)

// eventLog is a stats handler that writes down what every protocol has in
// common of each event.
type eventLog struct {
	mu     sync.Mutex
	events []string // guarded by mu
	ended  chan struct{}
}

type tagKey struct{}

func (l *eventLog) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (l *eventLog) HandleConn(context.Context, stats.ConnStats)                       {}

func (l *eventLog) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	l.add("TagRPC %s", info.FullMethodName)
	return context.WithValue(ctx, tagKey{}, "tag")
}

func (l *eventLog) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if ctx.Value(tagKey{}) != "tag" {
		l.add("%T without the context of TagRPC", s)
	}
	if s.IsClient() {
		l.add("%T of a client", s)
	}
	switch s := s.(type) {
	case *stats.InHeader:
		l.add("InHeader %s %q", s.FullMethod, s.Header["a"])
		if s.RemoteAddr == nil || s.LocalAddr == nil {
			l.add("without addresses")
		}
	case *stats.Begin:
		l.add("Begin %t %t", s.IsClientStream, s.IsServerStream)
	case *stats.InPayload:
		l.add("InPayload %d %d %v", s.Length, s.CompressedLength, s.Payload)
	case *stats.OutHeader:
		l.add("OutHeader %s %q", s.FullMethod, s.Header["a"])
	case *stats.OutPayload:
		l.add("OutPayload %d %d %v", s.Length, s.CompressedLength, s.Payload)
	case *stats.OutTrailer:
		l.add("OutTrailer %q", s.Trailer["a"])
	case *stats.End:
		l.add("End %v", status.Code(s.Error))
		if s.BeginTime.IsZero() || s.EndTime.Before(s.BeginTime) {
			l.add("began %v, ended %v", s.BeginTime, s.EndTime)
		}
		l.ended <- struct{}{}
	default:
		l.add("%T", s)
	}
}

func (l *eventLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// take waits for the end of a call and returns its events.
func (l *eventLog) take() []string {
	<-l.ended
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	return events
}

// A stats handler sees of a call what it sees of the same call over grpc.Server.
func TestStatsAreThoseOfGRPC(t *testing.T) {
	s := &script{
		unary: func(ctx context.Context, in *text) (*text, error) {
			switch in.Value {
			case "fail":
				return nil, status.Error(codes.NotFound, "")
			case "panic":
				panic("x")
			}
			grpc.SetHeader(ctx, metadata.Pairs("a", "header"))
			grpc.SetTrailer(ctx, metadata.Pairs("a", "trailer"))
			return wrapperspb.String(in.Value + "!"), nil
		},
		stream: func(ss grpc.ServerStream) error {
			in := new(text)
			for {
				switch err := ss.RecvMsg(in); {
				case err == io.EOF:
					return ss.SetHeader(metadata.Pairs("a", "late"))
				case err != nil:
					return err
				case in.Value == "header":
					ss.SetTrailer(metadata.Pairs("a", "trailer"))
					if err := ss.SendHeader(metadata.Pairs("a", "header")); err != nil {
						return err
					}
				case in.Value == "fail":
					ss.SetHeader(metadata.Pairs("a", "unsent"))
					return status.Error(codes.NotFound, "")
				case in.Value == "answer":
					if err := ss.SendMsg(wrapperspb.String("an answer")); err != nil {
						return err
					}
				}
			}
		},
	}
	unary := func(value string) func(*testing.T, context.Context, grpc.ClientConnInterface) {
		return func(t *testing.T, ctx context.Context, cc grpc.ClientConnInterface) {
			_ = cc.Invoke(ctx, scriptUnary, wrapperspb.String(value), new(text))
		}
	}
	stream := func(desc *grpc.StreamDesc, method string, values ...string) func(*testing.T, context.Context, grpc.ClientConnInterface) {
		return func(t *testing.T, ctx context.Context, cc grpc.ClientConnInterface) {
			cs, err := cc.NewStream(ctx, desc, method)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if err := cs.SendMsg(wrapperspb.String(v)); err != nil && err != io.EOF {
					t.Fatal(err)
				}
			}
			_ = cs.CloseSend()
			for err == nil {
				err = cs.RecvMsg(new(text))
				if !desc.ServerStreams {
					break
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		call func(*testing.T, context.Context, grpc.ClientConnInterface)
		want []string // of some, to see that the comparison compares something
	}{
		{"unary", unary("value"), []string{
			"TagRPC /test.Script/Unary", `InHeader /test.Script/Unary ["md"]`, "Begin false false",
			`InPayload 7 7 value:"value"`, `OutHeader  ["header"]`, `OutPayload 8 8 value:"value!"`,
			`OutTrailer ["trailer"]`, "End OK",
		}},
		{"unary, empty", unary(""), nil},
		{"unary, error", unary("fail"), nil},
		{"unary, panic", unary("panic"), nil},
		{"server-streaming", stream(serverStreams, scriptServer, "answer"), nil},
		{"server-streaming, error", stream(serverStreams, scriptServer, "fail"), nil},
		{"client-streaming", stream(clientStreams, scriptClient, "a", "b", "answer"), nil},
		// With an answer: a call without one has failed here, and only for the client there.
		{"client-streaming, no message", stream(clientStreams, scriptClient, "answer"), nil},
		{"bidi", stream(bothStream, scriptBidi, "answer", "a", "answer"), nil},
		{"bidi, header", stream(bothStream, scriptBidi, "header", "answer"), nil},
		{"bidi, error", stream(bothStream, scriptBidi, "answer", "fail"), nil},
		{"bidi, unsent header and error", stream(bothStream, scriptBidi, "fail"), nil},
		{"bidi, no message", stream(bothStream, scriptBidi), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &eventLog{ended: make(chan struct{}, 1)}
			var events [][]string
			onRoads(t, rpc.Config{StatsHandlers: []stats.Handler{log}}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
				tt.call(t, metadata.AppendToOutgoingContext(t.Context(), "a", "md"), cc)
				events = append(events, log.take())
			})
			if diff := cmp.Diff(events[1], events[0]); diff != "" {
				t.Errorf("events (-native +inprocess):\n%s", diff)
			}
			if tt.want != nil && !slices.Equal(events[0], tt.want) {
				t.Errorf("events %q, want %q", events[0], tt.want)
			}
		})
	}
}

// All stats handlers see a call, in their order, each through the context of
// those before it.
func TestStatsHandlersInOrder(t *testing.T) {
	logs := []*eventLog{{ended: make(chan struct{}, 1)}, {ended: make(chan struct{}, 1)}}
	s := &script{unary: func(context.Context, *text) (*text, error) { return new(text), nil }}
	cfg := rpc.Config{StatsHandlers: []stats.Handler{logs[0], logs[1]}}
	cc := rpc.NewConn(newRegistry(cfg, s.register))
	if err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text)); err != nil {
		t.Fatal(err)
	}
	if a, b := logs[0].take(), logs[1].take(); len(a) != 8 || !slices.Equal(a, b) {
		t.Errorf("two stats handlers saw %q and %q, want the same 8 events", a, b)
	}
}

// hasty sends a header where grpc-go has no stream to do so yet.
type hasty struct {
	nilContext bool
}

func (*hasty) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*hasty) HandleConn(context.Context, stats.ConnStats)                       {}

func (*hasty) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	_ = grpc.SendHeader(ctx, metadata.Pairs("a", "early"))
	return ctx
}

func (e *hasty) HandleRPC(ctx context.Context, _ stats.RPCStats) {
	if ctx == nil {
		e.nilContext = true
	}
}

func TestStatsHandlerSendsHeader(t *testing.T) {
	s := &script{unary: func(_ context.Context, in *text) (*text, error) { return in, nil }}
	e := new(hasty)
	cc := rpc.NewConn(newRegistry(rpc.Config{StatsHandlers: []stats.Handler{e}}, s.register))
	if err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text)); err != nil || e.nilContext {
		t.Errorf("Invoke = %v, a stats handler got a nil context: %t", err, e.nilContext)
	}
}
