package echo_test

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "oneport/proto/echo"
	"oneport/services/echo"
	"oneport/services/internal/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, opts ...grpc.ServerOption) pb.EchoServiceClient {
	t.Helper()
	return pb.NewEchoServiceClient(servicetest.Dial(t, func(s *grpc.Server) { echo.Register(s) }, opts...))
}

func TestEcho(t *testing.T) {
	client := dial(t)
	for _, message := range []string{"", "hello", "Δέσποινα\x00\n"} {
		res, err := client.Echo(t.Context(), &pb.EchoRequest{Message: message})
		if err != nil || res.GetMessage() != message {
			t.Errorf("Echo(%q) = %q, %v, want the same message", message, res.GetMessage(), err)
		}
	}
}

func TestExpand(t *testing.T) {
	const s = time.Second
	longest := &durationpb.Duration{Seconds: 315_576_000_000} // 10,000 years, the largest that is valid
	tests := []struct {
		name string
		req  *pb.ExpandRequest
		want []time.Duration // when each response comes
	}{
		{"no count", &pb.ExpandRequest{Message: "m"}, []time.Duration{0}},
		{"no count, interval", &pb.ExpandRequest{Message: "m", Interval: durationpb.New(s)}, []time.Duration{0}},
		{"one, longest interval", &pb.ExpandRequest{Message: "m", Count: 1, Interval: longest}, []time.Duration{0}},
		{"at once", &pb.ExpandRequest{Message: "m", Count: 3}, []time.Duration{0, 0, 0}},
		{"zero interval", &pb.ExpandRequest{Message: "m", Count: 3, Interval: durationpb.New(0)}, []time.Duration{0, 0, 0}},
		{"interval", &pb.ExpandRequest{Message: "m", Count: 3, Interval: durationpb.New(s)}, []time.Duration{0, s, 2 * s}},
		{"empty message", &pb.ExpandRequest{Count: 2, Interval: durationpb.New(1)}, []time.Duration{0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				stream, err := dial(t).Expand(t.Context(), tt.req)
				if err != nil {
					t.Fatal(err)
				}
				var got []time.Duration
				for {
					res, err := stream.Recv()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatalf("Expand(%v) after %d responses: %v", tt.req, len(got), err)
					}
					if res.GetMessage() != tt.req.GetMessage() {
						t.Errorf("Expand(%v) sent %q", tt.req, res.GetMessage())
					}
					got = append(got, time.Since(start))
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("Expand(%v) sent at %v, want %v", tt.req, got, tt.want)
				}
				if end := time.Since(start); end != tt.want[len(tt.want)-1] {
					t.Errorf("Expand(%v) ended at %v, want with the last response", tt.req, end)
				}
			})
		})
	}
}

// A client that has had some of the responses is sent the others.
func TestExpandResumes(t *testing.T) {
	client := dial(t)
	for _, tt := range []struct {
		count uint32
		id    string
		want  int
	}{
		{3, "0", 3}, {3, "1", 2}, {3, "3", 0}, {3, "4", 0}, {0, "0", 1}, {0, "1", 0},
		{3, "x", 3}, {3, "-1", 3}, {3, "4294967296", 3}, {math.MaxUint32, "4294967294", 1},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "last-event-id", tt.id)
		stream, err := client.Expand(ctx, &pb.ExpandRequest{Count: tt.count})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; err == nil; n++ {
			_, err = stream.Recv()
		}
		if !errors.Is(err, io.EOF) || n-1 != tt.want {
			t.Errorf("Expand of %d after %s: %d responses, then %v; want %d", tt.count, tt.id, n-1, err, tt.want)
		}
	}
}

func TestExpandInvalidInterval(t *testing.T) {
	client := dial(t)
	for _, interval := range []*durationpb.Duration{
		{Seconds: -1},
		{Nanos: -1},
		{Seconds: 1, Nanos: -1},
		{Seconds: -1, Nanos: 1},
		{Nanos: 1_000_000_000},
		{Seconds: 315_576_000_001},
		{Seconds: math.MaxInt64},
		{Seconds: math.MinInt64, Nanos: math.MinInt32},
	} {
		stream, err := client.Expand(t.Context(), &pb.ExpandRequest{Interval: interval})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), "interval") {
			t.Errorf("Expand with an interval of %v s and %v ns: %v, want InvalidArgument with the field's name",
				interval.Seconds, interval.Nanos, err)
		}
	}
}

