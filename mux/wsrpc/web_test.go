package wsrpc

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// openWeb opens a socket of grpc-websockets to a method of s.
func openWeb(t testing.TB, s *script, method string, maxMessage int) *pipeClient {
	t.Helper()
	reg := rpc.NewRegistry(rpc.Config{MaxMessageBytes: maxMessage})
	s.register(reg)
	p := newPipeClient(t, socket.Config{MaxMessageBytes: maxMessage})
	p.open("/t/"+method, WebSubprotocol, nil, NewHandler(reg, p.sockets).ServeWeb)
	return p
}

func (p *pipeClient) sendBinary(messages ...string) {
	p.t.Helper()
	for _, m := range messages {
		if err := p.ws.WriteMessage(websocket.BinaryMessage, []byte(m)); err != nil {
			p.t.Fatalf("send %.200q: %v", m, err)
		}
	}
}

// envelope is a message of gRPC-Web, or lines, with its prefix.
func envelope(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

// said is the envelope of a text.
func said(s string) string { return envelope(0, string(field(1, s))) }

func field(n byte, s string) []byte { return append([]byte{n<<3 | 2, byte(len(s))}, s...) }

const (
	finish    = "\x01"
	webHeader = "content-type: application/grpc-web+proto\r\n"
	closeOK   = "websocket: close 1000 (normal)"
)

// whole is what a client gets of a call with these messages and the lines of a trailer.
func whole(trailer string, messages ...string) []string {
	got := []string{envelope(0x80, webHeader)}
	for _, m := range messages {
		got = append(got, said(m))
	}
	return append(got, envelope(0x80, trailer), closeOK)
}

// failed is what it gets of one that has failed without messages.
func failed(code codes.Code, message string) []string {
	return whole(fmt.Sprintf("grpc-status: %d\r\ngrpc-message: %s\r\n", code, message))
}

const statusOK = "grpc-status: 0\r\n"

// TestWebWire has the bytes of whole calls.
func TestWebWire(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "ö%\n").WithDetails(&wrapperspb.BoolValue{})
	if err != nil {
		t.Fatal(err)
	}
	detail := string(field(1, "type.googleapis.com/google.protobuf.BoolValue"))
	raw := "\x08\x05" + string(field(2, "ö%\n")) + string(field(3, detail))
	gone := "grpc-status: 5\r\ngrpc-message: %C3%B6%25%0A\r\ngrpc-status-details-bin: " + base64.RawStdEncoding.EncodeToString([]byte(raw)) + "\r\n"
	s := &script{
		unary: func(ctx context.Context, in *text) (*text, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			switch in.Value {
			case "metadata":
				grpc.SetHeader(ctx, metadata.Pairs("h-bin", md.Get("k-bin")[0]))
				grpc.SetTrailer(ctx, metadata.Pairs("t", strings.Join(md.Get("k"), "+"), "connection", "close"))
			case "detailed":
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-status-details-bin", "forged", "grpc-status", "0"))
				return nil, detailed.Err()
			case "invalid":
				return nil, status.Error(codes.NotFound, "n\xff")
			}
			return in, nil
		},
		stream: echoes.stream,
	}
	const unary, bidi, client = "Unary", "Bidi", "Client"
	for _, tt := range []struct {
		name, method string
		header       string
		send         []string
		want         []string
	}{
		{"unary", unary, "", []string{"\x00" + said("a"), finish}, whole(statusOK, "a")},
		{"unary without a half-close", unary, "", []string{"\x00" + said("a")}, whole(statusOK, "a")},
		{"empty message", unary, "", []string{"\x00" + envelope(0, ""), finish}, []string{
			envelope(0x80, webHeader), envelope(0, ""), envelope(0x80, statusOK), closeOK}},
		{"header of a browser", unary, "content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n", []string{"\x00" + said("a")}, whole(statusOK, "a")},
		{"header with its end", unary, "x-grpc-web: 1\r\n\r\n", []string{"\x00" + said("a")}, whole(statusOK, "a")},
		{"header without the last line end", unary, "Content-Type:application/grpc-web;x=y", []string{"\x00" + said("a")}, whole(statusOK, "a")},
		{"metadata", unary, "K: 1\r\nk: \t2, 3 \r\nk-bin: AAE,Ag==\r\n", []string{"\x00" + said("metadata")}, []string{
			envelope(0x80, webHeader+"h-bin: AAE\r\n"), said("metadata"), envelope(0x80, statusOK+"t: 1+2, 3\r\n"), closeOK}},
		{"details", unary, "", []string{"\x00" + said("detailed")}, whole(gone)},
		{"message that is not UTF-8", unary, "", []string{"\x00" + said("invalid")}, failed(codes.NotFound, "n%EF%BF%BD")},
		{"bidi", bidi, "", []string{"\x00" + said("a"), "\x00" + said("b"), finish}, whole(statusOK, "a", "b")},
		{"no message", bidi, "", []string{finish}, whole(statusOK)},
		{"nothing where there must be", unary, "", []string{finish}, failed(codes.Unimplemented, "/t/Unary takes one request message and got none")},
		{"client stream", client, "", []string{"\x00" + said("a"), finish}, whole(statusOK, "a")},

		{"envelopes in one message", bidi, "", []string{"\x00" + said("a") + said("b") + said("c"), finish}, whole(statusOK, "a", "b", "c")},
		{"an envelope in many", bidi, "", []string{"\x00" + said("ab")[:3], "\x00", "\x00" + said("ab")[3:7], "\x00" + said("ab")[7:] + said("c"), finish}, whole(statusOK, "ab", "c")},
		{"half-close inside an envelope", bidi, "", []string{"\x00" + said("ab")[:6], finish}, failed(codes.InvalidArgument, "half-close inside an envelope")},
		{"half-close inside a prefix", bidi, "", []string{"\x00\x00", finish}, failed(codes.InvalidArgument, "half-close inside an envelope")},
		{"compressed", bidi, "", []string{"\x00" + envelope(1, "x")}, failed(codes.Unimplemented,
			"a compressed message; compression is not spoken over grpc-websockets, send messages with flags 0")},
		{"trailer of a client", bidi, "", []string{"\x00" + envelope(0x80, "")}, failed(codes.InvalidArgument, "an envelope with flags 0x80; a message has 0")},
		{"message of the limit", unary, "", []string{"\x00" + said(strings.Repeat("x", 98))}, whole(statusOK, strings.Repeat("x", 98))},
		{"one byte more", unary, "", []string{"\x00" + said(strings.Repeat("x", 99))}, failed(codes.ResourceExhausted, "grpc: received message larger than max (101 vs. 100)")},
		{"one that is announced", bidi, "", []string{"\x00\x00\xff\xff\xff\xff"}, failed(codes.ResourceExhausted, "grpc: received message larger than max (4294967295 vs. 100)")},
		{"no first byte", bidi, "", []string{""}, failed(codes.InvalidArgument, "a message begins with a byte 0, or is a single byte 1 after the last")},
		{"another first byte", bidi, "", []string{"\x02" + said("a")}, failed(codes.InvalidArgument, "a message begins with a byte 0, or is a single byte 1 after the last")},
		{"half-close with more", bidi, "", []string{"\x01\x00"}, failed(codes.InvalidArgument, "a message begins with a byte 0, or is a single byte 1 after the last")},

		{"unknown method", "Nope", "", nil, failed(codes.Unimplemented, "unknown method Nope for service t")},
		{"line without a colon", unary, "a: b\r\nab", nil, failed(codes.InvalidArgument, `header line "ab" is not name: value`)},
		{"line without a name", unary, ":path: b", nil, failed(codes.InvalidArgument, `header line ":path: b" is not name: value`)},
		{"blank line between", unary, "a: b\r\n\r\nc: d\r\n", nil, failed(codes.InvalidArgument, `header line "" is not name: value`)},
		{"name that cannot be", unary, "a b: c", nil, failed(codes.InvalidArgument, `metadata key "a b" has a character other than 0-9 a-z _ - .`)},
		{"value that cannot be", unary, "a: b\nc: d", nil, failed(codes.InvalidArgument,
			`metadata key "a" has a value with a non-printable character; name the key %E2%80%A6-bin to send bytes`)},
		{"bytes that are not base64", unary, "a-bin: *", nil, failed(codes.InvalidArgument, `header "a-bin" is not base64: illegal base64 data at input byte 0`)},
		{"timeout", unary, "grpc-timeout: 1h", nil, failed(codes.InvalidArgument, `grpc-timeout "1h": want 1 to 8 digits and a unit of H, M, S, m, u or n`)},
		{"content type", unary, "content-type: application/grpc-web-text", nil, failed(codes.Unimplemented,
			`content-type "application/grpc-web-text" is not spoken over grpc-websockets: use application/grpc-web+proto`)},

		{"more after the half-close", "Bidi", "k: wait", []string{finish, "\x00"}, []string{"websocket: close 1002 (protocol error): message after the half-close"}},
		{"two half-closes", "Bidi", "k: wait", []string{finish, finish}, []string{"websocket: close 1002 (protocol error): message after the half-close"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := s
				if tt.header == "k: wait" {
					srv = waits
				}
				p := openWeb(t, srv, tt.method, 100)
				defer p.close()
				p.sendBinary(tt.header)
				for _, m := range tt.send {
					if p.ws.WriteMessage(websocket.BinaryMessage, []byte(m)) != nil {
						break // a call may end before it is half-closed; the replies tell how
					}
				}
				for i, want := range tt.want {
					if got := <-p.got; got != want {
						t.Fatalf("reply %d = %q,\nwant %q", i+1, got, want)
					}
				}
			})
		})
	}
}

