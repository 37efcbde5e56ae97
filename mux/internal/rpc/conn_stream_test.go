package rpc_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	"oneport/services/echo"
)

// blocked is a service whose streams wait for the end of their context.
func blocked() *script {
	return &script{stream: func(ss grpc.ServerStream) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	}}
}

func newStream(t testing.TB, ctx context.Context, cc grpc.ClientConnInterface, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	cs, err := cc.NewStream(ctx, desc, method, opts...)
	if err != nil {
		t.Fatalf("NewStream(%s) = %v", method, err)
	}
	return cs
}

// A caller may send this much before it reads, as it may over a network.
func TestSendBeforeReceive(t *testing.T) {
	// The most that a call in process promises; over a network it is less when
	// the windows of HTTP/2 have not grown.
	sizes := []struct{ messages, size int }{{1000, 20}, {1000, 350}, {70000, 0}, {35, 10000}, {1, 3 << 20}}
	native := sizes[:1]
	for _, tt := range sizes {
		t.Run(fmt.Sprintf("%d of %d bytes", tt.messages, tt.size), func(t *testing.T) {
			onRoads(t, rpc.Config{}, echo.Register, func(t *testing.T, cc grpc.ClientConnInterface) {
				if _, ok := cc.(*rpc.Conn); !ok && !slices.Contains(native, tt) {
					t.Skip("more than a network promises")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				cs := newStream(t, ctx, cc, bothStream, "/echo.v1.EchoService/Converse")
				value := strings.Repeat("x", tt.size)
				for i := range tt.messages {
					if err := cs.SendMsg(wrapperspb.String(value)); err != nil {
						t.Fatalf("SendMsg %d = %v", i, err)
					}
				}
				if err := cs.CloseSend(); err != nil {
					t.Fatal(err)
				}
				for i := range tt.messages {
					got := new(text)
					if err := cs.RecvMsg(got); err != nil || got.Value != value {
						t.Fatalf("RecvMsg %d = %d bytes, %v", i, len(got.Value), err)
					}
				}
				if err := cs.RecvMsg(new(text)); err != io.EOF {
					t.Errorf("RecvMsg at the end = %v, want io.EOF", err)
				}
			})
		})
	}
}

// When both sides wait for the other to read, the context frees both.
func TestBothSidesBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent error
		s := &script{stream: func(ss grpc.ServerStream) error {
			for sent == nil {
				sent = ss.SendMsg(wrapperspb.String("x"))
			}
			return nil
		}}
		cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		cs := newStream(t, ctx, cc, bothStream, scriptBidi)
		var err error
		for err == nil {
			err = cs.SendMsg(wrapperspb.String("x"))
		}
		if d := time.Since(start); err != io.EOF || d != time.Minute {
			t.Errorf("SendMsg = %v after %v, want io.EOF after 1m", err, d)
		}
		if err := cs.RecvMsg(new(text)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("RecvMsg = %v, want DEADLINE_EXCEEDED", err)
		}
		synctest.Wait()
		if status.Code(sent) != codes.DeadlineExceeded {
			t.Errorf("the handler's SendMsg = %v, want DEADLINE_EXCEEDED", sent)
		}
	})
}

// Whatever ends the call for its caller ends the handler, and RecvMsg says the
// same from then on.
func TestCallerEndsCall(t *testing.T) {
	large := wrapperspb.String(strings.Repeat("x", 100))
	for _, tt := range []struct {
		name string
		end  func(cs grpc.ClientStream, cancel context.CancelFunc) error
		want codes.Code
	}{
		{"cancel", func(cs grpc.ClientStream, cancel context.CancelFunc) error {
			cancel()
			return cs.RecvMsg(new(text))
		}, codes.Canceled},
		{"deadline", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			return cs.RecvMsg(new(text))
		}, codes.DeadlineExceeded},
		{"answer above the limit", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			cs.SendMsg(wrapperspb.String("large"))
			return cs.RecvMsg(new(text))
		}, codes.ResourceExhausted},
		{"answer into no message", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			cs.SendMsg(wrapperspb.String("small"))
			return cs.RecvMsg(new(int))
		}, codes.Internal},
		{"request above the limit", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			return cs.SendMsg(large)
		}, codes.ResourceExhausted},
		{"request not a message", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			return cs.SendMsg(7)
		}, codes.Internal},
		{"SendMsg after CloseSend", func(cs grpc.ClientStream, _ context.CancelFunc) error {
			cs.CloseSend()
			return cs.SendMsg(new(text))
		}, codes.Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handlers error
				s := &script{stream: func(ss grpc.ServerStream) error {
					in := new(text)
					if err := ss.RecvMsg(in); err == nil && in.Value == "large" {
						ss.SendMsg(large)
					}
					ss.SendMsg(new(text))
					<-ss.Context().Done()
					handlers = ss.Context().Err()
					return nil
				}}
				var finished []error
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var cs grpc.ClientStream
				ready := make(chan struct{})
				cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
				cs = newStream(t, ctx, cc, bothStream, scriptBidi, grpc.MaxCallRecvMsgSize(50), grpc.MaxCallSendMsgSize(50),
					grpc.OnFinish(func(err error) {
						finished = append(finished, err)
						<-ready
						cs.Header() // user code may use the stream
						cs.RecvMsg(new(text))
					}))
				close(ready)
				synctest.Wait() // until the handler runs
				err := tt.end(cs, cancel)
				synctest.Wait()
				if status.Code(err) != tt.want || handlers == nil {
					t.Errorf("outcome %v, handler's context %v, want %v and an ended context", err, handlers, tt.want)
				}
				for range 2 {
					if again := cs.RecvMsg(new(text)); status.Code(again) != tt.want {
						t.Errorf("RecvMsg after that = %v, want %v", again, tt.want)
					}
				}
				if len(finished) != 1 || status.Code(finished[0]) != tt.want {
					t.Errorf("OnFinish got %v, want %v once", finished, tt.want)
				}
				if cs.Context().Err() == nil {
					t.Error("the stream's context lives")
				}
			})
		})
	}
}

