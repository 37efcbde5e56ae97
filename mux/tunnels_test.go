package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/mux/tunnel"
	echopb "oneport/proto/echo"
)

// rawTunnel is a tunnel of which the test writes the messages. It reads as a stream, and
// answers pings while it does.
type rawTunnel struct {
	t testing.TB
	*websocket.Conn
	message io.Reader
	writing sync.Mutex
}

func openTunnel(t testing.TB, s *muxtest.Server) *rawTunnel {
	t.Helper()
	return &rawTunnel{t: t, Conn: s.WebSocket(tunnel.Path, nil)}
}

func (r *rawTunnel) Read(p []byte) (int, error) {
	for {
		if r.message == nil {
			_, m, err := r.NextReader()
			if err != nil {
				return 0, err
			}
			r.message = m
		}
		n, err := r.message.Read(p)
		if err == io.EOF {
			r.message = nil
		} else if err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (r *rawTunnel) Write(p []byte) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if err := r.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// wantClose reads all that comes, which it returns, and fails unless that ends with code.
func (r *rawTunnel) wantClose(code int) []byte {
	r.t.Helper()
	got, err := io.ReadAll(r)
	if !websocket.IsCloseError(err, code) {
		r.t.Errorf("the tunnel ends with %v, want close %d", err, code)
	}
	return got
}

// A handshake is judged as that of any WebSocket.
func TestTunnelHandshake(t *testing.T) {
	s := muxtest.New(t, services)
	for _, tt := range []struct {
		offer string
		path  string
		code  int
		text  string
	}{
		{"", "", 101, ""},
		{"grpc-ws-tunnel.v1", "", 101, ""},
		{"grpc-ws-tunnel.v9, grpc-ws-tunnel.v1", "", 101, ""},
		{"grpc-ws-tunnel.v9", "", 400, "none of the offered subprotocols is known; known: grpc-ws-tunnel.v1\n"},
		{"grpc-ws.v1", "", 400, "none of the offered subprotocols is known; known: grpc-ws-tunnel.v1\n"},
		{"", "/x", 404, ""},
	} {
		for _, scheme := range []string{"ws", "wss"} {
			header := http.Header{}
			if tt.offer != "" {
				header.Set("Sec-Websocket-Protocol", tt.offer)
			}
			code, text := upgrade(t, s, scheme+"://oneport.test"+tunnel.Path+tt.path, header)
			if code != tt.code || tt.text != "" && text != tt.text {
				t.Errorf("%s: offer %q of %s%s: %d %q, want %d %q", scheme, tt.offer, tunnel.Path, tt.path, code, text, tt.code, tt.text)
			}
		}
	}
	if res, text := get(t, s.HTTP1(), muxtest.URL+tunnel.Path); res.StatusCode != 426 || !strings.Contains(text, "WebSocket") {
		t.Errorf("without an upgrade: %s %q, want 426", res.Status, text)
	}
}

// unknownFrame is a frame of HTTP/2 that means nothing, of n bytes in all.
func unknownFrame(n int) []byte {
	return frames(func(fr *http2.Framer) { fr.WriteRawFrame(0xbb, 0, 0, make([]byte, n-9)) })
}

// A message is bounded in bytes and frames; the stream of them is not.
func TestTunnelLimits(t *testing.T) {
	const maxMessage, maxFrames, pieces = 1 << 20, 1024, 64
	whole := bytes.Repeat(unknownFrame(maxMessage/pieces), pieces)
	ping := frames(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{1}) })
	// cut makes n WebSocket frames of p, with a mask of zeros.
	cut := func(p []byte, n int) (b []byte) {
		for i := range n {
			first, part := byte(0), p[i*len(p)/n:(i+1)*len(p)/n]
			if i == 0 {
				first = websocket.BinaryMessage
			}
			if i == n-1 {
				first |= 0x80
			}
			if len(part) < 1<<16 {
				b = binary.BigEndian.AppendUint16(append(b, first, 0x80|126), uint16(len(part)))
			} else {
				b = binary.BigEndian.AppendUint64(append(b, first, 0x80|127), uint64(len(part)))
			}
			b = append(append(b, 0, 0, 0, 0), part...)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		send []byte
		code int // zero: the tunnel goes on
	}{
		{"a message of the limit", cut(whole, 1), 0},
		{"many of those", bytes.Repeat(cut(whole, 1), 20), 0},
		{"one byte more", cut(append(bytes.Clone(whole), ping[0]), 1), websocket.CloseMessageTooBig},
		{"one byte more, in frames", cut(append(bytes.Clone(whole), ping[0]), 10), websocket.CloseMessageTooBig},
		{"as many frames as may be", cut(whole, maxFrames), 0},
		{"one frame more", cut(whole, maxFrames+1), websocket.ClosePolicyViolation},
		{"text", []byte{0x80 | websocket.TextMessage, 0x80, 0, 0, 0, 0}, websocket.CloseUnsupportedData},
		{"not WebSocket", []byte{0xf2, 0x80, 0, 0, 0, 0}, websocket.CloseProtocolError},
	} {
		for opts, opt := range map[string][]mux.Option{"native": nil, "with small messages": {mux.WithMaxMessageBytes(50)}, "shared": {mux.WithSharedHTTP2()}} {
			t.Run(tt.name+"/"+opts, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := muxtest.New(t, services, opt...)
					r := openTunnel(t, s)
					r.Write(opening(func(fr *http2.Framer) {
						fr.WriteHeaders(headers(1, "POST", "/helloworld.Greeter/SayHello", "content-type", "application/grpc"))
					}))
					r.Write(ping)
					if err := pong(r); err != nil {
						t.Fatal(err)
					}
					go func() {
						r.NetConn().Write(tt.send)
						r.Write(ping)
					}()
					err := pong(r)
					if tt.code == 0 && err != nil || tt.code != 0 && !websocket.IsCloseError(err, tt.code) {
						t.Errorf("afterwards a ping gets %v, want close %d, or an answer for 0", err, tt.code)
					}
				})
			})
		}
	}
}

