package tunnel

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// reader is the half of a connection that is read. What comes of the WebSocket is written
// to the other end of a net.Pipe, which waits for Read, and knows of deadlines.
type reader struct {
	in  net.Conn // of the pipe
	end error    // what Read returns when the other end is closed; set before
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	switch err {
	case io.EOF:
		err = r.end
	case io.ErrClosedPipe:
		err = net.ErrClosed
	}
	return n, err
}

func (r *reader) SetReadDeadline(t time.Time) error { return r.in.SetReadDeadline(t) }

// turn is a mutex that may be held while its holder waits for the other end: to a bubble
// of testing/synctest, unlike a sync.Mutex, those who wait for it wait for that as well.
// It is a channel with room for one.
type turn chan struct{}

func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// deadline is that of the writes of a connection. The zero value is none.
type deadline struct {
	mu     sync.Mutex
	ctx    context.Context // ends when the deadline passes; guarded by mu
	cancel func()          // ends ctx; guarded by mu
	timer  *time.Timer     // calls cancel; guarded by mu
}

// context returns one that ends with the deadline, also if that is changed meanwhile.
func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.contextLocked()
}

func (d *deadline) contextLocked() context.Context {
	if d.ctx == nil {
		d.ctx, d.cancel = context.WithCancel(context.Background())
	}
	return d.ctx
}

// set makes t the deadline. The zero Time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired := d.timer != nil && !d.timer.Stop()
	d.timer = nil
	if fired || d.ctx != nil && d.ctx.Err() != nil {
		d.ctx = nil // the last one has passed, for those who wait
	}
	if t.IsZero() {
		return
	}
	d.contextLocked()
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, d.cancel)
	} else {
		d.cancel()
	}
}
