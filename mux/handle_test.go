package mux_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/mux/tunnel"
	hellopb "oneport/proto/helloworld"
	"oneport/services/greeter"
	"oneport/services/reflection"
)

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) })
}

// The program's handlers come before the built-in pages and after the RPC
// protocols, and behave as in any http.ServeMux.
func TestHandle(t *testing.T) {
	s := muxtest.New(t, func(s *mux.Server) {
		services(s)
		s.Handle("/{$}", text("own welcome"))
		s.Handle("GET /healthz", text("own healthz"))
		s.Handle("/ws", text("own ws"))
		s.Handle("/grpc-ws", text("never"))
		s.Handle("POST /form", text("posted"))
		s.Handle("/tree/", text("tree"))
		s.Handle("example.com/host", text("host"))
	})
	for _, tt := range []struct {
		method, path string
		code         int
		want         string // in the body or, of a redirect, the location
	}{
		{"GET", "/", 200, "own welcome"},
		{"GET", "/healthz", 200, "own healthz"},
		{"GET", "/readyz", 200, "ready"},
		{"GET", "/ws", 200, "own ws"},
		{"GET", "/grpc-ws", 426, "WebSocket"},
		{"POST", "/form", 200, "posted"},
		{"GET", "/form", 405, ""},
		{"GET", "/tree", 307, "/tree/"},
		{"GET", "/tree/x", 200, "tree"},
		{"GET", "/tree/../tree/x", 307, "/tree/x"},
		{"GET", "/host", 404, ""},
		{"GET", "/nothing", 404, ""},
	} {
		for major, c := range map[int]*http.Client{1: s.HTTP1(), 2: s.HTTP2()} {
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			req, err := http.NewRequestWithContext(t.Context(), tt.method, muxtest.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Path = tt.path
			res, body := do(t, c, req)
			if tt.code == 307 {
				body = res.Header.Get("Location")
			}
			if res.StatusCode != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("HTTP/%d: %s %s = %s %q, want %d with %q", major, tt.method, tt.path, res.Status, body, tt.code, tt.want)
			}
			if tt.code == 405 && res.Header.Get("Allow") != "POST" {
				t.Errorf("HTTP/%d: %s %s allows %q, want POST", major, tt.method, tt.path, res.Header.Get("Allow"))
			}
		}
	}
}

// Registration ends with the start, and what only the programmer can have got
// wrong panics, with a text that says what.
func TestPanics(t *testing.T) {
	started := func() *mux.Server {
		s := mux.NewServer()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/healthz", nil))
		return s
	}
	for _, tt := range []struct {
		name string
		f    func()
		want string
	}{
		{"Handle after the start", func() { started().Handle("/x", text("")) }, "Handle /x: the server has started"},
		{"RegisterService after the start", func() { greeter.Register(started()) }, "helloworld.Greeter"},
		{"Handle twice", func() {
			s := mux.NewServer()
			s.Handle("/x", text(""))
			s.Handle("/x", text(""))
		}, "/x"},
		{"Handle of a bad pattern", func() { mux.NewServer().Handle("GET", text("")) }, "GET"},
		{"RegisterService twice", func() {
			s := mux.NewServer()
			greeter.Register(s)
			greeter.Register(s)
		}, "helloworld.Greeter"},
		{"RegisterService of another type", func() {
			mux.NewServer().RegisterService(&hellopb.Greeter_ServiceDesc, struct{}{})
		}, "GreeterServer"},
		{"WithAllowedOrigins of a host", func() { mux.WithAllowedOrigins("https://a.example", "b.example") }, `"b.example"`},
		{"WithAllowedOrigins of a page", func() { mux.WithAllowedOrigins("https://a.example/") }, `"https://a.example/"`},
		{"WithAllowedOrigins of a pattern", func() { mux.WithAllowedOrigins("*.example") }, `"*.example"`},
		{"WithAllowedOrigins with a wildcard", func() { mux.WithAllowedOrigins("https://*.example") }, "no wildcards"},
		{"WithAllowedOrigins beyond ASCII", func() { mux.WithAllowedOrigins("https://münchen.example") }, "xn--"},
		{"WithMaxMessageBytes of zero", func() { mux.WithMaxMessageBytes(0) }, "WithMaxMessageBytes(0)"},
		{"WithMaxMessageBytes below", func() { mux.WithMaxMessageBytes(-1) }, "WithMaxMessageBytes(-1)"},
		{"WithSniffTimeout of zero", func() { mux.WithSniffTimeout(0) }, "WithSniffTimeout(0s)"},
		{"WithSniffTimeout below", func() { mux.WithSniffTimeout(-time.Second) }, "WithSniffTimeout(-1s)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, tt.want) {
					t.Errorf("panic %q, want %q in it", got, tt.want)
				}
			}()
			tt.f()
			t.Error("no panic")
		})
	}
}

