package wsrpc

import (
	"io"
	"testing"

	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// Whatever bytes a server sends, the call of the client ends with a status, at the latest
// with the socket, and nothing is left of either.
func FuzzClientBytes(f *testing.F) {
	for _, v := range append(vectors(f, "frames.json"), vectors(f, "malformed.json")...) {
		if v.Binary != nil {
			f.Add(append(wsHeader(socket.Binary, len(v.bytes(f))), v.bytes(f)...))
		}
		if v.Text != nil {
			f.Add(append(wsHeader(socket.Text, len(*v.Text)), *v.Text...))
		}
	}
	f.Add([]byte(fragments(maxClientFrames + 1)))
	f.Add([]byte("\x89\x01x\x8a\x00\x88\x02\x03\xe9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, p := newScripted(t).connect(DialOptions{MaxMessageBytes: 1000})
		s := inFlight(t, c, p)
		p.ws.NetConn().Write(b)
		p.ws.NetConn().Close()
		var err error
		for err == nil {
			_, err = received(s)
		}
		if _, ok := status.FromError(err); !ok && err != io.EOF {
			t.Errorf("%q: the call ended with %v", b, err)
		}
		c.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.sockets) > 0 {
			t.Errorf("%q: %d sockets are left", b, len(c.sockets))
		}
	})
}

// wsHeader is the header of an unmasked WebSocket frame of up to 65535 bytes.
func wsHeader(kind socket.Kind, n int) []byte {
	if n < 126 {
		return []byte{0x80 | byte(kind), byte(n)}
	}
	return []byte{0x80 | byte(kind), 126, byte(n >> 8), byte(n)}
}
