package muxtest_test

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "oneport/proto/echo"
)

func TestDeadlineSeenByHandler(t *testing.T) {
	var got time.Time
	var ok bool
	unaryAndStream(t, everywhere, func(ctx context.Context) error {
		got, ok = ctx.Deadline()
		return nil
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		if err := call(t.Context()); err != nil || ok {
			t.Errorf("without a deadline the handler sees %v, %v; err %v", got, ok, err)
		}
		for _, d := range []time.Duration{time.Millisecond, 5 * time.Second, 3 * time.Hour} {
			want := time.Now().Add(d)
			ctx, cancel := context.WithDeadline(t.Context(), want)
			if err := call(ctx); err != nil || !ok || !got.Equal(want) {
				t.Errorf("handler sees a deadline in %v, %v; err %v; want one in %v", time.Until(got), ok, err, d)
			}
			cancel()
		}
	})
}

// blocked is a service whose handlers wait for the end of their context and tell
// how long after now that came. A stream sends one message first, so that its
// client knows it to run. Where HTTP/1.1 carries it, it waits in Recv: net/http sees
// there that the client has gone only while it reads.
func (r road) blocked(ended chan<- time.Duration) service {
	start := time.Now()
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		ended <- time.Since(start)
		return ctx.Err()
	}
	return service{
		echo: func(ctx context.Context, _ *pb.EchoRequest) (*pb.EchoResponse, error) { return nil, wait(ctx) },
		converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			if err := stream.Send(&pb.ConverseResponse{}); err != nil {
				return err
			}
			if r.http == 1 {
				stream.Recv()
			}
			return wait(stream.Context())
		},
	}
}

// talk opens a stream, takes its first message and waits for its end.
func talk(ctx context.Context, c client) error {
	stream, err := c.Converse(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// At the deadline client and handler are told, both at that very moment.
func TestDeadlineExceeded(t *testing.T) {
	const d = 7 * time.Second
	on(t, everywhere, func(t *testing.T, r road) {
		ended := make(chan time.Duration, 1)
		start := time.Now()
		c := r.to(t, r.blocked(ended))
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := c.Echo(ctx, &pb.EchoRequest{})
		if got := time.Since(start); status.Code(err) != codes.DeadlineExceeded || got != d {
			t.Errorf("Echo = %v after %v, want DeadlineExceeded after %v", err, got, d)
		}
		if got := <-ended; got != d {
			t.Errorf("unary: the handler's context ended after %v, want %v", got, d)
		}

		ctx, cancel = context.WithTimeout(t.Context(), d)
		defer cancel()
		err = talk(ctx, c)
		if got := time.Since(start); status.Code(err) != codes.DeadlineExceeded || got != 2*d {
			t.Errorf("Converse = %v after %v, want DeadlineExceeded after %v", err, got-d, d)
		}
		if got := <-ended; got != 2*d {
			t.Errorf("stream: the handler's context ended after %v, want %v", got-d, d)
		}
	})
}

// A deadline in the past reaches no handler.
func TestDeadlinePassed(t *testing.T) {
	ran := false
	unaryAndStream(t, everywhere, func(context.Context) error {
		ran = true
		return nil
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
		defer cancel()
		if err := call(ctx); status.Code(err) != codes.DeadlineExceeded || ran {
			t.Errorf("err = %v, handler ran: %v; want DeadlineExceeded, false", err, ran)
		}
	})
}

func TestCancel(t *testing.T) {
	const d = 3 * time.Second
	on(t, everywhere, func(t *testing.T, r road) {
		ended := make(chan time.Duration, 1)
		c := r.to(t, r.blocked(ended))
		for i, call := range []func(context.Context) error{
			func(ctx context.Context) error {
				_, err := c.Echo(ctx, &pb.EchoRequest{})
				return err
			},
			func(ctx context.Context) error { return talk(ctx, c) },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(d, cancel)
			if err := call(ctx); status.Code(err) != codes.Canceled {
				t.Errorf("call %d = %v, want Canceled", i, err)
			}
			if got, want := <-ended, time.Duration(i+1)*d; got != want {
				t.Errorf("call %d: the handler's context ended at %v, want %v", i, got, want)
			}
		}
	})
}

// A handler learns at once that its client has gone.
func TestDisconnect(t *testing.T) {
	const d = 3 * time.Second
	on(t, connections, func(t *testing.T, r road) {
		ended := make(chan time.Duration, 2)
		c := r.to(t, r.blocked(ended))
		time.AfterFunc(d, c.disconnect)
		errs := make(chan error, 2)
		go func() {
			_, err := c.Echo(t.Context(), &pb.EchoRequest{})
			errs <- err
		}()
		go func() { errs <- talk(t.Context(), c) }()
		for range 2 {
			// connect calls half an answer Internal.
			code := status.Code(<-errs)
			if code != codes.Unavailable && code != codes.Canceled && (r.http == 0 || code != codes.Internal) {
				t.Errorf("the client got %v, want Unavailable or Canceled", code)
			}
			if got := <-ended; got != d {
				t.Errorf("a handler's context ended after %v, want %v", got, d)
			}
		}
	})
}

// When its call is over, whatever the handler has started with the context ends.
func TestContextEndsWithCall(t *testing.T) {
	ended := 0
	unaryAndStream(t, everywhere, func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { ended++ })
		return nil
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		ended = 0
		err := call(t.Context())
		synctest.Wait()
		if err != nil || ended != 1 {
			t.Errorf("err = %v; the handler's context ended %d times, want once", err, ended)
		}
	})
}

// A call in flight outlives the call of Shutdown; one that comes later does not
// begin.
func TestShutdownWaitsForCall(t *testing.T) {
	const d = time.Minute
	on(t, everywhere, func(t *testing.T, r road) {
		start := time.Now()
		c := r.to(t, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			if err := stream.Send(&pb.ConverseResponse{}); err != nil {
				return err
			}
			time.Sleep(d)
			return stream.Send(&pb.ConverseResponse{Message: "late"})
		}})
		stream, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		down := make(chan time.Duration, 1)
		go func() {
			if err := c.server.Shutdown(context.Background()); err != nil {
				t.Errorf("Shutdown = %v", err)
			}
			down <- time.Since(start)
		}()
		synctest.Wait()
		if _, err := c.Echo(t.Context(), &pb.EchoRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("a call during Shutdown = %v, want Unavailable", err)
		}
		if res, err := stream.Recv(); err != nil || res.GetMessage() != "late" {
			t.Errorf("Recv = %q, %v, want late", res.GetMessage(), err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("last Recv = %v, want EOF", err)
		}
		if got := <-down; got < d || got > d+2*time.Second {
			t.Errorf("Shutdown returned after %v, want about %v", got, d)
		}
	})
}

// Close ends every call at once, also of a handler that neither reads nor writes.
func TestCloseEndsCalls(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		var ended atomic.Int32
		wait := func(ctx context.Context) error {
			<-ctx.Done()
			ended.Add(1)
			return nil
		}
		c := r.to(t, service{
			expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
				return wait(stream.Context())
			},
			converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				return wait(stream.Context())
			},
		})
		if _, err := c.Expand(t.Context(), &pb.ExpandRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Converse(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.server.Close()
		synctest.Wait()
		if n := ended.Load(); n != 2 {
			t.Errorf("the contexts of %d handlers have ended, want 2", n)
		}
	})
}
