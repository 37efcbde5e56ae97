package wsrpc

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
)

// A message costs its length and 16; while a credit is above zero one more may come.
func TestRequestCredit(t *testing.T) {
	message := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, tt := range []struct {
		first int // bytes of the first message
		more  int // messages of 10 000 bytes that may follow
	}{
		{window - 16 - 1, 1}, // leaves one byte
		{window - 16, 0},     // leaves none
		{window - 10016 - 16, 1},
		{window - 10016 - 16 - 1, 2},
		{1 << 20, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, waits, nil)
			defer p.close()
			p.send(open(1, "Client", `,"message": `+message(tt.first)+` `)) // blanks do not count
			for range tt.more {
				p.send(`{"call":1,"message":` + message(10000) + `}`)
			}
			p.want(helloText)
			synctest.Wait()
			p.quiet()
			p.send(`{"call":1,"message":""}`)
			p.want(`{"call":1,"end":{"code":8,"message":"message without credit"}}`)
		})
	}
}

// What waits for a handler is bounded by the window and one message, in memory as in
// what it counts for: also where a message is kept in the buffer it came in, which may be
// much larger.
func TestStalledHandlerMemory(t *testing.T) {
	frames := map[string]func(p *pipeClient, size int){
		"JSON": func(p *pipeClient, size int) {
			p.send(`{"call":1,"message":"` + strings.Repeat("x", size-2) + `"}`)
		},
		"protobuf": func(p *pipeClient, size int) {
			p.sendBinary(string((&frame{call: 1, message: make([]byte, size)}).appendBinary(nil)))
		},
	}
	for _, size := range []int{2, 100, 5000} {
		for name, send := range frames {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, waits, nil)
				defer p.close()
				p.send(open(1, "Bidi", ""))
				p.want(helloText)
				for cost := 0; cost < window; cost += size + 16 {
					send(p, size)
				}
				synctest.Wait()
				p.quiet()
				in := &p.mux.crew.find(1).in
				in.mu.Lock()
				defer in.mu.Unlock()
				held := 0
				for _, r := range in.queue {
					if r.buf != nil {
						held += cap(r.buf.Data)
					} else {
						held += cap(r.data)
					}
				}
				if len(in.queue) != (window+size+15)/(size+16) || held > 2*window || in.left > 0 {
					t.Errorf("messages of %d bytes in %s: %d wait, in %d bytes, with a credit of %d", size, name, len(in.queue), held, in.left)
				}
			})
		}
	}
}

// A handler that keeps up gives back all that its client has spent, before the client
// has less than half of its window.
func TestCreditIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			for {
				if err := ss.RecvMsg(new(text)); err != nil {
					return ss.SendMsg(&text{Value: fmt.Sprint(err)})
				}
			}
		}}, nil)
		defer p.close()
		p.send(open(1, "Client", ""))
		p.want(helloText)
		const size = 4000
		frame := `{"call":1,"message":"` + strings.Repeat("x", size-2) + `"}`
		left := window
		for range 100 {
			p.send(frame)
			left -= size + 16
			synctest.Wait()
			if len(p.got) > 0 {
				var n int
				got := <-p.got
				if _, err := fmt.Sscanf(got, `{"call":1,"credit":%d}`, &n); err != nil {
					t.Fatalf("got %s, want a credit", got)
				}
				left += n
			}
			if left < window/2 || left > window {
				t.Fatalf("the client has a credit of %d, of a window of %d", left, window)
			}
		}
		p.send(`{"call":1,"halfClose":true}`)
		p.want(`{"call":1,"message":"` + io.EOF.Error() + `","end":{}}`)
	})
}

// The server sends while its credit is above zero.
func TestAnswerCredit(t *testing.T) {
	for _, tt := range []struct{ window, messages int }{
		{1, 1}, {20, 1}, {21, 2}, {40, 2}, {41, 3}, // of 4 bytes and 16
	} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
				for {
					if err := ss.SendMsg(&text{Value: "ab"}); err != nil {
						return err
					}
				}
			}}, nil)
			defer p.close()
			p.send(fmt.Sprintf(`{"hello":{"window":%d}}`, tt.window), open(1, "Server", `,"message":"x"`))
			p.want(helloText)
			const answer = `{"call":1,"message":"ab"}`
			for range tt.messages {
				p.want(answer)
			}
			synctest.Wait()
			p.quiet()
			// The rest of what is owed, and one byte more.
			p.send(fmt.Sprintf(`{"call":1,"credit":%d}`, tt.messages*20-tt.window+1))
			p.want(answer)
			synctest.Wait()
			p.quiet()
			// Others go on meanwhile, and a wait for credit ends with the call.
			p.send(open(2, "Unary", ""), `{"call":2,"cancel":true}`, `{"call":1,"cancel":true}`)
			synctest.Wait()
			p.mux.crew.mu.Lock()
			defer p.mux.crew.mu.Unlock()
			if p.mux.crew.running != 0 || len(p.mux.crew.calls) != 0 {
				t.Errorf("%d calls run, %d are open", p.mux.crew.running, len(p.mux.crew.calls))
			}
			p.quiet()
		})
	}
}
