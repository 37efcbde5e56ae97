package connectrpc

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pieces encodes data in pieces of the given lengths, each with its own padding.
func pieces(data []byte, lengths ...int) string {
	var b strings.Builder
	for _, n := range lengths {
		n = min(n, len(data))
		b.WriteString(base64.StdEncoding.EncodeToString(data[:n]))
		data = data[n:]
	}
	b.WriteString(base64.StdEncoding.EncodeToString(data))
	return b.String()
}

func readText(text io.Reader) ([]byte, error) {
	return io.ReadAll(&textBody{src: io.NopCloser(text)})
}

// A body is the same however it was cut, for encoding or on its way.
func TestTextBody(t *testing.T) {
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, size := range []int{0, 1, 2, 3, 4, 5, 6, 1535, 1536, 1537, 5000} {
		for _, lengths := range [][]int{nil, {1}, {2}, {3}, {5}, {1, 1, 1, 1}, {2, 2, 3}, {1500, 1}, {1536, 1536}} {
			text := pieces(data[:size], lengths...)
			for name, src := range map[string]io.Reader{
				"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)),
				"halves": iotest.HalfReader(strings.NewReader(text)), "with EOF": iotest.DataErrReader(strings.NewReader(text)),
			} {
				if got, err := readText(src); err != nil || !bytes.Equal(got, data[:size]) {
					t.Errorf("%d bytes in pieces of %v, read %s: %d bytes, %v", size, lengths, name, len(got), err)
				}
			}
		}
	}
}

func TestTextBodyMalformed(t *testing.T) {
	for _, text := range []string{"A", "AA", "AAA", "AAAAA", "AA==A", "!AAA", "A===", "====", "AA=A", "AAA=\xff", "AAAA AAA", "_-_-", "AA\nA\n\n\nA", "\r\n\r\n"} {
		for name, src := range map[string]io.Reader{"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text))} {
			if got, err := readText(src); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%q, read %s: %q, %v, want INVALID_ARGUMENT", text, name, got, err)
			}
		}
	}
	if _, err := readText(iotest.ErrReader(io.ErrUnexpectedEOF)); err != io.ErrUnexpectedEOF {
		t.Errorf("an error of the connection = %v, want it as it is", err)
	}
}

// What was flushed can be read at once: it ends with a whole character.
func TestTextResponse(t *testing.T) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Content-Type", "Application/gRPC-Web-Text+proto")
	w := newTextResponse(rec, r)
	if got := r.Header.Get("Content-Type"); got != "application/grpc-web+proto" {
		t.Errorf("the request became %q, want application/grpc-web+proto", got)
	}
	w.Header().Set("Content-Type", "application/grpc-web+proto")
	var sent []byte
	for i, part := range []string{"a", "", "bc", "defg", "h"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Errorf("Write(%q) = %d, %v", part, n, err)
		}
		sent = append(sent, part...)
		if i%2 == 1 {
			continue
		}
		w.Flush()
		if got, err := readText(bytes.NewReader(rec.Body.Bytes())); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("after a flush %q can be read, %v, want %q", got, err, sent)
		}
	}
	io.WriteString(w, "last")
	w.end()
	if got, err := readText(rec.Body); err != nil || string(got) != "abcdefghlast" {
		t.Errorf("in the end %q can be read, %v", got, err)
	}
	if got := rec.Result().Header.Get("Content-Type"); got != "application/grpc-web-text+proto" {
		t.Errorf("the answer is %q, want application/grpc-web-text+proto", got)
	}
}

// An answer that is not gRPC-Web keeps its content type.
func TestTextResponseRefusal(t *testing.T) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Content-Type", "application/grpc-web-text")
	w := newTextResponse(rec, r)
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusUnsupportedMediaType)
	w.end()
	if res := rec.Result(); res.StatusCode != http.StatusUnsupportedMediaType || res.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("the answer is %s, %q", res.Status, res.Header.Get("Content-Type"))
	}
}

func FuzzTextBody(f *testing.F) {
	f.Add([]byte("AAAAAAQKAmhp"), uint8(3))
	f.Add([]byte("AA==AAA=AAAA"), uint8(1))
	f.Add([]byte("A"), uint8(0))
	f.Add([]byte("AA\nAA==="), uint8(5))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		whole, errWhole := readText(bytes.NewReader(text))
		parts, errParts := readText(io.MultiReader(bytes.NewReader(text[:min(int(cut), len(text))]), bytes.NewReader(text[min(int(cut), len(text)):])))
		if (errWhole == nil) != (errParts == nil) || errWhole == nil && !bytes.Equal(whole, parts) {
			t.Fatalf("%q is %q, %v; cut at %d it is %q, %v", text, whole, errWhole, cut, parts, errParts)
		}
		if len(whole) > len(text)/4*3 {
			t.Fatalf("%d characters became %d bytes", len(text), len(whole))
		}
		back, err := readText(strings.NewReader(pieces(text, int(cut))))
		if err != nil || !bytes.Equal(back, text) {
			t.Fatalf("%q encoded and decoded is %q, %v", text, back, err)
		}
	})
}