// pong reads frames up to the answer to a ping, which it returns nil for.
func pong(rw io.ReadWriter) error {
	fr := http2.NewFramer(rw, rw)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			if f.IsAck() {
				return nil
			}
			fr.WritePing(true, f.Data)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		}
	}
}

// The first bytes inside have the time that those of a connection have. One that has
// opened HTTP/2 is kept.
func TestTunnelSilent(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		kept       bool
		want       string // comes before the end
	}{
		{"nothing", "", false, ""},
		{"part of the preface", http2.ClientPreface[:10], false, "HTTP/1.1 408 "},
		{"part of a request", "GET / HTTP/1.1\r\n", false, "HTTP/1.1 408 "},
		{"HTTP/2 and no request", string(opening()), true, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := muxtest.New(t, services)
			r := openTunnel(t, s)
			start := time.Now()
			if tt.send != "" {
				r.Write([]byte(tt.send))
			}
			if !tt.kept {
				got := r.wantClose(websocket.CloseNormalClosure)
				if took := time.Since(start); took < 3*time.Second || took > 4*time.Second || !strings.HasPrefix(string(got), tt.want) {
					t.Errorf("%s: the tunnel ends after %v with %q, want 3 to 4 s, and %q", tt.name, took, got, tt.want)
				}
				return
			}
			go func() {
				time.Sleep(10 * time.Minute)
				r.Write(frames(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{1}) }))
			}()
			if err := pong(r); err != nil || time.Since(start) != 10*time.Minute {
				t.Errorf("%s: %v after %v, want the answer to a ping after 10m", tt.name, err, time.Since(start))
			}
		})
	}
}

