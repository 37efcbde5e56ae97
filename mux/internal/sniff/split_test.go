package sniff

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"
)

// These tests put real servers behind cmux and real clients in front of it.

// A takeListener hands off what a child listener of cmux accepts.
type takeListener struct {
	net.Listener
	kinds chan Kind               // if not nil, gets the verdicts
	wrap  func(net.Conn) net.Conn // if not nil, wraps the connections
}

func (l takeListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.kinds != nil {
		l.kinds <- KindOf(c)
	}
	c = Handoff(c)
	if l.wrap != nil {
		c = l.wrap(c)
	}
	return c, nil
}

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// newSplit serves ln: gRPC by g, the rest by h.
func newSplit(t *testing.T, ln net.Listener, g *grpc.Server, h http.Handler, grpcs, webs takeListener) (stop func()) {
	t.Helper()
	root := NewListener(ln, quiet)
	m := cmux.New(root)
	grpcs.Listener = m.MatchWithWriters(Match(GRPC))
	webs.Listener = m.MatchWithWriters(Match(HTTP1, HTTP2, Upgrade))
	rest := m.Match(cmux.Any())
	web := &http.Server{Handler: h, Protocols: protocols(), ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	done := make(chan struct{}, 4)
	run := func(f func()) { go func() { f(); done <- struct{}{} }() }
	run(func() { g.Serve(grpcs) })
	run(func() { web.Serve(webs) })
	run(func() {
		for {
			c, err := rest.Accept()
			if err != nil {
				return
			}
			Reject(c, http2.ErrCodeProtocol, "no")
		}
	})
	run(func() { m.Serve() })
	return func() {
		web.Close()
		g.Stop()
		root.Close()
		for range cap(done) {
			<-done
		}
	}
}

type connKey struct{}

// naiveSplit serves ln as the README of cmux has it.
func naiveSplit(ln net.Listener, h http.Handler) (stop func()) {
	m := cmux.New(ln)
	grpcs := m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	webs := m.Match(cmux.Any())
	g := grpc.NewServer()
	web := &http.Server{Handler: h, Protocols: protocols(), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{}, 3)
	run := func(f func()) { go func() { f(); done <- struct{}{} }() }
	run(func() { g.Serve(grpcs) })
	run(func() { web.Serve(webs) })
	run(func() { m.Serve() })
	return func() {
		web.Close()
		g.Stop()
		ln.Close()
		for range cap(done) {
			<-done
		}
	}
}

// slow is a handler that takes its time, so that acknowledgements arrive before the answer.
var slow = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	time.Sleep(20 * time.Millisecond)
	fmt.Fprintf(w, "%s %s", r.Proto, r.URL.Path)
})

// once allows one connection to be dialed.
func once(ln *bufconn.Listener) func(context.Context, string, string) (net.Conn, error) {
	var used atomic.Bool
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("dialed a second time")
		}
		return ln.DialContext(ctx)
	}
}

// sixRequests makes requests in turn.
func sixRequests(rt http.RoundTripper) error {
	for i := range 6 {
		resp, err := (&http.Client{Transport: rt}).Get(fmt.Sprintf("http://localhost/%d", i))
		if err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("HTTP/2.0 /%d", i); err != nil || string(body) != want {
			return fmt.Errorf("request %d: got %q, %v, want %q", i, body, err, want)
		}
		// Frames that follow the answer may take their time as well.
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// TestSeveralRequests makes requests in turn on one connection of cleartext HTTP/2: what the recipe in cmux's README
// breaks, and the reason for the early SETTINGS and acknowledgements being what they are here.
func TestSeveralRequests(t *testing.T) {
	std := func(dial func(context.Context, string, string) (net.Conn, error)) http.RoundTripper {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		return &http.Transport{DialContext: dial, Protocols: p}
	}
	xnet := func(dial func(context.Context, string, string) (net.Conn, error)) http.RoundTripper {
		dialTLS := func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) { return dial(ctx, "", "") }
		//lint:ignore SA1019 deprecated, but the client that programs written before net/http could do this have
		return &http2.Transport{AllowHTTP: true, DialTLSContext: dialTLS}
	}
	// patient does as grpc-go and h2spec do: it sends no request before it has the server's SETTINGS.
	patient := func(dial func(context.Context, string, string) (net.Conn, error)) http.RoundTripper {
		return std(func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &patientConn{Conn: c, settings: make(chan struct{})}, nil
		})
	}
	for _, tt := range []struct {
		name   string
		client func(func(context.Context, string, string) (net.Conn, error)) http.RoundTripper
	}{{"net/http", std}, {"x/net", xnet}, {"patient", patient}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := bufconn.Listen(1 << 16)
				stop := newSplit(t, ln, grpc.NewServer(), slow, takeListener{}, takeListener{})
				rt := tt.client(once(ln))
				if err := sixRequests(rt); err != nil {
					t.Errorf("this split: %v", err)
				}
				closeIdle(rt)
				stop()

				ln = bufconn.Listen(1 << 16)
				stop = naiveSplit(ln, slow)
				rt = tt.client(once(ln))
				if err := sixRequests(rt); err == nil || !strings.Contains(err.Error(), "PROTOCOL_ERROR") {
					t.Errorf("the recipe of cmux: %v, want PROTOCOL_ERROR; if it works now, it can replace this package", err)
				}
				closeIdle(rt)
				stop()
			})
		})
	}
}

