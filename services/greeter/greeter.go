// Package greeter implements helloworld.Greeter, the service of gRPC's own tutorials.
package greeter

import (
	"context"

	"google.golang.org/grpc"

	pb "oneport/proto/helloworld"
)

// Register registers the greeter with r. It keeps nothing between calls, and any number of
// calls may run at once.
func Register(r grpc.ServiceRegistrar) { pb.RegisterGreeterServer(r, server{}) }

type server struct{ pb.UnimplementedGreeterServer }

func (server) SayHello(_ context.Context, req *pb.HelloRequest) (*pb.HelloReply, error) {
	return &pb.HelloReply{Message: "Hello " + req.GetName()}, nil
}