// OnFinish does not wait for a caller that has gone away.
func TestOnFinishOfAnAbandonedCall(t *testing.T) {
	for _, name := range []string{"handler runs", "handler has returned"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := blocked()
				if name == "handler has returned" {
					s.stream = func(ss grpc.ServerStream) error { return ss.SendMsg(new(text)) }
				}
				ctx, cancel := context.WithCancel(t.Context())
				var finished []error
				cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
				newStream(t, ctx, cc, bothStream, scriptBidi, grpc.OnFinish(func(err error) { finished = append(finished, err) }))
				synctest.Wait()
				if len(finished) > 0 {
					t.Errorf("OnFinish got %v before the caller's end", finished)
				}
				cancel()
				synctest.Wait()
				if len(finished) != 1 || status.Code(finished[0]) != codes.Canceled {
					t.Errorf("OnFinish got %v, want CANCELLED once", finished)
				}
			})
		})
	}
}

// After a call that has ended well there is nothing left to cancel.
func TestOutcomeStays(t *testing.T) {
	onRoads(t, rpc.Config{}, echo.Register, func(t *testing.T, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cs := newStream(t, ctx, cc, clientStreams, "/echo.v1.EchoService/Collect")
		if err := cs.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := cs.RecvMsg(new(text)); err != nil {
			t.Fatal(err)
		}
		cancel()
		for range 2 {
			if err := cs.RecvMsg(new(text)); err != io.EOF {
				t.Errorf("RecvMsg after the end = %v, want io.EOF", err)
			}
		}
	})
}

// A send after the handler has returned is io.EOF; RecvMsg has the status.
func TestSendAfterHandler(t *testing.T) {
	s := &script{stream: func(ss grpc.ServerStream) error { return status.Error(codes.NotFound, "no") }}
	cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
	for _, desc := range []*grpc.StreamDesc{bothStream, serverStreams} {
		cs := newStream(t, t.Context(), cc, desc, scriptBidi)
		if _, err := cs.Header(); err != nil {
			t.Fatal(err)
		}
		want := io.EOF
		if !desc.ClientStreams {
			want = nil // as generated code expects
		}
		var err error
		for range 100000 { // until the handler has returned
			if err = cs.SendMsg(new(text)); err != nil || !desc.ClientStreams {
				break
			}
		}
		if err != want {
			t.Errorf("client streams %t: SendMsg = %v, want %v", desc.ClientStreams, err, want)
		}
		if err := cs.RecvMsg(new(text)); status.Code(err) != codes.NotFound {
			t.Errorf("client streams %t: RecvMsg = %v, want NOT_FOUND", desc.ClientStreams, err)
		}
	}
}

// A handler's message that cannot be sent fails the call, not the process.
func TestSendOfNoMessage(t *testing.T) {
	s := &script{stream: func(ss grpc.ServerStream) error { _ = ss.SendMsg(7); return nil }}
	onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
		if _, err := streamCall(t, cc, bothStream, scriptBidi); status.Code(err) != codes.Internal {
			t.Errorf("outcome %v, want INTERNAL", err)
		}
	})
}

