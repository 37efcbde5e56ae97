package muxtest_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	pb "oneport/proto/echo"
)

// logBuffer keeps what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// take returns what has come since the last time.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// explode is a name to find in a stack.
func explode(v any) { panic(v) }

// A panic ends its call with INTERNAL. Value and stack are in the log, under an id
// that the client is told, and the client is told nothing else.
func TestPanic(t *testing.T) {
	const secret = "secret of the handler"
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if req.(*pb.EchoRequest).GetMessage() == "interceptor" {
			explode(secret)
		}
		return next(ctx, req)
	}
	on(t, everywhere, func(t *testing.T, r road) {
		var log logBuffer
		c := r.to(t, service{
			echo: func(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
				switch req.GetMessage() {
				case "handler":
					explode(secret)
				case "nil":
					explode((*pb.EchoRequest)(nil))
				}
				return &pb.EchoResponse{Message: "alive"}, nil
			},
			expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
				if err := stream.Send(&pb.ExpandResponse{Message: "before"}); err != nil {
					return err
				}
				explode(secret)
				return nil
			},
			collect: func(grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
				explode(secret)
				return nil
			},
		}, mux.WithUnaryInterceptor(unary), mux.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))

		for _, kind := range []string{"handler", "nil", "interceptor", "Expand", "Collect"} {
			var err error
			switch kind {
			case "Expand":
				var got []string
				if got, err = expand(t, c, &pb.ExpandRequest{}); len(got) != 1 {
					t.Errorf("%s: %d messages came before the panic, want 1", kind, len(got))
				}
			case "Collect":
				_, err = collect(t, c, "a")
			default:
				_, err = c.Echo(t.Context(), &pb.EchoRequest{Message: kind})
			}
			synctest.Wait()
			logged := log.take()
			st := status.Convert(err)
			id, ok := strings.CutPrefix(st.Message(), "internal error (id ")
			id, ok2 := strings.CutSuffix(id, ")")
			if st.Code() != codes.Internal || !ok || !ok2 {
				t.Errorf("%s: the client got %v, want Internal with an id only", kind, err)
			}
			for _, want := range []string{id, "explode", "panic_test.go", "level=ERROR", "/echo.v1.EchoService/"} {
				if !strings.Contains(logged, want) {
					t.Errorf("%s: the log lacks %q:\n%s", kind, want, logged)
				}
			}
			if kind != "nil" && !strings.Contains(logged, secret) {
				t.Errorf("%s: the log lacks the value of the panic:\n%s", kind, logged)
			}
			if n := strings.Count(logged, "\n"); n != 1 {
				t.Errorf("%s: the log has %d lines, want 1:\n%s", kind, n, logged)
			}
			if res, err := c.Echo(t.Context(), &pb.EchoRequest{}); err != nil || res.GetMessage() != "alive" {
				t.Fatalf("%s: after the panic Echo = %q, %v", kind, res.GetMessage(), err)
			}
		}
	})
}
