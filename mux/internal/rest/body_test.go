package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// parts reads a body to its end, or to an error.
func parts(src io.Reader, limit int) ([]string, error) {
	b := &body{src: src, limit: limit}
	var all []string
	for {
		part, err := b.next()
		if err != nil {
			return all, err
		}
		all = append(all, string(part))
	}
}

// A value of the limit is read, after as many blanks; of one that is longer, and of more
// blanks, no more than a buffer is.
func TestValuesLimit(t *testing.T) {
	const limit = 10
	for _, tt := range []struct {
		in   string
		want int // values before the end or the error
		fail bool
	}{
		{`{"a":1234}{"a":1234}`, 2, false},
		{`{"a":1234} {"a":12345}`, 1, true},
		{`{"a":12345}`, 0, true},
		{`{"a":1234}1234567890`, 2, false},
		{`12345678901`, 0, true},
		{`"23456789" "234567890"`, 1, true},
		{strings.Repeat(" ", limit) + `1` + strings.Repeat("\n", limit) + `"23456789"` + strings.Repeat("\t", limit), 2, false},
		{strings.Repeat(" ", limit+1) + `1`, 0, true},
		{`1` + strings.Repeat(" ", limit+1) + `1`, 1, true},
		{`1` + strings.Repeat(" ", limit+1), 1, true},
		{"[" + strings.Repeat(" ", 1000), 0, true},
	} {
		for name, src := range map[string]io.Reader{"whole": strings.NewReader(tt.in), "bytes": iotest.OneByteReader(strings.NewReader(tt.in))} {
			got, err := parts(src, limit)
			if len(got) != tt.want || (err != io.EOF) != tt.fail || tt.fail && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%.50q, read %s: %q, %v, want %d, too large: %v", tt.in, name, got, err, tt.want, tt.fail)
			}
		}
	}
	for _, begin := range []string{"[", ""} {
		endless := &body{src: io.MultiReader(strings.NewReader(begin), spaces{}), limit: 1 << 20}
		if _, err := endless.next(); status.Code(err) != codes.ResourceExhausted || cap(endless.values.buf) > 3<<20 {
			t.Errorf("of %q and endless blanks: %v, %d bytes are held", begin, err, cap(endless.values.buf))
		}
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// The values are those that encoding/json finds, however they come.
func FuzzValues(f *testing.F) {
	for _, s := range []string{`{"a":"}\"{"}{} [1,[2]] `, `1 "a" null true`, `{"a":`, `"\\" "\"`, "]", "{}\n{}\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		n := min(int(cut), len(in))
		whole, err := parts(bytes.NewReader(in), 1<<20)
		cutUp, cutErr := parts(io.MultiReader(bytes.NewReader(in[:n]), iotest.OneByteReader(bytes.NewReader(in[n:]))), 1<<20)
		if strings.Join(whole, "|") != strings.Join(cutUp, "|") || (err == io.EOF) != (cutErr == io.EOF) {
			t.Fatalf("%q is %q, %v; cut at %d it is %q, %v", in, whole, err, n, cutUp, cutErr)
		}
		dec := json.NewDecoder(bytes.NewReader(in))
		for i := 0; ; i++ {
			var want json.RawMessage
			derr := dec.Decode(&want)
			switch {
			case errors.Is(derr, io.EOF):
				if len(whole) != i || err != io.EOF {
					t.Fatalf("%q is %q, %v, want %d values", in, whole, err, i)
				}
				return
			case derr != nil:
				return // it is not JSON from here on
			case i >= len(whole):
				t.Fatalf("%q is %q, %v, and not %q", in, whole, err, want)
			case whole[i] != string(want):
				if json.Valid([]byte(whole[i])) {
					t.Fatalf("%q is %q, want %q", in, whole, want)
				}
				return // two scalars without a blank between them, such as 1null
			}
		}
	})
}

func TestJSONPath(t *testing.T) {
	const in = `{"a":{"b":[1,{"c":true},[2,3]],"d":{}},"é":"x","e":[]}`
	for _, tt := range []struct{ at, want string }{
		{`{"a"`, ""}, {`"a"`, "a"}, {`{"b"`, "a"}, {`[1`, "a.b"}, {`1,{`, "a.b[0]"}, {`{"c"`, "a.b[1]"}, {`true`, "a.b[1].c"},
		{`[2`, "a.b[2]"}, {`3]`, "a.b[2][1]"}, {`{}}`, "a.d"}, {`"é"`, "é"}, {`"x"`, "é"}, {`[]}`, "e"},
	} {
		if got := jsonPath([]byte(in), strings.Index(in, tt.at)); got != tt.want {
			t.Errorf("at %s: %q, want %q", tt.at, got, tt.want)
		}
	}
	for _, bad := range []string{"", "{", `{"a"`, "x", `{}""0`, `{"a":1]`} {
		if got := jsonPath([]byte(bad), len(bad)); got != "" {
			t.Errorf("%q: %q, want nothing", bad, got)
		}
	}
}
