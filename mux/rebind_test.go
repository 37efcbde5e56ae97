package mux_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"oneport/mux"
)

// A page whose name has been pointed at this machine is of the same origin as far
// as its browser can tell. Only names that cannot have been are believed on a
// loopback address.
func TestReboundName(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := mux.NewServer(mux.WithAllowedOrigins("http://app.example"), mux.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() { s.Close(); <-served }()
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, tt := range []struct {
		host, origin string
		allowed      bool
	}{
		{"localhost:" + port, "http://localhost:" + port, true},
		{"LOCALHOST:" + port, "http://localhost:" + port, true},
		{"app.localhost:" + port, "http://app.localhost:" + port, true},
		{"127.0.0.1:" + port, "http://127.0.0.1:" + port, true},
		{own + ":" + port, "http://" + own + ":" + port, true},
		{"evil.example:" + port, "http://evil.example:" + port, false},
		{"localhost.evil.example:" + port, "http://localhost.evil.example:" + port, false},
		{"evil.example:" + port, "http://app.example", true},
	} {
		c, res, err := websocket.DefaultDialer.Dial("ws://"+ln.Addr().String()+"/ws", http.Header{"Host": {tt.host}, "Origin": {tt.origin}})
		if err == nil {
			c.Close()
		}
		if (err == nil) != tt.allowed || !tt.allowed && res.StatusCode != http.StatusForbidden {
			t.Errorf("host %s, origin %s: %v, want allowed %v", tt.host, tt.origin, err, tt.allowed)
		}
	}
}

// Any client that names another host by GET on a loopback address is refused: it may be such
// a page, or come by a proxy on this machine. The text and a warning, which is given once,
// name the cure, and it is one.
func TestReboundHost(t *testing.T) {
	var log logBuffer
	logger := mux.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
	get := func(p *port, host string) (code int, text string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", p.url("http", "/v1/hello/ada"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, text := do(t, p.http(1), r)
		return res.StatusCode, text
	}
	plain := start(t, cleartextOnly, services, logger)
	if code, text := get(plain, "localhost"); code != 200 || len(log.with("level=WARN")) > 0 {
		t.Errorf("host localhost: %d %s, warnings %q", code, text, log.with("level=WARN"))
	}
	for _, host := range []string{"app.example.com", "app.example.com:8443", strings.Repeat("a", 300)} {
		code, text := get(plain, host)
		origin := regexp.MustCompile(`WithAllowedOrigins\("(.*)"\), or --allow-origin`).FindStringSubmatch(text)
		if want := "https://" + host[:min(len(host), 200)]; code != 403 || origin == nil || origin[1] != want || !strings.Contains(text, "loopback") {
			t.Fatalf("host %s: %d %s, want 403 with the origin %s", host, code, text, want)
		}
		if len(host) > 200 {
			continue
		}
		if code, text := get(start(t, cleartextOnly, services, logger, mux.WithAllowedOrigins(origin[1])), host); code != 200 {
			t.Errorf("host %s, allowed: %d %s", host, code, text)
		}
	}
	if got := log.with("level=WARN"); len(got) != 1 || len(log.with("level=WARN", "host=app.example.com ", "mux.WithAllowedOrigins", "--allow-origin")) != 1 {
		t.Errorf("warnings %q, want one", got)
	}
}

// A request without a host is from no browser.
func TestNoHost(t *testing.T) {
	p := start(t, cleartextOnly, services)
	c := p.dial()
	if _, err := io.WriteString(c, "GET /v1/hello/ada HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.0 200 ") {
		t.Errorf("answer %q, %v, want 200", b, err)
	}
}
