package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/stats"

	"oneport/mux"
	"oneport/mux/internal/socket/sockettest"
	"oneport/mux/muxtest"
)

// The WebSocket cases in which time passes, or a connection breaks.

// bySocket runs a test at every endpoint, in cleartext and TLS, with a server of its own
// in a bubble. dial opens a connection to it.
func bySocket(t *testing.T, test func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn), opts ...mux.Option) {
	for scheme, secure := range schemes {
		for _, e := range oneAPath {
			t.Run(e.Path+" "+scheme, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := muxtest.New(t, services, append(opts, mux.WithMaxMessageBytes(conformanceLimit))...)
					test(t, e, s, func() net.Conn {
						conn, err := s.DialContext(t.Context(), "tcp", "")
						if err != nil {
							t.Fatal(err)
						}
						if secure {
							conn = tls.Client(conn, s.ClientTLS.Clone())
						}
						return conn
					})
				})
			})
		}
	}
}

// wantEOF checks that the server ends the connection after a time.
func wantEOF(t *testing.T, reply func() string, start time.Time, after time.Duration) {
	t.Helper()
	if got := reply(); got != "EOF" {
		t.Errorf("%s, want EOF", got)
	}
	if got := time.Since(start); got != after {
		t.Errorf("ended after %v, want %v", got, after)
	}
}

// T1: a client that is gone without a word.
func TestWebSocketSilence(t *testing.T) {
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		conn := dial()
		reply := e.Open(t, conn)
		e.Exchange(t, conn, reply, 0)
		start := time.Now()
		if got := reply(); got != `ping ""` {
			t.Errorf("%s, want a ping", got)
		}
		wantEOF(t, reply, start, 35*time.Second)
	})
}

// T2: a client that writes and does not read is given up, and meanwhile is nothing to
// another one.
func TestWebSocketStalledReader(t *testing.T) {
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		good, stalled := dial(), dial()
		reply := e.Open(t, good)
		e.Exchange(t, good, reply, 0)
		e.Open(t, stalled)
		start := time.Now()
		ended := make(chan time.Duration, 1)
		go func() {
			for n := 0; ; n++ {
				p, _ := e.Message(n, sockettest.Long(5000), "")
				if _, err := stalled.Write(sockettest.Frame(sockettest.Fin|e.Kind, p)); err != nil {
					ended <- time.Since(start)
					return
				}
			}
		}()
		synctest.Wait()
		e.Exchange(t, good, reply, 1)
		if got := time.Since(start); got != 0 || len(ended) > 0 {
			t.Errorf("after %v the other client has its answer, and %d have ended; want at once and none", got, len(ended))
		}
		if got := <-ended; got != 10*time.Second {
			t.Errorf("given up after %v, want 10s", got)
		}
		e.Exchange(t, good, reply, 2)
	})
}

// X10: the connection breaks without a close frame.
func TestWebSocketCut(t *testing.T) {
	var conns connEnds
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		conns.n.Store(0)
		conn := dial()
		reply := e.Open(t, conn)
		e.Exchange(t, conn, reply, 0)
		synctest.Wait()
		if n := conns.n.Load(); n != 0 {
			t.Fatalf("%d connections have ended, want none", n)
		}
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		conn.Close()
		synctest.Wait()
		if n := conns.n.Load(); n != 1 {
			t.Errorf("%d connections have ended, want 1", n)
		}
	}, mux.WithStatsHandler(&conns))
}

// connEnds counts the connections that have ended.
type connEnds struct{ n atomic.Int32 }

func (c *connEnds) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		c.n.Add(1)
	}
}

func (c *connEnds) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connEnds) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connEnds) HandleRPC(context.Context, stats.RPCStats)                         {}

// X11: a client that does not answer the server's close frame.
func TestWebSocketCloseUnanswered(t *testing.T) {
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		conn := dial()
		reply := e.Open(t, conn)
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		if got := reply(); got != "close 1001" {
			t.Errorf("%s, want close 1001", got)
		}
		start := time.Now()
		wantEOF(t, reply, start, time.Second)
		if err := <-down; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}

// H16: a handshake that comes an octet a second.
func TestWebSocketHandshakeDrips(t *testing.T) {
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		conn := dial()
		r := bufio.NewReader(conn)
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, octet := range []byte(e.Handshake()) {
				if _, err := conn.Write([]byte{octet}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != http.StatusRequestTimeout || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v, %v; want 408 after 3s", time.Since(start), res, err)
		}
		io.Copy(io.Discard, r)
		if got := time.Since(start); got > 4*time.Second {
			t.Errorf("ended after %v, want at most 4s", got)
		}
		<-done
	})
}