// A message that cannot be decoded is INTERNAL, as gRPC-Web has it. What protobuf says of
// it is not always the same.
func TestWebBadMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openWeb(t, echoes, "Bidi", 0)
		defer p.close()
		p.sendBinary("", "\x00"+envelope(0, "\xff"))
		p.want(envelope(0x80, webHeader))
		if got, want := <-p.got, "grpc-status: 13\r\ngrpc-message: bad request message: "; !strings.HasPrefix(got[5:], want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
		p.want(closeOK)
	})
}

// Text is not spoken, as the header or after it.
func TestWebText(t *testing.T) {
	const want = "websocket: close 1003 (unsupported data): grpc-websockets has binary messages, no text"
	synctest.Test(t, func(t *testing.T) {
		p := openWeb(t, waits, "Bidi", 0)
		p.send("k: v\r\n")
		p.want(want)
		p.close()
		p = openWeb(t, waits, "Bidi", 0)
		p.sendBinary("k: v\r\n")
		p.send("")
		p.want(want)
		p.close()
	})
}

func TestWebFirstMessageDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openWeb(t, waits, "Bidi", 0)
		start := time.Now()
		p.want("websocket: close 1008 (policy violation): no header within 10s")
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("closed after %v, want 10 s", got)
		}
		p.close()

		p = openWeb(t, echoes, "Bidi", 0)
		time.Sleep(10*time.Second - 1)
		p.sendBinary("")
		time.Sleep(time.Hour)
		p.sendBinary("\x00" + said("a"))
		p.want(whole(statusOK, "a")[:2]...)
		p.close()
	})
}

