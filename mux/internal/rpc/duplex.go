package rpc

import "io"

// Duplex lets a body over HTTP/1 be read while its answer is written, as a stream needs:
// net/http would take the rest of the requests away with the first answer. It reports
// whether the server of c, an http.ResponseController, can do so; one that cannot serves
// one direction after the other.
//
// A body that has a method ReadAhead is told, and may then be read at any time.
func Duplex(c interface{ EnableFullDuplex() error }, body io.Reader) bool {
	if c.EnableFullDuplex() != nil {
		return false
	}
	if b, ok := body.(interface{ ReadAhead() }); ok {
		b.ReadAhead()
	}
	return true
}
