package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// callContext is the context of a call. It has what gRPC's own functions look for in
// one: metadata, peer and stream. It is a part of the Call and costs nothing else until
// somebody waits for its end or derives from it: then inner is made, a context of
// package context, of which the callContext is another name. So package context knows
// it for one of its own.
type callContext struct {
	call     *Call
	parent   context.Context
	deadline time.Time // the earlier one of the parent's and the call's; zero: none
	own      bool      // it is the call's

	inner atomic.Pointer[innerContext] // nil until it is needed

	over atomic.Bool // err is set

	mu   sync.Mutex // of the change of inner
	err  error      // why the context has ended before there was an inner; guarded by mu
	self bool       // that was not the parent's end; guarded by mu
}

type innerContext struct {
	context.Context
	cancel context.CancelFunc
}

var _ context.Context = (*callContext)(nil)

func (c *callContext) begin(parent context.Context, call *Call) {
	c.call, c.parent = call, parent
	c.deadline, _ = parent.Deadline()
	if call.Timeout > 0 {
		if d := time.Now().Add(call.Timeout); c.deadline.IsZero() || d.Before(c.deadline) {
			c.deadline, c.own = d, true
		}
	}
}

func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

func (c *callContext) Done() <-chan struct{} { return c.real().Done() }

func (c *callContext) Err() error {
	if inner := c.inner.Load(); inner != nil {
		return inner.Err()
	}
	if !c.over.Load() && c.parent.Err() == nil && !c.late() {
		return nil // streams ask with each message, so without the lock
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if inner := c.inner.Load(); inner != nil {
		return inner.Err()
	}
	return c.errLocked()
}

// late tells whether the deadline of the call has passed.
func (c *callContext) late() bool { return c.own && !time.Now().Before(c.deadline) }

func (c *callContext) errLocked() error {
	if c.err != nil {
		return c.err
	}
	if err := c.parent.Err(); err != nil {
		c.set(err, false)
	} else if c.late() {
		c.set(context.DeadlineExceeded, true)
	}
	return c.err
}

func (c *callContext) set(err error, self bool) {
	c.err, c.self = err, self
	c.over.Store(true)
}

func (c *callContext) Value(key any) any {
	switch key {
	case metadataKey:
		return c.call.Metadata
	case peerKey:
		return c.call.Peer
	case streamKey:
		return (*transportStream)(&c.call.stream)
	case cancelKey:
		return c.real().Value(key)
	}
	return c.parent.Value(key)
}

// end ends the context with context.Canceled, unless it has ended.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if inner := c.inner.Load(); inner != nil {
		inner.cancel()
	} else if c.errLocked() == nil {
		c.set(context.Canceled, true)
	}
}

// real returns inner, which has ended if the context has, with the same error.
func (c *callContext) real() context.Context {
	if inner := c.inner.Load(); inner != nil {
		return inner.Context
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if inner := c.inner.Load(); inner != nil {
		return inner.Context
	}
	inner := new(innerContext)
	err, parent := c.errLocked(), c.parent
	if c.self { // the parent may have ended since, for another reason
		parent = context.WithoutCancel(parent)
	}
	if c.own && err != context.Canceled {
		inner.Context, inner.cancel = context.WithDeadline(parent, c.deadline)
	} else {
		inner.Context, inner.cancel = context.WithCancel(parent)
	}
	if err == context.Canceled {
		inner.cancel()
	}
	c.inner.Store(inner)
	return inner.Context
}

// During has something that knows no context, such as a read of a connection, end with
// ctx: limit makes it end. The caller must call stop when it is over, which tells whether
// limit was called; it is not any more then.
func During(ctx context.Context, limit func()) (stop func() (fired bool)) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		limit()
	})
	return func() bool {
		if cancel() {
			return false
		}
		<-done
		return true
	}
}

// The keys are not exported, but the functions that look for them tell them to every
// context they ask. TestContextValues and TestCallContext fail should they ever look for
// something else.
var (
	metadataKey = keyOf(func(ctx context.Context) { metadata.FromIncomingContext(ctx) })
	peerKey     = keyOf(func(ctx context.Context) { peer.FromContext(ctx) })
	streamKey   = keyOf(func(ctx context.Context) { grpc.ServerTransportStreamFromContext(ctx) })
	cancelKey   = keyOf(func(ctx context.Context) { context.Cause(ctx) })
)

func keyOf(ask func(context.Context)) any {
	asked := &keyContext{Context: context.Background()}
	ask(asked)
	return asked.key
}

// keyContext remembers the key it was asked for. It has ended, since Cause asks no other.
type keyContext struct {
	context.Context
	key any
}

func (c *keyContext) Err() error { return context.Canceled }

func (c *keyContext) Value(key any) any {
	c.key = key
	return nil
}
