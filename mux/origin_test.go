package mux_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/services/greeter"
)

// A page may open a WebSocket to the server it is from, and to one that allows its
// origin; a program, which has no origin, to any.
func TestOrigin(t *testing.T) {
	register := func(s *mux.Server) { greeter.Register(s) }
	servers := map[string]*muxtest.Server{
		"":       muxtest.New(t, register),
		"listed": muxtest.New(t, register, mux.WithAllowedOrigins("https://app.example.com", "HTTP://Other.Example.com:80"), mux.WithAllowedOrigins("http://10.0.0.1:3000")),
		"any":    muxtest.New(t, register, mux.WithAllowedOrigins("*")),
	}
	const none = "-" // no header
	tests := []struct {
		server, url, origin, cookie string
		allowed                     bool
	}{
		// A program.
		{"", "ws://example.com", none, none, true},
		{"", "wss://example.com", none, none, true},
		{"listed", "ws://example.com", none, none, true},
		// It has no cookies, so this is a page that hides where it is from.
		{"", "ws://example.com", none, "a=b", false},
		{"any", "ws://example.com", none, "a=b", false},
		{"", "ws://example.com", "http://example.com", "a=b", true},
		// The same origin: scheme, host and port.
		{"", "ws://example.com", "http://example.com", none, true},
		{"", "ws://example.com", "http://example.com:80", none, true},
		{"", "ws://example.com:80", "http://example.com", none, true},
		{"", "ws://example.com:8080", "http://example.com:8080", none, true},
		{"", "ws://EXAMPLE.com:8080", "http://example.COM:8080", none, true},
		{"", "ws://[::1]:8080", "http://[::1]:8080", none, true},
		{"", "wss://example.com", "https://example.com", none, true},
		{"", "wss://example.com:443", "https://example.com", none, true},
		{"", "wss://example.com:8443", "https://example.com:8443", none, true},
		{"listed", "ws://example.com", "http://example.com", none, true},
		// Another one.
		{"", "ws://example.com", "https://example.com", none, false},
		{"", "wss://example.com", "http://example.com", none, false},
		{"", "wss://example.com", "https://example.com:80", none, false},
		{"", "ws://example.com:8080", "http://example.com", none, false},
		{"", "ws://example.com", "http://example.com:8080", none, false},
		{"", "ws://example.com", "http://evil.example", none, false},
		{"", "ws://example.com", "http://example.com.evil.example", none, false},
		{"", "ws://example.com", "http://www.example.com", none, false},
		{"", "ws://example.com", "file://", none, false},
		{"", "ws://example.com", "null", none, false},
		{"", "ws://example.com", "", none, false},
		{"", "ws://example.com", "http://example.com/", none, false},
		{"", "ws://example.com", "http://example.com http://evil.example", none, false},
		{"", "ws://example.com", "http://user@example.com", none, false},
		// A listed one.
		{"listed", "ws://example.com", "https://app.example.com", none, true},
		{"listed", "wss://example.com", "https://app.example.com:443", none, true},
		{"listed", "wss://example.com", "http://other.example.com", none, true},
		{"listed", "ws://example.com", "http://10.0.0.1:3000", "a=b", true},
		{"listed", "ws://example.com", "http://app.example.com", none, false},
		{"listed", "ws://example.com", "https://app.example.com:8443", none, false},
		{"listed", "ws://example.com", "http://10.0.0.1", none, false},
		{"listed", "ws://example.com", "null", none, false},
		{"any", "ws://example.com", "http://evil.example", "a=b", true},
		{"any", "ws://example.com", "null", none, true},
	}
	for _, tt := range tests {
		for _, path := range []string{"/ws", "/grpc-ws", "/grpc-ws-tunnel", "/helloworld.Greeter/SayHello"} {
			t.Run(fmt.Sprintf("%s %s%s from %s with %s", tt.server, tt.url, path, tt.origin, tt.cookie), func(t *testing.T) {
				header := http.Header{}
				if tt.origin != none {
					header.Set("Origin", tt.origin)
				}
				if path == "/helloworld.Greeter/SayHello" {
					header.Set("Sec-WebSocket-Protocol", "grpc-websockets")
				}
				if tt.cookie != none {
					header.Set("Cookie", tt.cookie)
				}
				code, text := upgrade(t, servers[tt.server], tt.url+path, header)
				if want := map[bool]int{true: 101, false: 403}[tt.allowed]; code != want || (code == 403) != strings.HasPrefix(text, "403 forbidden: ") {
					t.Errorf("answer %d %q, want %d", code, text, want)
				}
			})
		}
	}
	t.Run("two headers", func(t *testing.T) {
		code, text := upgrade(t, servers["listed"], "ws://example.com/ws", http.Header{"Origin": {"https://app.example.com", "http://evil.example"}})
		if code != 403 {
			t.Errorf("answer %d %q, want 403", code, text)
		}
	})
	t.Run("the cure is named", func(t *testing.T) {
		_, text := upgrade(t, servers[""], "ws://example.com/ws", http.Header{"Origin": {"https://App.example.com:443"}})
		if !strings.Contains(text, `WithAllowedOrigins("https://app.example.com")`) {
			t.Errorf("answer %q, want the option in it", text)
		}
		long := "https://" + strings.Repeat("a", 4000)
		if _, text := upgrade(t, servers[""], "ws://example.com/ws", http.Header{"Origin": {long}}); len(text) > 1000 {
			t.Errorf("an answer of %d bytes to a long origin", len(text))
		}
	})
}

// upgrade asks s for a WebSocket, and returns the answer.
func upgrade(t *testing.T, s *muxtest.Server, url string, header http.Header) (code int, text string) {
	t.Helper()
	d := websocket.Dialer{NetDialContext: s.DialContext, TLSClientConfig: s.ClientTLS.Clone()}
	c, res, err := d.Dial(url, header)
	if err == nil {
		c.Close()
	} else if res == nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