// A method with one request waits for the half-close, and no longer than the
// call.
func TestNoHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{unary: func(context.Context, *text) (*text, error) { t.Error("the handler ran"); return nil, nil }}
		cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cs := newStream(t, ctx, cc, bothStream, scriptUnary)
		if err := cs.SendMsg(new(text)); err != nil {
			t.Fatal(err)
		}
		if err := cs.RecvMsg(new(text)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("RecvMsg = %v, want DEADLINE_EXCEEDED", err)
		}
		if err := cc.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Header waits for the header, and for nothing longer than the call.
func TestHeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{stream: func(ss grpc.ServerStream) error {
			time.Sleep(3 * time.Second)
			ss.SendHeader(metadata.Pairs("a", "1"))
			<-ss.Context().Done()
			return nil
		}}
		cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
		for _, tt := range []struct{ timeout, want time.Duration }{{10 * time.Second, 3 * time.Second}, {time.Second, time.Second}} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
			cs := newStream(t, ctx, cc, bothStream, scriptBidi)
			start := time.Now()
			md, err := cs.Header()
			if d := time.Since(start); err != nil || d != tt.want || (len(md) == 1) != (tt.timeout > tt.want) {
				t.Errorf("timeout %v: Header = %q, %v after %v, want %v", tt.timeout, md, err, d, tt.want)
			}
			if md := cs.Trailer(); md != nil {
				t.Errorf("trailer %q of a call that runs", md)
			}
			cancel()
		}
		if err := cc.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// t.FailNow in a handler must not leave the caller waiting.
func TestHandlerEndsItsGoroutine(t *testing.T) {
	s := &script{stream: func(grpc.ServerStream) error { runtime.Goexit(); return nil }}
	cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
	if _, err := streamCall(t, cc, bothStream, scriptBidi); status.Code(err) != codes.Internal {
		t.Errorf("outcome %v, want INTERNAL", err)
	}
	if err := cc.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestShutdownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cc := rpc.NewConn(newRegistry(rpc.Config{}, echo.Register))
		cs := newStream(t, t.Context(), cc, bothStream, "/echo.v1.EchoService/Converse")
		done := make(chan error, 1)
		go func() { done <- cc.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown = %v while a call was in flight", err)
		default:
		}
		var finished error
		onFinish := grpc.OnFinish(func(err error) { finished = err })
		if err := cc.Invoke(t.Context(), "/echo.v1.EchoService/Echo", new(text), new(text), onFinish); status.Code(err) != codes.Unavailable || finished != err {
			t.Errorf("Invoke = %v, OnFinish got %v, want UNAVAILABLE", err, finished)
		}
		if _, err := cc.NewStream(t.Context(), bothStream, "/echo.v1.EchoService/Converse", onFinish); status.Code(err) != codes.Unavailable || finished != err {
			t.Errorf("NewStream = %v, OnFinish got %v, want UNAVAILABLE", err, finished)
		}
		if err := cs.SendMsg(wrapperspb.String("a")); err != nil { // the call goes on
			t.Error(err)
		}
		if err := cs.RecvMsg(new(text)); err != nil {
			t.Error(err)
		}
		if err := cs.CloseSend(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if err := cs.RecvMsg(new(text)); err != io.EOF {
			t.Errorf("RecvMsg = %v, want io.EOF", err)
		}
	})
}

func TestShutdownCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var returned atomic.Int32
		s := &script{stream: func(ss grpc.ServerStream) error {
			<-ss.Context().Done()
			time.Sleep(time.Second)
			returned.Add(1)
			return nil
		}}
		cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
		waiting := newStream(t, t.Context(), cc, bothStream, scriptBidi)
		late := newStream(t, t.Context(), cc, bothStream, scriptBidi)
		outcome := make(chan error, 1)
		go func() { outcome <- waiting.RecvMsg(new(text)) }()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if err := cc.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 5*time.Second {
			t.Errorf("Shutdown = %v after %v, want the deadline's error after 5s", err, time.Since(start))
		}
		if err := <-outcome; status.Code(err) != codes.Unavailable {
			t.Errorf("RecvMsg = %v, want UNAVAILABLE", err)
		}
		if err := cc.Shutdown(t.Context()); err != nil || returned.Load() != 2 || time.Since(start) != 6*time.Second {
			t.Errorf("second Shutdown = %v after %v and %d handlers, want nil after 6s and 2", err, time.Since(start), returned.Load())
		}
		if err := late.RecvMsg(new(text)); status.Code(err) != codes.Unavailable {
			t.Errorf("RecvMsg after the handler = %v, want UNAVAILABLE", err)
		}
	})
}

// With nothing to wait for, an ended context does not matter.
func TestShutdownIdle(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		cc := rpc.NewConn(newRegistry(rpc.Config{}, echo.Register))
		for range 2 {
			if err := cc.Shutdown(ctx); err != nil {
				t.Fatalf("Shutdown = %v, want nil", err)
			}
		}
	}
}
