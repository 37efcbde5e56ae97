package mux_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/proto/helloworld"
	"oneport/services/greeter"
)

// A gRPC channel connects before its first call, with round_robin always, and
// may then be silent for long. It is not cut for that, however short the time in
// which a connection must show what it speaks; and the first call goes out on
// the connection it has.
func TestIdleChannelIsNotCut(t *testing.T) {
	for _, road := range []struct {
		name string
		dial func(*muxtest.Server, ...grpc.DialOption) *grpc.ClientConn
	}{
		{"cleartext", (*muxtest.Server).GRPC},
		{"TLS", (*muxtest.Server).GRPCTLS},
	} {
		t.Run(road.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, func(s *mux.Server) { greeter.Register(s) })
				var dials atomic.Int32
				cc := road.dial(s,
					grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
					grpc.WithIdleTimeout(0), // the channel's own, which would hang up by itself
					grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
						dials.Add(1)
						return s.DialContext(ctx, "tcp", addr)
					}))
				cc.Connect()
				for range 300 {
					time.Sleep(time.Second)
					synctest.Wait()
					if got := cc.GetState(); got != connectivity.Ready {
						t.Fatalf("state = %v after %d dials, want READY", got, dials.Load())
					}
				}
				reply, err := helloworld.NewGreeterClient(cc).SayHello(t.Context(), &helloworld.HelloRequest{Name: "you"})
				if err != nil || reply.GetMessage() != "Hello you" {
					t.Errorf("SayHello = %v, %v", reply, err)
				}
				if n := dials.Load(); n != 1 {
					t.Errorf("%d connections in 5 minutes, want 1", n)
				}
			})
		})
	}
}
