package muxtest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"oneport/mux"
	pb "oneport/proto/echo"
)

// recorder notes the events of the calls, which come one after the other. Of each it notes
// what must be the same on every road, so neither sizes nor times.
type recorder struct {
	events []string
	failed []string // events that are wrong in themselves

	mu    sync.Mutex
	conns []string // events of connections; guarded by mu
}

func (rec *recorder) reset() { rec.events, rec.failed = nil, nil }

func (rec *recorder) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	rec.events = append(rec.events, "Tag "+info.FullMethodName)
	return context.WithValue(ctx, ctxKey{}, "tagged")
}

func (rec *recorder) HandleRPC(ctx context.Context, s stats.RPCStats) {
	name := strings.TrimPrefix(fmt.Sprintf("%T", s), "*stats.")
	check := func(ok bool) {
		if !ok {
			rec.failed = append(rec.failed, fmt.Sprintf("%s %+v", name, s))
		}
	}
	check(trail(ctx) == "tagged")
	check(!s.IsClient())
	switch s := s.(type) {
	case *stats.InHeader:
		check(s.FullMethod != "" && s.RemoteAddr != nil && s.LocalAddr != nil)
		name = fmt.Sprintf("InHeader %q", s.Header["key"])
	case *stats.Begin:
		check(!s.BeginTime.IsZero())
		name = fmt.Sprintf("Begin %v %v", s.IsClientStream, s.IsServerStream)
	case *stats.InPayload:
		name = "InPayload " + payload(s.Payload)
		check(s.Length > 0 && s.WireLength >= s.Length && !s.RecvTime.IsZero())
	case *stats.OutPayload:
		name = "OutPayload " + payload(s.Payload)
		check(s.Length > 0 && s.WireLength >= s.Length && !s.SentTime.IsZero())
	case *stats.OutTrailer:
		name = fmt.Sprintf("OutTrailer %q", s.Trailer["t"])
	case *stats.End:
		check(!s.BeginTime.IsZero() && !s.EndTime.Before(s.BeginTime))
		name = "End " + status.Code(s.Error).String()
	}
	rec.events = append(rec.events, name)
}

func (rec *recorder) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	rec.connected(fmt.Sprintf("Tag %v %v", info.RemoteAddr, info.LocalAddr))
	return context.WithValue(ctx, connKey{}, "tagged")
}

func (rec *recorder) HandleConn(ctx context.Context, s stats.ConnStats) {
	rec.connected(fmt.Sprintf("%s %v", strings.TrimPrefix(fmt.Sprintf("%T", s), "*stats."), ctx.Value(connKey{})))
}

// connected notes events of connections and returns all so far.
func (rec *recorder) connected(events ...string) []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.conns = append(rec.conns, events...)
	return slices.Clone(rec.conns)
}

type connKey struct{}

func payload(m any) string {
	if m, ok := m.(interface{ GetMessage() string }); ok {
		return m.GetMessage()
	}
	return fmt.Sprintf("%T", m)
}