// through returns a client of HTTP/2 whose connections are tunnels.
func through(t *testing.T, s *muxtest.Server) *http.Client {
	tr := &http.Transport{Protocols: protocols(2), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return tunnel.Dial(ctx, "ws://oneport.test", &tunnel.DialOptions{NetDialContext: s.DialContext})
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// Inside there are the calls of every protocol that has methods by their names and is
// carried by HTTP/2, and nothing else: no pages, no REST, and no other tunnel.
func TestTunnelInside(t *testing.T) {
	for name, opts := range map[string][]mux.Option{"default": nil, "shared HTTP/2": {mux.WithSharedHTTP2()}} {
		t.Run(name, func(t *testing.T) {
			s := muxtest.New(t, func(s *mux.Server) {
				services(s)
				s.Handle("/secret", text("secret"))
			}, opts...)
			c := through(t, s)
			for _, call := range webCalls("you") {
				if call.contentType == "application/grpc" && opts == nil {
					c = through(t, s) // else it would be on a connection that began otherwise
				}
				res, body := do(t, c, call.request(t, muxtest.URL))
				if call.isPage() || call.isREST() {
					if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "a tunnel carries gRPC") {
						t.Errorf("%s: %s %q, want 403", call.name, res.Status, body)
					}
				} else if err := call.check(res, body); err != nil {
					t.Error(err)
				}
			}
			c = through(t, s)
			for _, path := range []string{"/secret", "/healthz", "/ws", "/grpc-ws", tunnel.Path} {
				if res, body := get(t, c, muxtest.URL+path); res.StatusCode != http.StatusForbidden {
					t.Errorf("%s: %s %q, want 403", path, res.Status, body)
				}
			}
		})
	}
}

// A tunnel that does not begin with HTTP/2 is told what it is for. So none is in another.
func TestTunnelRefuses(t *testing.T) {
	handshake := "GET %s HTTP/1.1\r\nHost: oneport.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, tt := range []struct{ name, send, want string }{
		{"a page", "GET / HTTP/1.1\r\nHost: oneport.test\r\n\r\n", "HTTP/1.1 400 "},
		{"a tunnel", fmt.Sprintf(handshake, tunnel.Path), "HTTP/1.1 400 "},
		{"a WebSocket", fmt.Sprintf(handshake, "/grpc-ws"), "HTTP/1.1 400 "},
		{"a call over HTTP/1", "POST /helloworld.Greeter/SayHello HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 400 "},
		{"neither", "SSH-2.0-x\r\n", "HTTP/1.1 400 "},
		{"TLS", "\x16\x03\x01\x00\x01\x01", "\x15\x03\x03\x00\x02\x02\x28"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := muxtest.New(t, services)
			r := openTunnel(t, s)
			r.Write([]byte(tt.send))
			got := string(r.wantClose(websocket.CloseNormalClosure))
			if !strings.HasPrefix(got, tt.want) || tt.want[0] == 'H' && !strings.Contains(got, "a tunnel carries gRPC") {
				t.Errorf("%s: answer %q, want %q and what a tunnel carries", tt.name, got, tt.want)
			}
		})
	}
}

// A call in flight ends in order when the server goes, and the WebSocket after it.
func TestTunnelShutdown(t *testing.T) {
	for name, opts := range map[string][]mux.Option{"default": nil, "shared HTTP/2": {mux.WithSharedHTTP2()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services, opts...)
				idle := openTunnel(t, s)
				idle.Write(gRPCOpening())
				unused := openTunnel(t, s)
				unused.Write(opening())
				stream, err := echopb.NewEchoServiceClient(s.Tunnel()).Converse(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				start := time.Now()
				done := make(chan error, 1)
				go func() { done <- s.Shutdown(context.Background()) }()
				for name, r := range map[string]*rawTunnel{"idle": idle, "unused": unused} {
					if err := goAway(r); err != nil {
						t.Errorf("%s tunnel: %v", name, err)
					}
					go func() { // answers what is to be answered until the end
						if err := pong(r); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
							t.Errorf("%s tunnel ends with %v, want close 1001", name, err)
						}
					}()
				}
				time.Sleep(time.Minute)
				if len(done) > 0 {
					t.Fatalf("Shutdown = %v with a call in flight", <-done)
				}
				if code, _ := upgradeCode(t, s); code != 0 {
					t.Errorf("a new tunnel gets %d, want no connection", code)
				}
				if err := stream.Send(&echopb.ConverseRequest{Message: "x"}); err != nil {
					t.Error(err)
				}
				if res, err := stream.Recv(); err != nil || res.Message != "x" {
					t.Errorf("the call in flight answers %v, %v", res, err)
				}
				stream.CloseSend()
				if _, err := stream.Recv(); err != io.EOF {
					t.Errorf("the call in flight ends with %v, want OK", err)
				}
				if err := <-done; err != nil || time.Since(start) > time.Minute+5*time.Second {
					t.Errorf("Shutdown = %v after %v", err, time.Since(start))
				}
				synctest.Wait()
			})
		})
	}
}

// upgradeCode tries to open a tunnel. It returns the status of the answer, zero if there
// is none.
func upgradeCode(t *testing.T, s *muxtest.Server) (int, error) {
	t.Helper()
	d := websocket.Dialer{NetDialContext: s.DialContext}
	c, res, err := d.Dial("ws://oneport.test"+tunnel.Path, nil)
	if err == nil {
		c.Close()
	}
	if res == nil {
		return 0, err
	}
	return res.StatusCode, err
}

