package reflection_test

import (
	"slices"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/services/greeter"
	"oneport/services/internal/servicetest"
	"oneport/services/reflection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// services is what a server lists that has the greeter beside reflection.
var services = []string{
	"grpc.reflection.v1.ServerReflection",
	"grpc.reflection.v1alpha.ServerReflection",
	"helloworld.Greeter",
}

func TestVersions(t *testing.T) {
	cc := servicetest.Dial(t, func(s *grpc.Server) {
		reflection.Register(s)
		greeter.Register(s) // after reflection, which has to see it all the same
	})
	for _, version := range []string{"v1", "v1alpha"} {
		t.Run(version, func(t *testing.T) {
			// The versions differ in the name of their package only, so the messages of v1 do
			// for both; those of v1alpha are deprecated in Go.
			stream, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
				"/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
			if err != nil {
				t.Fatal(err)
			}
			ask := func(req *pb.ServerReflectionRequest) *pb.ServerReflectionResponse {
				t.Helper()
				if err := stream.SendMsg(req); err != nil {
					t.Fatal(err)
				}
				res := new(pb.ServerReflectionResponse)
				if err := stream.RecvMsg(res); err != nil {
					t.Fatalf("%v: %v", req, err)
				}
				return res
			}

			list := ask(&pb.ServerReflectionRequest{
				MessageRequest: &pb.ServerReflectionRequest_ListServices{},
			}).GetListServicesResponse().GetService()
			var names []string
			for _, s := range list {
				names = append(names, s.GetName())
			}
			if !slices.Equal(names, services) {
				t.Errorf("list_services = %q, want %q", names, services)
			}

			descriptors := ask(&pb.ServerReflectionRequest{
				MessageRequest: &pb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "helloworld.Greeter.SayHello"},
			}).GetFileDescriptorResponse().GetFileDescriptorProto()
			var files []string
			for _, b := range descriptors {
				file := new(descriptorpb.FileDescriptorProto)
				if err := proto.Unmarshal(b, file); err != nil {
					t.Fatal(err)
				}
				files = append(files, file.GetName())
			}
			// And what that imports, each file once.
			if want := []string{"helloworld/helloworld.proto", "google/api/annotations.proto", "google/api/http.proto", "google/protobuf/descriptor.proto"}; !slices.Equal(files, want) {
				t.Errorf("file_containing_symbol = %q, want %q", files, want)
			}
		})
	}
}