// Mounted in an http.Server of the program, a server speaks what that one can
// carry, and knows its clients all the same.
func TestServeHTTP(t *testing.T) {
	w := witness{seen: make(chan identity, 2)}
	s := mux.NewServer()
	hellopb.RegisterGreeterServer(s, w)
	s.Handle("/witness", w)
	t.Cleanup(func() { s.Close() })
	ts := httptest.NewUnstartedServer(s)
	ts.EnableHTTP2 = true
	ts.StartTLS()
	t.Cleanup(ts.Close)
	addr := ts.Listener.Addr().String()
	cfg := ts.Client().Transport.(*http.Transport).TLSClientConfig
	check := func(name string, times int) {
		t.Helper()
		for range times {
			got := receive(t, w.seen, name)
			if !got.secure || !strings.HasPrefix(got.addr, "127.0.0.1:") || got.local != addr {
				t.Errorf("%s: handler sees %+v, want TLS between a port of 127.0.0.1 and %s", name, got, addr)
			}
		}
	}

	if res, _ := get(t, ts.Client(), ts.URL+"/witness"); res.ProtoMajor != 2 {
		t.Errorf("%s, want HTTP/2", res.Proto)
	}
	check("HTTP/2", 2)

	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: cfg.RootCAs})))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := hellopb.NewGreeterClient(cc).SayHello(ctx, &hellopb.HelloRequest{}); err != nil {
		t.Error(err)
	}
	check("gRPC", 1)

	within, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(tunnel.Credentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return tunnel.Dial(ctx, "wss://"+addr, &tunnel.DialOptions{TLSConfig: &tls.Config{RootCAs: cfg.RootCAs}})
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer within.Close()
	if _, err := hellopb.NewGreeterClient(within).SayHello(ctx, &hellopb.HelloRequest{}); err != nil {
		t.Error(err)
	}
	check("gRPC through a tunnel", 1)

	d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: cfg.RootCAs}}
	c, _, err := d.Dial("wss://"+addr+"/grpc-ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ws := &socket{t, c}
	ws.SetReadDeadline(time.Now().Add(patience))
	ws.send(websocket.TextMessage, "{}")
	ws.want(websocket.TextMessage, "{}")
	check("WebSocket", 1)

	// The program's server does not know of it any more; this one does.
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	ws.wantClose(websocket.CloseGoingAway, "server is shutting down")
	ws.Close()
	if err := receive(t, down, "Shutdown"); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// A WebSocket at the path of a method is a call if its client says so, and then comes
// before the program's handlers.
func TestHandleWebSocket(t *testing.T) {
	s := muxtest.New(t, func(s *mux.Server) {
		services(s)
		s.Handle("/", text("everything"))
		s.Handle("/echo.v1.EchoService/Echo", text("own"))
		s.Handle("/own.v1.Service/", text("own"))
	})
	bare := muxtest.New(t, services)
	const call = "grpc-websockets"
	for _, tt := range []struct {
		server         *muxtest.Server
		path, offer    string
		code           int
		text, protocol string // parts of the body; the subprotocol agreed to
	}{
		{s, "/echo.v1.EchoService/Echo", call, 101, "", call},
		{s, "/echo.v1.EchoService/Echo", "x, " + call, 101, "", call},
		{s, "/echo.v1.EchoService/Echo", "x", 200, "own", ""},
		{s, "/echo.v1.EchoService/Echo", "", 200, "own", ""},
		{s, "/echo.v1.EchoService/Expand", call, 101, "", call},
		{s, "/echo.v1.EchoService/Expand", "x", 200, "everything", ""},
		{s, "/echo.v1.EchoService/Nope", call, 101, "", call},
		{s, "/nobody.v1.Service/Method", call, 101, "", call},
		{s, "/nobody.v1.Service/Method", "x", 200, "everything", ""},
		{s, "/own.v1.Service/Method", call, 200, "own", ""},
		{s, "/page", call, 200, "everything", ""},
		{bare, "/echo.v1.EchoService/Expand", "x, y", 400, "known: " + call, ""},
		{bare, "/echo.v1.EchoService/Expand", "", 400, "needs the subprotocol " + call, ""},
		{bare, "/echo.v1.EchoService/Nope", "", 400, "needs the subprotocol " + call, ""},
		{bare, "/nobody.v1.Service/Method", call, 101, "", call},
		{bare, "/nobody.v1.Service/Method", "", 404, "", ""},
		{bare, "/ws", call, 101, "", ""},
		{bare, "/grpc-ws", call, 400, "known: grpc-ws.v1", ""},
		{bare, "/grpc-ws/echo.v1.EchoService/Echo", call, 400, "no subprotocol is spoken here", ""},
	} {
		d := websocket.Dialer{NetDialContext: tt.server.DialContext}
		if tt.offer != "" {
			d.Subprotocols = strings.Split(tt.offer, ", ")
		}
		c, res, err := d.Dial("ws://localhost"+tt.path, nil)
		if err == nil {
			c.Close()
		} else if res == nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		protocol := res.Header.Get("Sec-Websocket-Protocol")
		if res.StatusCode != tt.code || !strings.Contains(string(body), tt.text) || protocol != tt.protocol {
			t.Errorf("%s, %q offered: %s, subprotocol %q, %q; want %d, %q, %q",
				tt.path, tt.offer, res.Status, protocol, body, tt.code, tt.protocol, tt.text)
		}
	}
}

// The answer to a WebSocket that is refused repeats no more than 200 bytes of its path.
func TestRefusalLength(t *testing.T) {
	s := muxtest.New(t, services)
	for _, before := range []string{"/echo.v1.EchoService/", "/grpc-ws/echo.v1.EchoService/", "/grpc-ws/", "/ws/"} {
		for _, after := range []string{"", "/Echo"} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", muxtest.URL+before+strings.Repeat("x", 8000)+after, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
				"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
			res, body := do(t, s.HTTP1(), req)
			if n := strings.Count(body, "x"); res.StatusCode/100 != 4 || n > 210 {
				t.Errorf("%sxxx…%s: %s with %d bytes of the path", before, after, res.Status, n)
			}
		}
	}
}

