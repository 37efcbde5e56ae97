package muxtest_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "oneport/proto/echo"
)

// unaryAndStream runs f on a unary and on a streaming call. The handler gives its
// context to handle; call ends when that returns.
func unaryAndStream(t *testing.T, roads []road, handle func(context.Context) error,
	f func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error)) {
	t.Helper()
	svc := service{
		echo: func(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
			return &pb.EchoResponse{}, handle(ctx)
		},
		converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			return handle(stream.Context())
		},
	}
	on(t, roads, func(t *testing.T, r road) {
		c := r.to(t, svc)
		f(t, r, func(ctx context.Context, opts ...grpc.CallOption) error {
			_, err := c.Echo(ctx, &pb.EchoRequest{}, opts...)
			return err
		})
		f(t, r, func(ctx context.Context, opts ...grpc.CallOption) error {
			stream, err := c.Converse(ctx, opts...)
			if err != nil {
				return err
			}
			stream.CloseSend()
			if _, err = stream.Recv(); err == io.EOF {
				return nil
			}
			return err
		})
	})
}

func TestRequestMetadata(t *testing.T) {
	sent := metadata.MD{
		"key":         {"value"},
		"repeated":    {"b", "a", "b"},
		"list":        {"one, two"},
		"punctuation": {"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
		"one-bin":     {"\x00\xff,\n"},
		"two-bin":     {"", "second"},
		"a_b.c-9":     {"x"},
	}
	var got metadata.MD
	unaryAndStream(t, everywhere, func(ctx context.Context) error {
		got, _ = metadata.FromIncomingContext(ctx)
		return nil
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		if err := call(metadata.NewOutgoingContext(t.Context(), sent)); err != nil {
			t.Fatal(err)
		}
		for k, want := range sent {
			if !slices.Equal(got[k], want) {
				t.Errorf("%s = %q, want %q", k, got[k], want)
			}
		}
		agent, authority := got["user-agent"], got[":authority"]
		if r.local {
			if len(agent) > 0 || len(authority) > 0 {
				t.Errorf("user-agent %q and :authority %q in process, want none", agent, authority)
			}
		} else if len(agent) != 1 || agent[0] == "" || !slices.Equal(authority, []string{"oneport.test"}) {
			t.Errorf("user-agent %q and :authority %q, want one of each", agent, authority)
		}
	})
}

// What belongs to gRPC and to transports is no metadata, whether the road has made
// it or the client.
func TestReservedRequestMetadata(t *testing.T) {
	reserved := []string{"grpc-status", "grpc-message", "grpc-message-type", "grpc-encoding", "te", "content-type"}
	forged := metadata.MD{"ok": {"yes"}}
	for _, k := range reserved {
		forged[k] = []string{"forged"}
	}
	unseen := append(reserved, "grpc-timeout", "connection", "upgrade", "host", "trailer", "keep-alive",
		"transfer-encoding", "content-length", "http2-settings", ":path", ":method", ":scheme")
	var got metadata.MD
	unaryAndStream(t, everywhere, func(ctx context.Context) error {
		got, _ = metadata.FromIncomingContext(ctx)
		return nil
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		// The deadline makes a grpc-timeout header.
		ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), forged), time.Hour)
		defer cancel()
		if err := call(ctx); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got["ok"], []string{"yes"}) {
			t.Errorf("metadata is %v, want it to have ok", got)
		}
		for k, v := range got {
			// grpc-go shows its own content type to handlers.
			own := k == "content-type" && slices.Equal(v, []string{"application/grpc"})
			if (slices.Contains(unseen, k) || strings.HasPrefix(k, "sec-websocket-")) && !own {
				t.Errorf("the handler sees %s: %q", k, v)
			}
		}
	})
}

func TestMethodName(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		var got []string
		note := func(ctx context.Context) error {
			name, _ := grpc.Method(ctx)
			got = append(got, name)
			return nil
		}
		c := r.to(t, service{
			echo: func(ctx context.Context, _ *pb.EchoRequest) (*pb.EchoResponse, error) {
				return &pb.EchoResponse{}, note(ctx)
			},
			expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
				return note(stream.Context())
			},
		})
		if _, err := c.Echo(t.Context(), &pb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := expand(t, c, &pb.ExpandRequest{}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"/echo.v1.EchoService/Echo", "/echo.v1.EchoService/Expand"}; !slices.Equal(got, want) {
			t.Errorf("grpc.Method in the handlers = %q, want %q", got, want)
		}
	})
}

