package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bodySource is the JSON that a body is, or a message of it.
type bodySource struct {
	text   []byte
	name   string // for people: which it is
	field  string // of the request that it is, "" for all of it
	before int    // characters before it, all in its first line, when it was decoded
}

// error is INVALID_ARGUMENT for JSON that cannot be decoded. It names line and column, and
// the field of the request, as far as err says at which place that is. Too deep a nesting has
// none: its name would be as deep.
func (s *bodySource) error(err error) error {
	text, at, ok := s.place(err)
	path, where := s.field, ""
	if ok {
		before := s.text[:at]
		where = fmt.Sprintf(" (line %d, column %d)", 1+bytes.Count(before, []byte{'\n'}),
			1+utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]))
		within := jsonPath(s.text, at)
		if path != "" && within != "" && within[0] != '[' {
			path += "."
		}
		path += within
	}
	if path == "" {
		return status.Errorf(codes.InvalidArgument, "%s%s: %.200s", s.name, where, text)
	}
	return withViolation(status.Newf(codes.InvalidArgument, "%s: %.200s%s: %.200s", s.name, path, where, text), path, text)
}

var (
	// position is how protojson tells where something is wrong: line and column from 1, in
	// characters.
	position = regexp.MustCompile(`^(syntax error )?\(line (\d+):(\d+)\)`)
	// namedValue is how it begins to tell that a value is wrong.
	namedValue = regexp.MustCompile(`^(invalid value for \w+) field .*?: `)
)

// place returns what an error says is wrong, and where in s, if it says that.
func (s *bodySource) place(err error) (text string, at int, ok bool) {
	// protojson writes a blank of either kind here, so that nobody relies on it.
	text = strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	if syntax, is := errors.AsType[*json.SyntaxError](err); is {
		at = int(syntax.Offset)
		if text != "unexpected end of JSON input" {
			at-- // it has been read
		}
		return text, at, true
	}
	if text == "unexpected EOF" {
		if !json.Valid(s.text) {
			return text, len(s.text), true
		}
		// protojson looks for the other half of a surrogate pair behind the end.
		at = bytes.LastIndex(s.text, []byte(`\u`))
		return "half of a surrogate pair", max(at, 0), at >= 0
	}
	m := position.FindStringSubmatchIndex(text)
	if m == nil {
		return text, 0, false
	}
	line, _ := strconv.Atoi(text[m[4]:m[5]])
	column, _ := strconv.Atoi(text[m[6]:m[7]])
	text = strings.TrimPrefix(strings.TrimSpace(text[:max(m[3], 0)])+text[m[1]:], ": ")
	text = namedValue.ReplaceAllString(text, "$1: ") // the field is in the path
	if line == 1 {
		column -= s.before
	}
	for ; line > 1; line-- {
		n := bytes.IndexByte(s.text[at:], '\n')
		if n < 0 {
			return text, 0, false
		}
		at += n + 1
	}
	for ; column > 1 && at < len(s.text); column-- {
		_, n := utf8.DecodeRune(s.text[at:])
		at += n
	}
	return text, at, true
}

// jsonPath returns which value of the JSON in b, or whose name, is at an offset: names with
// dots between them and indices in brackets; "" for b itself, and where it is not JSON up to
// there.
func jsonPath(b []byte, offset int) string {
	var path jsonLevels
	dec := json.NewDecoder(bytes.NewReader(b))
	name := false // the next token is one
	for {
		tok, err := dec.Token()
		if err != nil {
			return ""
		}
		delim, isDelim := tok.(json.Delim)
		closes := isDelim && (delim == '}' || delim == ']')
		if closes {
			path = path[:len(path)-1]
		}
		if text, ok := tok.(string); ok && name {
			path[len(path)-1].name = text
		}
		if dec.InputOffset() > int64(offset) {
			return path.String()
		}
		switch {
		case name && !closes:
			name = false
		case isDelim && !closes:
			path = append(path, jsonLevel{array: delim == '['})
			name = delim == '{'
		case len(path) == 0:
			name = false
		default:
			top := &path[len(path)-1]
			top.index++
			name = !top.array
		}
	}
}

// jsonLevels are the objects and arrays around a value, the outermost first.
type jsonLevels []jsonLevel

type jsonLevel struct {
	array bool
	index int
	name  string
}

func (ls jsonLevels) String() string {
	var b strings.Builder
	for _, l := range ls {
		switch {
		case l.array:
			b.WriteString("[" + strconv.Itoa(l.index) + "]")
			continue
		case b.Len() > 0:
			b.WriteByte('.')
		}
		b.WriteString(l.name)
	}
	return b.String()
}
