package sniff

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func TestAtOnce(t *testing.T) {
	for _, tt := range atOnce {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			c := accept(t, server, quiet)
			start := time.Now()
			go io.Copy(io.Discard, client)
			go client.Write(tt.in)
			if got := verdict(t, c); got != HTTP2 || time.Since(start) != 0 {
				t.Errorf("%s: kind = %v after %v, want http2 at once", tt.name, got, time.Since(start))
			}
			c.Close()
		})
	}
}

// pieces returns ways to cut in up: whole, at each byte, and all bytes apart.
func pieces(in []byte) [][][]byte {
	ways := [][][]byte{{in}, chunks(in, 1)}
	for i := 1; i < len(in); i++ {
		if len(in) > 4096 && i%997 != 0 {
			continue
		}
		ways = append(ways, [][]byte{in[:i], in[i:]})
	}
	return ways
}

func chunks(in []byte, size int) (out [][]byte) {
	for len(in) > 0 {
		n := min(size, len(in))
		out, in = append(out, in[:n]), in[n:]
	}
	return out
}

func TestKind(t *testing.T) {
	for _, tt := range openings {
		t.Run(tt.name, func(t *testing.T) {
			for _, way := range pieces(tt.in) {
				testOpening(t, tt.in, way, tt.want)
			}
		})
	}
	for _, tt := range wrongHTTP2 {
		t.Run(tt.name, func(t *testing.T) {
			for _, way := range pieces(tt.in) {
				testOpening(t, tt.in, way, HTTP2)
			}
		})
	}
}

// testOpening checks the kind of a connection that begins with in and then fails, that no more than the budget is read
// for it, and that none of it is lost on the way to the server.
func testOpening(t *testing.T, in []byte, way [][]byte, want Kind) {
	t.Helper()
	first := len(way[0])
	s := &script{pieces: append([][]byte(nil), way...)}
	c := accept(t, s, quiet)
	if got := verdict(t, c); got != want {
		t.Fatalf("kind of %s, first piece %d bytes = %v, want %v", abbrev(in), first, got, want)
	}
	if s.given > 32<<10 {
		t.Errorf("%s: %d bytes read for the verdict, want at most 32768", abbrev(in), s.given)
	}
	if kind := KindOf(c); kind != want {
		t.Errorf("KindOf(%s) = %v, want %v", abbrev(in), kind, want)
	}
	after := Handoff(c)
	expect := in
	if s.written.Len() > 0 {
		expect = withoutAck(in, len(http2.ClientPreface))
		after.Write(append(settingsFrame(1), greeting(nil)[9:]...)) // other SETTINGS than the early ones
	}
	got, err := io.ReadAll(after)
	if err != nil {
		t.Fatalf("%s: read after handoff: %v", abbrev(in), err)
	}
	if !bytes.Equal(got, expect) {
		t.Errorf("%s, first piece %d bytes: after handoff got %s", abbrev(in), first, abbrev(got))
	}
}

func abbrev(b []byte) string {
	s := string(b)
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' {
			return '.'
		}
		return r
	}, s), ".")
}

// TestGreeting checks when the early SETTINGS are written.
func TestGreeting(t *testing.T) {
	in := request("application/grpc")
	settings := len(http2.ClientPreface) + 9 + 6
	for i := 1; i <= len(in); i++ {
		s := &script{pieces: [][]byte{in[:i], in[i:]}}
		c := accept(t, s, quiet)
		verdict(t, c)
		want := ""
		if i >= settings && i < len(in) {
			want = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + // SETTINGS, none
				"\x00\x00\x00\x04\x01\x00\x00\x00\x00" // SETTINGS, acknowledgement
		}
		if got := s.written.String(); got != want {
			t.Errorf("cut at %d of %d: wrote %x, want %x", i, len(in), got, want)
		}
	}
}

// alpnConn is a connection under TLS that negotiated a protocol.
type alpnConn struct {
	*script
	proto string
}

func (c alpnConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{NegotiatedProtocol: c.proto}
}

func TestALPN(t *testing.T) {
	get := []byte("GET / HTTP/1.1\r\n\r\n")
	for _, tt := range []struct {
		proto string
		in    []byte
		want  Kind
	}{
		{"", get, HTTP1},
		{"", request("application/grpc"), GRPC},
		{"http/1.1", get, HTTP1},
		{"http/1.1", request("application/grpc"), Unknown},
		{"http/1.1", []byte(http2.ClientPreface), Unknown},
		{"h2", request("application/grpc"), GRPC},
		{"h2", get, Unknown},
		{"h2", []byte("PRI * HTTP/1.1"), Unknown},
		{"h2", []byte("\x16\x03"), TLS},
	} {
		s := &script{pieces: [][]byte{tt.in}}
		c := accept(t, alpnConn{s, tt.proto}, quiet)
		if got := verdict(t, c); got != tt.want {
			t.Errorf("kind of %q after ALPN %q = %v, want %v", abbrev(tt.in), tt.proto, got, tt.want)
		}
		if tt.want != Unknown {
			continue
		}
		if c.reason != errALPN {
			t.Errorf("%q after ALPN %q: reason = %v, want %v", abbrev(tt.in), tt.proto, c.reason, errALPN)
		}
		if Reject(c, http2.ErrCodeProtocol, "no"); s.written.Len() > 0 || !s.closed {
			t.Errorf("%q after ALPN %q: answered %q, closed %v; want no answer, closed", abbrev(tt.in), tt.proto, &s.written, s.closed)
		}
	}
}

func TestForeign(t *testing.T) {
	if Match(allKinds...)(new(script), nil) {
		t.Error("Match = true for a connection that is not of a Listener")
	}
	if got := KindOf(new(script)); got != Unknown {
		t.Errorf("KindOf = %v for a connection that is not of a Listener, want %v", got, Unknown)
	}
}

func TestRead(t *testing.T) {
	// A cmux matcher before ours, and a MuxConn that nobody handed off, read the Conn itself.
	c := accept(t, &script{pieces: [][]byte{[]byte("GET / "), []byte("HTTP/1.1\r\n\r\n")}}, quiet)
	p := make([]byte, 3)
	if n, err := c.Read(p); n != 3 || err != nil {
		t.Fatalf("Read = %d, %v, want 3, nil", n, err)
	}
	if got := verdict(t, c); got != HTTP1 {
		t.Errorf("kind = %v, want %v", got, HTTP1)
	}
	rest, err := io.ReadAll(c)
	if got, want := string(p)+string(rest), "GET / HTTP/1.1\r\n\r\n"; got != want || err != nil {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}

	c = accept(t, &endless{again: []byte("a")}, quiet)
	got, err := io.ReadAll(c)
	if len(got) != 32<<10 || err != errBudget {
		t.Errorf("read %d bytes, %v, want %d, %v", len(got), err, 32<<10, errBudget)
	}
}

func FuzzClassify(f *testing.F) {
	for _, tt := range openings {
		f.Add(tt.in, uint64(3))
	}
	for _, tt := range wrongHTTP2 {
		f.Add(tt.in, uint64(5))
	}
	for _, tt := range atOnce {
		f.Add(tt.in, uint64(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		want := verdict(t, accept(t, &script{pieces: [][]byte{in}}, quiet))
		testOpening(t, in, append(cut(in, seed), nil), want)
	})
}
