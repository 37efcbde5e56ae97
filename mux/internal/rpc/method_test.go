package rpc_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// A call ends at its deadline, to the nanosecond, and the first of several wins.
func TestDeadline(t *testing.T) {
	for _, tt := range []struct {
		timeout, context time.Duration // zero for none
		want             time.Duration
	}{
		{5 * time.Second, 0, 5 * time.Second},
		{0, 3 * time.Second, 3 * time.Second},
		{5 * time.Second, 3 * time.Second, 3 * time.Second},
		{3 * time.Second, 5 * time.Second, 3 * time.Second},
		{1, 0, 1},
		{math.MaxInt64, time.Hour, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if tt.context > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.context)
				defer cancel()
			}
			start := time.Now()
			s := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
				if d, ok := ctx.Deadline(); !ok || d.Sub(start) != tt.want {
					t.Errorf("%+v: handler's deadline after %v, %t", tt, d.Sub(start), ok)
				}
				<-ctx.Done()
				return new(text), nil
			}}
			call := newCall()
			call.Timeout = tt.timeout
			_, err := lookup(t, newRegistry(rpc.Config{}, s.register), scriptUnary).Serve(ctx, call, new(wire))
			if d := time.Since(start); status.Code(err) != codes.DeadlineExceeded || d != tt.want {
				t.Errorf("%+v: %v after %v, want DEADLINE_EXCEEDED", tt, err, d)
			}
		})
	}
}

func TestNoTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1} {
		s := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
			if d, ok := ctx.Deadline(); ok {
				t.Errorf("timeout %d: deadline %v", timeout, d)
			}
			return new(text), nil
		}}
		call := newCall()
		call.Timeout = timeout
		if _, err := lookup(t, newRegistry(rpc.Config{}, s.register), scriptUnary).Serve(t.Context(), call, new(wire)); err != nil {
			t.Errorf("timeout %d: %v, want nil", timeout, err)
		}
	}
}

// A call that is over before it begins runs nothing, as with grpc-go.
func TestLateCallRunsNoHandler(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	s := &script{unary: func(context.Context, *text) (*text, error) { t.Error("the handler ran"); return nil, nil }}
	reg := newRegistry(rpc.Config{}, s.register)
	for _, tt := range []struct {
		ctx  context.Context
		want codes.Code
	}{{cancelled, codes.Canceled}, {expired, codes.DeadlineExceeded}} {
		w := new(wire)
		if _, err := lookup(t, reg, scriptUnary).Serve(tt.ctx, newCall(), w); status.Code(err) != tt.want || w.received {
			t.Errorf("%v, message read: %t, want %v, false", err, w.received, tt.want)
		}
		if err := rpc.NewConn(reg).Invoke(tt.ctx, scriptUnary, new(text), new(text)); status.Code(err) != tt.want {
			t.Errorf("Invoke = %v, want %v", err, tt.want)
		}
		if _, err := rpc.NewConn(reg).NewStream(tt.ctx, bothStream, scriptBidi); status.Code(err) != tt.want {
			t.Errorf("NewStream = %v, want %v", err, tt.want)
		}
	}
}

// The handler's context carries what an adapter knows, and what the adapter's
// context carries. gRPC's own functions find it there.
func TestContextValues(t *testing.T) {
	type key struct{}
	p := &peer.Peer{Addr: &net.TCPAddr{Port: 7}}
	md := metadata.Pairs("a", "1", "a", "2")
	var handlers context.Context
	check := func(ctx context.Context) {
		handlers = ctx
		if got, ok := peer.FromContext(ctx); !ok || got != p {
			t.Errorf("peer %v, want %v", got, p)
		}
		if got, ok := metadata.FromIncomingContext(ctx); !ok || fmt.Sprint(got) != fmt.Sprint(md) {
			t.Errorf("metadata %v, want %v", got, md)
		}
		if got, ok := grpc.Method(ctx); !ok || got != scriptUnary && got != scriptBidi {
			t.Errorf("grpc.Method = %q", got)
		}
		if got := ctx.Value(key{}); got != "value" {
			t.Errorf("value %v", got)
		}
	}
	s := &script{
		unary:  func(ctx context.Context, _ *text) (*text, error) { check(ctx); return new(text), nil },
		stream: func(ss grpc.ServerStream) error { check(ss.Context()); return nil },
	}
	reg := newRegistry(rpc.Config{}, s.register)
	ctx := context.WithValue(t.Context(), key{}, "value")
	for _, method := range []string{scriptUnary, scriptBidi} {
		if _, err := lookup(t, reg, method).Serve(ctx, &rpc.Call{Peer: p, Metadata: md}, new(wire)); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		if handlers.Err() == nil {
			t.Errorf("%s: the handler's context lives after Serve", method)
		}
	}
}