// handlerContext is a stream whose handler sees ctx, which ends on the server's side alone.
type handlerContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s handlerContext) Context() context.Context { return s.ctx }

// within makes the context of every handler with derive.
func within(derive func(context.Context) (context.Context, context.CancelFunc)) grpc.ServerOption {
	return grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, cancel := derive(stream.Context())
		defer cancel()
		return next(srv, handlerContext{stream, ctx})
	})
}

func TestExpandEndsWithContext(t *testing.T) {
	const limit = 2500 * time.Millisecond
	timeout := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, limit)
	}
	canceled := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(limit, cancel)
		return ctx, cancel
	}
	tests := []struct {
		name   string
		derive func(context.Context) (context.Context, context.CancelFunc)
		want   codes.Code
	}{
		{"deadline", timeout, codes.DeadlineExceeded},
		{"cancel", canceled, codes.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				req := &pb.ExpandRequest{Count: math.MaxUint32, Interval: durationpb.New(time.Second)}
				stream, err := dial(t, within(tt.derive)).Expand(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for ; err == nil; n++ {
					_, err = stream.Recv()
				}
				if status.Code(err) != tt.want || n != 4 || time.Since(start) != limit {
					t.Errorf("ended at %v after %d responses with %v, want at %v after 3 with %v",
						time.Since(start), n-1, err, limit, tt.want)
				}
			})
		})
	}
}

// Without an interval nothing ever waits, and the context has to end the call all the same.
func TestExpandWithoutIntervalEndsWithContext(t *testing.T) {
	cancels := make(chan context.CancelFunc, 1)
	client := dial(t, within(func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		cancels <- cancel
		return ctx, cancel
	}))
	stream, err := client.Expand(t.Context(), &pb.ExpandRequest{Count: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	(<-cancels)()
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Canceled {
		t.Errorf("ended after %d responses with %v, want Canceled", n-1, err)
	}
}

func TestCollect(t *testing.T) {
	const (
		maxBytes    = 1 << 20
		maxMessages = 65536
	)
	text := func(n int) string { return strings.Repeat("m", n) }
	tests := []struct {
		name     string
		messages []string
		code     codes.Code
		limit    string // what the error has to name
	}{
		{name: "none"},
		{name: "order", messages: []string{"b", "", "a", "b"}},
		{name: "all bytes", messages: []string{text(maxBytes)}},
		{name: "all bytes in parts", messages: []string{text(1), text(maxBytes - 1), ""}},
		{name: "one byte more", messages: []string{text(maxBytes + 1)}, code: codes.ResourceExhausted, limit: "1048576 bytes"},
		{name: "one byte more in parts", messages: []string{text(maxBytes), "", "m"}, code: codes.ResourceExhausted, limit: "1048576 bytes"},
		{name: "all messages", messages: make([]string, maxMessages)},
		{name: "one message more", messages: make([]string, maxMessages+1), code: codes.ResourceExhausted, limit: "65536 messages"},
		{name: "both limits", messages: slices.Repeat([]string{text(maxBytes / maxMessages)}, maxMessages)},
	}
	client := dial(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stream, err := client.Collect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range tt.messages {
				if err := stream.Send(&pb.CollectRequest{Message: m}); err != nil {
					break // the call has ended; CloseAndRecv tells why
				}
			}
			res, err := stream.CloseAndRecv()
			if status.Code(err) != tt.code || !strings.Contains(status.Convert(err).Message(), tt.limit) {
				t.Fatalf("Collect of %d messages: %v, want %v naming %q", len(tt.messages), err, tt.code, tt.limit)
			}
			if err == nil && !slices.Equal(res.GetMessages(), tt.messages) {
				t.Errorf("Collect of %d messages sent back %d, or others", len(tt.messages), len(res.GetMessages()))
			}
		})
	}
}

func TestConverse(t *testing.T) {
	stream, err := dial(t).Converse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"one", "", "three"} {
		if err := stream.Send(&pb.ConverseRequest{Message: message}); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv() // before the next is sent: an answer waits for nothing else
		if err != nil || res.GetMessage() != message {
			t.Fatalf("Converse answered %q with %q, %v, want the same message", message, res.GetMessage(), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("Converse after half-close: %v, %v, want io.EOF", res, err)
	}
}
