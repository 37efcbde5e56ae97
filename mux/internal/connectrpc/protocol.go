package connectrpc

import (
	"net/http"
	"strings"
)

// protocol is what a request speaks, by its content type.
type protocol uint8

const (
	connectUnary  protocol = iota // or nothing that is known here
	connectStream                 // application/connect+…
	grpc                          // application/grpc, alone or with a "+" suffix
	grpcWeb                       // application/grpc-web, likewise
	grpcWebText                   // application/grpc-web-text, likewise
)

// streams tells whether messages come in envelopes, any number of them.
func (p protocol) streams() bool { return p != connectUnary }

// protocolOf parses the content type. Parameters do not matter, as to the split,
// also when they are malformed.
func protocolOf(r *http.Request) protocol {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	media, _, codec := strings.Cut(strings.ToLower(strings.TrimSpace(media)), "+")
	switch media {
	case "application/connect":
		if codec {
			return connectStream
		}
	case "application/grpc":
		return grpc
	case "application/grpc-web":
		return grpcWeb
	case "application/grpc-web-text":
		return grpcWebText
	}
	return connectUnary
}

// Streams tells whether r may be a stream, whose client may fall silent between
// two messages for as long as it likes.
func Streams(r *http.Request) bool { return protocolOf(r).streams() }