// A call by curl, of a service that is not there, says so in JSON, unless somebody has its path.
func TestMisspeltCall(t *testing.T) {
	bare := muxtest.New(t, services)
	own := muxtest.New(t, func(s *mux.Server) {
		services(s)
		s.Handle("/", text("own"))
	})
	const nothing = "404 page not found; / says what is here\n"
	const unknown = `{"code":"unimplemented","message":"unknown service helloworld.Greetr"}`
	for _, tt := range []struct {
		server              *muxtest.Server
		method, path, media string
		code                int
		want                string
	}{
		{bare, "POST", "/helloworld.Greetr/SayHello", "application/json", 404, unknown},
		{bare, "POST", "/helloworld.Greetr/SayHello", "application/proto; x=y", 404, unknown},
		{bare, "POST", "/helloworld.Greetr/SayHello", "text/plain", 404, nothing},
		{bare, "GET", "/helloworld.Greetr/SayHello", "application/json", 404, nothing},
		{bare, "POST", "/helloworld.Greetr/", "application/json", 404, nothing},
		{bare, "POST", "/helloworld.Greetr/SayHello/", "application/json", 404, nothing},
		{bare, "POST", "/v1/notes", "application/json", 404, nothing},
		{own, "POST", "/helloworld.Greetr/SayHello", "application/json", 200, "own"},
	} {
		for major, c := range map[int]*http.Client{1: tt.server.HTTP1(), 2: tt.server.HTTP2()} {
			res, body := ask(t, c, tt.method, tt.path, "{}", "Content-Type: "+tt.media)
			if res.StatusCode != tt.code || body != tt.want {
				t.Errorf("HTTP/%d: %s %s in %s = %s %q, want %d %q", major, tt.method, tt.path, tt.media, res.Status, body, tt.code, tt.want)
			}
		}
	}
}

// Where nothing is, the answer names what is there, so far as the server tells of it.
func TestNotFound(t *testing.T) {
	hello := func(s *mux.Server) { greeter.Register(s) }
	own := func(s *mux.Server) {
		s.Handle("/{$}", text("own"))
		greeter.Register(s)
	}
	const services = "use /grpc-ws/{service}/{method} with one of these services: helloworld.Greeter\n"
	for _, tt := range []struct {
		name, path string
		register   func(*mux.Server)
		opts       []mux.Option
		want       string
	}{
		{"page", "/x", hello, nil, "404 page not found; / says what is here\n"},
		{"page, with a description", "/x", hello, []mux.Option{mux.WithOpenAPI(nil)},
			"404 page not found; / says what is here; /openapi.json has all methods and paths\n"},
		{"page, without the welcome", "/x", own, nil, "404 page not found\n"},
		{"method", "/grpc-ws/helloworld.Greeter/X", hello, nil, "unknown method X for service helloworld.Greeter; " + services},
		{"method, with reflection", "/grpc-ws/helloworld.Greeter/X", func(s *mux.Server) { greeter.Register(s); reflection.Register(s) }, nil,
			"unknown method X for service helloworld.Greeter; it has: SayHello\n"},
		{"service", "/grpc-ws/helloworld.Greetr/X", hello, nil, "unknown service helloworld.Greetr; " + services},
	} {
		s := muxtest.New(t, tt.register, tt.opts...)
		if res, got := get(t, s.HTTP1(), muxtest.URL+tt.path); res.StatusCode != 404 || got != tt.want {
			t.Errorf("%s: %s = %s %q, want 404 %q", tt.name, tt.path, res.Status, got, tt.want)
		}
		req, err := http.NewRequestWithContext(t.Context(), "HEAD", muxtest.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, body := do(t, s.HTTP2(), req); res.StatusCode != 404 || body != "" {
			t.Errorf("%s: HEAD %s = %s %q, want 404 without a body", tt.name, tt.path, res.Status, body)
		}
	}
}
