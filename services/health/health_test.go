package health_test

import (
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"oneport/services/health"
	"oneport/services/internal/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T) (*grpchealth.Server, pb.HealthClient) {
	t.Helper()
	var s *grpchealth.Server
	cc := servicetest.Dial(t, func(srv *grpc.Server) { s = health.Register(srv) })
	return s, pb.NewHealthClient(cc)
}

func TestCheck(t *testing.T) {
	s, client := dial(t)
	check := func(name string, code codes.Code, want pb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		res, err := client.Check(t.Context(), &pb.HealthCheckRequest{Service: name})
		if status.Code(err) != code || res.GetStatus() != want {
			t.Errorf("Check(%q) = %v, %v, want %v, %v", name, res.GetStatus(), err, want, code)
		}
	}
	check("", codes.OK, pb.HealthCheckResponse_SERVING)
	check("helloworld.Greeter", codes.NotFound, pb.HealthCheckResponse_UNKNOWN)

	s.SetServingStatus("helloworld.Greeter", pb.HealthCheckResponse_SERVING)
	check("helloworld.Greeter", codes.OK, pb.HealthCheckResponse_SERVING)

	s.Shutdown()
	check("", codes.OK, pb.HealthCheckResponse_NOT_SERVING)
	check("helloworld.Greeter", codes.OK, pb.HealthCheckResponse_NOT_SERVING)
}

func TestWatchSeesShutdown(t *testing.T) {
	s, client := dial(t)
	stream, err := client.Watch(t.Context(), &pb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []pb.HealthCheckResponse_ServingStatus{pb.HealthCheckResponse_SERVING, pb.HealthCheckResponse_NOT_SERVING} {
		res, err := stream.Recv()
		if err != nil || res.GetStatus() != want {
			t.Fatalf("Watch = %v, %v, want %v", res.GetStatus(), err, want)
		}
		s.Shutdown()
	}
}
