package rest

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bodyError is INVALID_ARGUMENT for a body that cannot be decoded. It names the field,
// where err says at which place in b that is. within is the field of the request that b is,
// "" for all of it.
func bodyError(within string, b []byte, err error) error {
	// protojson writes a blank of either kind here, so that nobody relies on it.
	text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	if at, ok := errorOffset(b, text); ok {
		if path := jsonPath(b, at); path != "" {
			st := status.Newf(codes.InvalidArgument, "body: %.200s: %.200s", path, text)
			if within != "" && path[0] != '[' {
				within += "."
			}
			return withViolation(st, within+path, text)
		}
	}
	return status.Errorf(codes.InvalidArgument, "body: %.200s", text)
}

// position is how protojson tells where something is wrong: line and column from 1, in
// characters.
var position = regexp.MustCompile(`\(line (\d+):(\d+)\)`)

// errorOffset returns where in b an error is.
func errorOffset(b []byte, text string) (int, bool) {
	m := position.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	at := 0
	for ; line > 1; line-- {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return 0, false
		}
		at += n + 1
	}
	for ; column > 1 && at < len(b); column-- {
		_, n := utf8.DecodeRune(b[at:])
		at += n
	}
	return at, true
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
