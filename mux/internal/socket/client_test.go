package socket

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"oneport/mux/internal/socket/sockettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sampleKey    = sockettest.Key
	sampleAccept = sockettest.Accept
)

const opText, opBinary = byte(Text), byte(Binary)

// quiet keeps expected panics out of the test's output.
var quiet = slog.New(slog.DiscardHandler)

// client is a WebSocket client that writes whatever it is told to.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

// serve starts an HTTP server whose handler upgrades with s, in cleartext or TLS,
// and returns how to reach it. s ends before the test.
func serve(t testing.TB, s *Server, secure bool, handler func(*Conn), protocols ...string) (dial func() net.Conn) {
	t.Helper()
	hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Upgrade(w, r, handler, protocols...)
	}))
	if secure {
		hs.StartTLS()
	} else {
		hs.Start()
	}
	t.Cleanup(func() {
		s.Close() // does not wait long for handlers that are late
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		hs.Close()
	})
	return func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", hs.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}
		conn.SetDeadline(time.Now().Add(time.Minute)) // of a test that has gone wrong
		return conn
	}
}

// handshake is a request that will be upgraded; more are header lines.
func handshake(more ...string) string { return sockettest.Handshake("/", more...) }

// open sends a handshake, and early together with it.
func (c *client) open(early ...byte) *http.Response {
	c.t.Helper()
	c.send(append([]byte(handshake()), early...))
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("handshake: %s", res.Status)
	}
	return res
}

func (c *client) send(p []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatalf("send %d bytes: %v", len(p), err)
	}
}

const fin = sockettest.Fin

// Short names of what the cases are made of.
var (
	frame    = sockettest.Frame
	mask     = sockettest.Mask
	closing  = sockettest.Closing
	long     = sockettest.Long
	describe = sockettest.Describe
)

func text(s string) []byte    { return frame(fin|opText, s) }
func binaryF(s string) []byte { return frame(fin|opBinary, s) }
func ping(s string) []byte    { return frame(fin|opPing, s) }
func pong(s string) []byte    { return frame(fin|opPong, s) }

// next reads a frame.
func (c *client) next() (first byte, payload string, err error) {
	return sockettest.ReadFrame(c.r)
}

// reply reads a frame and describes it, or the end of the connection as "EOF".
func (c *client) reply() string { return sockettest.Reply(c.r) }

// want checks the next frames.
func (c *client) want(replies ...string) {
	c.t.Helper()
	for i, want := range replies {
		if got := c.reply(); got != want {
			c.t.Fatalf("reply %d = %s, want %s", i+1, got, want)
		}
	}
}

// hijackable is what net/http gives a handler, as far as Upgrade is concerned.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
	read string // already read from conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r := bufio.NewReader(io.MultiReader(strings.NewReader(h.read), h.conn))
	r.Peek(len(h.read))
	return h.conn, bufio.NewReadWriter(r, bufio.NewWriter(h.conn)), nil
}

// upgrade has s upgrade one end of conns without a server, and returns the other
// end as client, after its handshake.
func upgrade(t testing.TB, s *Server, near, far net.Conn, handler func(*Conn)) *client {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
	if err != nil {
		t.Fatal(err)
	}
	go s.Upgrade(hijackable{httptest.NewRecorder(), near, ""}, r.WithContext(context.Background()), handler)
	c := newClient(t, far)
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	return c
}

// pipe is upgrade over a net.Pipe, for use in synctest bubbles.
func pipe(t testing.TB, s *Server, handler func(*Conn)) *client {
	t.Helper()
	near, far := net.Pipe()
	return upgrade(t, s, near, far, handler)
}
