package sniff

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

const (
	streamsHex  = "000300000064" // MAX_CONCURRENT_STREAMS 100
	windowHex   = "000400040000" // INITIAL_WINDOW_SIZE 256 KiB
	settingsHex = "00000c040000000000" + streamsHex + windowHex
	lessHex     = "000006040000000000" + streamsHex
	ackHex      = "000000040100000000"      // SETTINGS, acknowledgement
	oddAckHex   = "0000000481" + "80000000" // the same with bits set that have no meaning
	pingHex     = "000008060000000000" + "0000000000000004"
	dataHex     = "000009000100000001" + ackHex // DATA that looks like an acknowledgement inside
	lyingAckHex = "000006040100000000" + streamsHex
)

// greeted is what the clients of these tests have had.
var greeted = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 100}, {ID: http2.SettingInitialWindowSize, Val: 256 << 10}}

// What a server writes first if it says the same.
var (
	ownSettings, _ = hex.DecodeString(settingsHex)
	ownAck, _      = hex.DecodeString(ackHex)
)

// ackCases are streams, and what is left of them without the first acknowledgement.
var ackCases = []struct{ name, in, want string }{
	{"nothing", "", ""},
	{"no acknowledgement", lessHex + pingHex + dataHex, lessHex + pingHex + dataHex},
	{"alone", ackHex, ""},
	{"first", ackHex + lessHex, lessHex},
	{"amid", lessHex + ackHex + pingHex, lessHex + pingHex},
	{"the first of two", lessHex + ackHex + pingHex + ackHex, lessHex + pingHex + ackHex},
	{"within data", dataHex + pingHex, dataHex + pingHex},
	{"after data", dataHex + ackHex + pingHex, dataHex + pingHex},
	{"odd bits", oddAckHex + pingHex, pingHex},
	{"with a payload", lyingAckHex + pingHex, lyingAckHex + pingHex},
	{"cut header at the end", lessHex + "0000000401", lessHex + "0000000401"},
	{"frame without end", "ffffff000000000001" + ackHex + ackHex, "ffffff000000000001" + ackHex + ackHex},
}

// sameCases are the streams of servers that begin with SETTINGS, and whether they say what greeted does.
var sameCases = []struct {
	name, in string
	same     bool
}{
	{"same", settingsHex, true},
	{"in another order", "00000c040000000000" + windowHex + streamsHex, true},
	{"another value", "00000c040000000000" + streamsHex + "000400040001", false},
	{"another setting", "00000c040000000000" + streamsHex + "000600040000", false},
	{"one twice", "00000c040000000000" + streamsHex + streamsHex, false},
	{"one less", lessHex, false},
	{"one more", "000012040000000000" + streamsHex + windowHex + windowHex, false},
	{"none", "000000040000000000", false},
	{"of another type", "00000c010000000000" + streamsHex + windowHex, false},
	{"acknowledgement", "00000c040100000000" + streamsHex + windowHex, false},
	{"of a stream", "00000c040000000001" + streamsHex + windowHex, false},
	{"cut", settingsHex[:40], false},
	{"cut in the header", settingsHex[:16], false},
}

// withoutAck is the plain way to leave out the first acknowledgement, for a stream at hand as a whole.
func withoutAck(in []byte, preface int) []byte {
	for pos := preface; pos+9 <= len(in); {
		h, _ := http2.ReadFrameHeader(bytes.NewReader(in[pos:]))
		if h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) && h.Length == 0 {
			return append(append([]byte(nil), in[:pos]...), in[pos+9:]...)
		}
		pos += 9 + int(h.Length)
	}
	return in
}

// withoutSame is the plain way to leave out SETTINGS like greeted.
func withoutSame(in []byte) (rest []byte, same bool) {
	n := 9 + 6*len(greeted)
	if len(in) < n {
		return in, false
	}
	fr := http2.NewFramer(nil, bytes.NewReader(in[:n]))
	f, err := fr.ReadFrame()
	s, ok := f.(*http2.SettingsFrame)
	if err != nil || !ok || s.IsAck() || s.Flags != 0 || s.NumSettings() != len(greeted) || in[5]&0x80 != 0 {
		return in, false
	}
	for _, want := range greeted {
		if v, ok := s.Value(want.ID); !ok || v != want.Val {
			return in, false
		}
	}
	return in[n:], true
}

// cut cuts in into pieces of sizes that depend on seed.
func cut(in []byte, seed uint64) (out [][]byte) {
	r := rand.New(rand.NewPCG(seed, 1))
	largest := 1 + r.IntN(40)
	for len(in) > 0 {
		n := min(1+r.IntN(largest), len(in))
		out, in = append(out, in[:n]), in[n:]
	}
	return out
}

