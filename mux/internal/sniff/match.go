package sniff

import (
	"io"
	"net"
	"slices"

	"github.com/soheilhy/cmux"
)

// Match returns a matcher for connections of one of the kinds. It is for a cmux whose root is a [Listener]; it
// matches nothing else. The matchers of one cmux look at a connection once between them, and a panic in there is
// logged and makes the connection [Unknown].
func Match(kinds ...Kind) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool {
		c, ok := w.(*Conn)
		return ok && slices.Contains(kinds, c.judge())
	}
}

// KindOf returns the kind of a connection that a child listener of cmux accepted, before [Handoff] or [Reject] takes
// it: the verdict of the matchers. A connection that is not of a [Listener] is Unknown.
func KindOf(c net.Conn) Kind {
	if s, ok := sniffed(c); ok {
		return s.judge()
	}
	return Unknown
}
