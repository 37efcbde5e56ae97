package greeter_test

import (
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	pb "oneport/proto/helloworld"
	"oneport/services/greeter"
	"oneport/services/internal/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSayHello(t *testing.T) {
	cc := servicetest.Dial(t, func(s *grpc.Server) { greeter.Register(s) })
	for _, name := range []string{"", "world", "Δέσποινα"} {
		// The method is spelled out, and not taken from the generated client, because
		// existing clients call it by this name.
		got := new(pb.HelloReply)
		err := cc.Invoke(t.Context(), "/helloworld.Greeter/SayHello", &pb.HelloRequest{Name: name}, got)
		if want := "Hello " + name; err != nil || got.GetMessage() != want {
			t.Errorf("SayHello(%q) = %q, %v, want %q", name, got.GetMessage(), err, want)
		}
	}
}