// A stats handler sees the same of a call, in the same order, on every road. What
// that is was taken from native gRPC.
func TestStats(t *testing.T) {
	const method = "Tag /echo.v1.EchoService/"
	handle := func(ctx context.Context, text string) error {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("t", "1")); err != nil {
			return err
		}
		switch text {
		case "fail":
			return status.Error(codes.NotFound, "")
		case "panic":
			panic(text)
		}
		return nil
	}
	svc := service{
		echo: func(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
			return &pb.EchoResponse{Message: "out"}, handle(ctx, req.GetMessage())
		},
		expand: func(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
			for i := range req.GetCount() {
				if err := stream.Send(&pb.ExpandResponse{Message: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return handle(stream.Context(), req.GetMessage())
		},
		collect: func(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
			for range 2 {
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
			if err := stream.SendAndClose(&pb.CollectResponse{Messages: []string{"x"}}); err != nil {
				return err
			}
			return handle(stream.Context(), "")
		},
		converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			if err := stream.SendHeader(nil); err != nil {
				return err
			}
			for {
				req, err := stream.Recv()
				if err != nil {
					return handle(stream.Context(), "")
				}
				if err := stream.Send(&pb.ConverseResponse{Message: req.GetMessage()}); err != nil {
					return err
				}
			}
		},
	}
	trailer, end := `OutTrailer ["1"]`, "End OK"
	tests := []struct {
		name string
		call func(t *testing.T, c client) error
		want []string
	}{
		{"unary", func(t *testing.T, c client) error { return echoOnly(t, c, "in") },
			[]string{method + "Echo", `InHeader ["value"]`, "Begin false false", "InPayload in", "OutHeader", "OutPayload out", trailer, end}},
		{"unary, failing", func(t *testing.T, c client) error { return echoOnly(t, c, "fail") },
			[]string{method + "Echo", `InHeader ["value"]`, "Begin false false", "InPayload fail", trailer, "End NotFound"}},
		{"unary, panic", func(t *testing.T, c client) error { return echoOnly(t, c, "panic") },
			[]string{method + "Echo", `InHeader ["value"]`, "Begin false false", "InPayload panic", trailer, "End Internal"}},
		{"server-streaming", func(t *testing.T, c client) error {
			_, err := expand(t, c, &pb.ExpandRequest{Message: "in", Count: 2})
			return err
		}, []string{method + "Expand", "InHeader []", "Begin false true", "InPayload in", "OutHeader", "OutPayload 0", "OutPayload 1", trailer, end}},
		{"server-streaming, failing", func(t *testing.T, c client) error {
			_, err := expand(t, c, &pb.ExpandRequest{Message: "fail", Count: 1})
			return err
		}, []string{method + "Expand", "InHeader []", "Begin false true", "InPayload fail", "OutHeader", "OutPayload 0", trailer, "End NotFound"}},
		{"server-streaming, no answer", func(t *testing.T, c client) error {
			_, err := expand(t, c, &pb.ExpandRequest{Message: "in"})
			return err
		}, []string{method + "Expand", "InHeader []", "Begin false true", "InPayload in", trailer, end}},
		{"client-streaming", func(t *testing.T, c client) error {
			_, err := collect(t, c, "a", "b")
			return err
		}, []string{method + "Collect", "InHeader []", "Begin true false", "InPayload a", "InPayload b", "OutHeader", "OutPayload *echo.CollectResponse", trailer, end}},
		{"bidi-streaming", func(t *testing.T, c client) error {
			_, err := converse(t, c, "a", "b")
			return err
		}, []string{method + "Converse", "InHeader []", "Begin true true", "OutHeader", "InPayload a", "OutPayload a", "InPayload b", "OutPayload b", trailer, end}},
	}
	on(t, everywhere, func(t *testing.T, r road) {
		var first, second recorder
		c := r.to(t, svc, mux.WithStatsHandler(&first), mux.WithStatsHandler(&second))
		for _, tt := range tests {
			first.reset()
			second.reset()
			err := tt.call(t, c)
			synctest.Wait() // the last events come after the client has its status
			for _, rec := range []*recorder{&first, &second} {
				if !slices.Equal(rec.events, tt.want) {
					t.Errorf("%s (%v):\n got %q\nwant %q", tt.name, err, rec.events, tt.want)
				}
				if len(rec.failed) > 0 {
					t.Errorf("%s: bad events: %q", tt.name, rec.failed)
				}
			}
		}
	})
}

// A stats handler sees each connection begin and end, and its calls carry what it
// has put into the context.
func TestConnectionStats(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		var rec recorder
		var seen any
		c := r.to(t, service{expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
			seen = stream.Context().Value(connKey{})
			if err := stream.Send(&pb.ExpandResponse{}); err != nil {
				return err
			}
			<-stream.Context().Done()
			return nil
		}}, mux.WithStatsHandler(&rec))
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Expand(ctx, &pb.ExpandRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		begin := []string{"Tag 192.0.2.2:50000 192.0.2.1:443", "ConnBegin tagged"}
		switch {
		case r.local:
			begin = nil
		case r.tunnel: // the WebSocket's ends where that inside begins
			begin = slices.Concat(begin, []string{"ConnEnd tagged"}, begin)
		}
		if got := rec.connected(); !slices.Equal(got, begin) || (seen == "tagged") == r.local {
			t.Errorf("during a call: events %q and %v in its context, want %q", got, seen, begin)
		}
		cancel()
		want := begin
		if !r.local {
			c.disconnect()
			want = append(begin, "ConnEnd tagged")
		}
		synctest.Wait()
		if got := rec.connected(); !slices.Equal(got, want) {
			t.Errorf("after the connection: events %q, want %q", got, want)
		}
	})
}

func echoOnly(t *testing.T, c client, text string) error {
	t.Helper()
	_, err := c.Echo(metadata.AppendToOutgoingContext(t.Context(), "key", "value"), &pb.EchoRequest{Message: text})
	return err
}
