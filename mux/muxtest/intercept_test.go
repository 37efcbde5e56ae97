package muxtest_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux"
	pb "oneport/proto/echo"
)

type ctxKey struct{}

// trail is what interceptors have added to the context.
func trail(ctx context.Context) string {
	s, _ := ctx.Value(ctxKey{}).(string)
	return s
}

// tracer makes interceptors that note their passage in log, and leave their name
// in context, request, answer and error.
type tracer struct{ log []string }

func (tr *tracer) unary(name string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		tr.log = append(tr.log, name+" "+info.FullMethod)
		defer func() { tr.log = append(tr.log, name+" end") }()
		in := req.(*pb.EchoRequest)
		if in.GetMessage() == "refuse "+name {
			return nil, status.Error(codes.PermissionDenied, name)
		}
		res, err := next(context.WithValue(ctx, ctxKey{}, trail(ctx)+name), &pb.EchoRequest{Message: in.GetMessage() + name})
		if err != nil {
			return nil, status.Error(status.Code(err), status.Convert(err).Message()+name)
		}
		return &pb.EchoResponse{Message: res.(*pb.EchoResponse).GetMessage() + name}, nil
	}
}

func (tr *tracer) stream(name string) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		tr.log = append(tr.log, fmt.Sprintf("%s %s %v %v", name, info.FullMethod, info.IsClientStream, info.IsServerStream))
		defer func() { tr.log = append(tr.log, name+" end") }()
		if md, _ := metadata.FromIncomingContext(ss.Context()); slices.Equal(md["refuse"], []string{name}) {
			return status.Error(codes.PermissionDenied, name)
		}
		if err := next(srv, &tracedStream{ss, name}); err != nil {
			return status.Error(status.Code(err), status.Convert(err).Message()+name)
		}
		return nil
	}
}

// tracedStream leaves its name in the context and in the messages of Converse.
type tracedStream struct {
	grpc.ServerStream
	name string
}

func (s *tracedStream) Context() context.Context {
	ctx := s.ServerStream.Context()
	return context.WithValue(ctx, ctxKey{}, trail(ctx)+s.name)
}

func (s *tracedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if req, ok := m.(*pb.ConverseRequest); ok && err == nil {
		req.Message += s.name
	}
	return err
}

func (s *tracedStream) SendMsg(m any) error {
	if res, ok := m.(*pb.ConverseResponse); ok {
		res.Message += s.name
	}
	return s.ServerStream.SendMsg(m)
}

// Every interceptor runs once a call, in the order of the options, and what it
// changes counts.
func TestInterceptors(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		var tr tracer
		ran := func() { tr.log = append(tr.log, "handler") }
		c := r.to(t, service{
			echo: func(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
				ran()
				if req.GetMessage() == "failAB" {
					return nil, status.Error(codes.NotFound, "failed by ")
				}
				return &pb.EchoResponse{Message: fmt.Sprintf("%s ctx:%s out:", req.GetMessage(), trail(ctx))}, nil
			},
			expand: func(*pb.ExpandRequest, grpc.ServerStreamingServer[pb.ExpandResponse]) error {
				ran()
				return status.Error(codes.NotFound, "failed by ")
			},
			collect: func(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
				ran()
				if _, err := stream.Recv(); err != nil {
					return err
				}
				return stream.SendAndClose(&pb.CollectResponse{})
			},
			converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				ran()
				for {
					req, err := stream.Recv()
					if err == io.EOF {
						return nil
					}
					if err != nil {
						return err
					}
					text := fmt.Sprintf("%s ctx:%s out:", req.GetMessage(), trail(stream.Context()))
					if err := stream.Send(&pb.ConverseResponse{Message: text}); err != nil {
						return err
					}
				}
			},
		},
			mux.WithUnaryInterceptor(tr.unary("A")), mux.WithStreamInterceptor(tr.stream("C")),
			mux.WithUnaryInterceptor(tr.unary("B")), mux.WithStreamInterceptor(tr.stream("D")))

		const service = "/echo.v1.EchoService/"
		around := func(outer, inner, what string) []string {
			return []string{outer + " " + service + what, inner + " " + service + what, "handler", inner + " end", outer + " end"}
		}
		for _, tt := range []struct {
			name string
			call func() (string, error)
			text string
			err  error
			log  []string
		}{
			{"unary", func() (string, error) { return echoText(t, c, "in:") }, "in:AB ctx:AB out:BA", nil, around("A", "B", "Echo")},
			{"unary, failing", func() (string, error) { return echoText(t, c, "fail") }, "", status.Error(codes.NotFound, "failed by BA"), around("A", "B", "Echo")},
			{"unary, refused", func() (string, error) { return echoText(t, c, "refuse A") }, "", status.Error(codes.PermissionDenied, "A"),
				[]string{"A " + service + "Echo", "A end"}},
			{"server-streaming", func() (string, error) {
				_, err := expand(t, c, &pb.ExpandRequest{})
				return "", err
			}, "", status.Error(codes.NotFound, "failed by DC"), around("C", "D", "Expand false true")},
			{"client-streaming", func() (string, error) {
				_, err := collect(t, c, "a")
				return "", err
			}, "", nil, around("C", "D", "Collect true false")},
			{"bidi-streaming", func() (string, error) {
				got, err := converse(t, c, "1:", "2:")
				return fmt.Sprint(got), err
			}, "[1:CD ctx:CD out:DC 2:CD ctx:CD out:DC]", nil, around("C", "D", "Converse true true")},
			{"stream, refused", func() (string, error) {
				stream, err := c.Converse(metadata.AppendToOutgoingContext(t.Context(), "refuse", "D"))
				if err != nil {
					return "", err
				}
				_, err = stream.Recv()
				return "", err
			}, "", status.Error(codes.PermissionDenied, "DC"),
				[]string{"C " + service + "Converse true true", "D " + service + "Converse true true", "D end", "C end"}},
		} {
			tr.log = nil
			text, err := tt.call()
			if text != tt.text || fmt.Sprint(err) != fmt.Sprint(tt.err) {
				t.Errorf("%s = %q, %v, want %q, %v", tt.name, text, err, tt.text, tt.err)
			}
			if !slices.Equal(tr.log, tt.log) {
				t.Errorf("%s ran\n%q, want\n%q", tt.name, tr.log, tt.log)
			}
		}
	})
}

func echoText(t *testing.T, c client, text string) (string, error) {
	t.Helper()
	res, err := c.Echo(t.Context(), &pb.EchoRequest{Message: text})
	return res.GetMessage(), err
}
