//go:build !linux

package ready

import (
	"net"

	"google.golang.org/grpc/mem"
)

// Waits tells whether [Reader.Read] waits without a buffer on this system.
const Waits = false

// A Reader is nothing here.
type Reader struct{}

// Wait does not wait.
func (*Reader) Wait(*net.TCPConn) error { return nil }

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
