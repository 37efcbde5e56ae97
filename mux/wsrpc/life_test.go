package wsrpc

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, waits, nil)
		defer p.close()
		start := time.Now()
		p.send(`{"call":1,"open":{"method":"/t/Bidi","timeoutMs":1500}}`,
			`{"call":2,"open":{"method":"/t/Bidi","timeoutMs":18446744073709551615}}`)
		p.want(helloText)
		p.wantEnd(1, 4)
		if got := time.Since(start); got != 1500*time.Millisecond {
			t.Errorf("the call ended after %v, want 1.5 s", got)
		}
		synctest.Wait()
		p.quiet()
	})
}

// A call that is cancelled gets no end, and its handler's context ends.
func TestCancel(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(grpc.ServerStream) error
	}{
		{"SendMsg", func(ss grpc.ServerStream) error { return ss.SendMsg(new(text)) }},
		{"SendHeader", func(ss grpc.ServerStream) error { return ss.SendHeader(nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 2)
				p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
					<-ss.Context().Done()
					ended <- tt.send(ss)
					return nil
				}}, nil)
				defer p.close()
				p.send(open(1, "Bidi", ""), open(2, "Bidi", `,"halfClose":true`))
				synctest.Wait()
				if len(ended) > 0 {
					t.Fatal("a half-close has ended a handler")
				}
				p.send(`{"call":1,"cancel":true}`, open(3, "Bidi", `,"cancel":true`))
				if err := <-ended; status.Code(err) != codes.Canceled {
					t.Errorf("%s = %v, want CANCELLED", tt.name, err)
				}
				p.want(helloText)
				synctest.Wait()
				p.quiet()
			})
		})
	}
}

// A handler that asks nobody for the time learns of its deadline from SendMsg.
func TestSendAfterDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			for {
				if err := ss.SendMsg(&text{Value: "x"}); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
		}}, nil)
		defer p.close()
		p.send(`{"call":1,"open":{"method":"/t/Server","timeoutMs":1500},"message":""}`)
		p.want(helloText, `{"call":1,"message":"x"}`, `{"call":1,"message":"x"}`)
		p.wantEnd(1, 4)
	})
}

// tagger is a stats handler that gives calls another context.
type tagger func(context.Context) context.Context

func (t tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return t(ctx) }
func (tagger) HandleRPC(context.Context, stats.RPCStats)                         {}
func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (tagger) HandleConn(context.Context, stats.ConnStats)                       {}

// A handler that only sends learns of the end of its call, whatever context a stats handler
// has made of the call's.
func TestSendInContextOfStatsHandler(t *testing.T) {
	detached := tagger(context.WithoutCancel)
	for _, tt := range []struct {
		name  string
		tag   tagger
		first string // frame
		want  codes.Code
	}{
		{"cancelled", detached, `{"hello":{}}`, codes.Canceled},
		{"cancelled without credit", detached, `{"hello":{"window":1}}`, codes.Canceled},
		{"its own deadline", func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}, `{"hello":{}}`, codes.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				p := connectWith(t, rpc.Config{StatsHandlers: []stats.Handler{tt.tag}}, &script{stream: func(ss grpc.ServerStream) error {
					var err error
					for i := 0; err == nil && i < 10; i++ {
						err = ss.SendMsg(&text{Value: "x"})
						time.Sleep(time.Second)
					}
					ended <- err
					return err
				}}, nil)
				defer p.close()
				p.send(tt.first, open(1, "Server", `,"message":""`))
				p.want(helloText, `{"call":1,"message":"x"}`)
				time.Sleep(1500 * time.Millisecond)
				p.send(`{"call":1,"cancel":true}`)
				if err := <-ended; status.Code(err) != tt.want {
					t.Errorf("SendMsg = %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// A message after the half-close ends its call while the handler still runs.
func TestMessageAfterHalfCloseEndsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, waits, nil)
		defer p.close()
		p.send(open(1, "Bidi", `,"halfClose":true`), `{"call":1,"halfClose":true}`)
		p.want(helloText)
		synctest.Wait()
		p.quiet()
		p.send(`{"call":1,"message":""}`)
		p.wantEnd(1, 12)
	})
}

