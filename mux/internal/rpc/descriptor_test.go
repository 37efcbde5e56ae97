package rpc_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
)

// The promise of a .proto file is found by the name of the method; a service whose
// file nobody knows has promised nothing.
func TestIdempotency(t *testing.T) {
	method := func(name string, level descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: proto.String(".google.protobuf.Empty"), OutputType: proto.String(".google.protobuf.Empty"),
			Options: &descriptorpb.MethodOptions{IdempotencyLevel: &level},
		}
	}
	silent := method("Silent", 0)
	silent.Options = nil
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("rpc_test/idempotency.proto"), Package: proto.String("rpc_test"), Syntax: proto.String("proto3"),
		Dependency: []string{emptypb.File_google_protobuf_empty_proto.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Promises"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Safe", descriptorpb.MethodOptions_NO_SIDE_EFFECTS), method("Twice", descriptorpb.MethodOptions_IDEMPOTENT), silent,
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	// With -count the file is there already, and stays.
	if _, err := protoregistry.GlobalFiles.FindFileByPath(file.Path()); err != nil {
		if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
			t.Fatal(err)
		}
	}
	reg := newRegistry(rpc.Config{}, func(r grpc.ServiceRegistrar) {
		desc := &grpc.ServiceDesc{ServiceName: "rpc_test.Promises", HandlerType: (*any)(nil)}
		for _, name := range []string{"Safe", "Twice", "Silent", "Forgotten"} {
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: unaryHandler})
		}
		r.RegisterService(desc, nil)
		new(script).register(r)
	})
	for name, want := range map[string]struct {
		known bool
		level descriptorpb.MethodOptions_IdempotencyLevel
	}{
		"/rpc_test.Promises/Safe":      {true, descriptorpb.MethodOptions_NO_SIDE_EFFECTS},
		"/rpc_test.Promises/Twice":     {true, descriptorpb.MethodOptions_IDEMPOTENT},
		"/rpc_test.Promises/Silent":    {true, descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN},
		"/rpc_test.Promises/Forgotten": {false, descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN},
		scriptUnary:                    {false, descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN},
	} {
		m, err := reg.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if known := m.Descriptor() != nil; known != want.known || m.Idempotency() != want.level {
			t.Errorf("%s: known %v, %v; want %v, %v", name, known, m.Idempotency(), want.known, want.level)
		}
	}
}
