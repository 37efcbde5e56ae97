package sockettest

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Case is what a client may do after the handshake, and what the server must answer.
// Cases are named after the rules of RFC 6455: F frames and lengths, M masks, R reserved
// bits, O opcodes, C control frames, G fragments, U UTF-8, X closing, L limits. That
// the server masks nothing (M3) is seen in all.
type Case struct {
	Name  string
	Steps []Step

	early  bool // the first step goes together with the handshake
	octets bool // the client sends octet by octet
	closes bool // by the client
}

// Step is what a client sends at once, and the replies it waits for, as Describe tells
// them.
type Step struct {
	Send []byte
	Want []string
}

// Cases returns the cases that are about e.
func Cases(e Endpoint) []Case {
	var cases []Case
	add := func(name string, write func(*script)) {
		s := script{Endpoint: e, Case: Case{Name: name}}
		write(&s)
		cases = append(cases, s.Case)
	}
	for _, c := range all {
		add(c.name, c.write)
	}
	if e.Kind == Text {
		for _, c := range aboutText {
			add(c.name, c.write)
		}
	} else {
		add("U12 bad UTF-8 as binary", func(s *script) {
			p, replies := s.Message(0, "a", "\xff\xfe")
			if utf8.ValidString(p) {
				panic("sockettest: the message is valid UTF-8")
			}
			s.step(Frame(Fin|Binary, p), replies...)
		})
	}
	if e.OtherKind != "" {
		add("message of the other kind", func(s *script) { s.step(Frame(Fin|Text^Binary^e.Kind, "hello"), e.OtherKind) })
	}
	for _, n := range []int{125, 126, 127, 65535, 65536} {
		add(fmt.Sprintf("F2-F6, F8-F12 %d bytes", n), func(s *script) {
			p := s.sizedMessage(n)
			s.answers(Frame(Fin|s.Kind, p))
		})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		add(fmt.Sprintf("O opcode %#x", op), refuses(1002, func(byte) []byte { return Frame(Fin|op, "") }))
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("X5 close %d", code), ends(fmt.Sprintf("close %d", code), Closing(code, "why")))
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprintf("X6 close %d", code), ends("close 1002", Frame(Fin|Close, string([]byte{byte(code >> 8), byte(code)}))))
	}
	return cases
}

// script is a case being written for an endpoint.
type script struct {
	Endpoint
	Case
	messages int      // so far
	replies  []string // to the last one
}

// message is one of the endpoint's that says content.
func (s *script) message(content string) string {
	p, replies := s.Message(s.messages, content, "")
	s.messages, s.replies = s.messages+1, replies
	return p
}

// sizedMessage is one of n bytes, after another one where the first is always larger.
func (s *script) sizedMessage(n int) string {
	if least, _ := s.Message(s.messages, "", ""); len(least) > n {
		p := s.message("hello")
		s.answers(Frame(Fin|s.Kind, p))
	}
	p, replies := s.sized(s.messages, n)
	s.messages, s.replies = s.messages+1, replies
	return p
}

// step sends and expects.
func (s *script) step(send []byte, want ...string) {
	s.Steps = append(s.Steps, Step{send, want})
}

// answers sends what ends the last message, and expects some replies before those to it.
func (s *script) answers(send []byte, before ...string) {
	s.step(send, append(before, s.replies...)...)
}

// tooLarge sends what makes a message too large.
func (s *script) tooLarge(send []byte) {
	if s.TooLarge == nil {
		s.step(send, "close 1009")
		return
	}
	s.step(send, s.TooLarge...)
}

// refuses is a breach of the rules that the server answers by closing with code.
func refuses(code int, send func(kind byte) []byte) func(*script) {
	return func(s *script) { s.step(send(s.Kind), fmt.Sprintf("close %d", code)) }
}

// refusesText is refuses for a message with content that is wrong.
func refusesText(content string) func(*script) {
	return func(s *script) { s.step(Frame(Fin|Text, s.message(content)), "close 1007") }
}

// ends is an end by the client.
func ends(want string, send ...[]byte) func(*script) {
	return func(s *script) {
		s.closes = true
		s.step(slices.Concat(send...), want)
	}
}

// octetsOf splits a message into fragments of one byte, inside runes as well.
func octetsOf(p string) (parts []string) {
	for i := range len(p) {
		parts = append(parts, p[i:i+1])
	}
	return parts
}

var pingFrame = Frame(Fin|Ping, "")

