package sniff

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

const (
	settingsHex = "000006040000000000" + "000300000064" // SETTINGS, MAX_CONCURRENT_STREAMS 100
	ackHex      = "000000040100000000"                  // SETTINGS, acknowledgement
	oddAckHex   = "0000000481" + "80000000"             // the same with bits set that have no meaning
	pingHex     = "000008060000000000" + "0000000000000004"
	dataHex     = "000009000100000001" + ackHex // DATA that looks like an acknowledgement inside
	lyingAckHex = "000006040100000000" + "000300000064"
)

var ackCases = []struct{ name, in, want string }{
	{"nothing", "", ""},
	{"no acknowledgement", settingsHex + pingHex + dataHex, settingsHex + pingHex + dataHex},
	{"alone", ackHex, ""},
	{"first", ackHex + settingsHex, settingsHex},
	{"amid", settingsHex + ackHex + pingHex, settingsHex + pingHex},
	{"the first of two", settingsHex + ackHex + pingHex + ackHex, settingsHex + pingHex + ackHex},
	{"within data", dataHex + pingHex, dataHex + pingHex},
	{"after data", dataHex + ackHex + pingHex, dataHex + pingHex},
	{"odd bits", oddAckHex + pingHex, pingHex},
	{"with a payload", lyingAckHex + pingHex, lyingAckHex + pingHex},
	{"cut header at the end", settingsHex + "0000000401", settingsHex + "0000000401"},
	{"frame without end", "ffffff000000000001" + ackHex + ackHex, "ffffff000000000001" + ackHex + ackHex},
}

// withoutAck is the plain way to say what ackReader and ackWriter do, for a stream at hand as a whole.
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

// readWithoutAck reads pieces through an ackReader, in reads of different sizes.
func readWithoutAck(t *testing.T, pieces [][]byte, preface int, seed uint64) []byte {
	t.Helper()
	c := newAckConn(&script{pieces: pieces}, nil)
	c.in.skip = preface
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

// writeWithoutAck writes pieces through an ackWriter and returns what arrives, without and with the bytes held back.
func writeWithoutAck(t *testing.T, pieces [][]byte) (written, held []byte) {
	t.Helper()
	var b bytes.Buffer
	w := ackWriter{dst: &b}
	for _, p := range pieces {
		was := string(p)
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
		}
		if string(p) != was {
			t.Fatal("Write changed its argument")
		}
	}
	return b.Bytes(), w.hdr[:w.held]
}

func TestAck(t *testing.T) {
	for _, tt := range ackCases {
		in, _ := hex.DecodeString(tt.in)
		for _, way := range append(pieces(in), nil) {
			if way == nil {
				way = [][]byte{in}
			}
			got := readWithoutAck(t, append([][]byte(nil), way...), 0, uint64(len(way)))
			if hex.EncodeToString(got) != tt.want {
				t.Errorf("%s: read in %d pieces = %x, want %s", tt.name, len(way), got, tt.want)
			}
			written, held := writeWithoutAck(t, way)
			if got := hex.EncodeToString(written) + hex.EncodeToString(held); got != tt.want {
				t.Errorf("%s: written in %d pieces = %s, want %s", tt.name, len(way), got, tt.want)
			}
		}
	}
}

// TestAckOneWrite checks that what came as one piece goes on as few, for the sake of packets.
func TestAckOneWrite(t *testing.T) {
	for _, tt := range []struct {
		in     string
		writes int
	}{
		{settingsHex + pingHex, 1},
		{ackHex, 0},
		{ackHex + pingHex, 1},
		{settingsHex + ackHex, 1},
		{settingsHex + ackHex + pingHex, 2},
	} {
		in, _ := hex.DecodeString(tt.in)
		var dst countWrites
		w := ackWriter{dst: &dst}
		w.Write(in)
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

func TestAckWriteError(t *testing.T) {
	in, _ := hex.DecodeString(settingsHex + ackHex + pingHex)
	for room := range len(in) - 9 {
		w := ackWriter{dst: &shortWriter{room}}
		n, err := w.Write(in)
		want := room
		if room >= len(settingsHex)/2 {
			want += 9 // the acknowledgement is dealt with
		}
		if room == len(settingsHex)/2 {
			want = n // before or behind it is the same
		}
		if n != want || err != io.ErrShortWrite {
			t.Errorf("Write with room for %d = %d, %v, want %d, %v", room, n, err, want, io.ErrShortWrite)
		}
	}
}

func FuzzAck(f *testing.F) {
	for i, tt := range ackCases {
		in, _ := hex.DecodeString(tt.in)
		f.Add(in, uint64(i))
	}
	f.Add(request("application/grpc"), uint64(7))
	f.Add([]byte(strings.Repeat("\x00\x00\x00\x04", 20)), uint64(8))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		preface := int(seed % 32)
		if got, want := readWithoutAck(t, cut(in, seed), preface, seed), withoutAck(in, preface); !bytes.Equal(got, want) {
			t.Errorf("read %x, want %x", got, want)
		}
		written, held := writeWithoutAck(t, cut(in, seed))
		if got, want := append(written, held...), withoutAck(in, 0); !bytes.Equal(got, want) {
			t.Errorf("wrote %x, want %x", got, want)
		}
	})
}
