// Package conformance has the tests that drive a mux.Server with the suites of
// others: grpc-go's interop cases and h2spec. The Connect conformance suite has a
// runner of its own; ./run runs all three.
package conformance
