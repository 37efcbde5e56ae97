package wsrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/backoff"
)

// What answers a handshake and is not grpc-ws.v1 is told, with the cure.
func TestClientDialAnswers(t *testing.T) {
	const upgrade = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n"
	for _, tt := range []struct{ name, answer, want string }{
		{"moved", "HTTP/1.1 301 Moved\nLocation: wss://other.test/x\nContent-Length: 0\n\n", `redirects are not followed: dial "wss://other.test/x"`},
		{"bad request", "HTTP/1.1 400 Bad Request\nContent-Length: 4\n\nnope", `"400 Bad Request": "nope"; the text says`},
		{"no credentials", "HTTP/1.1 401 Unauthorized\nContent-Length: 0\n\n", "credentials in DialOptions.Header"},
		{"forbidden", "HTTP/1.1 403 Forbidden\nContent-Length: 5\n\nleave", `"403 Forbidden": "leave"; it takes neither the credentials nor the Origin`},
		{"not found", "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n", `nothing is at "/grpc-ws"`},
		{"proxy", "HTTP/1.1 407 Proxy Authentication Required\nContent-Length: 0\n\n", "NetDialContext"},
		{"busy", "HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n", "try again later"},
		{"plain HTTP", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", `"200 OK": "hello"; what answers there is no WebSocket server`},
		{"long text", "HTTP/1.1 200 OK\nContent-Length: 1000\n\n" + strings.Repeat("x", 1000), strings.Repeat("x", 200) + `";`},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x0a", "the server speaks TLS: use wss"},
		{"HTTP/2", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "does not speak HTTP/1.1"},
		{"another subprotocol", upgrade + "Sec-WebSocket-Protocol: mqtt\n\n", `does not speak grpc-ws.v1 at "/grpc-ws", but "mqtt"`},
		{"wrong key", upgrade + "Sec-WebSocket-Protocol: grpc-ws.v1\nSec-WebSocket-Accept: x\n\n", "not that of a WebSocket"},
		{"compression", upgrade + "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\n\n", `what was not offered: "permessage-deflate`},
		{"endless header", "HTTP/1.1 200 OK\n" + strings.Repeat("A: b\n", 65536/6), "larger than 65536 bytes"},
		{"nothing", "\n", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(t)
			s.answer = tt.answer
			c, err := Dial(t.Context(), "ws://server.test", &DialOptions{NetDialContext: s.dial})
			if err == nil {
				c.Close()
				t.Fatalf("%s: Dial has succeeded", tt.name)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "wsrpc: dial: ") || len(err.Error()) > 500 {
				t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
			}
		})
	}
}

// gorilla turns compression on whenever the server says so; the answer that does is else
// a good one.
func TestClientRefusesCompression(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t)
		s.extra = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
		if c, err := Dial(t.Context(), "ws://server.test", &DialOptions{NetDialContext: s.dial}); err == nil || !strings.Contains(err.Error(), "what was not offered") {
			t.Errorf("Dial = %v, %v", c, err)
		}
	})
}

// What is wrong with URL and options is told before anything is connected.
func TestClientDialOptions(t *testing.T) {
	for _, tt := range []struct {
		url  string
		opts DialOptions
		want string
	}{
		{"https://a", DialOptions{}, "the scheme is https: use wss"},
		{"ftp://a:secret@b", DialOptions{}, "neither ws nor wss"},
		{"ws://", DialOptions{}, "no host"},
		{"ws://a:secret@b", DialOptions{}, "DialOptions.Header"},
		{"ws://a:secret%ss@b", DialOptions{}, "malformed"},
		{"ws://a", DialOptions{MaxMessageBytes: -1}, "MaxMessageBytes"},
		{"ws://a", DialOptions{MaxMessageBytes: 1 << 31}, "MaxMessageBytes"},
		{"ws://a", DialOptions{Window: 1 << 31}, "Window"},
		{"ws://a", DialOptions{Keepalive: Keepalive{Timeout: -1}}, "Keepalive"},
		{"ws://a", DialOptions{Backoff: backoff.Config{BaseDelay: -1}}, "Backoff"},
		{"ws://a", DialOptions{Backoff: backoff.Config{Multiplier: 0.5}}, "Backoff"},
		{"ws://a", DialOptions{Backoff: backoff.Config{Jitter: 2}}, "Backoff"},
		{"ws://a", DialOptions{Header: http.Header{"Upgrade": {"x"}}}, "duplicate header"},
		{"ws://a", DialOptions{}, "dialled"},
		{"ws://a", DialOptions{MaxMessageBytes: 1<<31 - 1, Window: 1<<31 - 1}, "dialled"},
	} {
		tt.opts.NetDialContext = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("dialled") }
		_, err := Dial(t.Context(), tt.url, &tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Dial(%q, %+v) = %v, want %q", tt.url, tt.opts, err, tt.want)
		}
	}
}

// The end of the context is the end of Dial, wherever that is, and its error.
func TestClientDialContext(t *testing.T) {
	for _, tt := range []struct {
		name string
		dial func(s *scripted) func(context.Context, string, string) (net.Conn, error)
	}{
		{"connecting", func(*scripted) func(context.Context, string, string) (net.Conn, error) {
			return func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		}},
		{"handshake", func(s *scripted) func(context.Context, string, string) (net.Conn, error) {
			return func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				go io.Copy(io.Discard, far)
				return near, nil
			}
		}},
		{"hello", func(s *scripted) func(context.Context, string, string) (net.Conn, error) {
			s.silent = true
			return s.dial
		}},
	} {
		for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				if want == context.Canceled {
					time.AfterFunc(2*time.Second, cancel)
				}
				defer cancel()
				_, err := Dial(ctx, "ws://server.test", &DialOptions{NetDialContext: tt.dial(newScripted(t))})
				if !errors.Is(err, want) {
					t.Errorf("%s: Dial = %v, want %v", tt.name, err, want)
				}
			})
		}
	}
}

// The options reach the handshake: fields of the header, as they were, and those of TLS
// but ALPN.
func TestClientHandshakeOptions(t *testing.T) {
	server, client := exampleTLS()
	server.NextProtos, client.NextProtos = []string{"h2", "http/1.1"}, []string{"h2"}
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t)
		s.tls = server
		header := http.Header{"Authorization": {"Bearer x"}, "Host": {"other.test"}}
		c, p := s.connect(DialOptions{Header: header, TLSConfig: client})
		if got := <-s.header; got.Get("Authorization") != "Bearer x" {
			t.Errorf("the handshake had %v", got)
		}
		header.Set("Authorization", "changed")
		time.Sleep(2 * time.Second)
		p.ws.Close()
		if got := <-s.header; got.Get("Authorization") != "Bearer x" {
			t.Errorf("the second handshake had %v", got)
		}
		<-s.peers
		synctest.Wait()
		if got := c.current.peer.AuthInfo; got == nil || got.AuthType() != "tls" {
			t.Errorf("AuthInfo = %v", got)
		}
	})
}

// wss where the server is in cleartext.
func TestClientDialCleartext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			go io.WriteString(far, "HTTP/1.1 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, far)
			far.Close()
		}()
		dial := func(context.Context, string, string) (net.Conn, error) { return near, nil }
		if _, err := Dial(t.Context(), "wss://server.test", &DialOptions{NetDialContext: dial}); err == nil || !strings.Contains(err.Error(), "use ws") {
			t.Errorf("Dial = %v", err)
		}
	})
}
