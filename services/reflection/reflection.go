// Package reflection serves grpc.reflection.v1.ServerReflection and its predecessor v1alpha, by
// which tools learn the services, methods and messages of a server and need no .proto files:
//
//	grpcurl -plaintext localhost:8080 list
//	grpcurl -plaintext localhost:8080 describe echo.v1.EchoService
//	grpcurl -plaintext -d '{"name":"world"}' localhost:8080 helloworld.Greeter/SayHello
//
// Whoever can reach the server can read its whole API this way; where that is not wanted, do
// not register it.
package reflection

import "google.golang.org/grpc/reflection"

// Register registers both versions with s, such as a *grpc.Server. A client sees the services
// that s has when it asks, so the order of registration does not matter. They are described
// from what generated code has put into protoregistry.GlobalFiles; a service that is not there
// is listed by its name only.
func Register(s reflection.GRPCServer) { reflection.Register(s) }