// readGreeted reads pieces of a client, in reads of different sizes. The server has written SETTINGS and
// acknowledgement before.
func readGreeted(t *testing.T, pieces [][]byte, preface int, same bool, seed uint64) []byte {
	t.Helper()
	c := newGreetedConn(&script{pieces: pieces}, nil, preface, greeting(greeted))
	if same {
		c.Write(ownSettings)
	} else {
		c.Write(settingsFrame(1))
	}
	c.Write(ownAck)
	r := rand.New(rand.NewPCG(seed, 2))
	largest := 1 + r.IntN(40)
	var got []byte
	p := make([]byte, largest)
	for {
		n, err := c.Read(p[:1+r.IntN(largest)])
		if n > 0 && err != nil {
			t.Fatalf("Read = %d, %v: bytes together with an error", n, err)
		}
		got = append(got, p[:n]...)
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
	}
}

// writeGreeted writes pieces of a server. It returns what arrives at the client, and what is held back at the end.
func writeGreeted(t *testing.T, pieces [][]byte) (written, held []byte, same bool) {
	t.Helper()
	s := new(script)
	c := newGreetedConn(s, nil, 0, greeting(greeted))
	for _, p := range pieces {
		was := string(p)
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
		}
		if string(p) != was {
			t.Fatal("Write changed its argument")
		}
	}
	return s.written.Bytes(), append(c.out.first, c.out.hdr[:c.out.held]...), c.out.same.Load()
}

// eachWay calls f with in cut up.
func eachWay(in []byte, f func(pieces [][]byte)) {
	if len(in) == 0 {
		f(nil)
	}
	for _, way := range pieces(in) {
		f(way)
	}
}

// What the client acknowledges is for the server if its SETTINGS were left out, else the first is not.
func TestGreetedRead(t *testing.T) {
	for _, tt := range ackCases {
		in, _ := hex.DecodeString(tt.in)
		eachWay(in, func(way [][]byte) {
			for same, want := range map[bool]string{true: tt.in, false: tt.want} {
				got := readGreeted(t, append([][]byte(nil), way...), 0, same, uint64(len(way)))
				if hex.EncodeToString(got) != want {
					t.Errorf("%s, same SETTINGS %v: read in %d pieces = %x, want %s", tt.name, same, len(way), got, want)
				}
			}
		})
	}
}

func TestGreetedWrite(t *testing.T) {
	for _, first := range sameCases {
		for _, tt := range ackCases {
			in, want := first.in+tt.in, first.in+tt.want
			if first.same {
				want = tt.want
			} else if strings.HasPrefix(first.name, "cut") {
				in, want = first.in, first.in
			}
			b, _ := hex.DecodeString(in)
			eachWay(b, func(way [][]byte) {
				written, held, same := writeGreeted(t, way)
				if got := hex.EncodeToString(written) + hex.EncodeToString(held); got != want || same != first.same {
					t.Errorf("%s, %s: written in %d pieces = %s, same SETTINGS %v; want %s, %v",
						first.name, tt.name, len(way), got, same, want, first.same)
				}
			})
		}
	}
}

// The frames of a server are not kept back: what cannot be ours goes out with the header of the first frame.
func TestGreetedWriteHeld(t *testing.T) {
	for _, tt := range []struct {
		in   string
		held int
	}{
		{settingsHex[:2*8], 8},
		{settingsHex[:2*9], 9},
		{settingsHex[:2*20], 20},
		{settingsHex, 0},
		{lessHex[:2*9], 0},
		{pingHex[:2*9], 0},
		{pingHex + settingsHex[:2*8], 8},
		{settingsHex + pingHex[:2*8], 8},
	} {
		in, _ := hex.DecodeString(tt.in)
		if _, held, _ := writeGreeted(t, [][]byte{in}); len(held) != tt.held {
			t.Errorf("%s: %d bytes held back, want %d", tt.in, len(held), tt.held)
		}
	}
}

