package ready

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/grpc/mem"
)

// Waits tells whether [Reader.Read] waits without a buffer on this system.
const Waits = true

// A Reader reads from one TCP connection when it is readable. The zero value is ready for
// use, by one goroutine at a time.
type Reader struct {
	raw syscall.RawConn // nil before the first read
}

// An attempt is a read under way. It is not a closure so that a read allocates nothing.
type attempt struct {
	try  func(fd uintptr) (done bool) // read
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.try = a.read
	return a
}}

// Read returns a buffer of size bytes from the pool, for the caller to put back, and how
// many bytes of it were read from c: at least one. At the end of the stream it returns
// io.EOF; with an error there is no buffer.
func (r *Reader) Read(c *net.TCPConn, size int, pool mem.BufferPool) (*[]byte, int, error) {
	if r.raw == nil {
		raw, err := c.SyscallConn()
		if err != nil {
			return nil, 0, err
		}
		r.raw = raw
	}
	a := attempts.Get().(*attempt)
	a.size, a.pool = size, pool
	err := r.raw.Read(a.try)
	buf, n := a.buf, a.n
	if err == nil && a.err != nil {
		err = os.NewSyscallError("read", a.err)
	}
	a.pool, a.buf, a.n, a.err = nil, nil, 0, nil
	attempts.Put(a)

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

// read reads once from fd, which does not block. It reports whether that is the end of it: if not, it is called
// again when fd has become readable. A buffer stays in a only with a read that succeeded.
func (a *attempt) read(fd uintptr) (done bool) {
	buf := a.pool.Get(a.size)
	for {
		// Of package syscall and not x/sys/unix, as in net: the race detector takes the pair for a race.
		a.n, a.err = syscall.Read(int(fd), *buf)
		if a.err != syscall.EINTR {
			break
		}
	}
	if a.err == nil {
		a.buf = buf
		return true
	}
	a.pool.Put(buf)
	return a.err != syscall.EAGAIN
}