func closeIdle(rt http.RoundTripper) { rt.(interface{ CloseIdleConnections() }).CloseIdleConnections() }

// A patientConn holds back what is written after the first flush, which is the preface and SETTINGS, until the server
// has said something.
type patientConn struct {
	net.Conn
	settings chan struct{} // closed by the first Read that gives bytes
	wrote    int
	read     bool
}

func (c *patientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.read {
		c.read = true
		close(c.settings)
	}
	return n, err
}

func (c *patientConn) Write(p []byte) (int, error) {
	if c.wrote++; c.wrote > 1 {
		<-c.settings
	}
	return c.Conn.Write(p)
}

func newHealth() *grpc.Server {
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, health.NewServer())
	return g
}

func dialGRPC(t *testing.T, dial func(context.Context, string) (net.Conn, error)) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithContextDialer(dial), grpc.WithIdleTimeout(0),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

func check(ctx context.Context, cc *grpc.ClientConn) error {
	_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// A client that waits for SETTINGS learns the limits of the servers behind from
// the first ones: here that its header is too large to send.
func TestSettings(t *testing.T) {
	const limit = 16 << 10
	conn, server := net.Pipe()
	cfg := quiet
	cfg.Settings = []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: limit}}
	c := accept(t, server, cfg)
	judged := make(chan Kind)
	go func() { judged <- c.judge() }()
	defer func() { conn.Close(); <-judged }()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(conn, conn)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
		t.Fatalf("first frame = %v, want SETTINGS", f)
	} else if v, ok := s.Value(http2.SettingMaxHeaderListSize); !ok || v != limit {
		t.Errorf("SETTINGS_MAX_HEADER_LIST_SIZE = %d, %v; want %d", v, ok, limit)
	}
	if f, err := fr.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings || !f.(*http2.SettingsFrame).IsAck() {
		t.Errorf("second frame = %v, %v; want the acknowledgement", f, err)
	}
}

func TestGRPCClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := bufconn.Listen(1 << 16)
		kinds := make(chan Kind, 10)
		stop := newSplit(t, ln, newHealth(), slow, takeListener{kinds: kinds}, takeListener{kinds: kinds})
		dial := once(ln)
		cc := dialGRPC(t, func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "", "") })
		for range 6 {
			if err := check(t.Context(), cc); err != nil {
				t.Errorf("call: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if got := <-kinds; got != GRPC || len(kinds) > 0 {
			t.Errorf("kind = %v and %d more, want one grpc", got, len(kinds))
		}
		cc.Close()
		stop()
	})
}

// TestIdleGRPCClient has a channel connect and stay idle beyond the time for a verdict: it is not cut, and the general
// server answers its calls.
func TestIdleGRPCClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := bufconn.Listen(1 << 16)
		kinds := make(chan Kind, 10)
		g := newHealth()
		stop := newSplit(t, ln, g, g, takeListener{kinds: kinds}, takeListener{kinds: kinds})
		dial := once(ln)
		cc := dialGRPC(t, func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "", "") })
		cc.Connect()
		start := time.Now()
		if got := <-kinds; got != HTTP2 || time.Since(start) != 3*time.Second {
			t.Errorf("kind = %v after %v, want http2 after 3s", got, time.Since(start))
		}
		for range 3 {
			time.Sleep(5 * time.Minute)
			if err := check(t.Context(), cc); err != nil {
				t.Errorf("call: %v", err)
			}
		}
		cc.Close()
		stop()
	})
}

// A readSpy counts calls of ReadOnReady.
type readSpy struct {
	net.Conn
	calls *atomic.Int32
}