// all are the cases for messages of both kinds.
var all = []struct {
	name  string
	write func(*script)
}{
	{"H14 frame together with the handshake", func(s *script) {
		s.early = true
		p := s.message("hello")
		s.answers(Frame(Fin|s.Kind, p))
	}},

	{"F1, F7 0 bytes", func(s *script) { s.step(Frame(Fin|s.Kind, ""), s.Empty...) }},
	{"F13 16-bit length for 5 bytes", refuses(1002, func(k byte) []byte { return Mask([]byte{Fin | k, 126, 0, 5}, "hello") })},
	{"F13 16-bit length for 125 bytes", refuses(1002, func(k byte) []byte { return Mask([]byte{Fin | k, 126, 0, 125}, Long(125)) })},
	{"F14 64-bit length for 5 bytes", refuses(1002, func(k byte) []byte { return Mask([]byte{Fin | k, 127, 0, 0, 0, 0, 0, 0, 0, 5}, "hello") })},
	{"F14 64-bit length for 65535 bytes", refuses(1002, func(k byte) []byte {
		return Mask([]byte{Fin | k, 127, 0, 0, 0, 0, 0, 0, 255, 255}, Long(65535))
	})},
	{"F15 top bit of length", refuses(1002, func(k byte) []byte { return Mask([]byte{Fin | k, 127, 128, 0, 0, 0, 0, 0, 0, 5}, "hello") })},
	{"F15 all bits of length", refuses(1002, func(k byte) []byte {
		return Mask([]byte{Fin | k, 127, 255, 255, 255, 255, 255, 255, 255, 255}, "hello")
	})},
	{"F16 octet by octet", func(s *script) {
		s.octets = true
		p := s.message("hello")
		s.answers(Frame(Fin|s.Kind, p))
	}},
	{"F17 length of 1 GiB", func(s *script) { s.tooLarge(Mask([]byte{Fin | s.Kind, 127, 0, 0, 0, 0, 64, 0, 0, 0}, "")) }},
	{"F17 lengths with a sum above 2^63", func(s *script) {
		p := s.message("hello")
		s.tooLarge(slices.Concat(Frame(s.Kind, p[:3]), Mask([]byte{Fin, 127, 127, 255, 255, 255, 255, 255, 255, 255}, "")))
	}},

	{"M1 no mask", func(s *script) {
		p := s.message("hello")
		s.step(append(header(Fin|s.Kind, len(p)), p...), "close 1002")
	}},
	{"M2 mask of zeros", func(s *script) {
		p := s.message("hello")
		s.answers(maskWith([4]byte{}, header(Fin|s.Kind, len(p)), p))
	}},

	// Since no compression is agreed to, R1 is what D11 to D17 come to.
	{"R1 RSV1", refuses(1002, func(k byte) []byte { return Frame(Fin|0x40|k, "hello") })},
	{"R2 RSV2", refuses(1002, func(k byte) []byte { return Frame(Fin|0x20|k, "hello") })},
	{"R3 RSV3", refuses(1002, func(k byte) []byte { return Frame(Fin|0x10|k, "hello") })},
	{"R4 RSV1 on ping", refuses(1002, func(byte) []byte { return Frame(Fin|0x40|Ping, "") })},
	{"R5 RSV1 on continuation", func(s *script) {
		p := s.message("hello")
		s.step(slices.Concat(Frame(s.Kind, p[:3]), Frame(Fin|0x40, p[3:])), "close 1002")
	}},

	{"C1 empty ping", func(s *script) { s.step(pingFrame, `pong ""`) }},
	{"C2 ping of 125 bytes", func(s *script) { s.step(Frame(Fin|Ping, Long(125)), Describe(Fin|Pong, Long(125))) }},
	{"C3 ping of 126 bytes", refuses(1002, func(byte) []byte { return Frame(Fin|Ping, Long(126)) })},
	{"C4 fragmented ping", refuses(1002, func(byte) []byte { return Frame(Ping, "a") })},
	{"C5 unsolicited pong", func(s *script) {
		p := s.message("b")
		s.answers(slices.Concat(Frame(Fin|Pong, "a"), Frame(Fin|s.Kind, p)))
	}},
	{"C6 ten pings at once", func(s *script) {
		var pings []byte
		var pongs []string
		for i := range 10 {
			pings = append(pings, Frame(Fin|Ping, fmt.Sprint(i))...)
			pongs = append(pongs, fmt.Sprintf("pong %q", fmt.Sprint(i)))
		}
		s.step(pings, pongs...)
	}},
	{"C7 ping between fragments", func(s *script) {
		p := s.message("hello")
		s.step(slices.Concat(Frame(s.Kind, p[:3]), Frame(Fin|Ping, "p")), `pong "p"`)
		s.answers(Frame(Fin, p[3:]))
	}},

	{"G1 two fragments", func(s *script) {
		p := s.message("hello")
		s.answers(Fragments(s.Kind, p[:3], p[3:]))
	}},
	{"G2 empty fragment in the middle", func(s *script) {
		p := s.message("hello")
		s.answers(Fragments(s.Kind, p[:3], "", p[3:]))
	}},
	{"G3 all empty", func(s *script) { s.step(Fragments(s.Kind, "", "", ""), s.Empty...) }},
	{"G4 continuation of nothing", refuses(1002, func(byte) []byte { return Frame(Fin, "hello") })},
	{"G4 continuation after the end", func(s *script) {
		p := s.message("hello")
		s.answers(Frame(Fin|s.Kind, p))
		s.step(Frame(Fin, "b"), "close 1002")
	}},
	{"G5 new message inside a message", func(s *script) {
		p := s.message("hello")
		s.step(slices.Concat(Frame(s.Kind, p[:3]), Frame(Fin|s.Kind, p[3:])), "close 1002")
	}},
	{"G6 as many fragments as allowed", func(s *script) {
		p := s.sizedMessage(s.MaxFrames)
		s.answers(Fragments(s.Kind, octetsOf(p)...))
	}},
	{"G6 one fragment more", func(s *script) {
		p := s.sizedMessage(s.MaxFrames + 1)
		s.step(Fragments(s.Kind, octetsOf(p)...), "close 1008")
	}},
	{"G6 empty fragments without end", refuses(1008, func(k byte) []byte {
		return slices.Concat(Frame(k, ""), bytes.Repeat(Frame(0, ""), 10_000))
	})},

	{"X1 close 1000", ends("close 1000", Closing(1000, "bye"))},
	{"X2 empty close", ends("close", Closing(0, ""))},
	{"X3 close of 1 byte", ends("close 1002", Frame(Fin|Close, "\x03"))},
	{"X4 close of 126 bytes", ends("close 1002", Closing(1000, Long(124)))},
	{"X4 close of 125 bytes", ends("close 1000", Closing(1000, Long(123)))},
	{"X7 message after close", func(s *script) {
		p := s.message("late")
		ends("close 1000", Closing(1000, ""), Frame(Fin|s.Kind, p))(s)
	}},
	{"X8 ping after close", ends("close 1000", Closing(1000, ""), Frame(Fin|Ping, "late"))},
	{"X9 close inside a message", func(s *script) {
		p := s.message("hello")
		ends("close 1000", Frame(s.Kind, p[:3]), Closing(1000, ""))(s)
	}},
	{"X12 two closes", ends("close 1000", Closing(1000, ""), Closing(1001, ""))},
	{"U11 bad UTF-8 in close reason", ends("close 1002", Closing(1000, "\xff"))},

	{"L1 message of the limit", func(s *script) {
		p := s.sizedMessage(s.MaxBytes)
		s.answers(Frame(Fin|s.Kind, p))
	}},
	{"L2 one byte more", func(s *script) {
		s.tooLarge(Frame(Fin|s.Kind, s.sizedMessage(s.MaxBytes+1)))
	}},
	{"L3 fragments with a sum of the limit", func(s *script) {
		p := s.sizedMessage(s.MaxBytes)
		s.answers(Fragments(s.Kind, p[:len(p)-1], p[len(p)-1:]))
	}},
	{"L3 fragments with a sum of one more", func(s *script) {
		p := s.sizedMessage(s.MaxBytes + 1)
		var early []string
		if s.Stream {
			early = s.replies
		}
		s.step(Frame(s.Kind, p[:len(p)-1]), early...)
		s.tooLarge(Frame(Fin, p[len(p)-1:]))
	}},
}

