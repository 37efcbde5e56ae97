//go:build !linux

package ready

import (
	"errors"
	"net"

	"google.golang.org/grpc/mem"
)

// Waits tells whether [Reader.Read] waits without a buffer on this system.
const Waits = false

// A Reader is nothing here.
type Reader struct{}

// Read reads from c into a buffer of size bytes from the pool, for the caller to put back.
// With an error there is no buffer.
func (*Reader) Read(c *net.TCPConn, size int, pool mem.BufferPool) (*[]byte, int, error) {
	buf := pool.Get(size)
	n, err := c.Read(*buf)
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, nil
}

// A Lot is nothing here.
type Lot struct{}

// Parked is what a Lot would tell.
type Parked interface{ Wake() }

// A Ticket is one stay in a Lot. The zero Ticket is none.
type Ticket uint64

// Park is an error, and p.Wake is not called.
func (*Lot) Park(*net.TCPConn, Parked) (Ticket, error) { return 0, errors.ErrUnsupported }

// Leave does nothing.
func (*Lot) Leave(Ticket) {}
