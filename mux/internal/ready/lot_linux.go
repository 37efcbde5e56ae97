package ready

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// A Lot is where TCP connections wait to become readable without a goroutine each: one waits for all, with an epoll of
// its own, as long as there are any. The zero value is empty and ready for use. Its methods may be called concurrently.
type Lot struct {
	mu     sync.Mutex
	parked map[Ticket]Parked // guarded by mu
	last   Ticket            // guarded by mu
	epoll  *os.File          // nil while nothing is parked; guarded by mu
	fd     int               // of epoll; guarded by mu
}

// Parked is told by Wake, on a goroutine of its own, that its wait is over.
type Parked interface{ Wake() }

// A Ticket is one stay in a Lot. The zero Ticket is none.
type Ticket uint64

// Park has p.Wake called once: when c has something to read, be it an error or the end of the stream, or with Leave.
// With an error it is not called. A connection is parked once at a time, and whoever closes it must call Leave after that.
func (l *Lot) Park(c *net.TCPConn, p Parked) (Ticket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	l.last++
	event := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT,
		Fd:     int32(l.last), Pad: int32(l.last >> 32),
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.EpollCtl(l.fd, syscall.EPOLL_CTL_ADD, int(fd), &event)
		if failed == syscall.EEXIST { // from an earlier stay
			failed = syscall.EpollCtl(l.fd, syscall.EPOLL_CTL_MOD, int(fd), &event)
		}
	})
	if err == nil {
		err = os.NewSyscallError("epoll_ctl", failed)
	}
	if err != nil {
		l.closeIfEmpty()
		return 0, err
	}
	if l.parked == nil {
		l.parked = make(map[Ticket]Parked)
	}
	l.parked[l.last] = p
	return l.last, nil
}

// Leave ends a stay that is not over.
func (l *Lot) Leave(t Ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(t)
}

func (l *Lot) leaveLocked(t Ticket) {
	p, ok := l.parked[t]
	if !ok {
		return
	}
	delete(l.parked, t)
	go p.Wake()
	l.closeIfEmpty()
}

// open starts the goroutine that waits. Called with l.mu held; likewise closeIfEmpty.
func (l *Lot) open() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	syscall.SetNonblock(fd, true) // or package os would not wait for it as for a socket
	l.epoll, l.fd = os.NewFile(uintptr(fd), "epoll"), fd
	go l.watch(l.epoll)
	return nil
}

func (l *Lot) closeIfEmpty() {
	if len(l.parked) == 0 && l.epoll != nil {
		l.epoll.Close() // which ends watch
		l.epoll, l.parked = nil, nil
	}
}

// watch wakes what has become readable until epoll is closed.
func (l *Lot) watch(epoll *os.File) {
	raw, err := epoll.SyscallConn()
	if err != nil {
		return
	}
	var events [128]syscall.EpollEvent
	for err == nil {
		n := 0
		err = raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		l.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			l.leaveLocked(Ticket(uint32(e.Fd)) | Ticket(uint32(e.Pad))<<32)
		}
		l.mu.Unlock()
	}
}
