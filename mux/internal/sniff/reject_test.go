package sniff

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rejected returns what a client that writes in gets, and when that ends.
func rejected(t *testing.T, in []byte, kind Kind) (out []byte, at time.Duration) {
	t.Helper()
	client, server := net.Pipe()
	c := accept(t, server, quiet)
	start := time.Now()
	go client.Write(in)
	done := make(chan Kind)
	go func() {
		got, _ := Reject(c, http2.ErrCodeInadequateSecurity, "use https://localhost:8443/")
		done <- got
	}()
	out, err := io.ReadAll(client)
	if err != nil {
		t.Errorf("%s: client read: %v", abbrev(in), err)
	}
	at = time.Since(start)
	if got := <-done; got != kind {
		t.Errorf("Reject(%s) = %v, want %v", abbrev(in), got, kind)
	}
	return out, at
}

func TestRejectText(t *testing.T) {
	for _, tt := range []struct {
		in     string
		kind   Kind
		status int
	}{
		{"GET / HTTP/1.1\r\n\r\n", HTTP1, 400},
		{"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", Upgrade, 400},
		{"\x00garbage", Unknown, 400},
		{"SSH-2.0-OpenSSH_9.2p1\r\n", Unknown, 400},
		{"GET / HTTP/1.1\r\nHost: loc", Unknown, 408},
		{"EHLO", Unknown, 408},
		{http2.ClientPreface[:20], Unknown, 408},
	} {
		synctest.Test(t, func(t *testing.T) {
			out, _ := rejected(t, []byte(tt.in), tt.kind)
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
			if err != nil {
				t.Fatalf("%q got %q: %v", tt.in, out, err)
			}
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || string(body) != "use https://localhost:8443/\n" || err != nil || !resp.Close {
				t.Errorf("%q got %d, %q, close %v (%v), want %d and the text, close", tt.in, resp.StatusCode, body, resp.Close, err, tt.status)
			}
			if got := resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
				t.Errorf("%q got Content-Type %q", tt.in, got)
			}
		})
	}
}

func TestRejectHTTP2(t *testing.T) {
	const text = "use https://localhost:8443/"
	get := func(settings ...http2.Setting) []byte {
		return frames(func(fr *http2.Framer) {
			fr.WriteSettings(settings...)
			fr.WriteHeaders(headers(fields(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "localhost")))
		})
	}
	window := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n} }
	const page = ":status=400 content-type=text/plain; charset=utf-8 "
	for _, tt := range []struct {
		name string
		in   []byte
		kind Kind
		want string // the answer to the request: fields, then what is in DATA; "" for none
	}{
		{"gRPC", request("application/grpc"), GRPC,
			":status=200 content-type=application/grpc grpc-status=14 grpc-message=" + text + " "},
		{"GET", get(), HTTP2, page + text + "\n"},
		{"GET, just the window", get(window(uint32(len(text) + 1))), HTTP2, page + text + "\n"},
		{"GET, too small a window", get(window(uint32(len(text)))), HTTP2, page},
		{"SETTINGS only", frames(func(fr *http2.Framer) { fr.WriteSettings() }), HTTP2, ""},
		{"half a header", afterSettings(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post("application/grpc")})
		}), HTTP2, ""},
		{"a header that cannot be read", afterSettings(func(fr *http2.Framer) { fr.WriteHeaders(headers([]byte{0x40})) }), HTTP2, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			out, _ := rejected(t, tt.in, tt.kind)
			fr := http2.NewFramer(nil, bytes.NewReader(out))
			fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
			answer, last, ended := "", uint32(0), false
			for i := 0; ; i++ {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatalf("%s: no GOAWAY in %x: %v", tt.name, out, err)
				}
				if _, isSettings := f.(*http2.SettingsFrame); i == 0 != (isSettings && !f.Header().Flags.Has(http2.FlagSettingsAck)) {
					t.Fatalf("%s: frame %d is %v, want SETTINGS once and first", tt.name, i, f)
				}
				if id := f.Header().StreamID; id != 0 {
					if last = id; ended {
						t.Errorf("%s: %v after the end of the stream", tt.name, f)
					}
				}
				switch f := f.(type) {
				case *http2.MetaHeadersFrame:
					ended = f.StreamEnded()
					for _, field := range f.Fields {
						answer += field.Name + "=" + field.Value + " "
					}
				case *http2.DataFrame:
					ended = f.StreamEnded()
					answer += string(f.Data())
				case *http2.GoAwayFrame:
					if f.ErrCode != http2.ErrCodeInadequateSecurity || string(f.DebugData()) != text || f.LastStreamID != last {
						t.Errorf("%s: got %v with %q, want the text and stream %d", tt.name, f, f.DebugData(), last)
					}
					if answer != tt.want || ended != (tt.want != "") {
						t.Errorf("%s: answered %q, to the end: %v; want %q", tt.name, answer, ended, tt.want)
					}
					return
				}
			}
		})
	}
}

func TestRejectTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := accept(t, server, quiet)
		go Reject(c, http2.ErrCodeProtocol, "no TLS here")
		err := tls.Client(client, &tls.Config{ServerName: "localhost"}).HandshakeContext(t.Context())
		if _, ok := errors.AsType[tls.AlertError](err); !ok && !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("handshake = %v, want the alert handshake failure", err)
		}
		client.Close()
	})
}

func TestRejectSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, at := rejected(t, nil, Unknown)
		if len(out) > 0 || at != 3*time.Second {
			t.Errorf("a silent client got %q after %v, want nothing after 3s", out, at)
		}
	})
}

// TestRejectTime checks that no client keeps a refused connection for long.
func TestRejectTime(t *testing.T) {
	for name, client := range map[string]func(net.Conn){
		"takes nothing": func(c net.Conn) { c.Write([]byte("\x00")) },
		"stays": func(c net.Conn) {
			c.Write([]byte("\x00"))
			io.Copy(io.Discard, c)
		},
		"dribbles": func(c net.Conn) {
			go io.Copy(io.Discard, c)
			for {
				if _, err := c.Write([]byte("\x00")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			here, server := net.Pipe()
			c := accept(t, server, quiet)
			done := make(chan struct{})
			go func() { client(here); close(done) }()
			start := time.Now()
			Reject(c, http2.ErrCodeProtocol, "no")
			if got := time.Since(start); got != time.Second {
				t.Errorf("client that %s: refused in %v, want 1s", name, got)
			}
			<-done
			here.Close()
		})
	}
}

// TestRejectFlood checks that a client that goes on sending is read for only so long.
func TestRejectFlood(t *testing.T) {
	s := &endless{again: make([]byte, 1000)}
	c := accept(t, s, quiet)
	Reject(c, http2.ErrCodeProtocol, "no")
	if limit := firstRead + rejectDiscard + 1000; s.given > limit || !s.closed {
		t.Errorf("read %d bytes, closed %v; want at most %d, closed", s.given, s.closed, limit)
	}
}

// TestRejectNoReset checks over TCP that the answer arrives although the client sent more than was looked at.
func TestRejectNoReset(t *testing.T) {
	client, server := tcpPair(t)
	if _, err := client.Write(append([]byte{0}, make([]byte, 40<<10)...)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	c := accept(t, server, quiet)
	go func() {
		defer close(done)
		Reject(c, http2.ErrCodeProtocol, "speak up")
	}()
	got, err := io.ReadAll(client)
	if !strings.HasSuffix(string(got), "speak up\n") || err != nil {
		t.Errorf("got %q, %v, want the text and no error", got, err)
	}
	select {
	case <-done:
		t.Error("closed before the client did")
	default:
	}
	client.Close()
	<-done
}

func TestRejectForeign(t *testing.T) {
	s := new(script)
	if got, _ := Reject(s, http2.ErrCodeProtocol, "no"); got != Unknown || !s.closed || s.written.Len() > 0 {
		t.Errorf("Reject = %v, closed %v, wrote %q; want unknown, closed, nothing", got, s.closed, &s.written)
	}
}
