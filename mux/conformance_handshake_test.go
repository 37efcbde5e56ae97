package mux_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"oneport/mux"
	"oneport/mux/internal/socket/sockettest"
)

// The rules of the handshake, named as those of frames are: H for RFC 6455, D for
// compression (RFC 7692), which is agreed to nowhere.
func TestWebSocketHandshake(t *testing.T) {
	p := start(t, both, services, mux.WithMaxMessageBytes(conformanceLimit))
	for scheme, secure := range schemes {
		for _, e := range oneAPath {
			edit := func(old, new string) string {
				request := strings.Replace(e.Handshake(), old, new, 1)
				if request == e.Handshake() {
					t.Fatalf("no %q in %q", old, request)
				}
				return request
			}
			offer := func(subprotocols string) string {
				other := e
				other.Subprotocol = subprotocols
				return other.Handshake()
			}
			origin := map[bool]string{false: "Origin: http://localhost", true: "Origin: https://localhost"}
			// A client that gets none of the subprotocols it asks for gives up; but
			// an echo is of no subprotocol.
			unknown, known := http.StatusBadRequest, http.StatusBadRequest
			switch e.Path {
			case "/ws":
				unknown, known = http.StatusSwitchingProtocols, http.StatusSwitchingProtocols
			case "/grpc-ws", "/grpc-ws-tunnel", bodyParts.Path:
				known = http.StatusSwitchingProtocols
			}
			// The path of a method is that of other calls as well.
			noUpgrade, wantUpgrade := http.StatusUpgradeRequired, map[string]string{"Upgrade": "websocket", "Connection": "Upgrade"}
			if e.Path == bodyParts.Path {
				noUpgrade, wantUpgrade = http.StatusMethodNotAllowed, nil
			}
			cases := []struct {
				name, request string
				status        int
				header        map[string]string // "" means absent
			}{
				{"H1 no Upgrade", "GET " + e.Path + " HTTP/1.1\r\nHost: localhost\r\n\r\n", noUpgrade, wantUpgrade},
				{"H1 other Upgrade", edit("Upgrade: websocket", "Upgrade: foo"), noUpgrade, nil},
				{"H1 Upgrade in capitals", edit("Upgrade: websocket", "Upgrade: WebSocket"), 101, nil},
				{"H1 Upgrade is a list", edit("Upgrade: websocket", "Upgrade: h2c, websocket"), 101, nil},
				{"H1 Upgrade is in two lines", edit("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"), 101, nil},
				{"H2 no Connection", edit("Connection: Upgrade", "Connection: keep-alive"), 400, nil},
				{"H3 Connection is a list", edit("Connection: Upgrade", "Connection: keep-alive, Upgrade"), 101, nil},
				{"H4 version 12", edit("Version: 13", "Version: 12"), 426, map[string]string{"Sec-WebSocket-Version": "13"}},
				{"H5 no key", edit("Sec-WebSocket-Key", "X-Key"), 400, nil},
				{"H6 key of 15 bytes", edit(sockettest.Key, "AAAAAAAAAAAAAAAAAAAA"), 400, nil},
				{"H6 key not in base64", edit(sockettest.Key, "dGhlIHNhbXBsZSBub25j*Q=="), 400, nil},
				{"H7 POST", strings.Replace(e.Handshake("Content-Length: 0"), "GET", "POST", 1), 405, map[string]string{"Allow": "GET"}},
				{"H8 HTTP/1.0", edit("HTTP/1.1", "HTTP/1.0"), 400, nil},
				{"H9 accept value", e.Handshake(), 101, map[string]string{"Sec-WebSocket-Accept": sockettest.Accept}},
				{"H10 subprotocols, none known", offer("x, y"), unknown, map[string]string{"Sec-WebSocket-Protocol": ""}},
				{"H11 subprotocols, one known", offer("x, grpc-ws.v1, grpc-websockets, grpc-ws-tunnel.v1, y"), known, map[string]string{"Sec-WebSocket-Protocol": e.Subprotocol}},
				{"H12 foreign origin", e.Handshake("Origin: http://evil.example"), 403, nil},
				{"H12 own origin", e.Handshake(origin[secure]), 101, nil},
				{"H12 origin of the other scheme", e.Handshake(origin[!secure]), 403, nil},
				{"H13 no origin, cookies", e.Handshake("Cookie: a=b"), 403, nil},
			}
			for name, offer := range map[string]string{
				"D1 deflate":                    "permessage-deflate",
				"D3 server_no_context_takeover": "permessage-deflate; server_no_context_takeover",
				"D4 client_no_context_takeover": "permessage-deflate; client_no_context_takeover",
				"D5 both":                       "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
				"D6 window of 8 bits":           "permessage-deflate; server_max_window_bits=8",
				"D6 window of 15 bits":          "permessage-deflate; server_max_window_bits=15; client_max_window_bits",
				"D7 unknown parameter":          "permessage-deflate; foo=1",
				"D8 parameter twice":            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
				"D9 window of 7 bits":           "permessage-deflate; server_max_window_bits=7",
				"D10 two offers":                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
			} {
				cases = append(cases, struct {
					name, request string
					status        int
					header        map[string]string
				}{name, e.Handshake("Sec-WebSocket-Extensions: " + offer), 101, map[string]string{"Sec-WebSocket-Extensions": ""}})
			}
			for _, tc := range cases {
				t.Run(e.Path+" "+scheme+" "+tc.name, func(t *testing.T) {
					conn := p.dialer(secure)()
					if _, err := io.WriteString(conn, tc.request); err != nil {
						t.Fatal(err)
					}
					r := bufio.NewReader(conn)
					res, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatal(err)
					}
					if res.StatusCode != tc.status {
						t.Errorf("status = %d, want %d", res.StatusCode, tc.status)
					}
					for name, want := range tc.header {
						if got := res.Header.Get(name); got != want {
							t.Errorf("%s = %q, want %q", name, got, want)
						}
					}
					if res.StatusCode != http.StatusSwitchingProtocols {
						return
					}
					reply := e.Reader(r)
					e.Exchange(t, conn, reply, 0)
					conn.Write(sockettest.Frame(sockettest.Fin|0x40|e.Kind, "x")) // compressed, were that agreed to
					if got := reply(); got != "close 1002" {
						t.Errorf("reply to RSV1 = %s, want close 1002", got)
					}
					if got := reply(); got != "EOF" {
						t.Errorf("after the close frame: %s, want EOF", got)
					}
				})
			}
		}
	}
}

