package wsrpc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// waits is a service that waits for the end of its calls.
var waits = &script{
	unary:  func(ctx context.Context, _ *text) (*text, error) { <-ctx.Done(); return nil, ctx.Err() },
	stream: func(ss grpc.ServerStream) error { <-ss.Context().Done(); return ss.Context().Err() },
}

func open(call int, method, more string) string {
	return fmt.Sprintf(`{"call":%d,"open":{"method":"t/%s"}%s}`, call, method, more)
}

func TestFirstFrameDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, waits, nil)
		start := time.Now()
		p.want("websocket: close 4408: no frame within 10s")
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("closed after %v, want 10 s", got)
		}
		p.close()

		p = connect(t, waits, nil)
		time.Sleep(10*time.Second - 1)
		p.send(`{}`)
		p.want(helloText)
		time.Sleep(time.Minute)
		p.send(`{"ping":1}`)
		p.want(`{"pong":1}`)
		p.close()
	})
}

func TestPingRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, waits, nil)
		defer p.close()
		p.send(`{}`)
		p.want(helloText)
		pings := func(n int) {
			for i := range n {
				p.send(fmt.Sprintf(`{"ping":%d}`, i))
				p.want(fmt.Sprintf(`{"pong":%d}`, i))
			}
		}
		pings(20)
		time.Sleep(time.Second)
		pings(10)
		p.send(`{"ping":0}`)
		p.want("websocket: close 1008 (policy violation): too many pings")
	})
}

func TestMaxCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, waits, nil)
		defer p.close()
		n := 0
		next := func(method string) {
			n++
			p.send(open(n, method, `,"message":"x"`))
		}
		for range 256 {
			next("Unary")
		}
		p.want(helloText)
		synctest.Wait()
		p.quiet()
		next("Bidi")
		p.wantEnd(257, 8)
		// One that is over makes room for one.
		p.send(`{"call":7,"cancel":true}`)
		next("Server")
		synctest.Wait()
		p.quiet()
		next("Client")
		p.wantEnd(259, 8)
	})
}

// Refusals do not stop the reader of a socket whose answers are not read, but by their
// number.
func TestMaxRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 1)
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			m := new(text)
			if err := ss.RecvMsg(m); err != nil {
				return err
			}
			if m.Value == "wait" {
				<-ss.Context().Done()
				ended <- struct{}{}
				return nil
			}
			for {
				if err := ss.SendMsg(&text{Value: strings.Repeat("x", 1000)}); err != nil {
					return err
				}
			}
		}}, nil)
		defer p.close()
		p.send(`{"hello":{"window":1000000}}`)
		p.want(helloText)
		resume := p.stall()
		p.send(open(1, "Server", `,"message":"wait"`), open(2, "Server", `,"message":"wait"`), open(3, "Server", `,"message":"fill"`))
		synctest.Wait()
		n := 3
		refused := func() {
			n++
			p.send(open(n, "None", ""))
		}
		for range maxRefusals {
			refused()
		}
		p.send(`{"call":1,"cancel":true}`)
		<-ended
		refused()
		sent := make(chan struct{})
		go func() { p.send(`{"call":2,"cancel":true}`); close(sent) }()
		synctest.Wait()
		select {
		case <-sent:
			t.Errorf("a frame is read while %d refusals wait", maxRefusals+1)
		default:
		}
		resume()
		<-ended
		<-sent
		p.send(`{"call":3,"cancel":true}`, `{"ping":1}`)
		var refusals int
		for got := range p.got {
			if got == `{"pong":1}` {
				break
			}
			if strings.Contains(got, `"code":12`) {
				refusals++
			}
		}
		if refusals != maxRefusals+1 {
			t.Errorf("%d refusals came, want %d", refusals, maxRefusals+1)
		}
	})
}

