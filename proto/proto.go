// Package proto has the descriptors of all .proto files below it, with the comments that
// generated code leaves out.
package proto

import _ "embed"

// Descriptors is a google.protobuf.FileDescriptorSet, for mux.WithOpenAPI.
//
//go:embed descriptors.binpb
var Descriptors []byte
