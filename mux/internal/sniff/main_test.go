package sniff

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is a configuration for tests in which nothing should be logged that anybody wants to see.
var quiet = Config{Log: slog.New(slog.DiscardHandler)}

var allKinds = []Kind{Unknown, TLS, GRPC, HTTP2, Upgrade, HTTP1}

// verdict asks the matchers in turn, as cmux does.
func verdict(t testing.TB, c net.Conn) Kind {
	t.Helper()
	for _, k := range allKinds {
		if Match(k)(c, nil) {
			return k
		}
	}
	t.Fatal("no kind matches")
	return Unknown
}

// accept passes nc through a Listener.
func accept(t testing.TB, nc net.Conn, cfg Config) *Conn {
	t.Helper()
	ln := newFakeListener()
	ln.conns <- nc
	l := NewListener(ln, cfg)
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return c.(*Conn)
}

// A fakeListener accepts what is put into its channels.
type fakeListener struct {
	conns     chan net.Conn
	errs      chan error
	done      chan struct{}
	closeOnce func()
}

func newFakeListener() *fakeListener {
	l := &fakeListener{conns: make(chan net.Conn, 1024), errs: make(chan error, 1024), done: make(chan struct{})}
	l.closeOnce = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error   { l.closeOnce(); return nil }
func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A script is a connection that gives one piece with each Read, then err, and keeps what is written.
type script struct {
	pieces  [][]byte
	err     error // nil means io.EOF
	given   int   // bytes read
	written bytes.Buffer
	closed  bool
}

func (s *script) Read(p []byte) (int, error) {
	for len(s.pieces) > 0 {
		n := copy(p, s.pieces[0])
		s.pieces[0] = s.pieces[0][n:]
		if len(s.pieces[0]) == 0 {
			s.pieces = s.pieces[1:]
		}
		if n > 0 {
			s.given += n
			return n, nil
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return 0, io.EOF
}

func (s *script) Write(p []byte) (int, error)      { return s.written.Write(p) }
func (s *script) Close() error                     { s.closed = true; return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// frames returns the client preface and what write adds to it.
func frames(write func(*http2.Framer)) []byte {
	b := bytes.NewBufferString(http2.ClientPreface)
	fr := http2.NewFramer(b, nil)
	fr.AllowIllegalWrites = true
	write(fr)
	return b.Bytes()
}

// fields encodes names and values as a header block.
func fields(kv ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(kv); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return b.Bytes()
}

// post is a header block for a POST with a content-type.
func post(contentType string) []byte {
	return fields(":method", "POST", ":scheme", "http", ":path", "/helloworld.Greeter/SayHello", ":authority", "localhost",
		"te", "trailers", "content-type", contentType, "user-agent", "test")
}

func headers(block []byte) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}
}

// request is a whole opening: preface, SETTINGS and one request with a content-type.
func request(contentType string) []byte {
	return frames(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		fr.WriteHeaders(headers(post(contentType)))
	})
}

// tcpPair returns both ends of a TCP connection over loopback.
func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
