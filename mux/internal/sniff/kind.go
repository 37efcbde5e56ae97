package sniff

import (
	"crypto/tls"
	"errors"

	"golang.org/x/net/http2"
)

// A Kind is what the first bytes of a connection look like.
type Kind uint8

const (
	// Unknown is anything that is not one of the others, or did not get as far as to be told in time.
	Unknown Kind = iota
	// TLS starts with a handshake record (RFC 8446, section 5.1).
	TLS
	// GRPC is HTTP/2 whose first request has a content-type of application/grpc or application/grpc+something but
	// json, with any parameters. gRPC-Web is HTTP2 or HTTP1.
	GRPC
	// HTTP2 is any other connection that starts with the client preface (RFC 9113, section 3.4): also one that stays
	// silent after it until the time ends, and one whose frames before the first request are wrong, too many, or want
	// an answer, which is for the server to give.
	HTTP2
	// Upgrade is an HTTP/1 request to switch to WebSocket (RFC 6455, section 4.1).
	Upgrade
	// HTTP1 is any other start with a method and a space: also one whose header is larger than the budget, which
	// the server answers.
	HTTP1
)

// String returns the name in lower case: "unknown", "tls", "grpc", "http2", "upgrade" or "http1".
func (k Kind) String() string {
	switch k {
	case TLS:
		return "tls"
	case GRPC:
		return "grpc"
	case HTTP2:
		return "http2"
	case Upgrade:
		return "upgrade"
	case HTTP1:
		return "http1"
	default:
		return "unknown"
	}
}

// Why a verdict is what it is, where that is not plain from the bytes.
var (
	errBudget = errors.New("sniff: more bytes than the budget")
	errALPN   = errors.New("sniff: protocol is not the one negotiated by ALPN")
	errNoHTTP = errors.New("sniff: neither TLS nor HTTP")
)

// recordHandshake is the content type of the record a TLS client sends first (RFC 8446, section 5.1).
const recordHandshake = 0x16

// classify reads as much of c as it takes to tell its kind. The error says why it is Unknown, or why the look at an
// HTTP2 connection ended early.
func (c *Conn) classify() (Kind, error) {
	if err := c.need(1); err != nil {
		return Unknown, err
	}
	if c.head[0] == recordHandshake {
		return TLS, nil
	}
	isHTTP2, err := c.hasPreface()
	if err != nil {
		return Unknown, err
	}
	// A browser tricked into speaking one protocol at a port that takes it for the other is how cross-protocol
	// attacks begin (https://alpaca-attack.com), so what was negotiated must hold.
	switch alpn := c.negotiated(); {
	case isHTTP2 && alpn == "http/1.1", !isHTTP2 && alpn == http2.NextProtoTLS:
		return Unknown, errALPN
	case isHTTP2:
		return c.classifyHTTP2()
	default:
		return c.classifyHTTP1()
	}
}

// negotiated returns the protocol agreed on by ALPN, "" if there is none or c is cleartext.
func (c *Conn) negotiated() string {
	if s := tlsState(c.Conn); s != nil {
		return s.NegotiatedProtocol
	}
	return ""
}

// tlsState returns the state of c, nil if it is cleartext.
func tlsState(c any) *tls.ConnectionState {
	if t, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		s := t.ConnectionState()
		return &s
	}
	return nil
}
