package mux_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
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
