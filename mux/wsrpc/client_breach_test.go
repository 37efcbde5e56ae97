package wsrpc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	echopb "oneport/proto/echo"
)

var bidi = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// inFlight is a call that the server has seen.
func inFlight(t *testing.T, c *ClientConn, p *scriptedPeer) grpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse", grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	p.next()
	return s
}

// received is what the call gets next: a text, or its end.
func received(s grpc.ClientStream) (string, error) {
	m := new(echopb.EchoResponse)
	err := s.RecvMsg(m)
	return m.Message, err
}

// fragments are frames of one message of 1 KiB, as many as n.
func fragments(n int) string {
	return "\x02\x00" + strings.Repeat("\x00\x00", n-2) + "\x80\x00"
}

// What ends a socket, and what looks like it and does not. The call in flight is number 1.
func TestClientBreaches(t *testing.T) {
	const goes = 0
	header := func(n int) *frame { return &frame{call: 1, header: metadata.Pairs("k", strings.Repeat("v", n))} }
	room := func(n int) *frame { return header(n - len(header(n).appendBinary(nil)) + n) } // of n bytes
	for _, tt := range []struct {
		name  string
		frame *frame // or
		raw   string // WebSocket frames
		close int
		want  codes.Code
		text  string
	}{
		{"a call that was not opened", &frame{call: 2, end: &endFrame{}}, "", 1002, codes.Internal, "call 2 has not been opened"},
		{"nothing of such a call", &frame{call: 2}, "", 1002, codes.Internal, "call 2 has not been opened"},
		{"a message without number", &frame{message: []byte{}}, "", 1002, codes.Internal, "without its number"},
		{"an end without number", &frame{end: &endFrame{}}, "", 1002, codes.Internal, "without its number"},
		{"a header without number", &frame{header: metadata.MD{}}, "", 1002, codes.Internal, "without its number"},
		{"a credit without number", &frame{credit: 1}, "", 1002, codes.Internal, "without its number"},
		{"open", &frame{call: 1, open: &openFrame{}}, "", 1002, codes.Internal, "are the client's"},
		{"halfClose", &frame{call: 1, halfClose: true}, "", 1002, codes.Internal, "are the client's"},
		{"cancel", &frame{call: 1, cancel: true}, "", 1002, codes.Internal, "are the client's"},
		{"a second hello", &frame{hello: &helloFrame{window: 1, maxCalls: 1}}, "", goes, 0, ""},
		{"nothing", &frame{}, "", goes, 0, ""},
		{"an unknown field", nil, "\x82\x03\xa0\x06\x01", goes, 0, ""},
		{"not protobuf", nil, "\x82\x01\x80", 1007, codes.Internal, "not protobuf"},
		{"not JSON", nil, "\x81\x01{", 1007, codes.Internal, "not a JSON object"},
		{"text that is not UTF-8", nil, "\x81\x09{\"k\":\"\xff\"}", 1007, codes.Internal, "not UTF-8"},
		{"a string that is not UTF-8", nil, "\x82\x09\x08\x01\x2a\x05\x0a\x03\x0a\x01\xff", 1007, codes.Internal, "not UTF-8"},
		{"as much as may be beside a message", room(frameRoom), "", goes, 0, ""},
		{"more beside a message", room(frameRoom + 1), "", 1009, codes.ResourceExhausted, "more than 65536 bytes beside the message"},
		{"too large", nil, "\x82\x7f\x00\x00\x00\x00\x00\x41\x00\x01", 1009, codes.ResourceExhausted, "too large"},
		{"above 2^63", nil, "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 1002, codes.Internal, "2^63"},
		{"as many WebSocket frames as may be", nil, fragments(maxClientFrames), goes, 0, ""},
		{"one WebSocket frame more", nil, fragments(maxClientFrames + 1), 1008, codes.ResourceExhausted, "too many frames"},
		{"a masked frame", nil, "\x82\x80\x01\x02\x03\x04", 1002, codes.Internal, "bad MASK"},
		{"a reserved bit", nil, "\xc2\x00", 1002, codes.Internal, "RSV1"},
		{"a reserved opcode", nil, "\x83\x00", 1002, codes.Internal, "bad opcode"},
		{"continuation of nothing", nil, "\x80\x00", 1002, codes.Internal, "continuation"},
		{"close frame of one byte", nil, "\x88\x01\x03", 1002, codes.Internal, "one byte"},
		{"close frame with a code that is none", nil, "\x88\x02\x03\xed", 1002, codes.Internal, "bad close code 1005"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newScripted(t).connect(DialOptions{})
				s := inFlight(t, c, p)
				if tt.frame != nil {
					p.send(tt.frame)
				} else {
					p.ws.NetConn().Write([]byte(tt.raw))
				}
				if tt.close == goes {
					p.respond(1, "on")
					if m, err := received(s); m != "on" || err != nil {
						t.Errorf("the call got %q, %v", m, err)
					}
					return
				}
				if _, err := received(s); status.Code(err) != tt.want || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("the call ended with %v, want %v with %q", err, tt.want, tt.text)
				}
				if got := <-p.closed; got != tt.close {
					t.Errorf("the client closed with %d, want %d", got, tt.close)
				}
			})
		})
	}
}

