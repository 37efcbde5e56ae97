package mux_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"oneport/mux"
	"oneport/mux/tunnel"
)

// eventListener tells when it is asked for a connection, and when one of them is closed.
type eventListener struct {
	net.Listener
	tell func(event string)
}

func (l eventListener) Accept() (net.Conn, error) {
	l.tell("accept")
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eventConn{Conn: c, tell: l.tell}, nil
}

type eventConn struct {
	net.Conn
	tell   func(event string)
	closed sync.Once
}

func (c *eventConn) Close() error {
	c.closed.Do(func() { c.tell("close") })
	return c.Conn.Close()
}

// A limit on connections counts a tunnel as one, from its handshake to its end: the next
// is accepted when one has ended, and no sooner.
func TestTunnelCounts(t *testing.T) {
	const limit = 2
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := mux.NewServer()
	services(s)
	var mu sync.Mutex
	var events []string
	under := eventListener{ln, func(event string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event)
	}}
	want := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if got := events[:min(len(events), limit+2)]; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	p := serveOn(t, netutil.LimitListener(under, limit), s, nil)
	connected := make(chan struct{}, limit+1)
	dial := func() *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return tunnel.Dial(ctx, p.url("ws", tunnel.Path), &tunnel.DialOptions{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, addr)
					connected <- struct{}{}
					return c, err
				}})
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return cc
	}
	var open []*grpc.ClientConn
	for i := range limit {
		cc := dial()
		open = append(open, cc)
		if err := hello(t, cc); err != nil {
			t.Errorf("tunnel %d of %d: %v", i+1, limit, err)
		}
		receive(t, connected, "the connection of a tunnel")
	}
	more := dial()
	answered := make(chan error, 1)
	go func() { answered <- hello(t, more) }()
	receive(t, connected, "the connection of the tunnel that waits")
	want("accept", "accept")
	open[0].Close()
	if err := receive(t, answered, "the call of the tunnel that waited"); err != nil {
		t.Errorf("after the end of another: %v", err)
	}
	want("accept", "accept", "close", "accept")
}
