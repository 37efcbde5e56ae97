package socket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestUpgrade(t *testing.T) {
	const known, other = "Sec-WebSocket-Protocol: a.v2", "Sec-WebSocket-Protocol: x, y"
	s := NewServer(Config{Log: quiet})
	handler := func(c *Conn) {
		c.Write(c.Context(), Text, []byte(c.Subprotocol()))
		echo(c)
	}
	echoes := serve(t, s, false, handler)
	chooses := serve(t, s, false, handler, "a.v2", "a.v1")
	for _, tc := range []struct {
		name    string
		dial    func() net.Conn
		request string
		status  int
		header  map[string]string // "" means absent
		text    string
	}{
		{"H1 no Upgrade", echoes, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426,
			map[string]string{"Upgrade": "websocket", "Connection": "Upgrade"}, "ws://"},
		{"H1 other Upgrade", echoes, strings.Replace(handshake(), "Upgrade: websocket", "Upgrade: h2c", 1), 426, nil, "ws://"},
		{"H2 no Connection", echoes, strings.Replace(handshake(), "Connection: Upgrade", "Connection: keep-alive", 1), 400, nil, "Connection: Upgrade"},
		{"H3 Connection is a list", echoes, strings.Replace(handshake(), "Connection: Upgrade", "Connection: keep-alive, uPgrade", 1), 101, nil, ""},
		{"Upgrade is a list in other letters", echoes, strings.Replace(handshake(), "Upgrade: websocket", "Upgrade: foo, WebSocket", 1), 101, nil, ""},
		{"a list gorilla does not understand", echoes, strings.Replace(handshake(), "Upgrade: websocket", "Upgrade: a b, websocket", 1), 400, nil, "Upgrade"},
		{"H4 version 12", echoes, strings.Replace(handshake(), "Version: 13", "Version: 12", 1), 426,
			map[string]string{"Sec-WebSocket-Version": "13"}, "13"},
		{"H4 two versions", echoes, handshake("Sec-WebSocket-Version: 8"), 426, nil, "13"},
		{"H5 no key", echoes, strings.Replace(handshake(), "Sec-WebSocket-Key", "X-Key", 1), 400, nil, "Sec-WebSocket-Key"},
		{"H6 key of 15 bytes", echoes, strings.Replace(handshake(), sampleKey, "AAAAAAAAAAAAAAAAAAAA", 1), 400, nil, "16 bytes"},
		{"H6 key not in base64", echoes, strings.Replace(handshake(), sampleKey, "dGhlIHNhbXBsZSBub25j*Q==", 1), 400, nil, "base64"},
		{"H6 two keys", echoes, handshake("Sec-WebSocket-Key: " + sampleKey), 400, nil, "once"},
		{"H7 POST", echoes, strings.Replace(handshake("Content-Length: 0"), "GET", "POST", 1), 405, map[string]string{"Allow": "GET"}, "GET"},
		{"H8 HTTP/1.0", echoes, strings.Replace(handshake(), "HTTP/1.1", "HTTP/1.0", 1), 400, nil, "HTTP/1.1"},
		{"H9 accept value", echoes, handshake(), 101, map[string]string{"Sec-WebSocket-Accept": sampleAccept}, ""},
		{"body", echoes, handshake("Content-Length: 5") + "hello", 400, nil, "body"},
		{"chunked body", echoes, handshake("Transfer-Encoding: chunked") + "0\r\n\r\n", 400, nil, "body"},
		{"H10 subprotocols where none is spoken", echoes, handshake(other), 101, map[string]string{"Sec-WebSocket-Protocol": ""}, ""},
		{"H10 none known", chooses, handshake(other), 400, nil, "a.v2, a.v1"},
		{"H10 none offered", chooses, handshake(), 101, map[string]string{"Sec-WebSocket-Protocol": ""}, ""},
		{"H11 one known", chooses, handshake("Sec-WebSocket-Protocol: x,a.v1 ,y"), 101, map[string]string{"Sec-WebSocket-Protocol": "a.v1"}, ""},
		{"H11 known in the second line", chooses, handshake(other, known), 101, map[string]string{"Sec-WebSocket-Protocol": "a.v2"}, ""},
		{"H11 both known", chooses, handshake("Sec-WebSocket-Protocol: a.v1", known), 101, map[string]string{"Sec-WebSocket-Protocol": "a.v2"}, ""},
		{"D1 deflate offered", echoes, handshake("Sec-WebSocket-Extensions: permessage-deflate"), 101, map[string]string{"Sec-WebSocket-Extensions": ""}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, tc.dial())
			c.send([]byte(tc.request))
			res, err := http.ReadResponse(c.r, nil)
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
			if res.StatusCode == http.StatusSwitchingProtocols {
				c.send(text("hello"))
				c.want(describe(fin|opText, res.Header.Get("Sec-WebSocket-Protocol")), `text "hello"`)
				return
			}
			c.conn.Close()
			body := make([]byte, 1000)
			n, _ := io.ReadFull(res.Body, body)
			if got := string(body[:n]); !strings.Contains(got, tc.text) {
				t.Errorf("body = %q, want it to contain %q", got, tc.text)
			}
		})
	}
}

