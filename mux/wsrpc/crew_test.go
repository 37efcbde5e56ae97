package wsrpc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// Calls that come together run at the same time, if all block, and on few workers if none
// does: a worker takes the next when it is done with one.
func TestCallsThatComeTogether(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler func(release <-chan struct{})
		workers func(n int) bool
	}{
		{"blocking", func(release <-chan struct{}) { <-release }, func(n int) bool { return n == 100 }},
		{"short", func(<-chan struct{}) {}, func(n int) bool { return n < 20 }},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			var running, most int
			var mu sync.Mutex
			p := connect(t, &script{unary: func(context.Context, *text) (*text, error) {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				tt.handler(release)
				mu.Lock()
				running--
				mu.Unlock()
				return new(text), nil
			}}, nil)
			defer p.close()
			crew := &p.mux.crew
			crew.mu.Lock() // so that no worker takes any before all are there
			crew.coming = true
			crew.mu.Unlock()
			p.send(open(1, "Unary", `,"message":""`))
			p.want(helloText)
			for i := 2; i <= 100; i++ {
				p.send(open(i, "Unary", `,"message":""`))
			}
			synctest.Wait()
			crew.mu.Lock()
			crew.coming = false
			rested, needed := crew.needWorker()
			crew.mu.Unlock()
			if !needed {
				t.Fatalf("%s: no call waits", tt.name)
			}
			crew.sendWorker(rested)
			synctest.Wait()
			mu.Lock()
			if tt.name == "blocking" && most != 100 {
				t.Errorf("%d of 100 handlers that block run at once", most)
			}
			mu.Unlock()
			close(release)
			for range 100 {
				<-p.got
			}
			synctest.Wait()
			p.bench.mu.Lock()
			defer p.bench.mu.Unlock()
			if !tt.workers(p.bench.n) {
				t.Errorf("%s: %d workers for 100 calls", tt.name, p.bench.n)
			}
		})
	}
}
