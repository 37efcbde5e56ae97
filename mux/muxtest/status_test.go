package muxtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	pb "oneport/proto/echo"
)

// What a handler returns, and what its client gets for it.
func TestStatus(t *testing.T) {
	type result struct {
		Code    codes.Code
		Message string
	}
	type test struct {
		err  error
		want result
	}
	tests := []test{
		{status.Error(codes.NotFound, ""), result{codes.NotFound, ""}},
		{status.Error(codes.InvalidArgument, "100% Ünïcode \U0001F40B\n\"quoted\""), result{codes.InvalidArgument, "100% Ünïcode \U0001F40B\n\"quoted\""}},
		{fmt.Errorf("outer: %w", status.Error(codes.NotFound, "inner")),
			result{codes.NotFound, "outer: rpc error: code = NotFound desc = inner"}},
		{context.Canceled, result{codes.Canceled, "context canceled"}},
		{context.DeadlineExceeded, result{codes.DeadlineExceeded, "context deadline exceeded"}},
		{fmt.Errorf("db: %w", context.DeadlineExceeded), result{codes.DeadlineExceeded, "db: context deadline exceeded"}},
		{errors.New("boom"), result{codes.Unknown, "boom"}},
		{errors.Join(errors.New("a"), errors.New("b")), result{codes.Unknown, "a\nb"}},
		{io.EOF, result{codes.Unknown, "EOF"}},
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		tests = append(tests, test{status.Error(code, "because"), result{code, "because"}})
	}
	on(t, everywhere, func(t *testing.T, r road) {
		var returned error
		c := r.to(t, service{
			echo: func(context.Context, *pb.EchoRequest) (*pb.EchoResponse, error) {
				return &pb.EchoResponse{Message: "dropped"}, returned
			},
			expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
				if err := stream.Send(&pb.ExpandResponse{Message: "before"}); err != nil {
					return err
				}
				return returned
			},
			collect: func(grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error { return returned },
		})
		for _, tt := range tests {
			returned = tt.err
			_, unary := c.Echo(t.Context(), &pb.EchoRequest{})
			got, server := expand(t, c, &pb.ExpandRequest{})
			if len(got) != 1 {
				t.Errorf("%v: %d messages came before the error, want 1", tt.err, len(got))
			}
			_, client := collect(t, c)
			for kind, err := range map[string]error{"unary": unary, "server-streaming": server, "client-streaming": client} {
				st := status.Convert(err)
				if got := (result{st.Code(), st.Message()}); got != tt.want {
					t.Errorf("%s: %v reached the client as %q, want %q", kind, tt.err, got, tt.want)
				}
			}
		}
	})
}

// The reason in a close frame has 123 bytes: a longer message is cut there, between
// two characters, and whole elsewhere.
func TestLongStatusMessage(t *testing.T) {
	for _, message := range []string{strings.Repeat("x", 123), strings.Repeat("x", 124), strings.Repeat("x", 122) + "ü", strings.Repeat("ü", 4000)} {
		unaryAndStream(t, everywhere, func(context.Context) error { return status.Error(codes.Aborted, message) },
			func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
				want := message
				if r.socket && len(message) > 123 {
					want = strings.ToValidUTF8(message[:123], "")
				}
				if st := status.Convert(call(t.Context())); st.Code() != codes.Aborted || st.Message() != want {
					t.Errorf("status is %v %q of %d bytes, want Aborted and %d bytes", st.Code(), st.Message(), len(st.Message()), len(want))
				}
			})
	}
}

func TestStatusDetails(t *testing.T) {
	details := []any{
		&errdetails.ErrorInfo{Reason: "STOCKOUT", Domain: "shop.test", Metadata: map[string]string{"sku": "\x01ü"}},
		&errdetails.DebugInfo{Detail: "more"},
	}
	st, err := status.New(codes.ResourceExhausted, "sold out").WithDetails(details[0].(*errdetails.ErrorInfo), details[1].(*errdetails.DebugInfo))
	if err != nil {
		t.Fatal(err)
	}
	for name, returned := range map[string]error{"plain": st.Err(), "wrapped": fmt.Errorf("checkout: %w", st.Err())} {
		t.Run(name, func(t *testing.T) {
			unaryAndStream(t, fullStatus(), func(context.Context) error { return returned },
				func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
					got := status.Convert(call(t.Context()))
					if got.Code() != codes.ResourceExhausted {
						t.Errorf("status is %v, want ResourceExhausted", got)
					}
					if diff := cmp.Diff(details, got.Details(), protocmp.Transform()); diff != "" {
						t.Errorf("details differ (-want +got):\n%s", diff)
					}
				})
		})
	}
}

func TestUnknownMethod(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.to(t, service{})
		for _, method := range []string{
			"/echo.v1.EchoService/Nope",
			"/nope.v1.Service/Echo",
			"/echo.v1.EchoService/echo", // names are case-sensitive
			"/echo.v1.EchoService/Echo", // registered, but of the embedded Unimplemented type
		} {
			if err := c.cc.Invoke(t.Context(), method, &pb.EchoRequest{}, &pb.EchoResponse{}); status.Code(err) != codes.Unimplemented {
				t.Errorf("Invoke %s = %v, want Unimplemented", method, err)
			}
			stream, err := c.cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err == nil {
				stream.CloseSend()
				err = stream.RecvMsg(&pb.EchoResponse{})
			}
			if method != "/echo.v1.EchoService/Echo" && status.Code(err) != codes.Unimplemented {
				t.Errorf("stream %s = %v, want Unimplemented", method, err)
			}
		}
	})
}
