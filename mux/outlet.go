package mux

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"oneport/mux/internal/sniff"
)

// outlet is one way out of a split, as the net.Listener of a server. Closing it
// ends its own Accept only: cmux's listeners close the whole port with them, and
// servers close what they have been given.
type outlet struct {
	net.Listener        // cmux's
	taking       func() // called for each connection before it leaves the split
	conns        chan net.Conn
	closing      chan struct{}
	close        sync.Once
}

func newOutlet(ln net.Listener, taking func()) *outlet {
	return &outlet{Listener: ln, taking: taking, conns: make(chan net.Conn), closing: make(chan struct{})}
}

// pump must run for Accept to find anything. It passes connections on until cmux's listener ends, which it does when the
// split is closed. A connection that no one will accept any more is closed.
func (o *outlet) pump() {
	defer close(o.conns)
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return
		}
		select {
		case o.conns <- c:
		case <-o.closing:
			c.Close()
		}
	}
}

// Accept returns the next connection, bare but for the bytes that the split has
// read of it. After Close, and not before, the error is net.ErrClosed: a server
// that saw its listener fail while the split drains would drop connections.
func (o *outlet) Accept() (net.Conn, error) {
	select {
	case c, ok := <-o.conns:
		if ok {
			o.taking()
			bare, _ := sniff.Handoff(c)
			return bare, nil
		}
		<-o.closing
	case <-o.closing:
	}
	return nil, net.ErrClosed
}

func (o *outlet) Close() error {
	o.close.Do(func() { close(o.closing) })
	return nil
}

// arrivals counts the connections that have left the split and are not yet in
// the books of a server. A server that is told to finish in that moment would
// not know of them.
type arrivals struct{ n atomic.Int64 }

func (a *arrivals) begin() { a.n.Add(1) }
func (a *arrivals) end()   { a.n.Add(-1) }

// wait returns when there are none, or ctx has ended. It polls, since the moment
// is short and comes once in the life of a server.
func (a *arrivals) wait(ctx context.Context) {
	for a.n.Load() > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}
