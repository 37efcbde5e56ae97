package sniff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	rejectTimeout = time.Second // for the answer, and for the client to read it and close
	rejectDiscard = 64 << 10    // bytes the client may still send meanwhile

	// handshakeFailure is a fatal alert in a record of its own (RFC 8446, sections 5.1 and 6).
	handshakeFailure = "\x15\x03\x03\x00\x02" + "\x02\x28"
)

// Reject takes a connection that a child listener of cmux accepted, as [Handoff] would, tells the client in its own
// protocol why it is not served, and closes it. It returns the kind the connection was and, if its first bytes do not
// show that, why: as that they are neither TLS nor HTTP, or did not come in time.
//
// An HTTP/1 client, and one that cannot be told, gets a 400 (408 if its request did not come in time) with text,
// which should name what to do instead; an HTTP/2 client, if its first request has come, a 400 with text as well, or
// as a gRPC client the status UNAVAILABLE, and in any case a GOAWAY with code and text; a TLS client an alert, which
// holds no text. The text must be of printable ASCII without "%". A client that has sent nothing, that broke what it
// negotiated by ALPN, or whose connection failed, gets no answer.
//
// Closing with bytes unread would make the kernel send a reset, which destroys an answer not read yet. So Reject stops
// writing first and reads on, at most 64 KiB. It may take a second, whatever the client does, and five more for a TLS
// client that takes no bytes: call it on a goroutine of its own.
func Reject(c net.Conn, code http2.ErrCode, text string) (Kind, error) {
	defer c.Close()
	s, ok := sniffed(c)
	if !ok {
		return Unknown, nil
	}
	kind := s.judge()
	s.release()
	answer := s.refusal(code, text)
	if len(answer) == 0 {
		return kind, s.reason
	}
	s.Conn.SetDeadline(time.Now().Add(rejectTimeout))
	if _, err := s.Conn.Write(answer); err != nil {
		return kind, s.reason
	}
	bare := conn{Conn: s.Conn}
	bare.CloseWrite()
	io.CopyN(io.Discard, s.Conn, rejectDiscard)
	return kind, s.reason
}

// refusal returns what to answer, nothing if the connection is only to be closed.
func (c *Conn) refusal(code http2.ErrCode, text string) []byte {
	switch {
	case c.kind == TLS:
		return []byte(handshakeFailure)
	case c.kind == HTTP2, c.kind == GRPC:
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		if !c.greeted {
			fr.WriteSettings() // comes before any other frame (RFC 9113, section 3.4)
		}
		if c.stream > 0 {
			c.answerStream(fr, text)
		}
		fr.WriteGoAway(c.stream, code, []byte(text))
		return b.Bytes()
	case len(c.head) == 0, c.greetErr != nil:
		return nil
	case isTimeout(c.reason):
		return textResponse("408 Request Timeout", text)
	case c.kind == HTTP1, c.kind == Upgrade, c.reason == errNoHTTP, c.reason == io.EOF:
		return textResponse("400 Bad Request", text)
	default:
		return nil
	}
}

// answerStream answers the first request of an HTTP/2 connection: clients show nobody what a GOAWAY says.
func (c *Conn) answerStream(fr *http2.Framer, text string) {
	fields := []hpack.HeaderField{{Name: ":status", Value: "400"}, {Name: "content-type", Value: "text/plain; charset=utf-8"}}
	if c.kind == GRPC { // "Responses", Trailers-Only, in PROTOCOL-HTTP2.md
		fields = []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: "14"}, {Name: "grpc-message", Value: text}}
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0) // the client may have no table
	for _, f := range fields {
		enc.WriteField(f)
	}
	// A client that takes less than this of a stream gets the status alone (RFC 9113, section 6.9.2).
	body := c.kind == HTTP2 && c.window > uint32(len(text))
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: !body})
	if body {
		fr.WriteData(c.stream, true, []byte(text+"\n"))
	}
}

func textResponse(status, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s\n", status, len(text)+1, text)
}

// isTimeout reports whether err is the end of a deadline.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