// Calls that were cancelled and whose handlers do not end count apart.
func TestMaxStubbornCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, release := make(chan struct{}), make(chan struct{})
		p := connect(t, &script{unary: func(context.Context, *text) (*text, error) {
			began <- struct{}{}
			<-release
			return new(text), nil
		}}, nil)
		for i := 1; i <= 512; i++ {
			p.send(open(i, "Unary", `,"message":"x"`))
			<-began
			p.send(fmt.Sprintf(`{"call":%d,"cancel":true}`, i))
		}
		p.want(helloText)
		synctest.Wait()
		p.quiet()
		p.send(open(513, "Unary", `,"message":"x"`))
		p.wantEnd(513, 8)
		close(release)
		synctest.Wait()
		p.quiet() // nothing is said of cancelled calls
		p.send(open(514, "Unary", `,"message":"x"`))
		<-began
		p.want(`{"call":514,"message":"","end":{}}`)
		p.close()
	})
}

func TestMetadataLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &script{unary: func(_ context.Context, in *text) (*text, error) { return in, nil }}, nil)
		defer p.close()
		// Two values: 2*(1+32) bytes beside them.
		md := func(n int) string {
			return fmt.Sprintf(`{"k":["v","%s"]}`, strings.Repeat("v", n-2*(1+32)-1))
		}
		call := func(n int, md string) string {
			return fmt.Sprintf(`{"call":%d,"open":{"method":"t/Unary","metadata":%s},"message":"x"}`, n, md)
		}
		p.send(call(1, md(16<<10)))
		p.want(helloText, `{"call":1,"message":"x","end":{}}`)
		p.send(call(2, md(16<<10+1)))
		p.wantEnd(2, 8)
		p.send(`{"hello":{"metadata":` + md(16<<10) + `}}`)
		p.send(call(3, "{}"))
		p.want(`{"call":3,"message":"x","end":{}}`)
		p.send(`{"hello":{"metadata":` + md(16<<10+1) + `}}`)
		p.send(call(4, "{}"))
		p.wantEnd(4, 8)
		p.send(`{"hello":{"metadata":{"A":["b"]}}}`)
		p.send(call(5, "{}"))
		p.wantEnd(5, 3)
		p.send(`{"hello":{}}`)
		p.send(call(6, "{}"))
		p.want(`{"call":6,"message":"x","end":{}}`)
	})
}

// Later metadata replaces earlier, and what gRPC keeps for itself is not taken.
func TestMetadataOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &script{unary: func(ctx context.Context, _ *text) (*text, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			var all []string
			for _, key := range []string{"a", "b", "c", "d-bin", ":authority", "user-agent", "te", "sec-websocket-key"} {
				all = append(all, fmt.Sprintf("%s=%q", key, md[key]))
			}
			return &text{Value: strings.Join(all, " ")}, nil
		}}, http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "User-Agent": {"u"}})
		defer p.close()
		answer := func(call int, a, b, c, d string) string {
			s := fmt.Sprintf("a=[%s] b=[%s] c=[%s] d-bin=[%s] :authority=[\"x\"] user-agent=[\"u\"] te=[] sec-websocket-key=[]", a, b, c, d)
			return fmt.Sprintf(`{"call":%d,"message":%q,"end":{}}`, call, s)
		}
		p.send(`{"hello":{"metadata":{"b":["2","3"],"c":["2"],":authority":["y"]}},"call":1,"open":{"method":"t/Unary","metadata":{"c":["4"],"d-bin":["AA"],"user-agent":["z"],"te":["trailers"]}},"message":"x"}`)
		p.want(helloText, answer(1, `"1"`, `"2" "3"`, `"4"`, `"\x00"`))
		p.send(open(2, "Unary", `,"message":"x"`))
		p.want(answer(2, `"1"`, `"2" "3"`, `"2"`, ``))
		p.send(`{"hello":{"metadata":{"c":["5"]}}}`, open(3, "Unary", `,"message":"x"`))
		p.want(answer(3, `"1"`, `"1"`, `"5"`, ``))
	})
}

