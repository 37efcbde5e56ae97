package wsrpc

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"oneport/mux/internal/socket"
)

// frame is one frame of grpc-ws.v1 (PROTOCOL.md, section 2), in no encoding. What
// is absent is zero or nil; a message and metadata that are there and empty are not
// nil.
type frame struct {
	call uint32

	open      *openFrame
	credit    uint32
	header    metadata.MD
	message   []byte // encoded as the frame is
	halfClose bool
	cancel    bool
	end       *endFrame

	hello  *helloFrame
	ping   *uint64
	pong   *uint64
	goAway *goAwayFrame

	last *lastOpen // for the decoder of protobuf; may be nil
}

type openFrame struct {
	method    string
	metadata  metadata.MD
	timeoutMS uint64 // zero: none

	repeats bool   // the metadata is that of lastOpen, and not here
	raw     []byte // what the metadata was decoded from, if there is a lastOpen
}

// lastOpen is what a receiver remembers from one open to the next: calls of one client
// tend to be alike. HPACK does the same for native gRPC.
type lastOpen struct {
	space  openFrame // for the open that is decoded
	room   int       // keys that its metadata is to have room for beside its own
	method string
	raw    []byte
	whole  metadata.MD // of the call; for the receiver
}

// maxRaw is how many bytes are remembered of metadata, and of the name of a method.
const maxRaw = 1 << 10

// keep remembers the metadata of o, which the receiver has accepted.
func (l *lastOpen) keep(o *openFrame) bool {
	if o.raw == nil || len(o.raw) > maxRaw {
		return false
	}
	l.raw = append(l.raw[:0], o.raw...)
	return true
}

// name is b as a string.
func (l *lastOpen) name(b []byte) string {
	if l == nil || len(b) > maxRaw {
		return string(b)
	}
	if string(b) != l.method {
		l.method = string(b)
	}
	return l.method
}

type endFrame struct {
	code    uint32 // of gRPC
	message string
	details []*anypb.Any
	trailer metadata.MD
}

type helloFrame struct {
	window     uint32 // zero: not told; likewise the others
	maxMessage uint32
	maxCalls   uint32
	metadata   metadata.MD
}

type goAwayFrame struct {
	lastCall uint32
	reason   string
}

// append appends the encoding of f to b.
func (f *frame) append(b []byte, kind socket.Kind) ([]byte, error) {
	if kind == socket.Text {
		return f.appendJSON(b)
	}
	return f.appendBinary(b), nil
}

// parse decodes b into f, which is zero. In protobuf the message of f is a part of b,
// in JSON a copy. The error is fit for a close frame.
func (f *frame) parse(kind socket.Kind, b []byte) error {
	if kind == socket.Text {
		return f.parseJSON(b)
	}
	return f.parseBinary(b)
}

// typePrefix is what a detail's type is under where it does not say (section 2).
const typePrefix = "type.googleapis.com/"

// typeName is how a frame has the type of a detail whose google.protobuf.Any has url.
func typeName(url string) string {
	if name, ok := strings.CutPrefix(url, typePrefix); ok && typeURL(name) == url {
		return name
	}
	return url
}

// typeURL is the inverse of typeName. A detail without a type stays without.
func typeURL(name string) string {
	if name == "" || strings.Contains(name, "/") {
		return name
	}
	return typePrefix + name
}

// frameRoom is what a frame may have beside its message (section 5). Were there no
// limit, metadata and unknown keys of a large frame would grow a lot by being decoded.
const frameRoom = 64 << 10

var errTooMuch = fmt.Errorf("more than %d bytes beside the message", frameRoom)

// parseCode is the close code for an error of parse.
func parseCode(err error) int {
	if err == errTooMuch {
		return socket.CloseTooBig
	}
	return socket.CloseInvalid
}
