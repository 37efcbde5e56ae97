// Package conformance has the tests that drive a mux.Server with the interop cases of
// grpc-go. The Connect conformance suite has a runner of its own; ./run runs both.
package conformance
