package wsrpc

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// backlog is what waits for the handlers of all calls of a socket. Credit bounds it for
// each call, but for one message, which may be much larger than the credit. Only the
// reader of the socket adds.
type backlog struct {
	limit int64
	cost  atomic.Int64

	freed atomic.Pointer[chan struct{}] // a token when cost has fallen; nil until somebody waits
	taken atomic.Bool                   // by a handler, since a wait was in vain
	vain  bool                          // the last wait was
}

// patience is how long the reader waits for handlers that are to take what waits.
const patience = time.Second

// setLimit sets how much may wait where this is the largest message: the windows of all
// calls, and one such message.
func (b *backlog) setLimit(maxMessage int) {
	const others = maxCalls*window + messageCost
	b.limit = min(int64(maxMessage), math.MaxInt64-others) + others
}

// add reports false, and has done nothing, if that is above the limit.
func (b *backlog) add(cost int64) bool {
	if b.cost.Add(cost) > b.limit {
		b.cost.Add(-cost)
		return false
	}
	return true
}

// wait is add once there is room, if there is within the patience. Large messages of many
// calls can come faster than workers get to run. Where handlers take nothing, the reader
// finds that out once.
func (b *backlog) wait(ctx context.Context, cost int64) bool {
	freed := b.freed.Load()
	if freed == nil {
		c := make(chan struct{}, 1)
		freed = &c
		b.freed.Store(freed)
	}
	var late <-chan time.Time
	for !b.add(cost) {
		if b.vain && !b.taken.Load() {
			return false
		}
		if late == nil {
			late = time.After(patience)
		}
		select {
		case <-*freed:
		case <-late:
			b.vain = true
			b.taken.Store(false)
			return b.add(cost)
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// take is remove for what a handler takes, so that there is hope for more.
func (b *backlog) take(cost int64) {
	if b.freed.Load() != nil {
		b.taken.Store(true)
	}
	b.remove(cost)
}

func (b *backlog) remove(cost int64) {
	b.cost.Add(-cost)
	if freed := b.freed.Load(); freed != nil {
		signal(*freed)
	}
}
