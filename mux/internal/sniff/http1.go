package sniff

import (
	"bytes"
	"errors"
	"strings"
)

// maxMethod is the length of the longest method taken for one. Of those registered with IANA, only UPDATEREDIRECTREF
// has more characters.
const maxMethod = 16

// classifyHTTP1 wants a method, and then looks through the header of the request for an upgrade to WebSocket.
func (c *Conn) classifyHTTP1() (Kind, error) {
	for i := 0; ; i++ {
		if err := c.need(i + 1); err != nil {
			return Unknown, err
		}
		b := c.head[i]
		if b == ' ' && i > 0 {
			break
		}
		if i == maxMethod || !isTchar(b) {
			return Unknown, errNoHTTP
		}
	}

	line, next, err := c.line(0)
	version := isHTTP1Line(line)
	var upgrade, connection bool
	for err == nil {
		line, next, err = c.line(next)
		if err != nil || len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Upgrade")):
			upgrade = upgrade || hasToken(value, "websocket")
		case bytes.EqualFold(name, []byte("Connection")):
			connection = connection || hasToken(value, "upgrade")
		}
	}
	switch {
	case errors.Is(err, errBudget):
		return HTTP1, nil // the server answers 431
	case err != nil:
		return Unknown, err
	case version && upgrade && connection:
		return Upgrade, nil
	default:
		return HTTP1, nil
	}
}

// line returns the line that begins at start, without its end, and where the next one begins. A lone LF ends a line,
// as it does for net/http.
func (c *Conn) line(start int) (line []byte, next int, err error) {
	for scanned := start; ; {
		if i := bytes.IndexByte(c.head[scanned:], '\n'); i >= 0 {
			end := scanned + i
			return bytes.TrimSuffix(c.head[start:end], []byte("\r")), end + 1, nil
		}
		scanned = len(c.head)
		if err := c.need(scanned + 1); err != nil {
			return nil, 0, err
		}
	}
}

// isHTTP1Line reports whether a request line ends in a version of HTTP/1.
func isHTTP1Line(line []byte) bool {
	i := bytes.LastIndexByte(line, ' ')
	return i >= 0 && bytes.HasPrefix(line[i+1:], []byte("HTTP/1."))
}

// hasToken reports whether a comma-separated field value holds token, in any case (RFC 9110, section 5.6.1).
func hasToken(value []byte, token string) bool {
	for part := range bytes.SplitSeq(value, []byte(",")) {
		if strings.EqualFold(string(bytes.TrimSpace(part)), token) {
			return true
		}
	}
	return false
}

// isTchar reports whether b may stand in a token (RFC 9110, section 5.6.2).
func isTchar(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	default:
		return strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
	}
}
