package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	healthsrv "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/services/echo"
	"oneport/services/greeter"
	"oneport/services/health"
	"oneport/services/reflection"
)

// The welcome tells of each road that is open, with the address that the client
// has used: as text, or as a page to those who ask for one.
func TestWelcome(t *testing.T) {
	clear := []string{"http://ADDR/", "grpcurl -plaintext ADDR list", "-s grpc-ws.v1 -c ws://ADDR/grpc-ws ",
		"curl -H 'Content-Type: application/json' -d '{\"name\":\"you\"}' http://ADDR/helloworld.Greeter/SayHello\n",
		"curl -H 'Content-Type: application/json' -d '{\"name\":\"you\"}' http://ADDR/v1/hello\n",
		"ws://ADDR/grpc-ws/helloworld.Greeter/SayHello", "ws://ADDR/ws"}
	secure := []string{"https://ADDR/", "grpcurl -insecure ADDR list", "wss://ADDR/ws", "-s grpc-ws.v1 -c wss://ADDR/grpc-ws "}
	always := []string{"-d '{\"name\":\"you\"}' ADDR helloworld.Greeter/SayHello\n", "helloworld.Greeter\n", "echo.v1.EchoService\n"}
	for _, tt := range []struct {
		name         string
		on           security
		scheme       string
		want, absent []string
	}{
		{"both", both, "http", append(clear, secure...), nil},
		{"both over TLS", both, "https", append(clear, secure...), nil},
		{"cleartext only", cleartextOnly, "http", clear, secure},
		{"TLS only", tlsOnly, "https", secure, clear},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.on, services)
			real := func(s string) string { return strings.ReplaceAll(s, "ADDR", p.addr) }
			res, text := get(t, p.http(1), p.url(tt.scheme, "/"))
			if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
				t.Errorf("Content-Type of curl's welcome = %q, want text/plain", ct)
			}
			for _, w := range append(tt.want, always...) {
				if !strings.Contains(text, real(w)) {
					t.Errorf("no %q in the welcome:\n%s", real(w), text)
				}
			}
			for _, w := range tt.absent {
				if strings.Contains(text, " "+real(w)) {
					t.Errorf("%q, which is not open, in the welcome:\n%s", real(w), text)
				}
			}

			req, err := http.NewRequestWithContext(t.Context(), "GET", p.url(tt.scheme, "/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
			res, page := do(t, p.http(2), req)
			h := res.Header
			if !strings.HasPrefix(h.Get("Content-Type"), "text/html") || !strings.HasPrefix(page, "<!DOCTYPE html>") ||
				!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Vary") != "Accept" ||
				!strings.Contains(page, p.addr) {
				t.Errorf("a browser gets %v\n%s", h, page)
			}
		})
	}
}

// What a client says about the host ends in lines that people paste into a shell,
// so no more than a host comes through.
func TestWelcomeHost(t *testing.T) {
	p := start(t, cleartextOnly, services)
	for _, tt := range []struct {
		host string
		want string // in the lines; "" for the listener's own address
	}{
		{"example.com:8080", "example.com:8080"},
		{"example.com", "example.com"},
		{"[::1]:8080", "[::1]:8080"},
		{"10.0.0.1", "10.0.0.1"},
		{"$(reboot)", ""},
		{"a;reboot", ""},
		{"`reboot`", ""},
		{"a'b", ""},
		{"a&b", ""},
		{"-oProxyCommand=x", ""},
		{"<b>", ""},
		{"a:b", ""},
		{"", ""},
		{strings.Repeat("a", 300), ""},
	} {
		for _, accept := range []string{"*/*", "text/html"} {
			c := p.dial()
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nConnection: close\r\n\r\n", tt.host, accept)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode == 400 {
				continue // net/http's judgement of the header
			}
			want := tt.want
			if want == "" {
				want = p.addr
				if tt.host != "" && strings.Contains(string(text), tt.host) {
					t.Errorf("Host %q, Accept %s: it is in the answer", tt.host, accept)
				}
			}
			if !strings.Contains(string(text), "http://"+want+"/") {
				t.Errorf("Host %q, Accept %s: no %q in\n%s", tt.host, accept, want, text)
			}
		}
	}
}

// Without the Greeter the welcome shows a method that is there, if there is one.
func TestWelcomeSample(t *testing.T) {
	for _, tt := range []struct {
		name     string
		register func(*mux.Server)
		want     string
		has      bool
	}{
		{"another service", func(s *mux.Server) { echo.Register(s); reflection.Register(s) }, " echo.v1.EchoService/Echo\n", true},
		{"another service, without reflection", func(s *mux.Server) { echo.Register(s) }, "/grpc-ws/echo.v1.EchoService/Echo", true},
		{"grpcurl without reflection", func(s *mux.Server) { echo.Register(s) }, "grpcurl", false},
		{"its path", func(s *mux.Server) { echo.Register(s) }, "-d '{}' http://oneport.test/v1/echo\n", true},
		{"gRPC's own only", func(s *mux.Server) { health.Register(s) }, "/grpc-ws", false},
		{"none", func(*mux.Server) {}, "/grpc-ws", false},
	} {
		s := muxtest.New(t, tt.register)
		if _, text := get(t, s.HTTP1(), muxtest.URL+"/"); strings.Contains(text, tt.want) != tt.has {
			t.Errorf("%s: %q in the welcome: %v, want %v\n%s", tt.name, tt.want, !tt.has, tt.has, text)
		}
	}
}