// An upgrade that is under way when the server begins to drain gets no connection.
func TestTunnelDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, services)
		stream, err := echopb.NewEchoServiceClient(s.Tunnel()).Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.DialContext(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		// The server has the connection and waits for the rest of its header.
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: oneport.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", tunnel.Path)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		synctest.Wait()
		fmt.Fprint(c, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		got, _ := io.ReadAll(c)
		// The sockets are told at the same time as its handler begins.
		refused := bytes.HasPrefix(got, []byte("HTTP/1.1 503"))
		closed := bytes.HasPrefix(got, []byte("HTTP/1.1 101")) && bytes.Contains(got, []byte("\x03\xe9server is shutting down"))
		if !refused && !closed {
			t.Errorf("answer %q, want 503, or an upgrade and close 1001", got)
		}
		stream.CloseSend()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}

// gusher sends without end until its client has gone.
type gusher struct {
	echopb.UnimplementedEchoServiceServer
	sent  atomic.Int64
	ended chan struct{}
}

func (f *gusher) Expand(_ *echopb.ExpandRequest, stream grpc.ServerStreamingServer[echopb.ExpandResponse]) error {
	defer close(f.ended)
	message := &echopb.ExpandResponse{Message: strings.Repeat("x", 1<<10)}
	for {
		if err := stream.Send(message); err != nil {
			return err
		}
		f.sent.Add(1 << 10)
	}
}

// A client that lets the server send all it likes, and reads nothing, is given up when it
// has taken nothing for ten seconds; until then it costs the bytes that wait.
func TestTunnelSlowReader(t *testing.T) {
	for name, opts := range map[string][]mux.Option{"default": nil, "shared HTTP/2": {mux.WithSharedHTTP2()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &gusher{ended: make(chan struct{})}
				s := muxtest.New(t, func(s *mux.Server) { echopb.RegisterEchoServiceServer(s, f) }, opts...)
				r := openTunnel(t, s)
				start := time.Now()
				r.Write(append([]byte(http2.ClientPreface), frames(func(fr *http2.Framer) {
					fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32})
					fr.WriteWindowUpdate(0, math.MaxInt32-65535)
					h := headers(1, "POST", "/echo.v1.EchoService/Expand", "content-type", "application/grpc", "te", "trailers")
					h.EndStream = false
					fr.WriteHeaders(h)
					fr.WriteData(1, true, make([]byte, 5))
				})...))
				<-f.ended
				if took := time.Since(start); took < 10*time.Second || took > 20*time.Second {
					t.Errorf("the handler's call ends after %v, want 10 to 20 s", took)
				}
				if sent := f.sent.Load(); sent < 64<<10 || sent > 1<<20 {
					t.Errorf("the handler has sent %d KiB, want 64 to 1024", sent>>10)
				}
			})
		})
	}
}

// A client that vanishes takes its calls with it.
func TestTunnelCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &staying{cause: make(chan error, 1)}
		s := muxtest.New(t, func(s *mux.Server) { echopb.RegisterEchoServiceServer(s, h) })
		var under net.Conn
		cc, err := grpc.NewClient("passthrough:///oneport.test", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return tunnel.Dial(ctx, "ws://oneport.test", &tunnel.DialOptions{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := s.DialContext(ctx, network, addr)
					under = c
					return c, err
				}})
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		stream, err := echopb.NewEchoServiceClient(cc).Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		under.Close()
		start := time.Now()
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the client sees %v, want Unavailable", err)
		}
		if err := <-h.cause; !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
			t.Errorf("the handler's context ends with %v after %v, want Canceled at once", err, time.Since(start))
		}
	})
}

// A tunnel over TLS cannot be opened where the port is cleartext, and the other way
// round; what it says in ALPN is for the WebSocket and binds nothing inside.
func TestTunnelTLS(t *testing.T) {
	p := start(t, tlsOnly, services)
	for _, protos := range [][]string{nil, {"http/1.1"}} {
		cfg := p.clientTLS.Clone()
		cfg.NextProtos = protos
		cc, err := grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(tunnel.Credentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return tunnel.Dial(ctx, p.url("wss", ""), &tunnel.DialOptions{TLSConfig: cfg})
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		if err := hello(t, cc); err != nil {
			t.Errorf("ALPN %q: %v", protos, err)
		}
	}
	if c, err := tunnel.Dial(t.Context(), p.url("ws", ""), nil); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("ws on a port that requires TLS = %v, %v, want 400", c, err)
	}
	if c, err := tunnel.Dial(t.Context(), p.url("wss", ""), &tunnel.DialOptions{TLSConfig: &tls.Config{}}); err == nil {
		t.Errorf("a server of an unknown CA = %v", c)
	}
}
