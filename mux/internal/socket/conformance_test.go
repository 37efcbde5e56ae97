package socket

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// testLimit and testFrames are the limits of the server in TestConformance.
const (
	testLimit  = 1 << 20
	testFrames = 100
)

// conformance is what a client may do after the handshake, and what an echo
// server answers. Cases are named after the rules of RFC 6455: F frames and
// lengths, M masks, R reserved bits, O opcodes, C control frames, G fragments, U
// UTF-8, X closing, L limits. Unless the last reply is a close frame, the
// test closes with 1000, which shows that nothing else has been sent.
var conformance = []struct {
	name string
	send []byte
	want []string
}{
	{"F13 16-bit length for 5 bytes", mask([]byte{fin | opText, 126, 0, 5}, "hello"), []string{"close 1002"}},
	{"F13 16-bit length for 125 bytes", mask([]byte{fin | opText, 126, 0, 125}, long(125)), []string{"close 1002"}},
	{"F14 64-bit length for 5 bytes", mask([]byte{fin | opText, 127, 0, 0, 0, 0, 0, 0, 0, 5}, "hello"), []string{"close 1002"}},
	{"F14 64-bit length for 65535 bytes", mask([]byte{fin | opText, 127, 0, 0, 0, 0, 0, 0, 255, 255}, long(65535)), []string{"close 1002"}},
	{"F15 top bit of length", mask([]byte{fin | opText, 127, 128, 0, 0, 0, 0, 0, 0, 5}, "hello"), []string{"close 1002"}},
	{"F15 all bits of length", mask([]byte{fin | opText, 127, 255, 255, 255, 255, 255, 255, 255, 255}, "hello"), []string{"close 1002"}},
	{"F17 length of 1 GiB", mask([]byte{fin | opBinary, 127, 0, 0, 0, 0, 64, 0, 0, 0}, ""), []string{"close 1009"}},
	{"F17 lengths with a sum above 2^63", slices.Concat(frame(opBinary, "hello"), mask([]byte{fin, 127, 127, 255, 255, 255, 255, 255, 255, 255}, "")), []string{"close 1009"}},

	{"M1 no mask", []byte{fin | opText, 5, 'h', 'e', 'l', 'l', 'o'}, []string{"close 1002"}},
	{"M2 mask of zeros", []byte{fin | opText, 0x80 | 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'}, []string{`text "hello"`}},

	{"R1 RSV1", frame(fin|0x40|opText, "hello"), []string{"close 1002"}},
	{"R2 RSV2", frame(fin|0x20|opText, "hello"), []string{"close 1002"}},
	{"R3 RSV3", frame(fin|0x10|opText, "hello"), []string{"close 1002"}},
	{"R4 RSV1 on ping", frame(fin|0x40|opPing, ""), []string{"close 1002"}},
	{"R5 RSV1 on continuation", slices.Concat(frame(opText, "hel"), frame(fin|0x40, "lo")), []string{"close 1002"}},

	{"C1 empty ping", ping(""), []string{`pong ""`}},
	{"C2 ping of 125 bytes", ping(long(125)), []string{describe(fin|opPong, long(125))}},
	{"C3 ping of 126 bytes", ping(long(126)), []string{"close 1002"}},
	{"C4 fragmented ping", frame(opPing, "a"), []string{"close 1002"}},
	{"C5 unsolicited pong", slices.Concat(pong("a"), text("b")), []string{`text "b"`}},
	{"C6 ten pings at once", slices.Concat(ping("0"), ping("1"), ping("2"), ping("3"), ping("4"), ping("5"), ping("6"), ping("7"), ping("8"), ping("9")),
		[]string{`pong "0"`, `pong "1"`, `pong "2"`, `pong "3"`, `pong "4"`, `pong "5"`, `pong "6"`, `pong "7"`, `pong "8"`, `pong "9"`}},
	{"C7 ping between fragments", slices.Concat(frame(opText, "hel"), ping("p"), frame(fin, "lo")), []string{`pong "p"`, `text "hello"`}},

	{"G1 two fragments", fragments(opText, "hel", "lo"), []string{`text "hello"`}},
	{"G2 empty fragment in the middle", fragments(opText, "hel", "", "lo"), []string{`text "hello"`}},
	{"G3 all empty", fragments(opText, "", "", ""), []string{`text ""`}},
	{"G4 continuation of nothing", frame(fin, "hello"), []string{"close 1002"}},
	{"G4 continuation after the end", slices.Concat(text("a"), frame(fin, "b")), []string{`text "a"`, "close 1002"}},
	{"G5 text inside a message", slices.Concat(frame(opText, "hel"), text("lo")), []string{"close 1002"}},
	{"G6 as many fragments as allowed", fragments(opBinary, strings.Split(strings.Repeat("x", testFrames), "")...), []string{describe(fin|opBinary, strings.Repeat("x", testFrames))}},
	{"G6 one fragment more", fragments(opBinary, strings.Split(strings.Repeat("x", testFrames+1), "")...), []string{"close 1008"}},
	{"G6 empty fragments without end", slices.Concat(frame(opBinary, ""), bytes.Repeat(frame(0, ""), 10_000)), []string{"close 1008"}},

	{"U1 runes of 2, 3 and 4 bytes", text("é€😀"), []string{`text "é€😀"`}},
	{"U2 fragments split inside runes", fragments(opText, "a\xc3", "\xa9\xe2", "\x82", "\xac\xf0\x9f", "\x98\x80z"), []string{`text "aé€😀z"`}},
	{"U3 lone continuation byte", text("\x80"), []string{"close 1007"}},
	{"U4 overlong", text("a\xc0\xaf"), []string{"close 1007"}},
	{"U5 surrogate", text("\xed\xa0\x80"), []string{"close 1007"}},
	{"U6 above U+10FFFF", text("\xf4\x90\x80\x80"), []string{"close 1007"}},
	{"U7 cut rune at the end", text("abc\xe2\x82"), []string{"close 1007"}},
	{"U7 cut rune at the end of a fragment that is the last", fragments(opText, "abc", "\xf0\x9f\x98"), []string{"close 1007"}},
	{"U8 bad byte in a message never finished", frame(opText, "abc\xff"), []string{"close 1007"}},
	{"U9 noncharacters", text("\uFFFE\uFFFF"), []string{describe(fin|opText, "\uFFFE\uFFFF")}},
	{"U10 NUL", text("a\x00b"), []string{describe(fin|opText, "a\x00b")}},
	{"U11 bad UTF-8 in close reason", closing(1000, "\xff"), []string{"close 1002"}},
	{"U12 bad UTF-8 as binary", binaryF("\xff\xfe"), []string{describe(fin|opBinary, "\xff\xfe")}},

	{"X1 close 1000", closing(1000, "bye"), []string{"close 1000"}},
	{"X2 empty close", closing(0, ""), []string{"close"}},
	{"X3 close of 1 byte", frame(fin|opClose, "\x03"), []string{"close 1002"}},
	{"X4 close of 126 bytes", closing(1000, long(124)), []string{"close 1002"}},
	{"X4 close of 125 bytes", closing(1000, long(123)), []string{"close 1000"}},
	{"X7 message after close", slices.Concat(closing(1000, ""), text("late")), []string{"close 1000"}},
	{"X8 ping after close", slices.Concat(closing(1000, ""), ping("late")), []string{"close 1000"}},
	{"X9 close inside a message", slices.Concat(frame(opText, "hel"), closing(1000, "")), []string{"close 1000"}},
	{"X12 two closes", slices.Concat(closing(1000, ""), closing(1001, "")), []string{"close 1000"}},

	{"L1 message of the limit", binaryF(long(testLimit)), []string{describe(fin|opBinary, long(testLimit))}},
	{"L1 text of the limit", text(long(testLimit)), []string{describe(fin|opText, long(testLimit))}},
	{"L2 one byte more", binaryF(long(testLimit + 1)), []string{"close 1009"}},
	{"L3 fragments with a sum of the limit", fragments(opBinary, long(testLimit-1), "x"), []string{describe(fin|opBinary, long(testLimit-1)+"x")}},
	{"L3 fragments with a sum of one more", fragments(opBinary, long(testLimit), "x"), []string{"close 1009"}},
}

func init() {
	for i, n := range []int{0, 125, 126, 127, 65535, 65536} {
		add(fmt.Sprintf("F%d text of %d bytes", i+1, n), text(long(n)), describe(fin|opText, long(n)))
		add(fmt.Sprintf("F%d binary of %d bytes", i+7, n), binaryF(long(n)), describe(fin|opBinary, long(n)))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		add(fmt.Sprintf("O opcode %#x", op), frame(fin|op, ""), "close 1002")
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("X5 close %d", code), closing(code, "why"), fmt.Sprintf("close %d", code))
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprintf("X6 close %d", code), frame(fin|opClose, string([]byte{byte(code >> 8), byte(code)})), "close 1002")
	}
}

