package mux_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
)

// Bytes that are none of what this port speaks get an answer that says what it
// does, and harm nobody else.
func TestGarbage(t *testing.T) {
	for on, speaks := range map[security]string{
		cleartextOnly: "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket, without TLS",
		both:          "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket, with and without TLS",
		tlsOnly:       "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket over TLS only: use https:// or wss://",
	} {
		p := start(t, on, services)
		for name, bytes := range map[string]string{
			"SSH":    "SSH-2.0-OpenSSH_9.6\r\n",
			"NUL":    strings.Repeat("\x00", 64),
			"64 KiB": strings.Repeat("~", 64<<10),
		} {
			for _, secure := range []bool{false, true} {
				if secure && on == cleartextOnly {
					continue
				}
				t.Run(fmt.Sprintf("%s/TLS %v/%s", speaks, secure, name), func(t *testing.T) {
					var c net.Conn
					if c = p.dial(); secure {
						c = p.secure()
					}
					io.WriteString(c, bytes) // may well be cut off
					got, err := io.ReadAll(c)
					if head, text, _ := strings.Cut(string(got), "\r\n\r\n"); err != nil ||
						!strings.HasPrefix(head, "HTTP/1.1 400 ") || text != speaks+"\n" {
						t.Errorf("answer %q, %v; want 400 with %q", got, err, speaks)
					}
				})
			}
		}
		p.alive(on != cleartextOnly)
	}
}

// A TLS client of a port without it hears so in its own protocol.
func TestNoTLS(t *testing.T) {
	p := start(t, cleartextOnly, services)
	for i := range 2 {
		err := p.secure().Handshake()
		if err == nil || err.Error() != "remote error: tls: handshake failure" {
			t.Errorf("handshake %d = %v, want an alert of handshake failure", i+1, err)
		}
	}
	p.alive(false)
}

// A port that requires TLS sends browsers there and tells everyone else.
func TestTLSOnly(t *testing.T) {
	p := start(t, tlsOnly, services)
	tests := []struct {
		name, method, path string
		header             http.Header
		body               string
		code               int
		location, text     string
	}{
		{"GET", "GET", "/a%2Fb?x=1&y=%20", nil, "", 308, p.url("https", "/a%2Fb?x=1&y=%20"), ""},
		{"HEAD", "HEAD", "/healthz", nil, "", 308, p.url("https", "/healthz"), ""},
		{"GET of two slashes", "GET", "//example.com/", nil, "", 308, p.url("https", "//example.com/"), ""},
		{"POST", "POST", "/", nil, "secret", 400, "", "over TLS only"},
		{"DELETE", "DELETE", "/", nil, "", 400, "", "over TLS only"},
		{"WebSocket", "GET", "/ws", http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}, "", 400, "", "wss://"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, p.url("http", tt.path), strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header[k] = v
			}
			res, body := do(t, p.http(1), req)
			if to := res.Header.Get("Location"); res.StatusCode != tt.code || to != tt.location || !strings.Contains(body, tt.text) {
				t.Errorf("%s %s = %d to %q with %q, want %d to %q with %q",
					tt.method, tt.path, res.StatusCode, to, body, tt.code, tt.location, tt.text)
			}
			p.alive(true)
		})
	}
	t.Run("redirect leads somewhere", func(t *testing.T) {
		c := p.http(1)
		c.CheckRedirect = nil
		if res, body := get(t, c, p.url("http", "/healthz")); res.TLS == nil || body != "ok\n" {
			t.Errorf("GET over http ended with %q, TLS %v; want ok over TLS", body, res.TLS != nil)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		err := hello(t, p.grpc(nil))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "over TLS only") {
			t.Errorf("call = %v, want Unavailable and the cure", err)
		}
		p.alive(true)
	})
	t.Run("request over HTTP2", func(t *testing.T) {
		if res, body := get(t, p.http(2), p.url("http", "/healthz")); res.StatusCode != 400 || !strings.Contains(body, "over TLS only") {
			t.Errorf("GET = %s %q, want 400 and the cure", res.Status, body)
		}
		p.alive(true)
	})
	t.Run("HTTP2", func(t *testing.T) {
		c := p.dial()
		fr := http2.NewFramer(c, c)
		io.WriteString(c, http2.ClientPreface)
		fr.WriteSettings()
		fr.WritePing(false, [8]byte{}) // asks for an answer
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("no GOAWAY before %v", err)
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				if g.ErrCode != http2.ErrCodeInadequateSecurity || !bytes.Contains(g.DebugData(), []byte("over TLS only")) {
					t.Errorf("GOAWAY %v %q, want INADEQUATE_SECURITY and the cure", g.ErrCode, g.DebugData())
				}
				break
			}
		}
		p.alive(true)
	})
}