// Where clients need a certificate the lines show where it goes.
func TestWelcomeClientCertificate(t *testing.T) {
	welcome := func(auth tls.ClientAuthType) string {
		s := mux.NewServer(mux.WithTLSConfig(&tls.Config{ClientAuth: auth}))
		services(s)
		text, err := io.ReadAll(serve(s, "GET", "/", "", nil).Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := []string{
		"curl -k --cert client.pem --key client-key.pem https://example.com/",
		"grpcurl -insecure -cert client.pem -key client-key.pem example.com list",
		"npx -y wscat@6.1.0 -n --cert client.pem --key client-key.pem -c wss://example.com/ws",
	}
	text := welcome(tls.RequireAndVerifyClientCert)
	for _, line := range want {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in the welcome:\n%s", line, text)
		}
	}
	if text := welcome(tls.VerifyClientCertIfGiven); strings.Contains(text, "client.pem") {
		t.Errorf("a client certificate, which is not needed, in the welcome:\n%s", text)
	}
}

// A server that describes itself shows some paths of REST and where all are.
func TestWelcomePaths(t *testing.T) {
	one := func(s *mux.Server) { greeter.Register(s) }
	for _, tt := range []struct {
		name     string
		register func(*mux.Server)
		opts     []mux.Option
		want     string
	}{
		{"few", one, []mux.Option{mux.WithOpenAPI(nil)}, "\nREST\n  GET /v1/hello/{name}\n  POST /v1/hello\n"},
		{"more", func(s *mux.Server) { echo.Register(s); greeter.Register(s) }, []mux.Option{mux.WithOpenAPI(nil)},
			"\n  and 3 more, see /openapi.json\n"},
		{"not told", one, nil, ""},
		{"none", func(s *mux.Server) { health.Register(s) }, []mux.Option{mux.WithOpenAPI(nil)}, ""},
	} {
		s := muxtest.New(t, tt.register, tt.opts...)
		_, text := get(t, s.HTTP1(), muxtest.URL+"/")
		if !strings.HasSuffix(text, tt.want) || strings.Contains(text, "REST") != (tt.want != "") {
			t.Errorf("%s: the welcome ends otherwise than in %q:\n%s", tt.name, tt.want, text)
		}
		_, page := ask(t, s.HTTP2(), "GET", "/", "", "Accept: text/html")
		if strings.Contains(page, `<a href="/openapi.json">`) != (tt.want != "") {
			t.Errorf("%s: a link to /openapi.json in the page: want %v\n%s", tt.name, tt.want != "", page)
		}
	}
}

// The built-in pages are for reading.
func TestPageMethods(t *testing.T) {
	s := muxtest.New(t, services)
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405, "OPTIONS": 405} {
			req, err := http.NewRequestWithContext(t.Context(), method, muxtest.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, _ := do(t, s.HTTP1(), req)
			if allow := res.Header.Get("Allow"); res.StatusCode != want || (want == 405) != (allow == "GET, HEAD") {
				t.Errorf("%s %s = %s with Allow %q, want %d", method, path, res.Status, allow, want)
			}
		}
	}
	if res, _ := get(t, s.HTTP1(), muxtest.URL+"/nothing"); res.StatusCode != 404 {
		t.Errorf("GET /nothing = %s, want 404", res.Status)
	}
}

// Readiness is what the health service says, where there is one, and ends when the
// server begins to shut down; health says so too, to those who watch as well.
func TestReadiness(t *testing.T) {
	const serving, not = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	synctest.Test(t, func(t *testing.T) {
		var status *healthsrv.Server
		s := muxtest.New(t, func(s *mux.Server) { status = health.Register(s) })
		check := func(when string, want int, text string) {
			t.Helper()
			if res, body := get(t, s.HTTP2(), muxtest.URL+"/readyz"); res.StatusCode != want || body != text {
				t.Errorf("%s: /readyz = %s %q, want %d %q", when, res.Status, body, want, text)
			}
			if res, body := get(t, s.HTTP1(), muxtest.URL+"/healthz"); res.StatusCode != 200 || body != "ok\n" {
				t.Errorf("%s: /healthz = %s %q, want 200 ok", when, res.Status, body)
			}
		}
		check("at first", 200, "ready\n")
		status.SetServingStatus("", not)
		check("NOT_SERVING", 503, "not ready\n")
		status.SetServingStatus("", serving)
		check("SERVING again", 200, "ready\n")
		status.SetServingStatus("other", not)
		check("another service NOT_SERVING", 200, "ready\n")

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch, err := healthpb.NewHealthClient(s.GRPC()).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if res, err := watch.Recv(); err != nil || res.Status != serving {
			t.Fatalf("Watch = %v, %v; want SERVING", res, err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		if res, err := watch.Recv(); err != nil || res.Status != not {
			t.Errorf("Watch during Shutdown = %v, %v; want NOT_SERVING", res, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}

// A server without health service is ready until it shuts down.
func TestReadinessWithoutHealth(t *testing.T) {
	s := mux.NewServer()
	ask := func() *http.Response {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Result()
	}
	if res := ask(); res.StatusCode != 200 {
		t.Errorf("/readyz = %s, want 200", res.Status)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if res := ask(); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("/readyz after Shutdown = %s %v, want 503 with Retry-After", res.Status, res.Header)
	}
}
