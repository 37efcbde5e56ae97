package sniff

import (
	"io"
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