// A client that does not say in time what it speaks is closed on the dot. One that
// has opened HTTP/2 has said so, and is merely idle.
func TestSniffTimeout(t *testing.T) {
	const limit = 7 * time.Second
	var hello bytes.Buffer
	tls.Client(writeOnly{&hello}, &tls.Config{ServerName: "x"}).Handshake()
	var settings bytes.Buffer
	http2.NewFramer(&settings, nil).WriteSettings()
	const refused = "HTTP/1.1 408 Request Timeout\r\n"
	// The end of a connection in memory is seen when the server stops reading,
	// a second after its answer.
	const answered = limit + time.Second
	tests := []struct {
		name, send string
		secure     bool // sent inside TLS
		want       string
		closed     time.Duration // zero if it stays open
	}{
		{"nothing", "", false, "", limit},
		{"nothing inside TLS", "", true, "", limit},
		{"part of a ClientHello", hello.String()[:20], false, "", limit},
		{"part of a method", "GE", false, refused, answered},
		{"part of a method inside TLS", "GE", true, refused, limit},
		{"another protocol's command", "EHLO example.com\r\n", false, refused, answered},
		{"part of a preface", http2.ClientPreface[:10], false, refused, answered},
		// net/http gives the SETTINGS that belong to it two seconds more.
		{"a preface alone", http2.ClientPreface, false, "", limit + 2*time.Second},
		{"HTTP/2", http2.ClientPreface + settings.String(), false, "", 0},
		{"HTTP/2 inside TLS", http2.ClientPreface + settings.String(), true, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services, mux.WithSniffTimeout(limit))
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				if tt.secure {
					tc := tls.Client(c, s.ClientTLS)
					if err := tc.Handshake(); err != nil {
						t.Fatal(err)
					}
					c = tc
				}
				start := time.Now()
				io.WriteString(c, tt.send)
				c.SetReadDeadline(start.Add(time.Minute))
				got, err := io.ReadAll(c)
				took := time.Since(start)
				switch {
				case tt.closed == 0 && !errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("after %v: %q, %v; want an open connection", took, got, err)
				case tt.closed != 0 && (took != tt.closed || !strings.HasPrefix(string(got), tt.want)):
					t.Errorf("after %v: %q, %v; want %q after %v", took, got, err, tt.want, tt.closed)
				}
			})
		})
	}
}

// One line of the log says that a connection was refused, and why.
func TestRefusedConnectionIsLogged(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		opts       []mux.Option
		want       string
	}{
		{"no HTTP", "\x00\x01\x02", nil, `kind=unknown reason="sniff: neither TLS nor HTTP"`},
		{"silent", "", nil, `kind=unknown reason="i/o timeout"`},
		{"TLS", "\x16\x03\x01", []mux.Option{mux.WithTLSConfig(nil)}, `kind=tls reason="this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket, without TLS"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				s := muxtest.New(t, services, append(tt.opts, mux.WithLogger(logger))...)
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, tt.send)
				io.Copy(io.Discard, c)
				c.Close()
				synctest.Wait()
				if got := log.with(""); len(got) != 1 || len(log.with(`msg="connection refused" remote=`, tt.want)) != 1 {
					t.Errorf("logged %q, want one line with %s", got, tt.want)
				}
			})
		})
	}
}

// writeOnly is a connection whose peer never answers.
type writeOnly struct{ io.Writer }

func (writeOnly) Read([]byte) (int, error)         { return 0, io.EOF }
func (writeOnly) Close() error                     { return nil }
func (writeOnly) LocalAddr() net.Addr              { return nil }
func (writeOnly) RemoteAddr() net.Addr             { return nil }
func (writeOnly) SetDeadline(time.Time) error      { return nil }
func (writeOnly) SetReadDeadline(time.Time) error  { return nil }
func (writeOnly) SetWriteDeadline(time.Time) error { return nil }

// What a connection began with binds it to nothing: each server answers all of HTTP.
func TestSecondRequest(t *testing.T) {
	p := start(t, both, services)
	c := p.dial()
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 4") || !strings.HasSuffix(string(got), "\r\n\r\nok\n") {
		t.Errorf("a refused upgrade and a page = %q, %v; want both answered", got, err)
	}
}
