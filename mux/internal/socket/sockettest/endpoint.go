package sockettest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Endpoint is where a server takes WebSockets, and one kind of messages that it
// understands there.
type Endpoint struct {
	Path        string
	Subprotocol string // to ask for; "" means none
	Kind        byte   // Text or Binary

	// Opening is a message that goes before all others, with the handshake, and is
	// not answered; nil means that there is none.
	Opening []byte

	// Message makes the message that comes after n others on its socket, and tells
	// the replies, as Describe does. It holds content, which the replies repeat, and
	// filler, which they need not.
	Message func(n int, content, filler string) (payload string, replies []string)

	// Replies makes what reads the replies on a socket. Nil means Reply, for which
	// each frame is one.
	Replies func(*bufio.Reader) func() string

	// Empty are the replies to an empty message.
	Empty []string

	// Stream means that a message is answered when enough of it has come, not
	// only when it has ended.
	Stream bool

	// OtherKind is the reply to a message of the other kind; "" means that it is
	// understood as well.
	OtherKind string

	// NotJSON is the reply to text that is not JSON; "" means that it need not be.
	NotJSON string

	// TooLarge are the replies to a message of more than MaxBytes; nil means that the
	// server closes with 1009.
	TooLarge []string

	MaxBytes   int // of a message
	MaxContent int // bytes of content in it
	MaxFrames  int // of a message
}

// Echo is an endpoint that sends every message back.
func Echo(path string, kind byte, maxBytes, maxFrames int) Endpoint {
	return Endpoint{
		Path: path,
		Kind: kind,
		Message: func(_ int, content, filler string) (string, []string) {
			return content + filler, []string{Describe(Fin|kind, content+filler)}
		},
		Empty:      []string{Describe(Fin|kind, "")},
		MaxBytes:   maxBytes,
		MaxContent: maxBytes + 1,
		MaxFrames:  maxFrames,
	}
}

// sized is Message for a payload of size bytes.
func (e Endpoint) sized(n, size int) (payload string, replies []string) {
	least, _ := e.Message(n, "", "")
	content := min(size-len(least), e.MaxContent)
	for ; content >= 0; content-- { // lengths in the message may grow with it
		if payload, replies = e.Message(n, Long(content), ""); len(payload) <= size {
			break
		}
	}
	filler := 0
	for range 10 {
		if len(payload) == size {
			return payload, replies
		}
		filler += size - len(payload)
		payload, replies = e.Message(n, Long(content), Long(filler))
	}
	panic(fmt.Sprintf("sockettest: %s has no message of %d bytes", e.Path, size))
}

// Handshake is a request for e that will be upgraded, and the opening; more are header
// lines.
func (e Endpoint) Handshake(more ...string) string {
	if e.Subprotocol != "" {
		more = append(more, "Sec-WebSocket-Protocol: "+e.Subprotocol)
	}
	h := Handshake(e.Path, more...)
	if e.Opening != nil {
		h += string(Frame(Fin|e.Kind, string(e.Opening)))
	}
	return h
}

// Open makes a socket of conn and returns what reads the replies. It sends early together
// with the handshake.
func (e Endpoint) Open(t testing.TB, conn net.Conn, early ...byte) (reply func() string) {
	t.Helper()
	if _, err := conn.Write(append([]byte(e.Handshake()), early...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Protocol") != e.Subprotocol {
		t.Fatalf("handshake: %s, subprotocol %q, want 101 and %q", res.Status, res.Header.Get("Sec-WebSocket-Protocol"), e.Subprotocol)
	}
	return e.Reader(r)
}

// Reader returns what reads the replies from r.
func (e Endpoint) Reader(r *bufio.Reader) (reply func() string) {
	if e.Replies != nil {
		return e.Replies(r)
	}
	return func() string { return Reply(r) }
}

// Exchange sends the message that comes after n others and checks the replies.
func (e Endpoint) Exchange(t testing.TB, conn net.Conn, reply func() string, n int) {
	t.Helper()
	p, replies := e.Message(n, "hello", "")
	if _, err := conn.Write(Frame(Fin|e.Kind, p)); err != nil {
		t.Fatal(err)
	}
	for i, want := range replies {
		if got := reply(); got != want {
			t.Fatalf("reply %d = %s, want %s", i+1, got, want)
		}
	}
}

// Run runs every case that is one for e, each on a connection of its own.
func Run(t *testing.T, e Endpoint, dial func() net.Conn) {
	for _, c := range Cases(e) {
		t.Run(c.Name, func(t *testing.T) {
			conn := dial()
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute)) // of a test that has gone wrong
			if c.octets {
				conn = Octets{conn}
			}
			var early []byte
			if c.early {
				early, c.Steps[0].Send = c.Steps[0].Send, nil
			}
			c.Play(t, conn, e.Open(t, conn, early...))
		})
	}
}

// Play sends what c says on an open socket and checks the replies. Unless the last one
// is a close frame, it closes with 1000, which shows that nothing else has been sent.
// Then the server must end the connection.
func (c Case) Play(t testing.TB, conn net.Conn, reply func() string) {
	t.Helper()
	last := ""
	for i, step := range c.Steps {
		written := make(chan struct{})
		// Beside the reading, since the server may stop to read, and close, halfway.
		go func() {
			defer close(written)
			conn.Write(step.Send)
		}()
		for j, want := range step.Want {
			if last = reply(); last != want {
				t.Fatalf("step %d, reply %d = %s, want %s", i+1, j+1, last, want)
			}
		}
		if i < len(c.Steps)-1 {
			<-written
		}
	}
	if !strings.HasPrefix(last, "close") {
		conn.Write(Closing(1000, ""))
		if got := reply(); got != "close 1000" {
			t.Fatalf("reply to the close frame = %s, want close 1000", got)
		}
	} else if !c.closes {
		conn.Write(Closing(1000, ""))
	}
	// The kernel may reset the connection if the client has sent more than was read.
	if got := reply(); got != "EOF" && !strings.Contains(got, "reset by peer") {
		t.Fatalf("after the close frame: %s, want EOF", got)
	}
}

// Octets writes one byte at a time.
type Octets struct{ net.Conn }

func (o Octets) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := o.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}
