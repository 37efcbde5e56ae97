package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"oneport/mux/internal/ready"
)

// wire is the connection gorilla reads from. What gorilla writes once the
// handshake is over goes to the socket's queue instead.
type wire struct {
	net.Conn
	idle  time.Duration // how long the peer may be silent
	early []byte        // came together with the handshake, to be read first
	tcp   *net.TCPConn  // Conn, if it can be waited for without a buffer; else nil
	ready ready.Reader
	busy  bool    // the last read has filled its buffer; without tcp
	ahead *[]byte // what was read and not passed on; nil if that is nothing
	from  int     // in ahead
	check FrameCheck
	heard bool  // the peer has shown life since the read deadline was set
	err   error // the first error of Read: the network's or of check
	told  bool  // Read has returned err

	// closeFrame is called with code and reason of the close frames that
	// gorilla sends when it finds an error. Nil during the handshake.
	closeFrame func(code int, reason string)
}

func newWire(cfg Config) *wire {
	return &wire{
		idle:  cfg.PingInterval + cfg.PongTimeout,
		check: FrameCheck{MaxFrames: cfg.MaxFrames},
	}
}

// readAhead is how much is read at once. The reader of gorilla, which an idle socket
// keeps, is too small to take what comes with few system calls.
const readAhead = 16 << 10

// aheads are the buffers for that.
var aheads = aheadPool{sync.Pool{New: func() any { b := make([]byte, readAhead); return &b }}}

type aheadPool struct{ sync.Pool }

func (p *aheadPool) Get(int) *[]byte {
	b := p.Pool.Get().(*[]byte)
	*b = (*b)[:readAhead]
	return b
}

func (p *aheadPool) Put(b *[]byte) { p.Pool.Put(b) }

// attach makes conn what w reads from.
func (w *wire) attach(conn net.Conn) {
	w.Conn = conn
	if tcp, ok := conn.(*net.TCPConn); ok && ready.Waits {
		w.tcp = tcp
	}
}

// await waits until there is something to read, if it can do so without a buffer. That
// is done here and not in Read since gorilla calls that from so far down that the stack of
// an idle socket would be of twice the size.
func (w *wire) await() {
	if w.tcp != nil && w.err == nil && w.early == nil && w.ahead == nil {
		w.readAhead()
	}
}

// Read implements net.Conn for the reader of the socket. It never returns data
// and an error at once.
func (w *wire) Read(p []byte) (int, error) {
	if w.err != nil {
		w.told = true
		return 0, w.err
	}
	n := copy(p, w.early)
	switch {
	case n > 0:
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
	case w.ahead != nil:
		n = w.takeAhead(p)
	default:
		n = w.readNetwork(p)
	}
	ok, err := w.check.Check(p[:n])
	if err != nil {
		w.err = err
	}
	if ok > 0 || w.err == nil {
		return ok, nil
	}
	w.told = true
	return 0, w.err
}

// readNetwork sets err at the end of the connection.
func (w *wire) readNetwork(p []byte) int {
	if w.tcp != nil && len(p) < readAhead || w.busy {
		w.readAhead()
		if w.ahead == nil {
			return 0
		}
		return w.takeAhead(p)
	}
	w.extend()
	var n int
	n, w.err = w.Conn.Read(p)
	w.busy = w.tcp == nil && n == len(p) && n < readAhead
	return n
}

// readAhead sets ahead, or err at the end of the connection.
func (w *wire) readAhead() {
	w.extend()
	if w.tcp != nil {
		buf, n, err := w.ready.Read(w.tcp, readAhead, &aheads)
		if err != nil {
			w.err = err
			return
		}
		w.ahead, w.from = buf, 0
		*buf = (*buf)[:n]
		return
	}
	buf := aheads.Get(readAhead)
	n, err := w.Conn.Read(*buf)
	w.busy = n == readAhead
	if n == 0 { // else the next Read has the error again
		aheads.Put(buf)
		w.err = err
		return
	}
	*buf = (*buf)[:n]
	w.ahead, w.from = buf, 0
}

// extend gives the peer its time. That is done only when the network is asked, since
// several messages can come of one answer.
func (w *wire) extend() {
	if w.heard {
		w.heard = false
		w.SetReadDeadline(time.Now().Add(w.idle))
	}
}

func (w *wire) takeAhead(p []byte) int {
	n := copy(p, (*w.ahead)[w.from:])
	if w.from += n; w.from == len(*w.ahead) {
		aheads.Put(w.ahead)
		w.ahead = nil
	}
	return n
}

// failure describes an error of the network.
func (w *wire) failure() error {
	err := w.err
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fmt.Errorf("socket: nothing heard for %v: %w", w.idle, err)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // no close frame came before
	}
	return fmt.Errorf("socket: read: %w", err)
}

// Write implements net.Conn. After the handshake gorilla writes nothing but whole
// close frames, since all its other writing is replaced.
func (w *wire) Write(p []byte) (int, error) {
	if w.closeFrame == nil {
		return w.Conn.Write(p)
	}
	w.closeFrame(int(binary.BigEndian.Uint16(p[2:])), string(p[4:]))
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. After the handshake the queue alone sets
// write deadlines, and gorilla's would disturb a write under way.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.closeFrame == nil {
		return w.Conn.SetWriteDeadline(t)
	}
	return nil
}
