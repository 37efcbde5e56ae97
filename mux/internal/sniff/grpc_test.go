package sniff

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func settingsFrame(n int) []byte {
	return frames(func(fr *http2.Framer) {
		s := make([]http2.Setting, n)
		for i := range s {
			s[i] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)}
		}
		fr.WriteSettings(s...)
	})[len(http2.ClientPreface):]
}

// A SETTINGS frame of 21 settings passes, one of 22 does not, however the bytes
// are cut and whatever comes before.
func TestSettingsCheck(t *testing.T) {
	opening := request("application/grpc")
	data := frames(func(fr *http2.Framer) {
		fr.WriteData(1, false, bytes.Repeat(settingsFrame(30), 3)) // a payload is no frame
		fr.WritePing(false, [8]byte{})
	})[len(http2.ClientPreface):]
	for _, tt := range []struct {
		name string
		in   [][]byte
		bad  bool
	}{
		{"none", [][]byte{opening, data}, false},
		{"at the limit", [][]byte{opening, data, settingsFrame(21), settingsFrame(21)}, false},
		{"above it", [][]byte{opening, data, settingsFrame(21), settingsFrame(22)}, true},
		{"first of all", [][]byte{[]byte(http2.ClientPreface), settingsFrame(22)}, true},
	} {
		in := bytes.Join(tt.in, nil)
		for size := 1; size <= len(in); size++ {
			c := settingsCheck{frameScan{skip: len(http2.ClientPreface)}}
			var err error
			for _, piece := range chunks(in, size) {
				if err = c.check(piece); err != nil {
					break
				}
			}
			if errors.Is(err, errSettings) != tt.bad {
				t.Fatalf("%s, in pieces of %d: %v, want failure %v", tt.name, size, err, tt.bad)
			}
		}
	}
}

// What is handed off as gRPC has the check; its server sees an error, and not
// the frame.
func TestHandoffGRPCSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		cut  int
	}{
		{"whole", request("application/grpc"), 0},
		{"with early SETTINGS", settingsThenRequest, settingsEnd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server, _ := handedTCP(t, tt.in, tt.cut)
			if _, err := server.Write(greeting(nil)); err != nil {
				t.Fatal(err)
			}
			go client.Write(settingsFrame(22))
			if _, err := io.Copy(io.Discard, server); !errors.Is(err, errSettings) {
				t.Errorf("read ended with %v, want %v", err, errSettings)
			}
		})
	}
}

// An answerer writes what a gRPC server does, with grpc-go's header encoder.
type answerer struct {
	bytes.Buffer
	*http2.Framer
	block bytes.Buffer
	*hpack.Encoder
}

func newAnswerer() *answerer {
	a := new(answerer)
	a.Framer = http2.NewFramer(&a.Buffer, nil)
	a.Encoder = hpack.NewEncoder(&a.block)
	return a
}

func (a *answerer) headers(stream uint32, end bool, kv ...string) {
	a.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		a.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	a.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: a.block.Bytes(), EndHeaders: true, EndStream: end})
}

// call answers one of gRPC.
func (a *answerer) call(stream uint32) {
	a.headers(stream, false, ":status", "200", "content-type", "application/grpc")
	a.WriteData(stream, false, make([]byte, 5))
	a.headers(stream, true, "grpc-status", "0", "grpc-message", "")
}

// refuse answers one that is none.
func (a *answerer) refuse(stream uint32, status string) {
	a.headers(stream, true, ":status", status, "content-type", "application/grpc", "grpc-status", "3", "grpc-message", "no")
}

var refusals = []struct {
	name  string
	write func(*answerer)
	want  bool
}{
	{"nothing", func(a *answerer) {}, false},
	{"calls", func(a *answerer) { a.call(1); a.call(3) }, false},
	{"415 first", func(a *answerer) { a.refuse(1, "415") }, true},
	{"405 after a call", func(a *answerer) { a.call(1); a.refuse(3, "405"); a.call(5) }, true},
	{"twice", func(a *answerer) { a.call(1); a.refuse(3, "415"); a.refuse(5, "415"); a.refuse(7, "405") }, true},
	{"client without a table", func(a *answerer) { a.SetMaxDynamicTableSize(0); a.call(1); a.refuse(3, "415") }, true},
	{"first, client without a table", func(a *answerer) { a.SetMaxDynamicTableSize(0); a.refuse(1, "415") }, true},
	{"tables change", func(a *answerer) {
		a.SetMaxDynamicTableSizeLimit(1<<32 - 1)
		a.SetMaxDynamicTableSize(1<<32 - 2)
		a.call(1)
		a.SetMaxDynamicTableSize(1 << 30)
		a.SetMaxDynamicTableSize(1<<32 - 1)
		a.refuse(3, "415")
	}, true},
	{"end of a stream comes later", func(a *answerer) { a.headers(1, false, ":status", "415") }, false},
	{"other statuses", func(a *answerer) { a.refuse(1, "200"); a.refuse(3, "400"); a.refuse(5, "503") }, false},
	{"not the status", func(a *answerer) { a.headers(1, true, "age", "415"); a.headers(1, true, "grpc-status", "405") }, false},
	{"status not whole", func(a *answerer) {
		a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x48\x0341"), EndStream: true})
		a.WriteContinuation(1, true, []byte("5"))
	}, false},
	{"size not whole", func(a *answerer) {
		a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x3f\xff"), EndStream: true, EndHeaders: true})
	}, false},
	{"empty block", func(a *answerer) { a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true}); a.call(3) }, false},
	{"within data", func(a *answerer) {
		in := newAnswerer()
		in.refuse(1, "415")
		a.WriteData(1, true, in.Bytes())
	}, false},
}

