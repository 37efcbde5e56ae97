package rpc

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Descriptor describes the method as its .proto file does, nil if that file is
// not among protoregistry.GlobalFiles: generated code registers it there, a
// service that was put together by hand need not.
func (m *Method) Descriptor() protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(m.FullName, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	md, _ := d.(protoreflect.MethodDescriptor)
	return md
}

// Idempotency is what the .proto file promises of a method that is called twice
// or for nothing; IDEMPOTENCY_UNKNOWN where it is silent or unknown.
func (m *Method) Idempotency() descriptorpb.MethodOptions_IdempotencyLevel {
	d := m.Descriptor()
	if d == nil {
		return descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	}
	opts, _ := d.Options().(*descriptorpb.MethodOptions)
	return opts.GetIdempotencyLevel()
}
