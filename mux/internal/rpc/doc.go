// Package rpc is the core of oneport: it runs gRPC methods for every protocol
// but native gRPC, whose calls grpc-go runs itself.
//
// # One dispatcher
//
// A [Registry] holds the services, taken as [grpc.ServiceDesc]. An adapter
// (WebSocket, Connect, REST, …) finds a [Method] by its full name, wraps its
// wire format in a [Stream] of three methods, and calls [Method.Serve]. Serve
// gives the handler a [grpc.ServerStream] built on it and owns everything that
// must hold for every protocol: interceptors, stats handlers, the deadline, the
// message limit, header and trailer rules, the panic guard, and the way errors
// become a status. None of it is written again in an adapter.
//
// # In process
//
// [Conn] is a client on the same dispatcher: a generated stub that uses it
// calls the handler without a socket and without encoding unary messages.
//
// The package knows neither net/http nor sockets.
package rpc
