package wsrpc

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// takeAll gives parts to envelopes with this limit and returns the messages, and how it
// ended. Nothing may be held that has not come, nor more than one message.
func takeAll(t *testing.T, limit int, parts ...[]byte) (messages []string, err error) {
	e := &envelopes{limit: limit}
	for _, part := range parts {
		e.add(part)
		for {
			m, ok, err := e.next()
			if err != nil {
				return messages, err
			}
			if !ok {
				break
			}
			if len(m) > limit {
				t.Fatalf("a message of %d bytes, above %d", len(m), limit)
			}
			messages = append(messages, string(m))
		}
		if len(e.part) > 0 || len(e.begun) >= prefixBytes+limit {
			t.Fatalf("%d bytes are left and %d held", len(e.part), len(e.begun))
		}
	}
	if e.partial() {
		return messages, errTooMuch // any that it does not return itself
	}
	return messages, nil
}

// However a body is cut, it has the same messages and the same end.
func FuzzEnvelopes(f *testing.F) {
	for _, body := range []string{"", "\x00", said("a") + said("b"), said("")[:5], envelope(1, "x"), envelope(0x80, ""),
		"\x00\xff\xff\xff\xff", envelope(0, string(make([]byte, 20))), envelope(0, string(make([]byte, 21)))} {
		f.Add([]byte(body), uint8(3), uint8(6))
	}
	f.Fuzz(func(t *testing.T, body []byte, first, second uint8) {
		const limit = 20
		i := min(int(first), len(body))
		j := min(i+int(second), len(body))
		var octets [][]byte
		for k := range body {
			octets = append(octets, body[k:k+1])
		}
		want, wantErr := takeAll(t, limit, body)
		for _, parts := range [][][]byte{{body[:i], body[i:j], body[j:]}, octets} {
			got, err := takeAll(t, limit, parts...)
			if !slices.Equal(got, want) || status.Code(err) != status.Code(wantErr) {
				t.Errorf("%q in %q: %q, %v; want %q, %v", body, parts, got, err, want, wantErr)
			}
		}
		var again []byte
		for _, m := range want {
			again = append(again, seal(append(make([]byte, prefixBytes), m...), 0)...)
		}
		if !bytes.HasPrefix(body, again) || wantErr == nil && len(again) != len(body) {
			t.Errorf("%q: written again %q", body, again)
		}
	})
}

// What a header is read as is, if it can be metadata, read again when it has been written.
func FuzzFields(f *testing.F) {
	for _, header := range []string{"", "\r\n", "a: b\r\n", "A:b\r\n\r\n", "a-bin: AAE=,Ag\r\na-bin:\r\n", "a\r\n", ":a: b\r\n", "grpc-timeout: 1S", "k: \u00e4"} {
		f.Add([]byte(header))
	}
	read := func(b []byte) (metadata.MD, error) {
		fields, err := parseFields(b)
		if err != nil {
			return nil, err
		}
		md, err := rpc.RequestMetadata(fields, "")
		if err != nil {
			return nil, err
		}
		return rpc.OverlayMetadata(nil, md)
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		md, err := read(header)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		// These are the transport's in an answer.
		maps.DeleteFunc(md, func(key string, _ []string) bool { return len(key) > 15 && key[:15] == "access-control-" })
		again, err := read(appendMetadataFields(nil, md))
		if err != nil || !maps.EqualFunc(md, again, slices.Equal) {
			t.Errorf("%q is %q, and again %q, %v", header, md, again, err)
		}
	})
}
