package mux_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/proto/helloworld"
	"oneport/services/greeter"
)

// A client that hangs up in the middle of the greeting leaves no connection behind,
// whether it resets or closes: grpc-go, which cannot write then, goes by its reader.
func TestHangUpAtGreeting(t *testing.T) {
	for _, reset := range []bool{false, true} {
		p := start(t, cleartextOnly, services)
		for range 200 {
			c := p.dial()
			if _, err := c.Write(opening()); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 9)); err != nil { // the greeting
				t.Fatal(err)
			}
			h := headers(1, "POST", "/echo.v1.EchoService/Converse", "content-type", "application/grpc")
			h.EndStream = false
			if _, err := c.Write(frames(func(fr *http2.Framer) { fr.WriteHeaders(h) })); err != nil {
				t.Fatal(err)
			}
			if reset {
				c.SetLinger(0)
			}
			c.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("reset: %v: Shutdown = %v, want no connection to be left", reset, err)
		}
		cancel()
	}
}

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
