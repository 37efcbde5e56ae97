// Package echo implements echo.v1.EchoService, which gives back what it is sent: one method for
// each of the four kinds of call.
package echo

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "oneport/proto/echo"
)

// What a Collect call may send before it is RESOURCE_EXHAUSTED. The second limit is there for
// empty messages, which the first does not count. A response at both limits is about 1.1 MiB,
// well below the 4 MiB that a gRPC client accepts by default.
const (
	maxCollectBytes    = 1 << 20
	maxCollectMessages = 1 << 16
)

// Register registers the echo service with r. It keeps nothing between calls, and any number of
// calls may run at once.
func Register(r grpc.ServiceRegistrar) { pb.RegisterEchoServiceServer(r, server{}) }

type server struct {
	pb.UnimplementedEchoServiceServer
}

func (server) Echo(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	return &pb.EchoResponse{Message: req.GetMessage()}, nil
}

func (server) Expand(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	if req.Interval != nil && !req.Interval.IsValid() {
		return status.Error(codes.InvalidArgument, "echo: interval: out of range, or seconds and nanos of different signs")
	}
	interval := req.GetInterval().AsDuration()
	if interval < 0 {
		return status.Errorf(codes.InvalidArgument, "echo: interval: %v is negative", interval)
	}
	had := received(stream.Context())
	for i := had; i < max(req.GetCount(), 1); i++ {
		if i > had {
			if err := wait(stream.Context(), interval); err != nil {
				return status.FromContextError(err).Err()
			}
		}
		if err := stream.Send(&pb.ExpandResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
	return nil
}

// received is how many responses a client has had of an earlier call, by its own account.
func received(ctx context.Context) uint32 {
	for _, id := range metadata.ValueFromIncomingContext(ctx, "last-event-id") {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			return uint32(n)
		}
	}
	return 0
}

// wait returns nil after d, or the error of ctx as soon as ctx ends. Where both are so, ctx
// wins: a count of four billion with no interval still ends with its caller.
func wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (server) Collect(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
	res := new(pb.CollectResponse)
	size := 0
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(res)
		}
		if err != nil {
			return err
		}
		if size += len(req.GetMessage()); size > maxCollectBytes {
			return status.Errorf(codes.ResourceExhausted, "echo: collect: more than %d bytes of text", maxCollectBytes)
		}
		if len(res.Messages) == maxCollectMessages {
			return status.Errorf(codes.ResourceExhausted, "echo: collect: more than %d messages", maxCollectMessages)
		}
		res.Messages = append(res.Messages, req.GetMessage())
	}
}

func (server) Converse(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.ConverseResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}