// A header that the handler sends goes out at once, one that it sets with what follows.
func TestHeader(t *testing.T) {
	set := metadata.Pairs("a", "1")
	for _, tt := range []struct {
		name    string
		handler func(grpc.ServerStream) error
		want    []string
	}{
		{"sent", func(ss grpc.ServerStream) error { return ss.SendHeader(set) },
			[]string{`{"call":1,"header":{"metadata":{"a":["1"]}}}`, `{"call":1,"message":"x"}`, `{"call":1,"end":{}}`}},
		{"sent empty", func(ss grpc.ServerStream) error { return ss.SendHeader(nil) },
			[]string{`{"call":1,"header":{}}`, `{"call":1,"message":"x"}`, `{"call":1,"end":{}}`}},
		{"set", func(ss grpc.ServerStream) error { return ss.SetHeader(set) },
			[]string{`{"call":1,"header":{"metadata":{"a":["1"]}},"message":"x"}`, `{"call":1,"end":{}}`}},
		{"none", func(grpc.ServerStream) error { return nil },
			[]string{`{"call":1,"message":"x"}`, `{"call":1,"end":{}}`}},
		{"error", func(ss grpc.ServerStream) error {
			ss.SetTrailer(metadata.Pairs("t-bin", "\x00"))
			ss.SetHeader(set)
			return status.Error(codes.NotFound, "n\xff")
		}, []string{"{\"call\":1,\"header\":{\"metadata\":{\"a\":[\"1\"]}},\"end\":{\"code\":5,\"message\":\"n\uFFFD\",\"trailer\":{\"t-bin\":[\"AA==\"]}}}"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
				if err := tt.handler(ss); err != nil {
					return err
				}
				synctest.Wait() // what was sent early has arrived
				return ss.SendMsg(&text{Value: "x"})
			}}, nil)
			defer p.close()
			p.send(open(1, "Server", `,"message":""`))
			p.want(helloText)
			p.want(tt.want...)
		})
	}
}

// A header that finds no room waits as long as its call may last, as a message does.
func TestHeaderDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan error, 1)
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			if _, ok := ss.Context().Deadline(); ok {
				got <- ss.SendHeader(metadata.Pairs("k", "v"))
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
		p.send(open(1, "Server", `,"message":""`))
		synctest.Wait() // the queue is full
		start := time.Now()
		p.send(`{"call":2,"open":{"method":"t/Server","timeoutMs":1000},"message":""}`)
		if err := <-got; status.Code(err) != codes.DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("SendHeader = %v after %v, want DEADLINE_EXCEEDED after 1 s", err, time.Since(start))
		}
		resume()
	})
}

