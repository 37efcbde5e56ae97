package openapitest

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"oneport/mux/internal/rest/resttest"
)

// Document is one that is in testdata under its name.
type Document struct {
	Name    string
	JSON    protojson.MarshalOptions
	Service *grpc.ServiceDesc

	Comments string // the file that has them, from the directory of package openapi; may be empty
}

// Documents are those of services that have all there is to describe.
var Documents = []Document{
	{"library", protojson.MarshalOptions{}, &resttest.Library_ServiceDesc, "../rest/resttest/descriptors.binpb"},
	{"things", protojson.MarshalOptions{}, &Things_ServiceDesc, "openapitest/descriptors.binpb"},
	{"options", protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true, EmitUnpopulated: true}, &Things_ServiceDesc, ""},
}