// A client may acknowledge the greeting, and send more SETTINGS, before the server has said anything. The server gets
// what comes first, and the rest when it has acknowledged that, or never.
func TestGreetedReadWaits(t *testing.T) {
	other, _ := hex.DecodeString(lessHex)
	rest, _ := hex.DecodeString(ackHex + settingsHex + ackHex)
	start := append([]byte(http2.ClientPreface), other...)
	in := append(start, rest...)
	for name, tt := range map[string]struct {
		settings, ack func(*greetedConn)
		want          []byte
		err           error
	}{
		"same SETTINGS": {func(c *greetedConn) { c.Write(ownSettings) }, func(c *greetedConn) { c.Write(ownAck) },
			in, nil},
		"other SETTINGS": {func(c *greetedConn) { c.Write(other) }, func(c *greetedConn) { c.Write(ownAck) },
			withoutAck(in, len(http2.ClientPreface)), nil},
		"no SETTINGS": {func(c *greetedConn) {}, func(c *greetedConn) { c.Close() },
			start, io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				go io.Copy(io.Discard, client)
				go func() {
					client.Write(rest)
					client.Close()
				}()
				c := newGreetedConn(server, start, len(start), greeting(greeted))
				defer c.Close()
				var got bytes.Buffer
				var err error
				read := make(chan struct{})
				go func() {
					_, err = io.Copy(&got, readerOnly{c})
					close(read)
				}()
				for _, more := range []func(*greetedConn){tt.settings, tt.ack} {
					synctest.Wait()
					if !bytes.Equal(got.Bytes(), start) {
						t.Errorf("read %x before the acknowledgement, want %x", &got, start)
					}
					more(c)
				}
				<-read
				if !bytes.Equal(got.Bytes(), tt.want) || !errors.Is(err, tt.err) {
					t.Errorf("read %x, %v; want %x, %v", &got, err, tt.want, tt.err)
				}
			})
		})
	}
}

// readerOnly hides all other methods.
type readerOnly struct{ io.Reader }

// What came as one piece goes on as few, for the sake of packets.
func TestGreetedOneWrite(t *testing.T) {
	for _, tt := range []struct {
		in     string
		writes int
	}{
		{settingsHex, 0},
		{settingsHex + pingHex, 1},
		{settingsHex + ackHex, 0},
		{settingsHex + ackHex + pingHex, 1},
		{settingsHex + pingHex + ackHex + pingHex, 2},
		{lessHex, 1},
	} {
		in, _ := hex.DecodeString(tt.in)
		c := newGreetedConn(nil, nil, 0, greeting(greeted))
		var dst countWrites
		c.out.dst = &dst
		c.Write(in)
		if int(dst) != tt.writes {
			t.Errorf("%s: %d writes, want %d", tt.in, dst, tt.writes)
		}
	}
}

type countWrites int

func (c *countWrites) Write(p []byte) (int, error) { *c++; return len(p), nil }

// shortWriter fails after n bytes.
type shortWriter struct{ n int }

func (w *shortWriter) Write(p []byte) (int, error) {
	n := min(w.n, len(p))
	if w.n -= n; n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestGreetedWriteError(t *testing.T) {
	in, _ := hex.DecodeString(settingsHex + lessHex + ackHex + pingHex)
	hidden := len(settingsHex) / 2
	for room := range len(lessHex+pingHex) / 2 {
		c := newGreetedConn(nil, nil, 0, greeting(greeted))
		c.out.dst = &shortWriter{room}
		n, err := c.Write(in)
		want := hidden + room
		if room >= len(lessHex)/2 {
			want += 9 // the acknowledgement is dealt with
		}
		if n != want || err != io.ErrShortWrite {
			t.Errorf("Write with room for %d = %d, %v, want %d, %v", room, n, err, want, io.ErrShortWrite)
		}
		select {
		case <-c.out.over:
		default:
			t.Errorf("with room for %d Read still waits for an acknowledgement that cannot be written", room)
		}
	}
}

func FuzzGreeted(f *testing.F) {
	for i, tt := range ackCases {
		for _, first := range sameCases {
			in, _ := hex.DecodeString(first.in + tt.in)
			f.Add(in, uint64(i))
		}
	}
	f.Add(request("application/grpc"), uint64(7))
	f.Add([]byte(strings.Repeat("\x00\x00\x00\x04", 20)), uint64(8))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		preface := int(seed % 32)
		if got, want := readGreeted(t, cut(in, seed), preface, false, seed), withoutAck(in, preface); !bytes.Equal(got, want) {
			t.Errorf("read %x, want %x", got, want)
		}
		if got := readGreeted(t, cut(in, seed), preface, true, seed); !bytes.Equal(got, in) {
			t.Errorf("read %x, want all of %x", got, in)
		}
		rest, wantSame := withoutSame(in)
		written, held, same := writeGreeted(t, cut(in, seed))
		if got, want := append(written, held...), withoutAck(rest, 0); !bytes.Equal(got, want) || same != wantSame {
			t.Errorf("wrote %x, same SETTINGS %v; want %x, %v", got, same, want, wantSame)
		}
	})
}
