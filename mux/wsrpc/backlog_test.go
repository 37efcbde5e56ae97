package wsrpc

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// largest is the cost of the largest message.
const largest = 4<<20 + messageCost

// backlogged is a client of handlers that receive a message only when told to, of the
// call with that number.
type backlogged struct {
	*pipeClient
	take [maxCalls]chan struct{}
	last int
}

func newBacklogged(t *testing.T) *backlogged {
	b := new(backlogged)
	for i := range b.take {
		b.take[i] = make(chan struct{})
	}
	b.pipeClient = connect(t, &script{stream: func(ss grpc.ServerStream) error {
		number := new(text)
		if err := ss.RecvMsg(number); err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(number.Value, &n); err != nil {
			return err
		}
		for {
			select {
			case <-b.take[n]:
				if err := ss.RecvMsg(new(text)); err != nil {
					return err
				}
			case <-ss.Context().Done():
				return ss.Context().Err()
			}
		}
	}}, nil)
	b.send(`{}`)
	b.want(helloText)
	return b
}

// call begins one.
func (b *backlogged) call() (number int) {
	b.last++
	b.send(open(b.last, "Bidi", fmt.Sprintf(`,"message":"%d"`, b.last)))
	synctest.Wait()
	return b.last
}

// message sends one of this cost.
func (b *backlogged) message(call int, cost int64) {
	b.t.Helper()
	b.send(fmt.Sprintf(`{"call":%d,"message":"%s"}`, call, strings.Repeat("x", int(cost)-messageCost-2)))
}

// fill has as much wait as is left to wait but rest, in messages that are as large as
// can be.
func (b *backlogged) fill(rest int64) {
	b.t.Helper()
	for {
		left := b.mux.backlog.limit - b.mux.backlog.cost.Load() - rest
		if left == 0 {
			return
		}
		b.message(b.call(), min(left, largest))
		synctest.Wait()
	}
}

// waits checks what waits.
func (b *backlogged) waits(want int64) {
	b.t.Helper()
	synctest.Wait()
	if got := b.mux.backlog.cost.Load(); got != want {
		b.t.Errorf("%d bytes wait, want %d", got, want)
	}
}

// What waits for the handlers of all calls of a socket is bounded, and what does not wait
// any more is not counted.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBacklogged(t)
		const limit = maxCalls*window + largest
		start := time.Now()
		p.fill(300)
		call, other, third := p.call(), p.call(), p.call()
		p.message(call, 100)
		p.message(other, 100)
		p.message(third, 100)
		p.waits(limit)
		p.quiet()
		p.take[third] <- struct{}{}
		p.waits(limit - 100)
		if time.Since(start) != 0 {
			t.Errorf("the reader has waited for %v", time.Since(start))
		}

		p.message(call, 101)
		p.wantEnd(call, 8)
		if got := time.Since(start); got != patience {
			t.Errorf("refused after %v, want %v", got, patience)
		}
		p.waits(limit - 200)  // what waited of the call does so no more
		p.message(other, 201) // nor has a handler taken anything
		p.wantEnd(other, 8)
		if got := time.Since(start); got != patience {
			t.Errorf("refused after %v more, want at once", got-patience)
		}
		p.waits(limit - 300)

		// A call that is over gives back what waited for it.
		p.send(`{"call":1,"cancel":true}`)
		p.waits(limit - 300 - largest)
		p.send(`{"call":2,"credit":2147483647}`)
		p.wantEnd(2, 8)
		p.waits(limit - 300 - 2*largest)
		p.close()
		p.waits(0)
	})
}

// The reader waits for handlers that are about to take what waits.
func TestBacklogPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBacklogged(t)
		taken := func(call int) {
			p.take[call] <- struct{}{}
			p.want(fmt.Sprintf(`{"call":%d,"credit":%d}`, call, largest+messageCost+len(`"1"`)))
		}
		refused := func(after time.Duration) {
			t.Helper()
			start := time.Now()
			call := p.call()
			p.wantEnd(call, 8)
			if got := time.Since(start); got != after {
				t.Errorf("refused after %v, want %v", got, after)
			}
		}
		p.fill(0)
		call := p.call() // whose own message is too much
		p.quiet()
		time.Sleep(patience - 1)
		taken(1)
		p.waits(p.mux.backlog.limit - largest)
		p.quiet()
		p.take[call] <- struct{}{} // it runs

		// When that was in vain there is hope only once something is taken.
		p.fill(0)
		refused(patience)
		refused(0)
		taken(2)
		p.fill(0)
		refused(patience)

		// A call that ends meanwhile has no message any more.
		taken(3)
		p.last++
		p.send(fmt.Sprintf(`{"call":%d,"open":{"method":"t/Bidi","timeoutMs":500},"message":"%[1]d"}`, p.last))
		call = p.last
		p.fill(0)
		p.message(call, 100)
		p.wantEnd(call, 4)
		time.Sleep(patience)
		p.waits(p.mux.backlog.limit)
		p.quiet()

		// Nor does a reader wait once its socket has ended.
		taken(4)
		p.fill(0)
		start := time.Now()
		p.call()
		p.close()
		p.waits(0)
		if got := time.Since(start); got != 0 {
			t.Errorf("the socket has ended after %v", got)
		}
	})
}
