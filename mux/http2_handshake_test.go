package mux_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/internal/xconnect"
	"oneport/mux/internal/xconnect/xconnecttest"
)

// The answers to a handshake are those to one of HTTP/1.1, as far as they are not about it.
func TestHTTP2SocketHandshake(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	p := start(t, both, func(s *mux.Server) {
		services(s)
		s.Handle("/closing", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close") // to net/http, all of the connection
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, "no")
		}))
		s.Handle("/raw", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, "HTTP/1.1 418 no\r\nContent-Length: 2\r\nX-Why: not\r\n\r\nno")
			c.Close()
		}))
	})
	for scheme, secure := range schemes {
		c := p.streams(secure)
		own := map[bool]string{false: "http://localhost", true: "https://localhost"}
		for _, tc := range []struct {
			name, path string
			header     http.Header
			status     int
			want       http.Header // nil means absent
			body       string
		}{
			{"echo", "/ws", nil, 200, http.Header{"Upgrade": nil, "Connection": nil, "Sec-Websocket-Accept": nil, "Sec-Websocket-Protocol": nil}, ""},
			{"subprotocol", "/grpc-ws", http.Header{"Sec-Websocket-Protocol": {"x, grpc-ws.v1"}}, 200, http.Header{"Sec-Websocket-Protocol": {"grpc-ws.v1"}}, ""},
			{"tunnel", "/grpc-ws-tunnel", http.Header{"Sec-Websocket-Protocol": {"grpc-ws-tunnel.v1"}}, 200, http.Header{"Sec-Websocket-Protocol": {"grpc-ws-tunnel.v1"}}, ""},
			{"subprotocols, none known", "/grpc-ws", http.Header{"Sec-Websocket-Protocol": {"x"}}, 400, nil, "known: "},
			{"compression", "/ws", http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}, 200, http.Header{"Sec-Websocket-Extensions": nil}, ""},
			{"version 12", "/ws", http.Header{"Sec-Websocket-Version": {"12"}}, 426, http.Header{"Sec-Websocket-Version": {"13"}, "Upgrade": nil, "Connection": nil}, "must be 13"},
			{"a key of the client", "/ws", http.Header{"Sec-Websocket-Key": {"no key", "nor this"}}, 200, nil, ""},
			{"foreign origin", "/ws", http.Header{"Origin": {"http://evil.example"}}, 403, nil, "WithAllowedOrigins"},
			{"foreign origin, tunnel", "/grpc-ws-tunnel", http.Header{"Origin": {"http://evil.example"}}, 403, nil, "WithAllowedOrigins"},
			{"own origin", "/ws", http.Header{"Origin": {own[secure]}}, 200, nil, ""},
			{"origin of the other scheme", "/ws", http.Header{"Origin": {own[!secure]}}, 403, nil, ""},
			{"no origin, cookies", "/ws", http.Header{"Cookie": {"a=b"}}, 403, nil, "Origin"},
			{"no method", "/grpc-ws/x.Y/Z", nil, 404, nil, ""},
			{"path of a call", echoPath, nil, 400, nil, "grpc-websockets"},
			{"path of a call, with its subprotocol", echoPath, http.Header{"Sec-Websocket-Protocol": {"grpc-websockets"}}, 200, http.Header{"Sec-Websocket-Protocol": {"grpc-websockets"}}, ""},
			{"page", "/", nil, 404, http.Header{"Content-Security-Policy": nil}, "no WebSocket"},
			{"own answer", "/closing", nil, 418, http.Header{"Connection": nil}, "no"},
			{"own answer after hijacking", "/raw", nil, 418, http.Header{"X-Why": {"not"}, "Content-Length": nil}, ""},
		} {
			t.Run(tc.name+" "+scheme, func(t *testing.T) {
				header := http.Header{"Sec-Websocket-Version": {"13"}}
				for k, v := range tc.header {
					header[k] = v
				}
				body, end := io.Pipe()
				defer end.Close()
				res, err := c.RoundTrip(c.Connect(t.Context(), "localhost", tc.path, header, body))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.StatusCode != tc.status {
					t.Errorf("status %s, want %d", res.Status, tc.status)
				}
				for k, want := range tc.want {
					if !slices.Equal(res.Header[k], want) {
						t.Errorf("%s: %q, want %q", k, res.Header[k], want)
					}
				}
				if res.StatusCode == 200 {
					return
				}
				if got, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(got), tc.body) {
					t.Errorf("body %q, %v, want one with %q", got, err, tc.body)
				}
			})
		}
	}
	if n := p.accepted.Load(); n != 2 {
		t.Errorf("%d connections for all cases, want 1 for each scheme", n)
	}
}

