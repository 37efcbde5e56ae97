// Package health serves grpc.health.v1.Health, by which load balancers, Kubernetes' gRPC probe
// and gRPC clients with health checking learn whether to send calls here. One can be asked by
// hand too:
//
//	grpcurl -plaintext localhost:8080 grpc.health.v1.Health/Check
//
// The protocol is described in https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
package health

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
)

// Register registers a health service with r and returns grpc's own implementation of it, by
// which the caller sets what it answers, at any time and from any goroutine.
//
// The empty name, which is what a probe asks for unless told otherwise, is SERVING from the
// start and stands for the whole server. Every other name is NOT_FOUND (to Watch,
// SERVICE_UNKNOWN) until SetServingStatus gives it a status.
//
// Call Shutdown on the result when the server begins to drain: every status becomes
// NOT_SERVING, and watchers are told at once, so that no new calls are sent here while those in
// flight end. Calls of Watch go on until their clients end them.
func Register(r grpc.ServiceRegistrar) *health.Server {
	s := health.NewServer()
	pb.RegisterHealthServer(r, s)
	return s
}
