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
func TestWebSocketSilence(t *testing.T) { bySocket(t, silence) }

func silence(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
	conn := dial()
	reply := e.Open(t, conn)
	e.Exchange(t, conn, reply, 0)
	start := time.Now()
	if got := reply(); got != `ping ""` {
		t.Errorf("%s, want a ping", got)
	}
	wantEOF(t, reply, start, 35*time.Second)
}

// T2: a client that does not read what it has asked for is given up, and meanwhile is
// nothing to another one.
func TestWebSocketStalledReader(t *testing.T) {
	var conns openConns
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		good, stalled := dial(), dial()
		reply := e.Open(t, good)
		e.Exchange(t, good, reply, 0)
		e.Open(t, stalled)
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := range 60 { // their answers are more than there is room for on the way
				p, _ := e.Message(n, sockettest.Long(5000), "")
				stalled.Write(sockettest.Frame(sockettest.Fin|e.Kind, p)) // fails in the end, if it waits
			}
		}()
		synctest.Wait()
		e.Exchange(t, good, reply, 1)
		if got := time.Since(start); got != 0 {
			t.Errorf("the other client has its answer after %v, want at once", got)
		}
		const limit = 10 * time.Second
		time.Sleep(limit - time.Nanosecond)
		synctest.Wait()
		if n := conns.n.Load(); n != 2 {
			t.Errorf("%d connections are open just before %v, want 2", n, limit)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := conns.n.Load(); n != 1 {
			t.Errorf("%d connections are open after %v, want 1", n, limit)
		}
		<-done
		e.Exchange(t, good, reply, 2)
	}, mux.WithStatsHandler(&conns))
}

// X10: the connection breaks without a close frame.
func TestWebSocketCut(t *testing.T) {
	var conns openConns
	bySocket(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		conn := dial()
		reply := e.Open(t, conn)
		e.Exchange(t, conn, reply, 0)
		synctest.Wait()
		if n := conns.n.Load(); n != 1 {
			t.Errorf("%d connections are open, want 1", n)
		}
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		conn.Close()
		synctest.Wait()
		if n := conns.n.Load(); n != 0 {
			t.Errorf("%d connections are open after that, want none", n)
		}
	}, mux.WithStatsHandler(&conns))
}

// openConns counts the connections that have begun and not ended.
type openConns struct{ n atomic.Int32 }

func (c *openConns) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.n.Add(1)
	case *stats.ConnEnd:
		c.n.Add(-1)
	}
}

func (c *openConns) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *openConns) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *openConns) HandleRPC(context.Context, stats.RPCStats)                         {}

// X11: a client that does not answer the server's close frame.
func TestWebSocketCloseUnanswered(t *testing.T) { bySocket(t, closeUnanswered) }

func closeUnanswered(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
	conn := dial()
	reply := e.Open(t, conn)
	down := make(chan error, 1)
	want := "close 1001"
	if e.OtherKind != "" {
		// A tunnel that has said nothing is ended by the split, and may be before
		// its WebSocket is told of the shutdown.
		want = e.OtherKind
		conn.Write(sockettest.Frame(sockettest.Fin|sockettest.Text, "x"))
		down <- nil
	} else {
		go func() { down <- s.Shutdown(t.Context()) }()
	}
	if got := reply(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	start := time.Now()
	wantEOF(t, reply, start, time.Second)
	if err := <-down; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
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
