package muxtest_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oneport/mux"
	pb "oneport/proto/echo"
)

// text makes the text of a request that is n bytes on this road.
func (r road) text(t *testing.T, n int) string {
	t.Helper()
	size := func(text string) int {
		m := &pb.EchoRequest{Message: text}
		if !r.json {
			return proto.Size(m)
		}
		b, err := marshalJSON(m)
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	text := strings.Repeat("x", n)
	text = text[:n-(size(text)-n)]
	if got := size(text); got != n {
		t.Fatalf("a text of %d bytes makes a message of %d, want %d", len(text), got, n)
	}
	return text
}

// A message of the limit passes, one of a byte more ends its call, and no other.
func TestMessageLimit(t *testing.T) {
	const limit = 1000
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.toAll(t, echoService, mux.WithMaxMessageBytes(limit))
		fits, large := r.text(t, limit), r.text(t, limit+1)

		bystander, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		check := func(kind string, got string, err error) {
			t.Helper()
			if err != nil || got != fits {
				t.Errorf("%s of %d bytes = %d bytes of text, %v, want %d", kind, limit, len(got), err, len(fits))
			}
		}
		checkLarge := func(kind string, err error) {
			t.Helper()
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s of %d bytes = %v, want ResourceExhausted", kind, limit+1, err)
			}
		}
		for range 2 { // what comes after a refusal is served again
			res, err := c.Echo(t.Context(), &pb.EchoRequest{Message: fits})
			check("Echo", res.GetMessage(), err)
			texts, err := expand(t, c, &pb.ExpandRequest{Message: fits})
			check("Expand", strings.Join(texts, "+"), err)
			texts, err = collect(t, c, fits)
			check("Collect", strings.Join(texts, "+"), err)
			texts, err = converse(t, c, fits)
			check("Converse", strings.Join(texts, "+"), err)

			_, err = c.Echo(t.Context(), &pb.EchoRequest{Message: large})
			checkLarge("Echo", err)
			_, err = expand(t, c, &pb.ExpandRequest{Message: large})
			checkLarge("Expand", err)
			_, err = collect(t, c, "small", large)
			checkLarge("Collect", err)
			_, err = converse(t, c, "small", large)
			checkLarge("Converse", err)
		}
		if err := bystander.Send(&pb.ConverseRequest{Message: "still here"}); err != nil {
			t.Errorf("Send on another call = %v", err)
		}
		if res, err := bystander.Recv(); err != nil || res.GetMessage() != "still here" {
			t.Errorf("another call = %q, %v", res.GetMessage(), err)
		}
	})
}

// A handler that takes the refusal of a message for the end of its input does not
// make a success of it.
func TestMessageLimitIgnored(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.to(t, service{collect: func(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
			for {
				if _, err := stream.Recv(); err != nil {
					stream.SendAndClose(&pb.CollectResponse{})
					return nil
				}
			}
		}}, mux.WithMaxMessageBytes(1000))
		if got, err := collect(t, c, r.text(t, 1001)); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Collect of 1001 bytes = %q, %v, want ResourceExhausted", got, err)
		}
	})
}

// The limit is on what comes in, not on answers.
func TestAnswerIsNotLimited(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.to(t, service{echo: func(context.Context, *pb.EchoRequest) (*pb.EchoResponse, error) {
			return &pb.EchoResponse{Message: long}, nil
		}}, mux.WithMaxMessageBytes(1000))
		if res, err := c.Echo(t.Context(), &pb.EchoRequest{}); err != nil || res.GetMessage() != long {
			t.Errorf("Echo = %d bytes, %v, want %d", len(res.GetMessage()), err, len(long))
		}
	})
}

// Much larger than any buffer on the way, both ways at once.
func TestBulk(t *testing.T) {
	const messages = 40
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.toAll(t, echoService)
		text := strings.Repeat("0123456789abcdef", 4<<10)
		stream, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer stream.CloseSend()
			for range messages {
				if stream.Send(&pb.ConverseRequest{Message: text}) != nil {
					return // Recv tells why
				}
			}
		}()
		for i := range messages {
			if res, err := stream.Recv(); err != nil || res.GetMessage() != text {
				t.Fatalf("answer %d = %d bytes, %v, want %d", i, len(res.GetMessage()), err, len(text))
			}
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("last Recv = %v, want EOF", err)
		}
	})
}
