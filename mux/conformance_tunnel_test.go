package mux_test

import (
	"bufio"
	"bytes"
	"encoding/binary"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"oneport/mux/internal/socket/sockettest"
)

// tunnelBytes is an endpoint whose messages are bytes of HTTP/2: each is a gRPC call, and
// the first begins with what a client must send before.
var tunnelBytes = sockettest.Endpoint{
	Path:        "/grpc-ws-tunnel",
	Subprotocol: "grpc-ws-tunnel.v1",
	Kind:        sockettest.Binary,
	Message: func(n int, content, filler string) (string, []string) {
		message := field(1, content)
		return tunnelCall(n, message, filler), binaries(message)
	},
	Replies:    tunnelReplies,
	Stream:     true,
	OtherKind:  "close 1003",
	MaxBytes:   1 << 20,
	MaxContent: 60_000, // what the window of a new connection has room for
	MaxFrames:  maxFrames,
}

// tunnelCall is the call with n others before, and filler in frames of a type that
// nobody knows (RFC 9113 §4.1).
func tunnelCall(n int, message, filler string) string {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	if n == 0 {
		const huge = 1<<31 - 1
		b.WriteString(http2.ClientPreface)
		// So that flow control is of the WebSocket alone.
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: huge})
		fr.WriteWindowUpdate(0, huge-65535)
	}
	var header bytes.Buffer
	enc := hpack.NewEncoder(&header)
	enc.SetMaxDynamicTableSize(0) // one call knows nothing of the others
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", echoPath}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	stream := uint32(2*n + 1)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: header.Bytes(), EndHeaders: true})
	data := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	data = append(data, message...)
	for len(data) > maxFrame {
		fr.WriteData(stream, false, data[:maxFrame])
		data = data[maxFrame:]
	}
	fr.WriteData(stream, true, data)
	for len(filler) > 0 {
		part := filler[:min(len(filler), maxFrame)]
		fr.WriteRawFrame(0xfa, 0, 0, []byte(part))
		filler = filler[len(part):]
	}
	return b.String()
}

const maxFrame = 16 << 10 // of HTTP/2

// tunnelReplies reads the answer of each call, when it has ended, as a binary message;
// and what the WebSocket itself has to say as it comes.
func tunnelReplies(r *bufio.Reader) func() string {
	var stream []byte              // of HTTP/2, not taken apart yet
	answers := map[uint32][]byte{} // by HTTP/2 stream
	return func() string {
		for {
			for len(stream) >= 9 {
				end := 9 + int(binary.BigEndian.Uint32(stream)>>8)
				if len(stream) < end {
					break
				}
				kind, flags, id, payload := http2.FrameType(stream[3]), http2.Flags(stream[4]), binary.BigEndian.Uint32(stream[5:]), stream[9:end]
				stream = stream[end:]
				if kind == http2.FrameData {
					answers[id] = append(answers[id], payload...)
				}
				if (kind == http2.FrameData || kind == http2.FrameHeaders) && flags.Has(http2.FlagDataEndStream) {
					if len(answers[id]) < 5 {
						return "call without an answer"
					}
					return sockettest.Describe(sockettest.Fin|sockettest.Binary, string(answers[id][5:]))
				}
			}
			first, payload, err := sockettest.ReadFrame(r)
			switch {
			case err != nil:
				return sockettest.Outcome(err)
			case first != sockettest.Fin|sockettest.Binary:
				return sockettest.Describe(first, payload)
			}
			stream = append(stream, payload...)
		}
	}
}