// aboutText are the cases for text alone.
var aboutText = []struct {
	name  string
	write func(*script)
}{
	{"U1 runes of 2, 3 and 4 bytes", func(s *script) {
		p := s.message("é€😀")
		s.answers(Frame(Fin|Text, p))
	}},
	{"U2 fragments split inside runes", func(s *script) {
		p := s.message("aé€😀z")
		s.answers(Fragments(Text, octetsOf(p)...))
	}},
	{"U3 lone continuation byte", refusesText("\x80")},
	{"U4 overlong", refusesText("a\xc0\xaf")},
	{"U5 surrogate", refusesText("\xed\xa0\x80")},
	{"U6 above U+10FFFF", refusesText("\xf4\x90\x80\x80")},
	{"U7 cut rune at the end", func(s *script) { s.step(Frame(Fin|Text, s.message("abc")+"\xe2\x82"), "close 1007") }},
	{"U7 cut rune at the end of a fragment that is the last", func(s *script) {
		s.step(Fragments(Text, s.message("abc"), "\xf0\x9f\x98"), "close 1007")
	}},
	{"U8 bad byte in a message never finished", func(s *script) { s.step(Frame(Text, "{\xff"), "close 1007") }},
	{"U9 noncharacters", func(s *script) {
		p := s.message("\uFFFE\uFFFF")
		s.answers(Frame(Fin|Text, p))
	}},
	{"U10 NUL", func(s *script) {
		p := s.message("a\x00b")
		if s.NotJSON != "" {
			s.replies = []string{s.NotJSON}
		}
		s.answers(Frame(Fin|Text, p))
	}},
}
