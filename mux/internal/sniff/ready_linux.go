package sniff

import (
	"io"
	"net"
	"os"
	"syscall"

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
	return c.ready.read(c.TCPConn, size, pool)
}

// ReadOnReady is as on tcpConn, but holds a buffer as long as an acknowledgement may have to be left out.
func (c *tcpGreetedConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.prefix) > 0 || !c.in.done {
		return readPooled(c, size, pool)
	}
	return c.ready.read(c.tcp, size, pool)
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

// A readyReader reads from a TCP connection when it is readable. The zero value is ready for use.
type readyReader struct {
	raw syscall.RawConn
	try func(fd uintptr) (done bool)

	// Of the read under way. They are here and not in a closure so that a read allocates nothing.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

func (r *readyReader) read(c *net.TCPConn, size int, pool mem.BufferPool) (*[]byte, int, error) {
	if r.raw == nil {
		raw, err := c.SyscallConn()
		if err != nil {
			return nil, 0, err
		}
		r.raw, r.try = raw, r.attempt
	}
	r.size, r.pool = size, pool
	err := r.raw.Read(r.try)
	buf, n := r.buf, r.n
	if err == nil && r.err != nil {
		err = os.NewSyscallError("read", r.err)
	}
	r.pool, r.buf, r.n, r.err = nil, nil, 0, nil

	switch {
	case buf == nil:
		return nil, 0, err
	case n == 0:
		pool.Put(buf)
		return nil, 0, io.EOF
	default:
		return buf, n, nil
	}
}

// attempt reads once from fd, which does not block. It reports whether that is the end of it: if not, it is called
// again when fd has become readable. A buffer stays in r only with a read that succeeded.
func (r *readyReader) attempt(fd uintptr) (done bool) {
	buf := r.pool.Get(r.size)
	for {
		// Of package syscall and not x/sys/unix, as in net: the race detector takes the pair for a race.
		r.n, r.err = syscall.Read(int(fd), *buf)
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err == nil {
		r.buf = buf
		return true
	}
	r.pool.Put(buf)
	return r.err != syscall.EAGAIN
}
