package connectrpc

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// envelopes are messages of the given sizes, as they are on the wire.
func envelopes(sizes ...int) []byte {
	var b []byte
	for _, n := range sizes {
		b = append(b, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		b = append(b, bytes.Repeat([]byte{'x'}, n)...)
	}
	return b
}

// An envelope of the limit is read, of one byte more only its length is.
func TestBodyLimit(t *testing.T) {
	const limit = 10
	for _, tt := range []struct {
		wire []byte
		read int // bytes
		fail bool
	}{
		{nil, 0, false},
		{envelopes(0, limit, 3, limit), 5 + 15 + 8 + 15, false},
		{envelopes(limit + 1), 5, true},
		{envelopes(limit, 0, limit+1, 1), 15 + 5 + 5, true},
		{[]byte{0, 0xff, 0xff, 0xff, 0xff}, 5, true},
		{[]byte{0, 0, 0}, 3, false}, // connect complains
	} {
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(tt.wire), "bytes": iotest.OneByteReader(bytes.NewReader(tt.wire)),
			"with EOF": iotest.DataErrReader(bytes.NewReader(tt.wire)),
		} {
			b := &body{src: io.NopCloser(src), maxMessage: limit}
			got, err := io.ReadAll(b)
			if (err != nil) != tt.fail || !bytes.Equal(got, tt.wire[:tt.read]) {
				t.Errorf("% x, read %s: %d bytes, %v, want %d, failure %v", tt.wire, name, len(got), err, tt.read, tt.fail)
			}
			if tt.fail && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("% x, read %s: %v, want RESOURCE_EXHAUSTED", tt.wire, name, err)
			}
		}
	}
	if got, err := io.ReadAll(&body{src: io.NopCloser(bytes.NewReader(envelopes(limit + 1)))}); err != nil || len(got) != limit+6 {
		t.Errorf("without a limit: %d bytes, %v", len(got), err)
	}
}

func FuzzBody(f *testing.F) {
	f.Add(envelopes(0, 3, 10), uint8(3))
	f.Add(envelopes(11), uint8(5))
	f.Add([]byte{1, 0, 0, 0, 2, 3}, uint8(0))
	f.Fuzz(func(t *testing.T, wire []byte, cut uint8) {
		const limit = 10
		read := func(src io.Reader) ([]byte, error) {
			return io.ReadAll(&body{src: io.NopCloser(src), maxMessage: limit})
		}
		n := min(int(cut), len(wire))
		whole, errWhole := read(bytes.NewReader(wire))
		parts, errParts := read(io.MultiReader(bytes.NewReader(wire[:n]), bytes.NewReader(wire[n:])))
		if (errWhole == nil) != (errParts == nil) || !bytes.Equal(whole, parts) || !bytes.HasPrefix(wire, whole) {
			t.Fatalf("% x is % x, %v; cut at %d it is % x, %v", wire, whole, errWhole, n, parts, errParts)
		}
		// The walk as it is told in one sentence: no envelope above the limit.
		for rest := whole; len(rest) >= 5; {
			size := int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4])
			rest = rest[5:]
			if size > limit && (errWhole == nil || len(rest) > 0) {
				t.Fatalf("% x has an envelope of %d bytes and was read to % x, %v", wire, size, whole, errWhole)
			}
			rest = rest[min(size, len(rest)):]
		}
	})
}

// The timeout is in the header that the protocol has for it, and is the
// dispatcher's alone.
func TestTimeout(t *testing.T) {
	for _, tt := range []struct {
		protocol      protocol
		name, value   string
		want          time.Duration
		wantMalformed bool
	}{
		{connectUnary, "Connect-Timeout-Ms", "1500", 1500 * time.Millisecond, false},
		{connectStream, "Connect-Timeout-Ms", "0", 1, false},
		{connectUnary, "Connect-Timeout-Ms", "1S", 0, true},
		{connectUnary, "Grpc-Timeout", "1S", 0, false},
		{grpc, "Grpc-Timeout", "1S", time.Second, false},
		{grpcWeb, "Grpc-Timeout", "1S", time.Second, false},
		{grpcWebText, "Grpc-Timeout", "1500", 0, true},
		{grpcWeb, "Connect-Timeout-Ms", "1500", 0, false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set(tt.name, tt.value)
		call, err := newCall(r, tt.protocol)
		switch {
		case tt.wantMalformed:
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%d, %s: %s = %v, want INVALID_ARGUMENT", tt.protocol, tt.name, tt.value, err)
			}
		case err != nil || call.Timeout != tt.want:
			t.Errorf("%d, %s: %s = %v, %v, want %v", tt.protocol, tt.name, tt.value, call, err, tt.want)
		}
		if own := tt.want != 0 || tt.wantMalformed; own && len(r.Header) != 0 {
			t.Errorf("%d, %s: %s stays in the header for connecthttp: %v", tt.protocol, tt.name, tt.value, r.Header)
		}
	}
}

func TestCallOfMalformedMetadata(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header = http.Header{"X-Bin": {"!"}}
	if call, err := newCall(r, connectUnary); call != nil || status.Code(err) != codes.InvalidArgument {
		t.Errorf("newCall = %v, %v, want INVALID_ARGUMENT", call, err)
	}
}

// Close leaves the body to net/http, which may have to read on.
func TestBodyClose(t *testing.T) {
	b := &body{src: closeFails{}}
	if err := b.Close(); err != nil {
		t.Errorf("Close = %v: it reached the body", err)
	}
}

type closeFails struct{ io.Reader }

func (closeFails) Close() error { return errors.New("closed") }