// The metadata of a call has the limit that it has on the other sockets, and the header
// that it comes in one of its own.
func TestWebHeaderLimit(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   []string
	}{
		{"k: " + strings.Repeat("v", maxMetadata-metadataCost-1), whole(statusOK)},
		{"k: " + strings.Repeat("v", maxMetadata-metadataCost), failed(codes.ResourceExhausted, "metadata of 16385 bytes, more than 16384")},
		{"k: " + strings.Repeat("v", frameRoom-3), failed(codes.ResourceExhausted, "metadata of 65566 bytes, more than 16384")},
		{"k: " + strings.Repeat("v", frameRoom-2), []string{
			envelope(0x80, "grpc-status: 8\r\ngrpc-message: a header of more than 65536 bytes\r\n"),
			"websocket: close 1009 (message too big): message larger than 65536 bytes"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := openWeb(t, echoes, "Bidi", 1000)
			defer p.close()
			go func() {
				// They fail once the server has closed.
				p.ws.WriteMessage(websocket.BinaryMessage, []byte(tt.header))
				p.ws.WriteMessage(websocket.BinaryMessage, []byte(finish))
			}()
			p.want(tt.want...)
		})
	}
}

// While a handler does not receive, the client is read from until there is as much as may
// wait, and the handler loses nothing.
func TestWebReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages, size = 200, 1000
		goOn := make(chan struct{})
		p := openWeb(t, &script{stream: func(ss grpc.ServerStream) error {
			<-goOn
			return echoes.stream(ss)
		}}, "Bidi", 0)
		defer p.close()
		p.sendBinary("")
		sent := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range messages {
				if err := p.ws.WriteMessage(websocket.BinaryMessage, append([]byte("\x00\x00\x00\x00\x03\xeb\x0a\xe8\x07"), make([]byte, size)...)); err != nil {
					t.Error(err)
					return
				}
				sent++
			}
			p.ws.WriteMessage(websocket.BinaryMessage, []byte(finish))
		}()
		synctest.Wait()
		// One more is in the hands of the reader.
		if most := inboxBytes/(size+9) + 2; sent > most || sent < most-2 {
			t.Errorf("%d messages were read, want about %d", sent, most)
		}
		close(goOn)
		<-done
		p.want(envelope(0x80, webHeader))
		for range messages {
			p.want(envelope(0, "\x0a\xe8\x07"+strings.Repeat("\x00", size)))
		}
		p.want(envelope(0x80, statusOK), closeOK)
	})
}

