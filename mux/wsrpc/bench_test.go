package wsrpc_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
)

// BenchmarkUnary counts the server and a client that costs little: it answers each
// answer with the next call, those that come together with one write. scripts/bench
// measures the server alone, and others beside it.
func BenchmarkUnary(b *testing.B) {
	for _, size := range []int{32, 4 << 10} {
		for _, inFlight := range []int{1, 64} {
			b.Run(fmt.Sprintf("size=%d/inFlight=%d", size, inFlight), func(b *testing.B) {
				pass := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
					return handler(ctx, req)
				}
				s := startWith(b, rpc.Config{UnaryInterceptors: []grpc.UnaryServerInterceptor{pass}}, services)
				r := newRawCalls(b, s, size)
				b.ReportAllocs()
				for b.Loop() {
					if r.inFlight == inFlight {
						r.answers()
					}
					r.call()
				}
				for r.inFlight > 0 {
					r.answers()
				}
			})
		}
	}
}

// BenchmarkPush counts the server and a client that only reads, of calls that each push
// so many messages. One operation is a message.
func BenchmarkPush(b *testing.B) {
	const each = 10_000
	for _, size := range []int{32, 4 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := startWith(b, rpc.Config{}, services)
			r := newRaw(b, s, "Expand", &echopb.ExpandRequest{Message: strings.Repeat("x", size), Count: each})
			r.request = protowire.AppendVarint(protowire.AppendTag(r.request, 7, protowire.VarintType), 1<<30)
			r.call() // the first is written by itself
			skip := func() {
				if err := r.skip(); err != nil {
					b.Fatal(err)
				}
			}
			skip() // the hello
			b.ReportAllocs()
			for left := each; b.Loop(); left-- {
				if left == 0 {
					skip() // the end
					r.call()
					r.write()
					left = each
				}
				skip()
			}
		})
	}
}

// rawCalls writes calls as bytes.
type rawCalls struct {
	b        *testing.B
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	request  []byte // frame without its call
	last     uint64
	inFlight int
}

func newRawCalls(b *testing.B, s *server, size int) *rawCalls {
	r := newRaw(b, s, "Echo", &echopb.EchoRequest{Message: strings.Repeat("x", size)})
	r.call()
	for range 2 { // the hello comes first
		if err := r.skip(); err != nil {
			b.Fatal(err)
		}
	}
	r.inFlight = 0
	return r
}

// newRaw connects, and gets calls of a method of the echo service ready.
func newRaw(b *testing.B, s *server, method string, m proto.Message) *rawCalls {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "ws://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	r := &rawCalls{b: b, conn: conn, in: bufio.NewReaderSize(conn, 1<<20)}
	fmt.Fprint(conn, "GET /grpc-ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: grpc-ws.v1\r\nUser-Agent: bench\r\n\r\n")
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		b.Fatal(resp, err)
	}
	message, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	open := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "/echo.v1.EchoService/"+method)
	for _, kv := range [][2]string{{"authorization", "Bearer 0123456789abcdef"}, {"x-request-id", "4f1c6ad0-8f5e"}, {"x-tenant", "blue"}} {
		pair := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), kv[0])
		pair = protowire.AppendString(protowire.AppendTag(pair, 2, protowire.BytesType), kv[1])
		open = protowire.AppendBytes(protowire.AppendTag(open, 2, protowire.BytesType), pair)
	}
	r.request = protowire.AppendBytes(protowire.AppendTag(r.request, 2, protowire.BytesType), open)
	r.request = protowire.AppendBytes(protowire.AppendTag(r.request, 3, protowire.BytesType), message)
	return r
}

// call adds a call to what is written next.
func (r *rawCalls) call() {
	r.last++
	r.inFlight++
	n := 1 + protowire.SizeVarint(r.last) + len(r.request)
	r.out = append(r.out, 0x82)
	if n < 126 {
		r.out = append(r.out, 0x80|byte(n))
	} else {
		r.out = binary.BigEndian.AppendUint16(append(r.out, 0x80|126), uint16(n))
	}
	r.out = append(r.out, 0, 0, 0, 0) // a key that changes nothing
	r.out = protowire.AppendVarint(append(r.out, 1<<3), r.last)
	r.out = append(r.out, r.request...)
	if r.last == 1 {
		r.write()
	}
}

func (r *rawCalls) write() {
	if _, err := r.conn.Write(r.out); err != nil {
		r.b.Fatal(err)
	}
	r.out = r.out[:0]
}

// answers takes those that have come, and waits for one.
func (r *rawCalls) answers() {
	if len(r.out) > 0 {
		r.write()
	}
	for first := true; first || r.in.Buffered() > 0; first = false {
		if err := r.skip(); err != nil {
			r.b.Fatal(err)
		}
		r.inFlight--
	}
}

// skip reads one WebSocket message.
func (r *rawCalls) skip() error {
	h, err := r.in.Peek(4)
	if err != nil {
		return err
	}
	n := 2 + int(h[1])
	if h[1] == 126 {
		n = 4 + int(binary.BigEndian.Uint16(h[2:]))
	}
	if h[0] != 0x82 {
		return fmt.Errorf("frame %x", h)
	}
	if _, err = r.in.Discard(n); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
