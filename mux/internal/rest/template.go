package rest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// template is a path template of google/api/http.proto:
//
//	Template = "/" [ Segments [ Verb ] ] ;
//	Segments = Segment { "/" Segment } ;
//	Segment  = "*" | "**" | LITERAL | Variable ;
//	Variable = "{" FieldPath [ "=" Segments ] "}" ;
//	FieldPath = IDENT { "." IDENT } ;
//	Verb     = ":" LITERAL ;
//
// That file wants "**" to be the last segment. As in grpc-gateway it may be any, but
// only one, and "/" alone is a template.
type template struct {
	segments []segment // those of variables among them
	verb     string    // without the colon; may be empty
	vars     []variable
	last     int // column of the verb, or else of the last segment
}

// segment is one part of a path between slashes, or any number of them.
type segment struct {
	kind kind
	text string // of a literal, unescaped
}

// kind of a segment, in the order in which a path prefers them.
type kind uint8

const (
	literal  kind = iota
	wildcard      // "*", one segment that is not empty
	deep          // "**", any number of any segments
)

// variable captures segments for a field.
type variable struct {
	path       string // of the field
	start, end int    // of template.segments
	column     int    // of the path in the template
}

// templateError says what is wrong with a template and where, in bytes from 1.
type templateError struct {
	column int
	reason string
}

func (e *templateError) Error() string { return fmt.Sprintf("column %d: %s", e.column, e.reason) }

// parseTemplate parses s. An error is a *templateError.
func parseTemplate(s string) (*template, error) {
	p := templateParser{in: s}
	if err := p.template(); err != nil {
		return nil, err
	}
	return &p.out, nil
}

type templateParser struct {
	in  string
	pos int
	out template
}

func (p *templateParser) failAt(pos int, format string, args ...any) error {
	return &templateError{pos + 1, fmt.Sprintf(format, args...)}
}

// next reports whether c comes next, and takes it.
func (p *templateParser) next(c byte) bool {
	if p.pos < len(p.in) && p.in[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *templateParser) template() error {
	p.out.last = 1
	if !p.next('/') {
		return p.failAt(p.pos, "a template begins with /")
	}
	if p.pos == len(p.in) {
		return nil
	}
	for {
		if err := p.segment(false); err != nil {
			return err
		}
		switch {
		case p.pos == len(p.in):
			return nil
		case p.next('/'):
		case p.next(':'):
			return p.parseVerb()
		default:
			return p.failAt(p.pos, "want /, : or the end after a segment, not %q", p.in[p.pos])
		}
	}
}

// segment parses one segment, within a variable or not.
func (p *templateParser) segment(inside bool) error {
	start := p.pos
	p.out.last = start + 1
	if p.next('{') {
		if inside {
			return p.failAt(start, "a variable within another")
		}
		return p.variable()
	}
	stops := "/{}"
	end := start + strings.IndexAny(p.in[start:]+"/", stops)
	text := p.in[start:end]
	if !inside {
		// The verb is what follows the last colon of the last segment, but the first
		// one after a wildcard.
		if w := strings.TrimLeft(text, "*"); len(w) < len(text) && strings.HasPrefix(w, ":") {
			text = text[:len(text)-len(w)]
		} else if i := strings.LastIndexByte(text, ':'); i >= 0 && end == len(p.in) {
			text = text[:i]
		}
	}
	p.pos = start + len(text)
	switch text {
	case "":
		return p.failAt(start, "an empty segment")
	case "*":
		p.out.segments = append(p.out.segments, segment{kind: wildcard})
		return nil
	case "**":
		if slices.ContainsFunc(p.out.segments, func(s segment) bool { return s.kind == deep }) {
			return p.failAt(start, "a second **")
		}
		p.out.segments = append(p.out.segments, segment{kind: deep})
		return nil
	}
	if i := strings.IndexByte(text, '*'); i >= 0 {
		return p.failAt(start+i, "a wildcard is a segment of its own")
	}
	if err := p.checkChars(start, text); err != nil {
		return err
	}
	text, err := url.PathUnescape(text)
	if err != nil {
		return p.failAt(start, "%v", err)
	}
	if dots(text) {
		return p.failAt(start, "no path has a segment %q", text)
	}
	p.out.segments = append(p.out.segments, segment{literal, text})
	return nil
}

func (p *templateParser) variable() error {
	v := variable{start: len(p.out.segments), column: p.pos + 1}
	begin := p.pos
	for {
		if err := p.ident(); err != nil {
			return err
		}
		if !p.next('.') {
			break
		}
	}
	v.path = p.in[begin:p.pos]
	if slices.ContainsFunc(p.out.vars, func(o variable) bool { return o.path == v.path }) {
		return p.failAt(begin, "a second variable %s", v.path)
	}
	if p.next('=') {
		for {
			if err := p.segment(true); err != nil {
				return err
			}
			if !p.next('/') {
				break
			}
		}
	} else {
		p.out.segments = append(p.out.segments, segment{kind: wildcard})
	}
	if !p.next('}') {
		return p.failAt(p.pos, "the variable %s has no closing }", v.path)
	}
	v.end = len(p.out.segments)
	p.out.vars = append(p.out.vars, v)
	return nil
}

// ident parses one name of a field path.
func (p *templateParser) ident() error {
	start := p.pos
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		if c != '_' && !isLetter(c) && (p.pos == start || !isDigit(c)) {
			break
		}
		p.pos++
	}
	if p.pos == start {
		return p.failAt(start, "want the name of a field")
	}
	return nil
}

