package wsrpc

import (
	"sync"
	"time"
)

// worker is a goroutine that runs one call after another, of any socket, since the stack
// that it has grown is worth more than a new one.
type worker struct {
	next  chan *crew // that needs it; has room for one; nil: there is nothing more to do
	below *worker    // the next one that rests
}

// run serves crews, from c on, until it is told that there are no more.
func (w *worker) run(c *crew) {
	defer func() {
		if c != nil { // the handler has ended this goroutine
			c.next(nil, true)
		}
	}()
	for ; c != nil; c = <-w.next {
		c.serve(w)
	}
}

// A bench is where workers rest that no socket has. Those that have not been needed for
// a while go, and no socket that is idle keeps any.
type bench struct {
	mu     sync.Mutex
	top    *worker     // guarded by mu
	n      int         // guarded by mu
	least  int         // of n, since the timer was set; guarded by mu
	timer  *time.Timer // nil while n is 0; guarded by mu
	closed bool        // guarded by mu
}

const (
	// maxBench is how many workers rest at most: as many as one socket needs.
	maxBench = maxCalls

	// benchTime is how long more of them rest than are needed.
	benchTime = time.Second
)

// take returns a worker, or nil if none rests.
func (b *bench) take() *worker {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.top
	if w != nil {
		b.top = w.below
		b.n--
		b.least = min(b.least, b.n)
	}
	return w
}

// give lets a worker rest, and those below it.
func (b *bench) give(w *worker) {
	b.mu.Lock()
	for w != nil && b.n < maxBench && !b.closed {
		next := w.below
		w.below, b.top = b.top, w
		b.n++
		w = next
	}
	if b.timer == nil && b.n > 0 {
		b.least = b.n
		b.timer = time.AfterFunc(benchTime, b.tire)
	}
	b.mu.Unlock()
	dismiss(w)
}

// tire lets go the workers that were not needed since the timer was set.
func (b *bench) tire() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	var tired *worker
	for ; b.least > 0 && b.top != nil; b.least-- {
		w := b.top
		b.top = w.below
		w.below, tired = tired, w
		b.n--
	}
	b.least = b.n
	if b.n > 0 {
		b.timer.Reset(benchTime)
	} else {
		b.timer = nil
	}
	b.mu.Unlock()
	dismiss(tired)
}

// close lets all go, now and from now on.
func (b *bench) close() {
	b.mu.Lock()
	top := b.top
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.top, b.n, b.least, b.closed = nil, 0, 0, true
	b.mu.Unlock()
	dismiss(top)
}

func dismiss(w *worker) {
	for w != nil {
		below := w.below // of which w is the owner until told
		w.next <- nil
		w = below
	}
}