// What is no handshake of RFC 8441 gets an answer that tells, and nothing is harmed.
func TestExtendedConnectRefused(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	p := start(t, both, services)
	fields := func(pairs ...string) (fs []hpack.HeaderField) {
		for i := 0; i < len(pairs); i += 2 {
			fs = append(fs, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		return fs
	}
	rest := fields(":scheme", "http", ":authority", "localhost", ":path", "/ws", "sec-websocket-version", "13")
	for _, tc := range []struct {
		name   string
		fields []hpack.HeaderField
		end    bool
		status string // "" means a reset
	}{
		{"good", slices.Concat(fields(":method", "CONNECT", ":protocol", "websocket"), rest), false, "200"},
		{"in capitals", slices.Concat(fields(":method", "CONNECT", ":protocol", "WebSocket"), rest), false, "200"},
		{"other protocol", slices.Concat(fields(":method", "CONNECT", ":protocol", "connect-udp"), rest), false, "501"},
		{"empty protocol", slices.Concat(fields(":method", "CONNECT", ":protocol", ""), rest), false, ""},
		{"two protocols", slices.Concat(fields(":method", "CONNECT", ":protocol", "websocket", ":protocol", "websocket"), rest), false, ""},
		{"GET", slices.Concat(fields(":method", "GET", ":protocol", "websocket"), rest), false, "400"},
		{"ended", slices.Concat(fields(":method", "CONNECT", ":protocol", "websocket"), rest), true, "400"},
		{"content-length", slices.Concat(fields(":method", "CONNECT", ":protocol", "websocket"), rest, fields("content-length", "5")), false, "400"},
		{"no path", fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "localhost"), false, ""},
		{"plain CONNECT", fields(":method", "CONNECT", ":authority", "localhost:22"), false, "404"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newHTTP2Conn(t, p.dial())
			c.greet()
			if got := c.settings[0][http2.SettingEnableConnectProtocol]; got != 1 {
				t.Errorf("SETTINGS %v, want extended CONNECT among the first", c.settings)
			}
			c.WriteSettingsAck()
			var block strings.Builder
			enc := hpack.NewEncoder(&block)
			for _, f := range tc.fields {
				enc.WriteField(f)
			}
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: tc.end})
			for {
				switch f := c.next().(type) {
				case *http2.MetaHeadersFrame:
					if got := f.PseudoValue("status"); got != tc.status {
						t.Errorf("status %s, want %q", got, tc.status)
					}
					return
				case *http2.RSTStreamFrame:
					if tc.status != "" {
						t.Errorf("reset with %v, want status %s", f.ErrCode, tc.status)
					}
					return
				}
			}
		})
	}
	c := p.dial()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: localhost\r\n:protocol: websocket\r\n\r\n")
	if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Errorf("HTTP/1.1 with :protocol: %q, want 400", got)
	}
	p.alive(false)
}

// Extended CONNECT is in the first SETTINGS a client sees, whatever the server's options.
func TestExtendedConnectAnnounced(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	for name, opts := range map[string][]mux.Option{
		"default":      nil,
		"shared":       {mux.WithSharedHTTP2()},
		"grpc options": {mux.WithGRPCServerOptions(grpc.MaxConcurrentStreams(7))},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, both, services, opts...)
			for _, secure := range schemes {
				conn := streamDialer(t, p.streams(secure))()
				e := manyCallsBinary
				e.Open(t, conn)
				conn.Close()
				if err := hello(t, p.grpc(map[bool]*tls.Config{true: p.clientTLS}[secure])); err != nil {
					t.Errorf("gRPC: %v", err)
				}
			}
		})
	}
}

// Without GODEBUG nothing is announced, and nothing taken.
func TestExtendedConnectOff(t *testing.T) {
	if xconnect.Enabled {
		t.Skip("it is on in this process")
	}
	p := start(t, cleartextOnly, services)
	t.Setenv("GODEBUG", "http2xconnect=1") // too late
	c := newHTTP2Conn(t, p.dial())
	c.greet()
	if _, ok := c.settings[0][http2.SettingEnableConnectProtocol]; ok {
		t.Errorf("SETTINGS %v, want no extended CONNECT", c.settings)
	}
}