func (p *templateParser) parseVerb() error {
	verb := p.in[p.pos:]
	if verb == "" {
		return p.failAt(p.pos, "an empty verb")
	}
	if i := strings.IndexByte(verb, '%'); i >= 0 {
		return p.failAt(p.pos+i, "a verb has no escapes")
	}
	if err := p.checkChars(p.pos, verb); err != nil {
		return err
	}
	p.out.verb, p.out.last = verb, p.pos+1
	p.pos = len(p.in)
	return nil
}

// checkChars refuses what is no pchar of RFC 3986 §3.3.
func (p *templateParser) checkChars(at int, text string) error {
	for i := range len(text) {
		if c := text[i]; !isLetter(c) && !isDigit(c) && !strings.ContainsRune("-._~!$&'()*+,;=:@%", rune(c)) {
			return p.failAt(at+i, "%q must be escaped in a path", c)
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// dots tells whether a segment means another place (RFC 3986 §5.2.4). Clients resolve
// these; what still has one is on no route.
func dots(segment string) bool { return segment == "." || segment == ".." }

// String writes t in a form that parses to the same.
func (t *template) String() string {
	var b strings.Builder
	vars := t.vars
	if len(t.segments) == 0 {
		b.WriteByte('/')
	}
	for i, s := range t.segments {
		b.WriteByte('/')
		if len(vars) > 0 && vars[0].start == i {
			b.WriteString("{" + vars[0].path)
			if vars[0].end == i+1 && s.kind == wildcard {
				b.WriteByte('}')
				vars = vars[1:]
				continue
			}
			b.WriteByte('=')
		}
		b.WriteString(s.String())
		if len(vars) > 0 && vars[0].end == i+1 {
			b.WriteByte('}')
			vars = vars[1:]
		}
	}
	if t.verb != "" {
		b.WriteString(":" + t.verb)
	}
	return b.String()
}

// pattern is what v captures.
func (t *template) pattern(v variable) string {
	var parts []string
	for _, s := range t.segments[v.start:v.end] {
		parts = append(parts, s.String())
	}
	return strings.Join(parts, "/")
}

func (s segment) String() string {
	switch s.kind {
	case wildcard:
		return "*"
	case deep:
		return "**"
	}
	// A colon may begin a verb.
	return strings.ReplaceAll(url.PathEscape(s.text), ":", "%3A")
}

// deepAt returns where t has "**", len(t.segments) if nowhere.
func (t *template) deepAt() int {
	if i := slices.IndexFunc(t.segments, func(s segment) bool { return s.kind == deep }); i >= 0 {
		return i
	}
	return len(t.segments)
}

// captures appends what the variables of t capture of a path that it fits. One segment is
// unescaped; of several "%2F" stays as it is, and tells a slash within a segment from one
// between two (google/api/http.proto, "Path template syntax").
func (t *template) captures(into []string, p *path) []string {
	wide := len(p.raw) - len(t.segments) // how many more than one "**" stands for
	at := t.deepAt()
	for _, v := range t.vars {
		start, end := v.start, v.end
		if start > at {
			start += wide
		}
		if end > at {
			end += wide
		}
		if v.end == v.start+1 && v.start != at {
			into = append(into, p.segments[start])
			continue
		}
		into = append(into, unescapeAll(strings.Join(p.raw[start:end], "/")))
	}
	return into
}

// unescapeAll undoes the escapes of s but those of slashes. They are well formed.
func unescapeAll(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && !strings.EqualFold(s[i:i+3], "%2F") {
			b = append(b, unescape(s[i:i+3])...)
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}
