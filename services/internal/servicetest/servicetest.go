// Package servicetest runs one service on a plain grpc.Server in memory, for the tests of the
// packages around it.
package servicetest

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// Dial starts a server with what register registers and returns a connection to it. Both end
// with the test. It may be called in a synctest bubble.
func Dial(t testing.TB, register func(*grpc.Server), opts ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	ln := bufconn.Listen(64 << 10)
	srv := grpc.NewServer(opts...)
	register(srv)
	go srv.Serve(ln) // ends, with an error of no interest, when the listener is closed by Stop
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}