func TestUpgradeHTTP2(t *testing.T) {
	s := NewServer(Config{Log: quiet})
	hs := httptest.NewUnstartedServer(http.HandlerFunc(s.Echo))
	hs.EnableHTTP2 = true
	hs.StartTLS()
	defer hs.Close()
	res, err := hs.Client().Get(hs.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusUpgradeRequired || !strings.Contains(string(body), "HTTP/1.1") {
		t.Errorf("%s %s %q, want HTTP/2.0, 426 and advice to use HTTP/1.1", res.Proto, res.Status, body)
	}
	if got := res.Header.Get("Upgrade"); got != "" {
		t.Errorf("Upgrade = %q in HTTP/2, where it is forbidden", got)
	}
}

func TestUpgradeWithoutHijacker(t *testing.T) {
	s := NewServer(Config{Log: quiet})
	defer s.Close()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Echo(w, r)
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status = %d, want 500", w.Code)
	}
}

// Frames that come together with the handshake are neither lost nor an error.
func TestFramesWithHandshake(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := NewServer(Config{Log: quiet})
		c := newClient(t, serve(t, s, secure, echo)())
		c.open(append(text("one"), text("two")[:5]...)...)
		c.send(text("two")[5:])
		c.want(`text "one"`, `text "two"`)
	}
}

// Messages that come together are read one after another, wherever a read of the network
// ends: gorilla has a part of what came, and wire the rest.
func TestMessagesTogether(t *testing.T) {
	for _, secure := range []bool{false, true} {
		c := newClient(t, serve(t, NewServer(Config{Log: quiet}), secure, echo)())
		c.open()
		for _, size := range []int{1, ownBuffer, ownBuffer + 1, lentBuffer, lentBuffer + 1, readAhead, 2 * readAhead} {
			m := text(long(size))
			both := append(m, m...)
			c.send(append(both, m[:5]...))
			want := describe(fin|opText, long(size))
			c.want(want, want)
			c.send(m[5:])
			c.want(want)
		}
	}
}

// wrapped is a connection of the split: of no more use once settled.
type wrapped struct {
	net.Conn
	settled bool
	reads   *int
}

func (w wrapped) Read(p []byte) (int, error) {
	*w.reads++
	return w.Conn.Read(p)
}

func (w wrapped) NetConn() net.Conn {
	if w.settled {
		return w.Conn
	}
	return nil
}

func TestUnwrapsConnection(t *testing.T) {
	for _, settled := range []bool{true, false} {
		near, far := net.Pipe()
		s := NewServer(Config{Log: quiet})
		reads := 0
		c := upgrade(t, s, wrapped{near, settled, &reads}, far, echo)
		c.send(text("hello"))
		c.want(`text "hello"`)
		c.conn.Close()
		s.Close()
		if (reads == 0) != settled {
			t.Errorf("settled %t: %d reads through the wrapper", settled, reads)
		}
	}
}

func TestBareKeepsTLS(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	conn := tls.Server(near, nil)
	if got := bare(wrapped{conn, true, nil}); got != conn {
		t.Errorf("bare = %T, want the *tls.Conn", got)
	}
}

func TestContextHasValuesOfRequest(t *testing.T) {
	type key struct{}
	near, far := net.Pipe()
	s := NewServer(Config{Log: quiet})
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	got := make(chan any, 2)
	go s.Upgrade(hijackable{httptest.NewRecorder(), near, ""}, r.WithContext(ctx), func(c *Conn) {
		cancel() // as net/http does after a hijack
		got <- c.Context().Value(key{})
		got <- c.Context().Err()
	})
	c := newClient(t, far)
	http.ReadResponse(c.r, nil)
	if v, err := <-got, <-got; v != "value" || err != nil {
		t.Errorf("context has value %v and error %v, want those of a live one derived from the request's", v, err)
	}
	c.want("close 1000")
	far.Close()
	s.Close()
}

// A connection that was taken over and is gone before it could be answered has
// ended too.
func TestEndedWithoutSocket(t *testing.T) {
	var ended int
	s := NewServer(Config{Log: quiet, Ended: func(context.Context) { ended++ }})
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	far.Close()
	s.Upgrade(hijackable{httptest.NewRecorder(), near, ""}, r, func(*Conn) { t.Error("the handler was called") })
	if ended != 1 {
		t.Errorf("Ended was called %d times, want once", ended)
	}
	s.Upgrade(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), func(*Conn) {})
	if ended != 1 {
		t.Error("Ended was called for a request that was not taken over")
	}
}

// A handshake that is refused is told of at debug level: clients mostly show no more of
// it than the status.
func TestRefusalIsLogged(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": sampleKey, "Sec-WebSocket-Protocol": "a.v9"} {
		r.Header.Set(name, value)
	}
	s.Upgrade(httptest.NewRecorder(), r, func(*Conn) { t.Error("was upgraded") }, "a.v1")
	if got := log.String(); !strings.Contains(got, "websocket refused") || !strings.Contains(got, "known: a.v1") {
		t.Errorf("the log says %q, want why the handshake was refused", got)
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"ws://a:1":        "ws://a:1/p",
		"ws://a:1/":       "ws://a:1/p",
		"wss://a/q?x=y":   "wss://a/q?x=y",
		"ws://a/?token=t": "ws://a/p?token=t",
	} {
		if u, err := ParseURL(raw, "/p"); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", raw, u, err, want)
		}
	}
}
