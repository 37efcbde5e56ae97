package socket

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sampleKey and sampleAccept are from RFC 6455 §1.3.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

const opText, opBinary = byte(Text), byte(Binary)

// quiet keeps expected panics out of the test's output.
var quiet = slog.New(slog.DiscardHandler)

// client is a WebSocket client that writes whatever it is told to.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

// serve starts an HTTP server whose handler upgrades with s, in cleartext or TLS,
// and returns how to reach it. s ends before the test.
func serve(t testing.TB, s *Server, secure bool, handler func(*Conn), protocols ...string) (dial func() net.Conn) {
	t.Helper()
	hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Upgrade(w, r, handler, protocols...)
	}))
	if secure {
		hs.StartTLS()
	} else {
		hs.Start()
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		hs.Close()
	})
	return func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", hs.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second)) // of a test that has gone wrong
		return conn
	}
}

// handshake is a request that will be upgraded; more are header lines.
func handshake(more ...string) string {
	lines := append([]string{"GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey}, more...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// open sends a handshake, and early together with it.
func (c *client) open(early ...byte) *http.Response {
	c.t.Helper()
	c.send(append([]byte(handshake()), early...))
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("handshake: %s", res.Status)
	}
	return res
}

func (c *client) send(p []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatalf("send %d bytes: %v", len(p), err)
	}
}

// maskKey has bytes that differ, so that a slip by one shows.
var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// frame builds a masked frame: first is FIN, RSV and opcode.
func frame(first byte, payload string) []byte {
	b := appendHeader(nil, 0, len(payload))
	b[0] = first
	return mask(b, payload)
}

// mask appends a masked payload to a header made by hand.
func mask(header []byte, payload string) []byte {
	b := append([]byte(nil), header...)
	b[1] |= 0x80
	b = append(b, maskKey[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^maskKey[i%4])
	}
	return b
}

const fin = 0x80

func text(s string) []byte    { return frame(fin|opText, s) }
func binaryF(s string) []byte { return frame(fin|opBinary, s) }
func ping(s string) []byte    { return frame(fin|opPing, s) }
func pong(s string) []byte    { return frame(fin|opPong, s) }

// closing builds a close frame; code 0 means an empty one.
func closing(code int, reason string) []byte {
	if code == 0 {
		return frame(fin|opClose, "")
	}
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// fragments builds a message of several frames.
func fragments(opcode byte, parts ...string) (b []byte) {
	for i, p := range parts {
		first := opcode
		if i > 0 {
			first = 0
		}
		if i == len(parts)-1 {
			first |= fin
		}
		b = append(b, frame(first, p)...)
	}
	return b
}

// describe makes a frame of the server comparable and printable.
func describe(first byte, payload string) string {
	names := map[byte]string{fin | opText: "text", fin | opBinary: "binary", fin | opClose: "close", fin | opPing: "ping", fin | opPong: "pong"}
	name, ok := names[first]
	switch {
	case !ok:
		return fmt.Sprintf("frame %#x", first)
	case name == "close" && payload == "":
		return "close"
	case name == "close":
		return fmt.Sprintf("close %d", binary.BigEndian.Uint16([]byte(payload)))
	case len(payload) <= 125:
		return fmt.Sprintf("%s %q", name, payload)
	}
	return fmt.Sprintf("%s of %d bytes, crc %08x", name, len(payload), crc32.ChecksumIEEE([]byte(payload)))
}

// next reads a frame; of a server none is masked, fragmented or compressed.
func (c *client) next() (opcode byte, payload string, err error) {
	var h [10]byte
	if _, err = io.ReadFull(c.r, h[:2]); err != nil {
		return 0, "", err
	}
	n := uint64(h[1])
	switch h[1] {
	case 126:
		_, err = io.ReadFull(c.r, h[2:4])
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(c.r, h[2:10])
		n = binary.BigEndian.Uint64(h[2:])
	}
	if err == nil && (h[1] > 127 || n > 64<<20) {
		err = fmt.Errorf("frame begins %x", h)
	}
	if err != nil {
		return 0, "", err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(c.r, p)
	return h[0], string(p), err
}

// reply reads a frame and describes it, or the end of the connection as "EOF".
func (c *client) reply() string {
	c.t.Helper()
	opcode, payload, err := c.next()
	switch {
	case errors.Is(err, io.EOF):
		return "EOF"
	case err != nil:
		return err.Error()
	}
	return describe(opcode, payload)
}

// want checks the next frames.
func (c *client) want(replies ...string) {
	c.t.Helper()
	for i, want := range replies {
		if got := c.reply(); got != want {
			c.t.Fatalf("reply %d = %s, want %s", i+1, got, want)
		}
	}
}

// hijackable is what net/http gives a handler, as far as Upgrade is concerned.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
	read string // already read from conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r := bufio.NewReader(io.MultiReader(strings.NewReader(h.read), h.conn))
	r.Peek(len(h.read))
	return h.conn, bufio.NewReadWriter(r, bufio.NewWriter(h.conn)), nil
}

// upgrade has s upgrade one end of conns without a server, and returns the other
// end as client, after its handshake.
func upgrade(t testing.TB, s *Server, near, far net.Conn, handler func(*Conn)) *client {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
	if err != nil {
		t.Fatal(err)
	}
	go s.Upgrade(hijackable{httptest.NewRecorder(), near, ""}, r.WithContext(context.Background()), handler)
	c := newClient(t, far)
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	return c
}

// pipe is upgrade over a net.Pipe, for use in synctest bubbles.
func pipe(t testing.TB, s *Server, handler func(*Conn)) *client {
	t.Helper()
	near, far := net.Pipe()
	return upgrade(t, s, near, far, handler)
}
