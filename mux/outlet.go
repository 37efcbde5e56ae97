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
	addr     net.Addr
	arriving *arrivals // counts the connections that have left the split; may be nil
	conns    chan net.Conn
	begin    func() // called before each connection, does something for the first
	closing  chan struct{}
	close    func()
}

func newOutlet(addr net.Addr, arriving *arrivals) *outlet {
	o := &outlet{addr: addr, arriving: arriving, conns: make(chan net.Conn), begin: func() {}, closing: make(chan struct{})}
	o.close = sync.OnceFunc(func() { close(o.closing) })
	return o
}

// put waits for Accept to take c, a connection as cmux gives it. One that no one will
// accept any more is closed, and so is one that still waits when its stage is over: its
// time was up before.
func (o *outlet) put(c net.Conn, over <-chan struct{}) {
	o.begin()
	select {
	case o.conns <- c:
	case <-o.closing:
		c.Close()
	case <-over:
		c.Close()
	}
}

// Accept returns the next connection, bare but for the bytes that the split has
// read of it. After Close, and not before, the error is net.ErrClosed: a server
// that saw its listener fail while the split drains would drop connections.
func (o *outlet) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return o.arriving.take(c), nil
	case <-o.closing:
		return nil, net.ErrClosed
	}
}

func (o *outlet) Close() error {
	o.close()
	return nil
}

func (o *outlet) Addr() net.Addr { return o.addr }

// arrivals counts the connections that have left the split and are not yet in
// the books of a server. A server that is told to finish in that moment would
// not know of them.
type arrivals struct {
	n     atomic.Int64
	conns sync.Map // net.Conn to nothing
}

// take takes c out of the split. Without arrivals, somebody else counts.
func (a *arrivals) take(c net.Conn) net.Conn {
	if a != nil {
		a.n.Add(1) // before the split forgets it
	}
	bare := sniff.Handoff(c)
	if a != nil {
		a.conns.Store(bare, nil)
	}
	return bare
}

// end is called at least once for each connection.
func (a *arrivals) end(c net.Conn) {
	if _, ok := a.conns.LoadAndDelete(c); ok {
		a.n.Add(-1)
	}
}

// wait returns when there are none, or ctx has ended. It polls, since the moment
// is short and comes once in the life of a server.
func (a *arrivals) wait(ctx context.Context) {
	for a.n.Load() > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}