// What a frame has beside its message is bounded, whatever it is: metadata and unknown
// keys grow many times by being decoded.
func TestFrameRoom(t *testing.T) {
	pad := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name  string
		kind  int
		frame func(over int) []byte // so many bytes above the limit
	}{
		{"unknown key", websocket.TextMessage, func(over int) []byte {
			message := `"` + pad(70000) + `"`
			frame := func(future string) string {
				return open(1, "Unary", `,"message": `+message+` ,"future":"`+future+`"`)
			}
			return []byte(frame(pad(frameRoom + over - (len(frame("")) - len(message)))))
		}},
		{"unknown field", websocket.BinaryMessage, func(over int) []byte {
			f := frame{call: 1, open: &openFrame{method: "t/Unary"}, message: protowire.AppendString([]byte{0x0a}, pad(70000))}
			b := protowire.AppendTag(f.appendBinary(nil), 15, protowire.BytesType)
			return protowire.AppendString(b, pad(frameRoom+over-(len(b)-len(f.message))-3)) // 3 for the length
		}},
	} {
		for over, want := range []string{"", "websocket: close 1009 (message too big): more than 65536 bytes beside the message"} {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, &script{unary: func(_ context.Context, in *text) (*text, error) { return new(text), nil }}, nil)
				defer p.close()
				if err := p.ws.WriteMessage(tt.kind, tt.frame(over)); err != nil {
					t.Fatal(err)
				}
				if want == "" {
					<-p.got
					if got := <-p.got; strings.HasPrefix(got, "websocket:") || strings.Contains(got, "code") {
						t.Errorf("%s at the limit: got %s", tt.name, got)
					}
					return
				}
				if got := <-p.got; got != want {
					t.Errorf("%s above the limit: got %s, want %s", tt.name, got, want)
				}
			})
		}
	}
}

// A client tells how large a message it takes. Were it sent a larger one, it would have
// to end the socket of all calls.
func TestMaxAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := func(ctx context.Context, in *text) (*text, error) { return in, nil }
		p := connect(t, &script{unary: answer, stream: func(ss grpc.ServerStream) error {
			m := new(text)
			if err := ss.RecvMsg(m); err != nil {
				return err
			}
			return ss.SendMsg(m)
		}}, nil)
		defer p.close()
		p.send(`{"hello":{"maxMessage":10},"call":1,"open":{"method":"t/Unary"},"message":"12345678"}`)
		p.want(helloText, `{"call":1,"message":"12345678","end":{}}`)
		const refused = `"end":{"code":8,"message":"trying to send message larger than max (11 vs. 10)"}}`
		p.send(open(2, "Unary", `,"message":"123456789"`))
		p.want(`{"call":2,` + refused)
		p.send(open(3, "Server", `,"message":"123456789"`))
		p.want(`{"call":3,` + refused)
		p.send(`{"hello":{}}`, open(4, "Unary", `,"message":"123456789"`)) // not told anew
		p.want(`{"call":4,` + refused)
	})
}

// What an answer has beside its message is bounded as in a request: the client could not
// read it, nor any other call after it.
func TestAnswerRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var header, trailer metadata.MD
		var outcome error
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			ss.SetTrailer(trailer)
			if header != nil {
				if err := ss.SendHeader(header); err != nil {
					return err
				}
			}
			return outcome
		}}, nil)
		defer p.close()
		large := metadata.Pairs("k", strings.Repeat("v", frameRoom))
		p.send(`{}`)
		p.want(helloText)
		const refused = `,"end":{"code":8,"message":"header, status and trailer: more than 65536 bytes beside the message"}}`
		trailer = large
		p.send(open(1, "Bidi", ""))
		p.want(`{"call":1` + refused)
		trailer, outcome = nil, status.Error(codes.NotFound, strings.Repeat("x", frameRoom))
		p.send(open(2, "Bidi", ""))
		p.want(`{"call":2` + refused)
		header, outcome = large, nil
		p.send(open(3, "Bidi", ""))
		p.want(`{"call":3` + refused)
		rest := len(`{"call":4,"header":{"metadata":{"k":[""]}}}`)
		header = metadata.Pairs("k", strings.Repeat("v", frameRoom-rest))
		p.send(open(4, "Bidi", ""))
		p.want(`{"call":4,"header":{"metadata":{"k":["`+header["k"][0]+`"]}}}`, `{"call":4,"end":{}}`)
	})
}
