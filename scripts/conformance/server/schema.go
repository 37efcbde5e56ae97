package main

import (
	"context"
	"fmt"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// schemaPackage is where the suite's messages and its service are.
const schemaPackage protoreflect.FullName = "connectrpc.conformance.v1"

// schemaFiles are the suite's files that a server needs, in order of import.
var schemaFiles = []string{
	"connectrpc/conformance/v1/config.proto",
	"connectrpc/conformance/v1/service.proto",
	"connectrpc/conformance/v1/server_compat.proto",
}

// loadSchema compiles the suite's files, which are in dir, and makes them known to
// the protobuf runtime, as generated code does by being linked in. Servers look
// there for a method's options, JSON for what is inside an Any.
func loadSchema(ctx context.Context, dir string) error {
	c := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
	}
	files, err := c.Compile(ctx, schemaFiles...)
	if err != nil {
		return fmt.Errorf("compile the files in %q: %w", dir, err)
	}
	for _, f := range files {
		// Built again on what is linked in: the compiler has an Any of its own.
		file, err := protodesc.NewFile(protoutil.ProtoFromFileDescriptor(f), protoregistry.GlobalFiles)
		if err == nil {
			err = protoregistry.GlobalFiles.RegisterFile(file)
		}
		if err == nil {
			err = registerTypes(file.Messages())
		}
		if err != nil {
			return fmt.Errorf("register %s: %w", f.Path(), err)
		}
	}
	return nil
}

// registerTypes makes messages, and those nested in them, known by name.
func registerTypes(messages protoreflect.MessageDescriptors) error {
	for i := range messages.Len() {
		d := messages.Get(i)
		if err := protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(d)); err != nil {
			return err
		}
		if err := registerTypes(d.Messages()); err != nil {
			return err
		}
	}
	return nil
}

// findService returns a service of the suite.
func findService(name protoreflect.Name) (protoreflect.ServiceDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(schemaPackage.Append(name))
	if err != nil {
		return nil, fmt.Errorf("find service %s: %w", name, err)
	}
	s, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("find service %s: it is no service", name)
	}
	return s, nil
}
