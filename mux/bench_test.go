package mux_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"oneport/mux"
	hellopb "oneport/proto/helloworld"
	"oneport/services/greeter"
)

// BenchmarkWebSocketUnary makes unary calls in turn on one WebSocket. The client
// writes the same bytes each time and only counts those that come back, so that
// what is allocated is the server's.
func BenchmarkWebSocketUnary(b *testing.B) {
	for _, size := range []int{32, 4 << 10} {
		b.Run(fmt.Sprintf("size=%dB", size), func(b *testing.B) {
			p := start(b, cleartextOnly, func(s *mux.Server) { greeter.Register(s) })
			c := p.socket("ws", "/grpc-ws").NetConn()
			c.SetDeadline(time.Time{})
			name := strings.Repeat("x", size)
			request := binaryFrame(b, true, &hellopb.HelloRequest{Name: name})
			answer := binaryFrame(b, false, &hellopb.HelloReply{Message: "Hello " + name})
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// binaryFrame encodes a message of less than 64 KiB (RFC 6455 §5.2). The mask of a
// client's is zero, which leaves the payload as it is.
func binaryFrame(tb testing.TB, masked bool, m proto.Message) []byte {
	tb.Helper()
	payload, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	frame := []byte{0x82, byte(len(payload))}
	if len(payload) > 125 {
		frame[1] = 126
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(payload)))
	}
	if masked {
		frame[1] |= 0x80
		frame = append(frame, 0, 0, 0, 0)
	}
	return append(frame, payload...)
}
