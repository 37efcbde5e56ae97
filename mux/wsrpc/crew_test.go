package wsrpc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// Calls that come together run at the same time, if all block.
func TestCallsThatBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running, most int
		var mu sync.Mutex
		p := waiting(t, 100, func() {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			mu.Unlock()
		})
		defer p.close()
		p.mux.crew.sendWorker(nil)
		synctest.Wait()
		mu.Lock()
		if most != 100 {
			t.Errorf("%d of 100 handlers that block run at once", most)
		}
		mu.Unlock()
		close(release)
		for range 100 {
			<-p.got
		}
	})
}

// A worker takes the next call when it is done with one, so that calls which come together
// and are short need no more workers than have come by then.
func TestCallsThatAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := waiting(t, 100, func() {})
		defer p.close()
		late := &worker{next: make(chan *crew, 1)}
		w := &p.mux.crew
		w.mu.Lock()
		w.resting = late
		w.mu.Unlock()
		w.sendWorker(nil)
		for range 100 {
			<-p.got
		}
		synctest.Wait()
		p.bench.mu.Lock()
		if p.bench.n != 1 {
			t.Errorf("%d workers ran 100 calls", p.bench.n)
		}
		p.bench.mu.Unlock()
		go late.run(<-late.next)
	})
}

// waiting returns a client with n calls in progress, all of which wait for a worker that
// is on its way.
func waiting(t *testing.T, n int, handler func()) *pipeClient {
	p := connect(t, &script{unary: func(context.Context, *text) (*text, error) {
		handler()
		return new(text), nil
	}}, nil)
	w := &p.mux.crew
	w.mu.Lock()
	w.coming = true
	w.mu.Unlock()
	p.send(open(1, "Unary", `,"message":""`))
	p.want(helloText)
	for i := 2; i <= n; i++ {
		p.send(open(i, "Unary", `,"message":""`))
	}
	synctest.Wait()
	return p
}
