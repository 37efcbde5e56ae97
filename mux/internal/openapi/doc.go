// Package openapi describes the methods of a server to clients that learn of them at run
// time: by an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) and by a
// google.protobuf.FileDescriptorSet, both made of the descriptors that generated code has
// registered.
//
// # What is in the document
//
// Each rule of a google.api.http option is one operation. A unary method without one has
// an operation too, its call by Connect. Streams without one are told of in the tag of
// their service. Services of gRPC itself, in packages that begin with "grpc.", are left
// out, and so are those that are not in protoregistry.GlobalFiles.
//
// A path of OpenAPI has parameters of one segment, and no two paths that differ in the
// names of these only. See pathOf for variables with several segments. Where a rule with
// "**" would be at the same path and HTTP method as one with "*", it has a parameter more.
// HTTP methods that OpenAPI 3.1 has no place for are under x-oai-additionalOperations, as
// OpenAPI 3.2 has them under additionalOperations.
package openapi