// What is no frame ends the socket by the close code of the vectors.
func TestClientMalformedFrames(t *testing.T) {
	for _, v := range vectors(t, "malformed.json") {
		t.Run(v.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newScripted(t).connect(DialOptions{})
				s := inFlight(t, c, p)
				if v.Text != nil {
					p.ws.WriteMessage(websocket.TextMessage, []byte(*v.Text))
				} else {
					p.ws.WriteMessage(websocket.BinaryMessage, v.bytes(t))
				}
				if _, err := received(s); status.Code(err) != closeCodeStatus(v.Close) || !strings.Contains(err.Error(), fmt.Sprintf("the protocol (%d)", v.Close)) {
					t.Errorf("the call ended with %v, want that of close code %d", err, v.Close)
				}
				if got := <-p.closed; got != v.Close {
					t.Errorf("the client closed with %d, want %d", got, v.Close)
				}
			})
		})
	}
}

// What is wrong with one call ends that, by cancel, and the socket goes on.
func TestClientCallBreaches(t *testing.T) {
	for _, tt := range []struct {
		name   string
		frames []*frame
		json   string // or a frame in JSON
		want   codes.Code
		text   string
	}{
		{"two headers", []*frame{{call: 1, header: metadata.MD{}}, {call: 1, header: metadata.MD{}}}, "", codes.Internal, "a header twice"},
		{"a header after a message", []*frame{{call: 1, message: []byte{}}, {call: 1, header: metadata.MD{}}}, "", codes.Internal, "a header twice, or after a message"},
		{"without credit", slices.Repeat([]*frame{{call: 1, message: []byte{}}}, 100/messageCost+2), "", codes.ResourceExhausted, "without credit"},
		{"credit above 2^31-1", []*frame{{call: 1, credit: 1<<31 - 65536}}, "", codes.ResourceExhausted, "a credit above 2^31-1"},
		{"the other encoding", nil, `{"call":1,"message":{}}`, codes.Internal, "in the other encoding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newScripted(t).connect(DialOptions{Window: 100})
				s := inFlight(t, c, p)
				for _, f := range tt.frames {
					p.send(f)
				}
				if tt.json != "" {
					p.ws.WriteMessage(websocket.TextMessage, []byte(tt.json))
				}
				if f := p.next(); !f.cancel || f.call != 1 {
					t.Errorf("sent %+v, want cancel", f)
				}
				err := error(nil)
				for err == nil {
					_, err = received(s)
				}
				if status.Code(err) != tt.want || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("the call ended with %v, want %v with %q", err, tt.want, tt.text)
				}
				other := inFlight(t, c, p)
				p.respond(1, "late") // of a call that is over
				p.end(1, 0)
				p.respond(2, "on")
				if m, err := received(other); m != "on" || err != nil {
					t.Errorf("another call got %q, %v", m, err)
				}
			})
		})
	}
}

