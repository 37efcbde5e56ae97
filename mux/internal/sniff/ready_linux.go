package sniff

import (
	"io"

	"google.golang.org/grpc/mem"
)

// ReadOnReady is grpc-go's optional method of a connection (internal/transport/readyreader): it waits until there are
// bytes and only then takes a buffer of the given size from the pool, for the caller to put back. Without it grpc-go
// keeps a 32 KiB buffer for each idle connection, as it knows only a bare *net.TCPConn. At the end of the stream it
// returns io.EOF; with an error there is no buffer.
func (c *tcpConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.prefix) > 0 {
		return readPooled(c, size, pool)
	}
	return c.ready.Read(c.TCPConn, size, pool)
}

// ReadOnReady is as on tcpConn, but holds a buffer as long as an acknowledgement may have to be left out.
func (c *tcpGreetedConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.prefix) > 0 || !c.in.done {
		return readPooled(c, size, pool)
	}
	return c.ready.Read(c.tcp, size, pool)
}

// readPooled reads from r into a buffer from the pool.
func readPooled(r io.Reader, size int, pool mem.BufferPool) (*[]byte, int, error) {
	buf := pool.Get(size)
	n, err := r.Read(*buf)
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}