func (c readSpy) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	c.calls.Add(1)
	return c.Conn.(interface {
		ReadOnReady(int, mem.BufferPool) (*[]byte, int, error)
	}).ReadOnReady(size, pool)
}

// TestGRPCReadsOnReady checks the contract with grpc-go by which an idle connection holds no buffer: it is not
// documented there, so a new version may not keep it.
func TestGRPCReadsOnReady(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	spy := func(c net.Conn) net.Conn { return readSpy{c, &calls} }
	stop := newSplit(t, ln, newHealth(), slow, takeListener{wrap: spy}, takeListener{})
	cc := dialGRPC(t, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	})
	for range 3 {
		if err := check(t.Context(), cc); err != nil {
			t.Errorf("call: %v", err)
		}
	}
	if calls.Load() == 0 {
		t.Error("grpc-go did not call ReadOnReady")
	}
	cc.Close()
	stop()
}

// tlsListener is a listener for cleartext connections that terminates TLS on them.
type tlsListener struct {
	takeListener
	config *tls.Config
}

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.takeListener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.config), nil
}

// TestTLS splits twice: TLS from the rest, and what is in it.
func TestTLS(t *testing.T) {
	certs := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	certs.Close()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	root := NewListener(ln, quiet)
	m := cmux.New(root)
	inner := tlsListener{takeListener{Listener: m.MatchWithWriters(Match(TLS))}, config}
	served := make(chan struct{})
	go func() { m.Serve(); close(served) }()
	kinds := make(chan Kind, 10)
	stop := newSplit(t, inner, grpc.NewServer(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(handed)
		_, ready := c.(interface {
			ReadOnReady(int, mem.BufferPool) (*[]byte, int, error)
		})
		if state := c.TLS(); state == nil || !state.HandshakeComplete || ready {
			t.Errorf("%s: TLS state %v, ReadOnReady %v; want a state and none", r.Proto, state, ready)
		}
		slow(w, r)
	}), takeListener{kinds: kinds}, takeListener{kinds: kinds})

	for _, tt := range []struct {
		alpn []string
		body string
		want Kind
	}{
		{[]string{"h2"}, "HTTP/2.0 /x", HTTP2},
		{[]string{"http/1.1"}, "HTTP/1.1 /x", HTTP1},
		{nil, "HTTP/1.1 /x", HTTP1},
	} {
		p := new(http.Protocols)
		p.SetHTTP1(true)
		p.SetHTTP2(len(tt.alpn) > 0 && tt.alpn[0] == "h2")
		rt := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: tt.alpn}}
		for range 3 {
			resp, err := (&http.Client{Transport: rt}).Get("https://" + ln.Addr().String() + "/x")
			if err != nil {
				t.Errorf("ALPN %q: %v", tt.alpn, err)
				break
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != tt.body {
				t.Errorf("ALPN %q: got %q, want %q", tt.alpn, body, tt.body)
			}
		}
		if got := <-kinds; got != tt.want || len(kinds) > 0 {
			t.Errorf("ALPN %q: kind = %v and %d more, want one %v", tt.alpn, got, len(kinds), tt.want)
		}
		rt.CloseIdleConnections()
	}
	stop()
	root.Close()
	<-served
}

// TestTLSStalled has clients stop in and after the handshake.
func TestTLSStalled(t *testing.T) {
	certs := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2"}}
	certs.Close()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := accept(t, tls.Server(server, config), quiet)
		start := time.Now()
		go client.Write([]byte("\x16\x03\x01\x02\x00\x01\x00"))
		if got, _ := Reject(c, http2.ErrCodeProtocol, "no"); got != Unknown || time.Since(start) != 3*time.Second {
			t.Errorf("stalled handshake: kind %v, closed after %v, want unknown after 3s", got, time.Since(start))
		}
		client.Close()

		// After the time for it is over, the connection still works.
		client, server = net.Pipe()
		c = accept(t, tls.Server(server, config), quiet)
		tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		go func() {
			tc.Write([]byte(http2.ClientPreface))
			time.Sleep(time.Minute)
			tc.Write([]byte("more"))
			tc.Close()
		}()
		go io.Copy(io.Discard, tc)
		if got := verdict(t, c); got != HTTP2 {
			t.Errorf("silent after the preface: kind = %v, want %v", got, HTTP2)
		}
		after := Handoff(c)
		if got, err := io.ReadAll(after); string(got) != http2.ClientPreface+"more" || err != nil {
			t.Errorf("after handoff read %q, %v", got, err)
		}
		after.Close()
	})
}