// Pings are answered as long as the answers are read, and not held beyond a number.
func TestClientPingFlood(t *testing.T) {
	id := uint64(1)
	for name, ping := range map[string][]byte{
		"WebSocket's": []byte("\x89\x01x"),
		"frames":      append([]byte("\x82\x02"), (&frame{ping: &id}).appendBinary(nil)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newScripted(t).connect(DialOptions{})
				s := inFlight(t, c, p)
				for i := range 3 * clientQueuePongs {
					p.ws.NetConn().Write(ping)
					if i%100 == 0 {
						synctest.Wait() // for the answers to be read
					}
				}
				p.respond(1, "on")
				if m, err := received(s); m != "on" || err != nil {
					t.Errorf("the call got %q, %v", m, err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				server := newScripted(t)
				server.stall = make(chan struct{})
				c, p := server.connect(DialOptions{})
				s, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse")
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // open is being written
				write := func(n int) {
					for range n {
						p.ws.NetConn().Write(ping)
					}
					synctest.Wait()
				}
				write(clientQueuePongs)
				if got := c.current; got == nil {
					t.Error("the socket has ended by as many pings as may wait")
				}
				write(1)
				close(server.stall)
				if _, err := received(s); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "pings") {
					t.Errorf("the call ended with %v", err)
				}
				if got := <-p.closed; got != websocket.ClosePolicyViolation {
					t.Errorf("the client closed with %d", got)
				}
			})
		})
	}
}

// Pongs that nobody has asked for are ignored, of either kind.
func TestClientPongFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newScripted(t).connect(DialOptions{})
		s := inFlight(t, c, p)
		id := uint64(7)
		for range 10000 {
			p.ws.NetConn().Write([]byte("\x8a\x01x"))
			p.send(&frame{pong: &id})
		}
		p.respond(1, "on")
		if m, err := received(s); m != "on" || err != nil {
			t.Errorf("the call got %q, %v", m, err)
		}
		if n := len(p.frames); n != 0 {
			t.Errorf("%d frames answered", n)
		}
	})
}

// What waits for a receiver is bounded by the window and one message, in memory as in
// what it counts for.
func TestClientStalledReceiverMemory(t *testing.T) {
	for _, size := range []int{0, 10, 1000, 40000} {
		synctest.Test(t, func(t *testing.T) {
			c, p := newScripted(t).connect(DialOptions{})
			inFlight(t, c, p)
			for cost := 0; cost < defaultWindow; cost += size + messageCost {
				p.send(&frame{call: 1, message: make([]byte, size)})
			}
			synctest.Wait()
			call := c.current.calls[1]
			held := 0
			for _, b := range call.queue {
				held += cap(b)
			}
			if n := (defaultWindow + size + messageCost - 1) / (size + messageCost); len(call.queue) != n || held > 2*(defaultWindow+size) || call.status != nil {
				t.Errorf("%d of %d messages of %d bytes wait, in %d bytes; the call is %v", len(call.queue), n, size, held, call.status)
			}
		})
	}
}

// A window above the largest credit counts as that.
func TestClientLargestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		server.hello.window = 1<<32 - 1
		c, p := server.connect(DialOptions{})
		s := inFlight(t, c, p)
		if err := s.SendMsg(&echopb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
		p.send(&frame{call: 1, credit: messageCost})
		p.respond(1, "on")
		if m, err := received(s); m != "on" || err != nil {
			t.Errorf("at the largest credit the call got %q, %v", m, err)
		}
		p.send(&frame{call: 1, credit: 1})
		if _, err := received(s); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("above it the call got %v", err)
		}
	})
}
