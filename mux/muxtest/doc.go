// Package muxtest runs a [mux.Server] in memory, with a client for each of its
// protocols, for the tests of the services and handlers registered on it.
//
//	func TestGreeter(t *testing.T) {
//		s := muxtest.New(t, func(s *mux.Server) {
//			helloworld.RegisterGreeterServer(s, greeter{})
//		})
//		client := helloworld.NewGreeterClient(s.GRPC())
//		…
//	}
//
// Nothing is opened outside the process and nothing need be closed: server and
// clients end with the test, in the order clients, calls, server, listener.
// [Run] repeats a test over every road on which there is a client for gRPC stubs.
//
// # Time
//
// All of it works in a bubble of package [testing/synctest], which has a clock of
// its own: timeouts, keepalive and shutdown are then tested exactly and at once.
// Make server and clients inside the bubble, with its *testing.T.
package muxtest