// Header and trailer, set by the functions of package grpc, come merged and in
// order, and reserved keys do not come.
func TestResponseMetadata(t *testing.T) {
	for _, end := range []codes.Code{codes.OK, codes.NotFound} {
		t.Run(end.String(), func(t *testing.T) {
			unaryAndStream(t, fullStatus(), func(ctx context.Context) error {
				for _, err := range []error{
					grpc.SetHeader(ctx, metadata.Pairs("h", "1", "h-bin", "\x00\xff")),
					grpc.SetHeader(ctx, metadata.Pairs("h", "2", "grpc-status", "7")),
					grpc.SetTrailer(ctx, metadata.Pairs("t", "1", "t-bin", "\xff\x00")),
					grpc.SendHeader(ctx, metadata.Pairs("h", "3", "sent", "yes")),
					grpc.SetTrailer(ctx, metadata.Pairs("t", "2", "grpc-status", "7", "grpc-message", "forged")),
				} {
					if err != nil {
						return status.Errorf(codes.Internal, "handler: %v", err)
					}
				}
				if late := metadata.Pairs("h", "4"); grpc.SetHeader(ctx, late) == nil || grpc.SendHeader(ctx, late) == nil {
					return status.Error(codes.Internal, "handler: the header could be sent twice")
				}
				return status.Error(end, "")
			}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
				var header, trailer metadata.MD
				if err := call(t.Context(), grpc.Header(&header), grpc.Trailer(&trailer)); status.Code(err) != end {
					t.Errorf("status is %v, want %v", err, end)
				}
				wantMD(t, "header", header, metadata.MD{"h": {"1", "2", "3"}, "h-bin": {"\x00\xff"}, "sent": {"yes"}, "t": nil, "grpc-status": nil})
				wantMD(t, "trailer", trailer, metadata.MD{"t": {"1", "2"}, "t-bin": {"\xff\x00"}, "h": nil, "grpc-status": nil, "grpc-message": nil})
			})
		})
	}
}

// wantMD compares the keys of want; nil stands for none.
func wantMD(t *testing.T, what string, got, want metadata.MD) {
	t.Helper()
	for k, v := range want {
		if !slices.Equal(got[k], v) {
			t.Errorf("%s %s = %q, want %q", what, k, got[k], v)
		}
	}
}

// An error without a message before it still brings header and trailer.
func TestTrailersOnly(t *testing.T) {
	unaryAndStream(t, fullStatus(), func(ctx context.Context) error {
		grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
		grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
		return status.Error(codes.NotFound, "nothing here")
	}, func(t *testing.T, r road, call func(context.Context, ...grpc.CallOption) error) {
		var header, trailer metadata.MD
		err := call(t.Context(), grpc.Header(&header), grpc.Trailer(&trailer))
		if st := status.Convert(err); st.Code() != codes.NotFound || st.Message() != "nothing here" {
			t.Errorf("status is %v, want NotFound: nothing here", err)
		}
		wantMD(t, "header", header, metadata.MD{"h": {"1"}})
		wantMD(t, "trailer", trailer, metadata.MD{"t": {"1"}})
	})
}

// The header can be had before the first message, and the trailer after the last.
func TestStreamMetadata(t *testing.T) {
	on(t, fullStatus(), func(t *testing.T, r road) {
		goOn := make(chan struct{})
		c := r.to(t, service{expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
			stream.SetTrailer(metadata.Pairs("t", "1"))
			if err := stream.SetHeader(metadata.Pairs("h", "1")); err != nil {
				return err
			}
			if err := stream.SendHeader(metadata.Pairs("h", "2")); err != nil {
				return err
			}
			<-goOn
			stream.SetTrailer(metadata.Pairs("t", "2"))
			return stream.Send(&pb.ExpandResponse{Message: "m"})
		}})
		stream, err := c.Expand(t.Context(), &pb.ExpandRequest{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		header, err := stream.Header()
		if err != nil {
			t.Fatal(err)
		}
		wantMD(t, "early header", header, metadata.MD{"h": {"1", "2"}})
		close(goOn)
		for _, want := range []error{nil, io.EOF} {
			if _, err := stream.Recv(); err != want {
				t.Errorf("Recv = %v, want %v", err, want)
			}
		}
		wantMD(t, "trailer", stream.Trailer(), metadata.MD{"t": {"1", "2"}})
	})
}