// H15: a header of 64 KiB.
func TestWebSocketHandshakeTooLong(t *testing.T) {
	p := start(t, both, services, mux.WithMaxMessageBytes(conformanceLimit))
	for scheme, secure := range schemes {
		for _, e := range oneAPath {
			conn := p.dialer(secure)()
			done := make(chan struct{})
			go func() {
				defer close(done)
				io.WriteString(conn, e.Handshake("X-Long: "+strings.Repeat("x", 64<<10)))
			}()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s %s: %v, %v; want 431", scheme, e.Path, res, err)
			}
			conn.Close()
			<-done
		}
	}
}

// T4: the request arrives in two pieces, over TLS in two records, wherever it is cut. The
// endpoints take turns, since until the end of the request they are all the same.
func TestWebSocketHandshakeInPieces(t *testing.T) {
	p := start(t, both, services, mux.WithMaxMessageBytes(conformanceLimit))
	for scheme, secure := range schemes {
		for n, e := range oneAPath {
			request := e.Handshake()
			for i := 1 + n; i < len(request); i += len(oneAPath) {
				conn := p.dialer(secure)()
				io.WriteString(conn, request[:i])
				io.WriteString(conn, request[i:])
				r := bufio.NewReader(conn)
				res, err := http.ReadResponse(r, nil)
				if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("%s %s, cut at %d: %v, %v, want 101", scheme, e.Path, i, res, err)
				}
				e.Exchange(t, conn, e.Reader(r), 0)
				conn.Close()
			}
		}
	}
}
