// Package gateway has the tests of oneport beside grpc-gateway: that a gateway which a
// program has already goes on working on a Server, and where the answers of the two to one
// request differ.
package gateway
