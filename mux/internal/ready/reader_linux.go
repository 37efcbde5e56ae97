package ready

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"google.golang.org/grpc/mem"
)

// Waits tells whether [Reader.Read] waits without a buffer on this system.
const Waits = true

// A Reader reads from one TCP connection when it is readable. The zero value is ready for
// use, by one goroutine at a time.
type Reader struct {
	raw syscall.RawConn // nil before the first read; likewise try
	try func(fd uintptr) (done bool)

	// Of the read under way. They are here and not in a closure so that a read allocates nothing.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// Read returns a buffer of size bytes from the pool, for the caller to put back, and how
// many bytes of it were read from c: at least one. At the end of the stream it returns
// io.EOF; with an error there is no buffer.
func (r *Reader) Read(c *net.TCPConn, size int, pool mem.BufferPool) (*[]byte, int, error) {
	if err := r.init(c); err != nil {
		return nil, 0, err
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

// Wait waits until c has something to read, be it the end of the stream. It needs so little of a stack that one of 2 KiB,
// the smallest there is, does not grow.
func (r *Reader) Wait(c *net.TCPConn) error {
	if err := r.init(c); err != nil {
		return err
	}
	return r.raw.Read(readable)
}

func (r *Reader) init(c *net.TCPConn) error {
	if r.raw != nil {
		return nil
	}
	raw, err := c.SyscallConn()
	if err == nil {
		r.raw, r.try = raw, r.attempt
	}
	return err
}

// readable tells whether a read from fd would not block.
func readable(fd uintptr) bool {
	var b byte
	// recv, which is not in package syscall.
	_, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno != syscall.EAGAIN
}

// attempt reads once from fd, which does not block. It reports whether that is the end of it: if not, it is called
// again when fd has become readable. A buffer stays in r only with a read that succeeded.
func (r *Reader) attempt(fd uintptr) (done bool) {
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
