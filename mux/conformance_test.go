package mux_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"oneport/mux"
	"oneport/mux/internal/socket/sockettest"
)

// The WebSocket cases (package sockettest) at every endpoint there is, by a client that
// writes bytes.

const (
	conformanceLimit = 96 << 10 // of a message of any protocol
	maxFrames        = 1024     // of a WebSocket message
)

// endpoints are those of a server with conformanceLimit, in each kind of messages.
var endpoints = map[string]sockettest.Endpoint{
	"echo text":         sockettest.Echo("/ws", sockettest.Text, conformanceLimit, maxFrames),
	"echo binary":       sockettest.Echo("/ws", sockettest.Binary, conformanceLimit, maxFrames),
	"one method text":   oneMethodText,
	"one method binary": oneMethodBinary,
	"grpc-ws.v1 text":   manyCallsText,
	"grpc-ws.v1 binary": manyCallsBinary,
	"grpc-websockets":   bodyParts,
	"tunnel":            tunnelBytes,
}

// Each message is a call, and a call ends with an answer of the same encoding.
var (
	oneMethodText = sockettest.Endpoint{
		Path: "/grpc-ws" + echoPath,
		Kind: sockettest.Text,
		Message: func(_ int, content, filler string) (string, []string) {
			return fmt.Sprintf(`{"message":"%s"%s}`, content, fillerJSON(filler)), texts(`{"message":"` + content + `"}`)
		},
		Empty:      []string{"close 1000"}, // the half-close
		NotJSON:    "close 4003",           // INVALID_ARGUMENT
		MaxBytes:   conformanceLimit,
		MaxContent: conformanceLimit,
		MaxFrames:  maxFrames,
	}
	oneMethodBinary = sockettest.Endpoint{
		Path: "/grpc-ws" + echoPath,
		Kind: sockettest.Binary,
		Message: func(_ int, content, filler string) (string, []string) {
			message := field(1, content)
			return message + fillerField(filler), binaries(message)
		},
		Empty:      binaries(""),
		MaxBytes:   conformanceLimit,
		MaxContent: conformanceLimit,
		MaxFrames:  maxFrames,
	}
)

// Each message is a frame that is all of a call, numbered from 1.
var (
	manyCallsText = sockettest.Endpoint{
		Path:        "/grpc-ws",
		Subprotocol: "grpc-ws.v1",
		Kind:        sockettest.Text,
		Message: func(n int, content, filler string) (string, []string) {
			message := `{"message":"` + content + `"}`
			request := fmt.Sprintf(`{"call":%d,"open":{"method":"%s"},"message":%s%s}`, n+1, echoPath, message, fillerJSON(filler))
			replies := texts(fmt.Sprintf(`{"call":%d,"message":%s,"end":{}}`, n+1, message))
			if n == 0 {
				hello := fmt.Sprintf(`{"hello":{"window":65536,"maxMessage":%d,"maxCalls":256}}`, conformanceLimit)
				replies = append(texts(hello), replies...)
			}
			return request, replies
		},
		Empty:      []string{"close 1007"},
		NotJSON:    "close 1007",
		MaxBytes:   conformanceLimit + 65536,
		MaxContent: conformanceLimit - len(`{"message":""}`),
		MaxFrames:  maxFrames,
	}
	manyCallsBinary = sockettest.Endpoint{
		Path:        "/grpc-ws",
		Subprotocol: "grpc-ws.v1",
		Kind:        sockettest.Binary,
		Message: func(n int, content, filler string) (string, []string) {
			message := field(3, field(1, content))
			replies := binaries(number(1, n+1) + message + field(6, ""))
			if n == 0 {
				replies = append(binaries(helloFrame), replies...)
			}
			return number(1, n+1) + field(2, field(1, echoPath)) + message + fillerField(filler), replies
		},
		Empty:      binaries(helloFrame), // and nothing more to say
		MaxBytes:   conformanceLimit + 65536,
		MaxContent: conformanceLimit - 4, // tag and length,
		MaxFrames:  maxFrames,
	}
	helloFrame = field(9, number(1, 65536)+number(2, conformanceLimit)+number(3, 256))
)

// bodyParts is an endpoint whose messages are an envelope each, of one bidi stream.
var bodyParts = sockettest.Endpoint{
	Path:        "/echo.v1.EchoService/Converse",
	Subprotocol: "grpc-websockets",
	Kind:        sockettest.Binary,
	Opening:     []byte{}, // a header without metadata
	Message: func(n int, content, filler string) (string, []string) {
		message := field(1, content)
		request := envelope(0, message+fillerField(filler))
		var replies []string
		if n == 0 {
			replies = binaries(bodyHeader)
		}
		if len(request)-5 > conformanceLimit {
			return "\x00" + request, bodyEnd(replies, fmt.Sprintf(
				"grpc-status: 8\r\ngrpc-message: grpc: received message larger than max (%d vs. %d)\r\n", len(request)-5, conformanceLimit))
		}
		return "\x00" + request, append(replies, binaries(envelope(0, message))...)
	},
	Empty: bodyEnd(binaries(bodyHeader),
		"grpc-status: 3\r\ngrpc-message: a message begins with a byte 0, or is a single byte 1 after the last\r\n"),
	OtherKind: "close 1003",
	TooLarge: append(binaries(envelope(0x80, fmt.Sprintf(
		"grpc-status: 8\r\ngrpc-message: grpc: received message larger than max (%d)\r\n", conformanceLimit))), "close 1009"),
	MaxBytes:   conformanceLimit + 65536,
	MaxContent: conformanceLimit + 65536,
	MaxFrames:  maxFrames,
}

var bodyHeader = envelope(0x80, "content-type: application/grpc-web+proto\r\n")

// bodyEnd are the replies to what ends the call with this trailer, after others.
func bodyEnd(replies []string, trailer string) []string {
	return append(replies, append(binaries(envelope(0x80, trailer)), "close 1000")...)
}

func envelope(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

func texts(s string) []string {
	return []string{sockettest.Describe(sockettest.Fin|sockettest.Text, s)}
}
func binaries(s string) []string {
	return []string{sockettest.Describe(sockettest.Fin|sockettest.Binary, s)}
}

// field and number are fields of protobuf.
func field(n protowire.Number, s string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s))
}

func number(n protowire.Number, v int) string {
	return string(protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), uint64(v)))
}

// fillerJSON and fillerField are what servers pass over, a key and a field that they do
// not know.
func fillerJSON(s string) string {
	if s == "" {
		return ""
	}
	return `,"filler":"` + s + `"`
}

func fillerField(s string) string {
	if s == "" {
		return ""
	}
	return field(1000, s)
}

// dialer returns what opens connections, raw or over TLS.
func (p *port) dialer(secure bool) func() net.Conn {
	if secure {
		return func() net.Conn { return p.secure() }
	}
	return func() net.Conn { return p.dial() }
}

var schemes = map[string]bool{"ws": false, "wss": true}

func TestWebSocketConformance(t *testing.T) {
	p := start(t, both, services, mux.WithMaxMessageBytes(conformanceLimit))
	for scheme, secure := range schemes {
		for name, e := range endpoints {
			t.Run(name+" "+scheme, func(t *testing.T) { sockettest.Run(t, e, p.dialer(secure)) })
		}
	}
}

// oneAPath are endpoints for cases that are not about messages.
var oneAPath = []sockettest.Endpoint{endpoints["echo text"], oneMethodText, manyCallsBinary, bodyParts, tunnelBytes}
