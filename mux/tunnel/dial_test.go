package tunnel

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// answered dials a server that answers the handshake by a header with these lines, after
// those of a good one if switching, and returns the server's end after that.
func answered(t *testing.T, switching bool, lines string) (net.Conn, *bufio.Reader, net.Conn, error) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	in := bufio.NewReader(far)
	go func() {
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		if switching {
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			lines = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
				base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" + lines
		}
		io.WriteString(far, lines+"\r\n")
	}()
	c, err := Dial(t.Context(), "ws://server.test", &DialOptions{
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil },
	})
	return c, in, far, err
}

// Nothing of a handshake is taken that was not asked for, nor without bound.
func TestDialAnswers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		switching bool
		lines     string
		want      string
	}{
		{"compression", true, "Sec-WebSocket-Protocol: grpc-ws-tunnel.v1\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n", "what was not offered"},
		{"another subprotocol", true, "Sec-WebSocket-Protocol: mqtt\r\n", `does not speak grpc-ws-tunnel.v1 at "/grpc-ws-tunnel", but "mqtt"`},
		{"endless header", false, "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 65536/6+1), "larger than 65536 bytes"},
		{"not found", false, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n", "mostly grpc-ws-tunnel.v1 is at /grpc-ws-tunnel"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _, _, err := answered(t, tt.switching, tt.lines)
			if err == nil {
				c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "tunnel: dial: ") {
				t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
			}
		})
	}
}

// A URL is judged before anything is connected, and its password is not told.
func TestDialURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://a":         "use wss",
		"ws://a:secret@b":   "DialOptions.Header",
		"ws://a:secret%s@b": "malformed",
	} {
		if _, err := Dial(t.Context(), url, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Dial(%q) = %v, want %q", url, err, want)
		}
	}
}

// A server that breaks WebSocket, or sends too much, is closed with the code that says
// why, and Read tells; what is within the limits is read.
func TestDialBreaches(t *testing.T) {
	message := func(n int) string {
		return "\x82\x7f" + string(binary.BigEndian.AppendUint64(nil, uint64(n))) + strings.Repeat("x", n)
	}
	fragments := func(n int) string { return "\x02\x00" + strings.Repeat("\x00\x00", n-2) + "\x80\x01x" }
	for _, tt := range []struct {
		name, raw string
		want      int // the close code, or the bytes that are read
		breach    bool
	}{
		{"as many frames as may be", fragments(maxFrames), 1, false},
		{"one frame more", fragments(maxFrames + 1), 1008, true},
		{"as large as may be", message(maxMessage), maxMessage, false},
		{"larger", message(maxMessage + 1), 1009, true},
		{"text", "\x81\x01x", 1003, true},
		{"masked", "\x82\x81\x01\x02\x03\x04x", 1002, true},
		{"length not minimal", "\x82\x7e\x00\x01x", 1002, true},
		{"close frame of one byte", "\x88\x01\x03", 1002, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, in, far, err := answered(t, true, "Sec-WebSocket-Protocol: grpc-ws-tunnel.v1\r\n")
			if err != nil {
				t.Fatal(err)
			}
			closed := make(chan int, 1)
			go func() {
				defer far.Close()
				code, err := readClose(in)
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
				closed <- code
			}()
			go io.WriteString(far, tt.raw)
			if tt.breach {
				if n, err := io.Copy(io.Discard, c); err == nil {
					t.Errorf("%s: %d bytes and the end were read", tt.name, n)
				}
				if code := <-closed; code != tt.want {
					t.Errorf("%s: closed with %d, want %d", tt.name, code, tt.want)
				}
			} else if _, err := io.ReadFull(c, make([]byte, tt.want)); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			c.Close()
		})
	}
}

// readClose reads the close frame of a client, and the rest.
func readClose(in io.Reader) (int, error) {
	head := make([]byte, 2+4+2)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, err
	}
	if head[0] != 0x88 || head[1]&0x80 == 0 {
		return 0, fmt.Errorf("frame % x is no close frame of a client", head)
	}
	go io.Copy(io.Discard, in)
	return int(head[6]^head[2])<<8 | int(head[7]^head[3]), nil
}