func add(name string, send []byte, want ...string) {
	conformance = append(conformance, struct {
		name string
		send []byte
		want []string
	}{name, send, want})
}

// long is valid UTF-8 of n bytes in which no short period hides a slip.
func long(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

func TestConformance(t *testing.T) {
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "ws", true: "wss"}[secure]
		t.Run(name, func(t *testing.T) {
			s := NewServer(Config{MaxMessageBytes: testLimit, MaxFrames: testFrames, Log: quiet})
			dial := serve(t, s, secure, echo)
			for _, tc := range conformance {
				t.Run(tc.name, func(t *testing.T) {
					c := newClient(t, dial())
					c.open()
					// Beside the reading, since the server may stop
					// to read, and close, halfway.
					go c.conn.Write(tc.send)
					c.want(tc.want...)
					if !strings.HasPrefix(tc.want[len(tc.want)-1], "close") {
						c.send(closing(1000, ""))
						c.want("close 1000")
					}
					c.wantEnd()
				})
			}
		})
	}
}

// wantEnd checks that the server closes the connection; the kernel may reset it
// if the client has sent more than was read.
func (c *client) wantEnd() {
	c.t.Helper()
	if got := c.reply(); got != "EOF" && !strings.Contains(got, "reset by peer") {
		c.t.Fatalf("after the close frame: %s, want EOF", got)
	}
}

// Reads may end anywhere in a frame.
func TestOctetByOctet(t *testing.T) {
	for _, tc := range conformance {
		if len(tc.send) > 1000 || tc.want[len(tc.want)-1] == "close 1008" {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			near, far := net.Pipe()
			s := NewServer(Config{MaxMessageBytes: testLimit, Log: quiet})
			defer s.Close()
			defer far.Close()
			c := upgrade(t, s, near, far, echo)
			go func() {
				for i := range tc.send {
					if _, err := far.Write(tc.send[i : i+1]); err != nil {
						return
					}
				}
			}()
			c.want(tc.want...)
		})
	}
}
