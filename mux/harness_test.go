package mux_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"oneport/certs"
	"oneport/mux"
	hellopb "oneport/proto/helloworld"
	"oneport/services/echo"
	"oneport/services/greeter"
	"oneport/services/health"
	"oneport/services/reflection"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits before it has gone wrong: on a busy machine what
// takes a millisecond may take seconds.
const patience = time.Minute

// services are those of the oneport command.
func services(s *mux.Server) {
	greeter.Register(s)
	echo.Register(s)
	health.Register(s)
	reflection.Register(s)
}

// security is what a port accepts.
type security int

const (
	both security = iota
	cleartextOnly
	tlsOnly
)

// port is a server on a port of the loopback interface, for tests of what the
// kernel has a part in. The others use muxtest.
type port struct {
	*mux.Server
	t         testing.TB
	addr      string
	clientTLS *tls.Config  // trusts the server
	accepted  atomic.Int32 // connections
}

// start starts a server that ends with t.
func start(t testing.TB, on security, register func(*mux.Server), opts ...mux.Option) *port {
	t.Helper()
	server, client := devTLS(t, t.TempDir())
	all := []mux.Option{mux.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil)))}
	if on != cleartextOnly {
		all = append(all, mux.WithTLSConfig(server))
	}
	if on == both {
		all = append(all, mux.WithCleartext())
	}
	s := mux.NewServer(append(all, opts...)...)
	register(s)
	return onPort(t, s, client)
}

// devTLS returns the development certificate of dir as a user has it: the client
// knows nothing but ca.pem.
func devTLS(t testing.TB, dir string) (server, client *tls.Config) {
	t.Helper()
	server, err := certs.Dev(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, certs.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", ca)
	}
	return server, &tls.Config{RootCAs: roots}
}

// onPort serves s until t ends, which fails if calls are left then.
func onPort(t testing.TB, s *mux.Server, clientTLS *tls.Config) *port {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, s, clientTLS)
}

// serveOn is onPort for a listener that is there already.
func serveOn(t testing.TB, ln net.Listener, s *mux.Server, clientTLS *tls.Config) *port {
	t.Helper()
	p := &port{Server: s, t: t, addr: ln.Addr().String(), clientTLS: clientTLS}
	served := make(chan error, 1)
	go func() { served <- s.Serve(countingListener{ln, &p.accepted}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown at the end of the test: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve = %v, want ErrServerClosed", err)
		}
	})
	return p
}

// countingListener counts the connections it accepts.
type countingListener struct {
	net.Listener
	n *atomic.Int32
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// url is where path is found; scheme is "http", "https", "ws" or "wss".
func (p *port) url(scheme, path string) string { return scheme + "://" + p.addr + path }

// dial opens a connection that ends with the test and has a minute.
func (p *port) dial() *net.TCPConn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// secure opens a connection over TLS.
func (p *port) secure() *tls.Conn {
	cfg := p.clientTLS.Clone()
	cfg.ServerName = "localhost"
	return tls.Client(p.dial(), cfg)
}

// grpc returns a client; without cfg it speaks cleartext.
func (p *port) grpc(cfg *tls.Config, opts ...grpc.DialOption) *grpc.ClientConn {
	p.t.Helper()
	creds := insecure.NewCredentials()
	if cfg != nil {
		creds = credentials.NewTLS(cfg)
	}
	cc, err := grpc.NewClient(p.addr, append(opts, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cc.Close() })
	return cc
}

// http returns a client that speaks HTTP/1.1 or HTTP/2 and follows no redirect.
func (p *port) http(major int) *http.Client {
	tr := &http.Transport{Protocols: protocols(major), TLSClientConfig: p.clientTLS.Clone()}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func protocols(major int) *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(major == 1)
	p.SetHTTP2(major == 2)
	p.SetUnencryptedHTTP2(major == 2)
	return &p
}

// do returns the answer and its body, which is closed then.
func do(t testing.TB, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return res, string(body)
}

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

// socket opens a WebSocket; scheme is "ws" or "wss".
func (p *port) socket(scheme, path string) *socket {
	p.t.Helper()
	d := websocket.Dialer{TLSClientConfig: p.clientTLS.Clone(), HandshakeTimeout: patience}
	c, res, err := d.Dial(p.url(scheme, path), nil)
	if err != nil {
		p.t.Fatalf("%s: %v (%v)", p.url(scheme, path), err, res)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	return &socket{p.t, c}
}

// socket is a WebSocket with assertions.
type socket struct {
	t testing.TB
	*websocket.Conn
}

func (s *socket) send(kind int, data string) {
	s.t.Helper()
	if err := s.WriteMessage(kind, []byte(data)); err != nil {
		s.t.Fatalf("send %q: %v", data, err)
	}
}

func (s *socket) want(kind int, data string) {
	s.t.Helper()
	if k, got, err := s.ReadMessage(); err != nil || k != kind || string(got) != data {
		s.t.Fatalf("received kind %d %q, %v; want kind %d %q", k, got, err, kind, data)
	}
}

func (s *socket) wantClose(code int, reason string) {
	s.t.Helper()
	_, got, err := s.ReadMessage()
	if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || ce.Code != code || ce.Text != reason {
		s.t.Fatalf("received %q, %v; want close %d %q", got, err, code, reason)
	}
}

// alive fails the test unless the server still answers, on new connections; over
// TLS if secure.
func (p *port) alive(secure bool) {
	p.t.Helper()
	cfg, scheme := (*tls.Config)(nil), "ws"
	if secure {
		cfg, scheme = p.clientTLS, "wss"
	}
	cc := p.grpc(cfg)
	defer cc.Close()
	if err := hello(p.t, cc); err != nil {
		p.t.Errorf("afterwards: gRPC: %v", err)
	}
	ws := p.socket(scheme, "/ws")
	defer ws.Close()
	ws.send(websocket.TextMessage, "x")
	ws.want(websocket.TextMessage, "x")
}

// hello calls the greeter.
func hello(t testing.TB, cc grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := hellopb.NewGreeterClient(cc).SayHello(ctx, &hellopb.HelloRequest{Name: "you"})
	if err == nil && res.Message != "Hello you" {
		err = fmt.Errorf("answer is %q, want %q", res.Message, "Hello you")
	}
	return err
}

// receive waits for what a handler or a goroutine of the test has to tell.
func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: nothing in %v", what, patience)
	}
	return v
}
