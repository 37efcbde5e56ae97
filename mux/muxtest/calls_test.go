package muxtest_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/mux/wsrpc"
	pb "oneport/proto/echo"
)

// network is a way to a server that can be cut, closed and muted.
type network struct {
	server *muxtest.Server

	mu      sync.Mutex
	refuses bool        // guarded by mu
	dials   []time.Time // guarded by mu
	conns   []*muteConn // guarded by mu
}

func (n *network) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials = append(n.dials, time.Now())
	if n.refuses {
		return nil, errors.New("refused")
	}
	c, err := n.server.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m := &muteConn{Conn: c, muted: make(chan struct{}), closed: make(chan struct{})}
	n.conns = append(n.conns, m)
	return m, nil
}

// last is the newest connection, and since when new ones are refused or not.
func (n *network) last(refuse bool) *muteConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuses = refuse
	n.dials = nil
	return n.conns[len(n.conns)-1]
}

// muteConn loses all there is to read and write once it is muted.
type muteConn struct {
	net.Conn
	muted, closed chan struct{}
	once          sync.Once
}

func (c *muteConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.muted:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *muteConn) Write(p []byte) (int, error) {
	select {
	case <-c.muted:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

func (c *muteConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// onNetwork runs f in a bubble with a client of grpc-ws.v1 whose network is f's.
func onNetwork(t *testing.T, svc service, f func(t *testing.T, n *network, cc *wsrpc.ClientConn, c pb.EchoServiceClient)) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{server: serverOf(t, svc)}
		cc, err := wsrpc.Dial(t.Context(), "ws://oneport.test", &wsrpc.DialOptions{NetDialContext: n.dial})
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		f(t, n, cc, pb.NewEchoServiceClient(cc))
	})
}

func serverOf(t *testing.T, svc service) *muxtest.Server {
	return muxtest.New(t, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, svc) })
}

func echoing() service {
	ended := make(chan time.Duration, 10)
	svc := road{}.blocked(ended)
	svc.expand = func(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
		return stream.Send(&pb.ExpandResponse{Message: req.GetMessage()})
	}
	return svc
}

func wantEcho(t *testing.T, c pb.EchoServiceClient, opts ...grpc.CallOption) {
	t.Helper()
	stream, err := c.Expand(t.Context(), &pb.ExpandRequest{Message: "x"}, opts...)
	if err != nil {
		t.Fatalf("a call = %v", err)
	}
	if res, err := stream.Recv(); err != nil || res.GetMessage() != "x" {
		t.Errorf("a call = %q, %v", res.GetMessage(), err)
	}
}

// A call whose socket ends is UNAVAILABLE, and not made again; the next one goes over
// a new socket, at once if the old one had lived, else after growing delays.
func TestSocketReconnects(t *testing.T) {
	onNetwork(t, echoing(), func(t *testing.T, n *network, cc *wsrpc.ClientConn, c pb.EchoServiceClient) {
		stream, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		n.last(false).Close()
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("a call whose socket was cut = %v, want Unavailable", err)
		}
		synctest.Wait()
		if got := cc.State(); got != connectivity.Ready {
			t.Errorf("after a cut the state is %v, want READY again", got)
		}
		wantEcho(t, c)

		time.Sleep(5 * time.Second)
		cut := time.Now()
		n.last(true).Close()
		synctest.Wait()
		if _, err := c.Echo(t.Context(), &pb.EchoRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
			t.Errorf("a call without a connection = %v, want Unavailable and why", err)
		}
		waited := make(chan error, 1)
		go func() {
			_, err := c.Expand(t.Context(), &pb.ExpandRequest{}, grpc.WaitForReady(true))
			waited <- err
		}()
		time.Sleep(20 * time.Second)
		n.mu.Lock()
		dials := n.dials
		n.refuses = false
		n.mu.Unlock()
		if len(dials) < 4 || dials[0] != cut {
			t.Fatalf("attempts to connect at %v after a cut at %v, want one at once and several more", dials, cut)
		}
		least, most := 800*time.Millisecond, 1200*time.Millisecond // 1 s, by a fifth less or more
		for i := 1; i < len(dials); i++ {
			if d := dials[i].Sub(dials[i-1]); d < least || d > most {
				t.Errorf("attempt %d came after %v, want %v to %v", i, d, least, most)
			}
			least, most = least*16/10, most*16/10
		}
		if got := cc.State(); got != connectivity.TransientFailure {
			t.Errorf("between attempts the state is %v, want TRANSIENT_FAILURE", got)
		}
		if !cc.WaitForStateChange(t.Context(), connectivity.TransientFailure) {
			t.Error("the state has not changed")
		}
		if err := <-waited; err != nil {
			t.Errorf("a call that waited for a connection = %v", err)
		}
		wantEcho(t, c)
	})
}

// A server that has gone without a word is noticed by its silence, and only that.
func TestSocketKeepalive(t *testing.T) {
	onNetwork(t, echoing(), func(t *testing.T, n *network, cc *wsrpc.ClientConn, c pb.EchoServiceClient) {
		time.Sleep(10 * time.Minute)
		wantEcho(t, c)
		if n.mu.Lock(); len(n.dials) != 1 {
			t.Errorf("%d connections in 10 idle minutes, want 1", len(n.dials))
		}
		n.mu.Unlock()
		synctest.Wait()
		muted := time.Now()
		close(n.last(true).muted)
		cc.WaitForStateChange(t.Context(), connectivity.Ready)
		if took := time.Since(muted); took > 50*time.Second || took < 20*time.Second {
			t.Errorf("the silence was noticed after %v, want at most 30s and 20s", took)
		}
	})
}

// Close ends the calls in flight, and later ones do not begin.
func TestSocketClose(t *testing.T) {
	onNetwork(t, echoing(), func(t *testing.T, n *network, cc *wsrpc.ClientConn, c pb.EchoServiceClient) {
		stream, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := cc.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("a call in flight = %v, want Canceled", err)
		}
		if _, err := c.Echo(t.Context(), &pb.EchoRequest{}, grpc.WaitForReady(true)); status.Code(err) != codes.Canceled {
			t.Errorf("a call after Close = %v, want Canceled", err)
		}
		if got := cc.State(); got != connectivity.Shutdown {
			t.Errorf("state is %v, want SHUTDOWN", got)
		}
	})
}

// What cannot work is told by Dial.
func TestSocketDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serverOf(t, echoing())
		for _, tt := range []struct {
			url, want string
			opts      wsrpc.DialOptions
		}{
			{"http://oneport.test", "use ws", wsrpc.DialOptions{}},
			{"ws://oneport.test/nothing", "404", wsrpc.DialOptions{}},
			{"ws://oneport.test/ws", "does not speak grpc-ws.v1", wsrpc.DialOptions{}},
			{"ws://oneport.test", "use wss", wsrpc.DialOptions{PerRPCCredentials: token{}}},
			{"wss://oneport.test", "certificate", wsrpc.DialOptions{}},
		} {
			tt.opts.NetDialContext = s.DialContext
			if cc, err := wsrpc.Dial(t.Context(), tt.url, &tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial(%s) = %v, %v, want an error with %q", tt.url, cc, err, tt.want)
			}
		}
	})
}

// token is credentials that are not for cleartext.
type token struct{}

func (token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}
func (token) RequireTransportSecurity() bool { return true }
