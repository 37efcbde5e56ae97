package rest

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	lit := func(s string) segment { return segment{literal, s} }
	star, deeps := segment{kind: wildcard}, segment{kind: deep}
	for _, tt := range []struct {
		in, canonical string // "" for the same
		segments      []segment
		vars          string
		verb          string
	}{
		{in: "/"},
		{in: "/v1", segments: []segment{lit("v1")}},
		{in: "/v1/*", segments: []segment{lit("v1"), star}},
		{in: "/**", segments: []segment{deeps}},
		{in: "/v1/{name}", segments: []segment{lit("v1"), star}, vars: "name[1:2]"},
		{in: "/v1/{name=*}", canonical: "/v1/{name}", segments: []segment{lit("v1"), star}, vars: "name[1:2]"},
		{in: "/v1/{name=shelves/*/books/*}", segments: []segment{lit("v1"), lit("shelves"), star, lit("books"), star}, vars: "name[1:5]"},
		{in: "/v1/{book.name=shelves/**}", segments: []segment{lit("v1"), lit("shelves"), deeps}, vars: "book.name[1:3]"},
		{in: "/{a}/{b.c}", segments: []segment{star, star}, vars: "a[0:1] b.c[1:2]"},
		{in: "/{a=x}", segments: []segment{lit("x")}, vars: "a[0:1]"},
		{in: "/{a=**}/x", segments: []segment{deeps, lit("x")}, vars: "a[0:1]"},
		{in: "/v1:go", segments: []segment{lit("v1")}, verb: "go"},
		{in: "/v1/{name}:go", segments: []segment{lit("v1"), star}, vars: "name[1:2]", verb: "go"},
		{in: "/v1/*:go", segments: []segment{lit("v1"), star}, verb: "go"},
		{in: "/v1/**:go", segments: []segment{lit("v1"), deeps}, verb: "go"},
		{in: "/v1/{name}:go:on", segments: []segment{lit("v1"), star}, vars: "name[1:2]", verb: "go:on"},
		{in: "/a:b:c", canonical: "/a%3Ab:c", segments: []segment{lit("a:b")}, verb: "c"},
		{in: "/a:b/c", canonical: "/a%3Ab/c", segments: []segment{lit("a:b"), lit("c")}},
		{in: "/a%3ab", canonical: "/a%3Ab", segments: []segment{lit("a:b")}},
		{in: "/%68i/a%2Fb/%2A", canonical: "/hi/a%2Fb/%2A", segments: []segment{lit("hi"), lit("a/b"), lit("*")}},
		{in: "/a.b-c_d~e@f$g", segments: []segment{lit("a.b-c_d~e@f$g")}},
		{in: "/{_a1}", segments: []segment{star}, vars: "_a1[0:1]"},
	} {
		got, err := parseTemplate(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if !slices.Equal(got.segments, tt.segments) || got.verb != tt.verb || vars(got) != tt.vars {
			t.Errorf("%s: %v, %s, verb %q; want %v, %s, verb %q", tt.in, got.segments, vars(got), got.verb, tt.segments, tt.vars, tt.verb)
		}
		if tt.canonical == "" {
			tt.canonical = tt.in
		}
		if s := got.String(); s != tt.canonical {
			t.Errorf("%s: writes as %s, want %s", tt.in, s, tt.canonical)
		}
	}
}

func vars(t *template) string {
	var list []string
	for _, v := range t.vars {
		list = append(list, v.path+"["+string(rune('0'+v.start))+":"+string(rune('0'+v.end))+"]")
	}
	return strings.Join(list, " ")
}

func TestTemplateErrors(t *testing.T) {
	for _, tt := range []struct {
		in     string
		column int
		reason string // in it
	}{
		{"", 1, "begins with /"},
		{"v1", 1, "begins with /"},
		{"//a", 2, "empty segment"},
		{"/a/", 4, "empty segment"},
		{"/a//b", 4, "empty segment"},
		{"/:go", 2, "empty segment"},
		{"/a:", 4, "empty verb"},
		{"/a/{b}:", 8, "empty verb"},
		{"/a:g%6f", 5, "no escapes"},
		{"/{a}:b/c", 7, `'/' must be escaped`},
		{"/{a}b", 5, "want /, : or the end"},
		{"/a{b}", 3, "want /, : or the end"},
		{"/a}", 3, "want /, : or the end"},
		{"/a*", 3, "a segment of its own"},
		{"/***", 2, "a segment of its own"},
		{"/**/**", 5, "second **"},
		{"/{a=**}/{b=**}", 12, "second **"},
		{"/{", 3, "name of a field"},
		{"/{}", 3, "name of a field"},
		{"/{1a}", 3, "name of a field"},
		{"/{a.}", 5, "name of a field"},
		{"/{a.b", 6, "no closing }"},
		{"/{a-b}", 4, "no closing }"},
		{"/{a=}", 5, "empty segment"},
		{"/{a=b/}", 7, "empty segment"},
		{"/{a=b", 6, "no closing }"},
		{"/{a={b}}", 5, "within another"},
		{"/{a}/{a}", 7, "second variable a"},
		{"/{a=x/*}/b/{a.b}/{a=*}", 19, "second variable a"},
		{"/a b", 3, "must be escaped"},
		{"/ä", 2, "must be escaped"},
		{"/a?b", 3, "must be escaped"},
		{"/a%2", 2, "invalid URL escape"},
		{"/a/..", 4, "no path has"},
		{"/%2e", 2, "no path has"},
	} {
		_, err := parseTemplate(tt.in)
		te, ok := errors.AsType[*templateError](err)
		if !ok || te.column != tt.column || !strings.Contains(te.reason, tt.reason) {
			t.Errorf("%q: %v, want column %d: … %s …", tt.in, err, tt.column, tt.reason)
		}
	}
}

// What has been parsed is written so that it parses to the same.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"/", "/v1/{name=shelves/*}/books:list", "/a:b:c", "/%68%3A/{a.b=**}:x", "/{a=x/y}/*/**/z", "/a%2fb", "//", "/{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := parseTemplate(s)
		if err != nil {
			if te, ok := errors.AsType[*templateError](err); !ok || te.column < 1 || te.column > len(s)+1 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		written := first.String()
		second, err := parseTemplate(written)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", s, written, err)
		}
		if first.last < 1 || first.last > len(s) {
			t.Fatalf("%q ends at column %d", s, first.last)
		}
		for _, p := range []*template{first, second} {
			p.last = 0
			for i := range p.vars {
				p.vars[i].column = 0
			}
		}
		if !reflect.DeepEqual(first, second) || second.String() != written {
			t.Fatalf("%q is %+v, written as %q it is %+v", s, first, written, second)
		}
	})
}