// A handler feels that its client does not read.
func TestWebSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		ended := make(chan error, 1)
		p := openWeb(t, &script{stream: func(ss grpc.ServerStream) error {
			for {
				if err := ss.SendMsg(wrapperspb.String(strings.Repeat("x", 1000))); err != nil {
					ended <- err
					return err
				}
				sent++
			}
		}}, "Bidi", 0)
		defer p.close()
		resume := p.stall()
		p.sendBinary("grpc-timeout: 5S\r\n")
		synctest.Wait()
		// What waits, and what is being written.
		if most := 2 * (64 << 10) / 1000; sent > most {
			t.Errorf("%d messages were sent, want at most %d", sent, most)
		}
		if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("SendMsg = %v, want DEADLINE_EXCEEDED", err)
		}
		resume()
		last := ""
		for got := range p.got {
			if strings.HasPrefix(got, "websocket: ") {
				break
			}
			last = got
		}
		if want := envelope(0x80, "grpc-status: 4\r\ngrpc-message: context deadline exceeded\r\n"); last != want {
			t.Errorf("the last message is %q, want %q", last, want)
		}
	})
}

// A server that drains waits for the call of a socket and takes none of one that has not
// said yet what it wants.
func TestWebShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, began := range []bool{false, true} {
			p := openWeb(t, echoes, "Bidi", 0)
			if began {
				p.sendBinary("")
			}
			synctest.Wait()
			down := make(chan error, 1)
			go func() { down <- p.sockets.Shutdown(t.Context()) }()
			synctest.Wait()
			if began {
				p.sendBinary("\x00"+said("a"), finish)
				p.want(whole(statusOK, "a")...)
			} else {
				p.want("websocket: close 1001 (going away): server is shutting down")
			}
			if err := <-down; err != nil {
				t.Errorf("Shutdown = %v", err)
			}
			p.close()
		}
	})
}

// A handler that ends its goroutine ends its call.
func TestWebGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openWeb(t, &script{stream: func(grpc.ServerStream) error {
			runtime.Goexit()
			return nil
		}}, "Bidi", 0)
		defer p.close()
		p.sendBinary("")
		p.want(failed(codes.Internal, "the handler did not return")...)
	})
}

// Sockets that end at any point, by a close frame or without one, leave nothing behind;
// TestMain looks for goroutines.
func TestWebAborts(t *testing.T) {
	sockets := 500
	if testing.Short() {
		sockets = 50
	}
	reg := rpc.NewRegistry(rpc.Config{})
	stalls.register(reg)
	server := socket.NewServer(socket.Config{})
	hs := httptest.NewServer(http.HandlerFunc(NewHandler(reg, server).ServeWeb))
	defer hs.Close()
	var clients sync.WaitGroup
	for worker := range 8 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range sockets / 8 {
				d := websocket.Dialer{Subprotocols: []string{WebSubprotocol}}
				method := []string{"Unary", "Server", "Client", "Bidi", "Nope"}[random.IntN(5)]
				ws, _, err := d.Dial("ws"+hs.URL[len("http"):]+"/t/"+method, nil)
				if err != nil {
					t.Error(err)
					return
				}
				script := []string{"k: v\r\n", "\x00" + said("a"), "\x00" + said("ab")[:7], "\x00" + said("ab")[7:], "\x00" + envelope(0, strings.Repeat("\x00", 100<<10)), finish, "\x02"}
				for _, m := range script[:random.IntN(len(script)+1)] {
					// Some have been ended by the server.
					_ = ws.WriteMessage(websocket.BinaryMessage, []byte(m))
				}
				if random.IntN(2) == 0 {
					_ = ws.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second))
				}
				ws.NetConn().Close()
			}
		})
	}
	clients.Wait()
	server.Close() // does not wait long for handlers that are late
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}