// What the server refuses is found wherever writes are cut, and told once; no byte changes.
func TestRefusal(t *testing.T) {
	for _, tt := range refusals {
		a := newAnswerer()
		tt.write(a)
		in := a.Bytes()
		eachWay(in, func(way [][]byte) {
			s := new(script)
			told := 0
			c := newGRPCConn(&conn{Conn: s}, func(remote net.Addr) {
				if told++; remote.String() != s.RemoteAddr().String() {
					t.Errorf("%s: told of %v", tt.name, remote)
				}
			})
			for _, p := range way {
				if n, err := c.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
				}
			}
			if (told == 1) != tt.want || told > 1 {
				t.Errorf("%s, in %d pieces: told %d times, want %v", tt.name, len(way), told, tt.want)
			}
			if !bytes.Equal(s.written.Bytes(), in) {
				t.Errorf("%s, in %d pieces: wrote %x, want %x", tt.name, len(way), &s.written, in)
			}
		})
	}
}

// Any bytes pass, are judged alike however they are cut, and only what begins with such a status is such an answer.
func FuzzRefusal(f *testing.F) {
	for i, tt := range refusals {
		a := newAnswerer()
		tt.write(a)
		f.Add(a.Bytes(), uint64(i))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		s := new(script)
		told := false
		c := newGRPCConn(&conn{Conn: s}, func(net.Addr) { told = true })
		for _, p := range cut(in, seed) {
			c.Write(p)
		}
		if !bytes.Equal(s.written.Bytes(), in) {
			t.Errorf("wrote %x, want %x", &s.written, in)
		}
		if whole := new(refusalScan).look(in); told != whole {
			t.Errorf("told in pieces %v, as a whole %v", told, whole)
		}
		if told && !mayRefuse(in) {
			t.Errorf("told of a refusal in %x", in)
		}
	})
}

// mayRefuse reports whether there is a header block that names a status of 415 or 405 first, or that is wrong.
func mayRefuse(in []byte) bool {
	for len(in) > 9 {
		h, _ := http2.ReadFrameHeader(bytes.NewReader(in))
		in = in[9:]
		payload := in[:min(len(in), int(h.Length))]
		in = in[len(payload):]
		if h.Type != http2.FrameHeaders {
			continue
		}
		var first *hpack.HeaderField
		dec := hpack.NewDecoder(4<<10, func(f hpack.HeaderField) {
			if first == nil {
				first = &f
			}
		})
		dec.SetAllowedMaxDynamicTableSize(1<<32 - 1)
		_, err := dec.Write(payload)
		if err != nil && first == nil || first != nil && first.Name == ":status" && (first.Value == "415" || first.Value == "405") {
			return true
		}
	}
	return false
}

func TestGRPCWriteAllocates(t *testing.T) {
	a := newAnswerer()
	a.call(1)
	c := newGRPCConn(&conn{Conn: discardConn{}}, func(net.Addr) {})
	if allocs := testing.AllocsPerRun(100, func() { c.Write(a.Bytes()) }); allocs > 0 {
		t.Errorf("%v allocations a write, want none", allocs)
	}
}

// BenchmarkGRPCWrite writes the answer to a call, and 100 messages of a stream.
func BenchmarkGRPCWrite(b *testing.B) {
	unary, stream := newAnswerer(), newAnswerer()
	unary.call(1)
	for range 100 {
		stream.WriteData(1, false, make([]byte, 37))
	}
	for _, bench := range []struct {
		name    string
		frames  []byte
		foreign func(net.Addr)
	}{
		{"unary/scan=no", unary.Bytes(), nil},
		{"unary/scan=yes", unary.Bytes(), func(net.Addr) {}},
		{"stream/scan=no", stream.Bytes(), nil},
		{"stream/scan=yes", stream.Bytes(), func(net.Addr) {}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c := newGRPCConn(&conn{Conn: discardConn{}}, bench.foreign)
			b.ReportAllocs()
			for b.Loop() {
				c.Write(bench.frames)
			}
		})
	}
}

// A discardConn only takes bytes.
type discardConn struct{ net.Conn }

func (discardConn) Write(p []byte) (int, error) { return len(p), nil }