// A method that answers with one message does so once, and only if it ends OK.
func TestSingleAnswer(t *testing.T) {
	send := func(ss grpc.ServerStream) error { return ss.SendMsg(&text{Value: "x"}) }
	for _, tt := range []struct {
		name    string
		handler func(grpc.ServerStream) error
		want    string
	}{
		{"one", send, `{"call":1,"message":"x","end":{}}`},
		{"none", func(grpc.ServerStream) error { return nil }, `{"call":1,"end":{"code":13,"message":"/t/Client ended OK without an answer"}}`},
		{"two", func(ss grpc.ServerStream) error { send(ss); return send(ss) },
			`{"call":1,"end":{"code":13,"message":"/t/Client answers with one message and sent another"}}`},
		{"one and an error", func(ss grpc.ServerStream) error { send(ss); return status.Error(codes.Aborted, "a") },
			`{"call":1,"end":{"code":10,"message":"a"}}`},
		{"gone", func(grpc.ServerStream) error { runtime.Goexit(); return nil },
			`{"call":1,"end":{"code":13,"message":"the handler did not return"}}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, &script{stream: tt.handler}, nil)
			defer p.close()
			p.send(open(1, "Client", ""))
			p.want(helloText, tt.want)
			p.send(`{"ping":1}`)
			p.want(`{"pong":1}`)
		})
	}
}

// What a handler that has ended its goroutine left behind sends nothing any more: its
// buffer may be another call's.
func TestSendAfterGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan grpc.ServerStream, 1)
		p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
			left <- ss
			runtime.Goexit()
			return nil
		}}, nil)
		defer p.close()
		p.send(open(1, "Bidi", ""))
		p.want(helloText, `{"call":1,"end":{"code":13,"message":"the handler did not return"}}`)
		if err := (<-left).SendMsg(&text{Value: "x"}); err == nil {
			t.Error("SendMsg = nil")
		}
		synctest.Wait()
		p.quiet()
	})
}

// While the server drains, calls go on to their end and no others begin.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := connect(t, &script{unary: func(context.Context, *text) (*text, error) { <-release; return new(text), nil }}, nil)
		p.send(open(4, "Unary", `,"message":""`), open(7, "Unary", `,"message":""`))
		p.want(helloText)
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- p.sockets.Shutdown(t.Context()) }()
		p.want(`{"goAway":{"lastCall":7,"reason":"server is shutting down"}}`)
		p.send(open(9, "Unary", `,"message":""`), `{"call":9,"halfClose":true}`, `{"ping":1}`)
		p.want(`{"pong":1}`)
		release <- struct{}{}
		<-p.got // the end of either
		synctest.Wait()
		if len(down) > 0 {
			t.Error("Shutdown has not waited for a call")
		}
		p.quiet()
		release <- struct{}{}
		<-p.got
		p.want("websocket: close 1001 (going away): server is shutting down")
		if err := <-down; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		p.close()
	})
}

func TestDrainIdle(t *testing.T) {
	for _, first := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, waits, nil)
			if first {
				p.send(`{}`)
				p.want(helloText)
			}
			down := make(chan error, 1)
			go func() { down <- p.sockets.Shutdown(t.Context()) }()
			if first {
				p.want(`{"goAway":{"reason":"server is shutting down"}}`)
			}
			p.want("websocket: close 1001 (going away): server is shutting down")
			if err := <-down; err != nil {
				t.Errorf("Shutdown = %v", err)
			}
			p.close()
		})
	}
}

// Workers are used again: by their socket while calls run, then by any.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := connect(t, &script{
			unary:  func(context.Context, *text) (*text, error) { <-release; return new(text), nil },
			stream: waits.stream,
		}, nil)
		defer p.close()
		p.send(open(1, "Bidi", ""))
		p.want(helloText)
		count := func(mu *sync.Mutex, top **worker) (n int) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for w := *top; w != nil; w = w.below {
				n++
			}
			return n
		}
		crew, bench := &p.mux.crew, &p.bench
		number := 1
		calls := func(n int) {
			for range n {
				number++
				p.send(open(number, "Unary", `,"message":""`))
			}
			if got := count(&crew.mu, &crew.resting) + count(&bench.mu, &bench.top); got != 0 {
				t.Errorf("%d workers rest while others were started", got)
			}
			for range n {
				release <- struct{}{}
				<-p.got
			}
		}
		for round := range 3 {
			calls(50)
			if got := count(&crew.mu, &crew.resting); got != 50 {
				t.Errorf("round %d: %d workers rest, want the 50 there were", round, got)
			}
		}
		p.send(`{"call":1,"cancel":true}`)
		if got := count(&crew.mu, &crew.resting); got != 0 {
			t.Errorf("an idle socket keeps %d workers", got)
		}
		if got := count(&bench.mu, &bench.top); got != 51 {
			t.Errorf("%d workers are on the bench, want 51", got)
		}
		// Those go that were not needed in the time since the last looked at.
		time.Sleep(benchTime / 2)
		number++
		p.send(open(number, "Unary", `,"message":""`))
		synctest.Wait()
		if got := count(&bench.mu, &bench.top); got != 50 {
			t.Errorf("%d workers are on the bench, want 50 as one is used again", got)
		}
		release <- struct{}{}
		<-p.got
		time.Sleep(benchTime)
		if got := count(&bench.mu, &bench.top); got != 1 {
			t.Errorf("%d workers are on the bench, want the one that was needed", got)
		}
		time.Sleep(benchTime)
		if got := count(&bench.mu, &bench.top); got != 0 {
			t.Errorf("%d workers are on the bench of idle sockets", got)
		}
	})
}

// More workers than there is room for on the bench go at once, and all when it is closed.
func TestBench(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bench
		var ended sync.WaitGroup
		var gone atomic.Int32
		var list *worker
		for range maxBench + 1 {
			w := &worker{next: make(chan *crew, 1), below: list}
			list = w
			ended.Go(func() { w.run(<-w.next); gone.Add(1) })
		}
		b.give(list)
		synctest.Wait()
		if got := gone.Load(); got != 1 || b.n != maxBench {
			t.Errorf("%d workers have gone and %d rest, want 1 and %d", got, b.n, maxBench)
		}
		w := b.take()
		b.close()
		synctest.Wait()
		if got := gone.Load(); got != maxBench {
			t.Errorf("%d workers have gone after close, want %d", got, maxBench)
		}
		w.below = nil
		b.give(w)
		ended.Wait()
	})
}

// A handler must not take the end of a call for the half-close of its client: it has
// not had all that the client sent.
func TestNoHalfCloseAfterFailure(t *testing.T) {
	for _, tt := range []struct {
		name, last string
		want       codes.Code
	}{
		{"cancel", `{"call":1,"cancel":true}`, codes.Canceled},
		{"message after the half-close", `{"call":1,"message":"d"}`, codes.Unimplemented},
		{"credit above the limit", `{"call":1,"credit":2147483647}`, codes.ResourceExhausted},
	} {
		synctest.Test(t, func(t *testing.T) {
			got := make(chan error, 1)
			p := connect(t, &script{stream: func(ss grpc.ServerStream) error {
				<-ss.Context().Done() // late with what has come
				var err error
				for err == nil {
					err = ss.RecvMsg(new(text))
				}
				got <- err
				return nil
			}}, nil)
			defer p.close()
			p.send(open(1, "Client", `,"message":"a"`), `{"call":1,"message":"b"}`, `{"call":1,"message":"c","halfClose":true}`)
			synctest.Wait() // the handler runs
			p.send(tt.last)
			if err := <-got; status.Code(err) != tt.want {
				t.Errorf("%s: RecvMsg = %v, want %v", tt.name, err, tt.want)
			}
		})
	}
}
