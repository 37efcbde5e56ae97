package socket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	in    *bufio.Reader // that gorilla reads through; it reads from the wire
	lent  *bufio.Reader // whose buffer in has; nil if that is in's own, or none
	tcp   *net.TCPConn  // Conn, if it can be waited for without a buffer; else nil
	ready ready.Reader
	busy  bool    // the last read has filled its buffer; without tcp
	ahead *[]byte // what was read and not passed on; nil if that is nothing
	from  int     // in ahead
	check FrameCheck
	heard bool      // the peer has shown life since until was set
	until time.Time // when the peer is given up
	hasty bool      // the read deadline is an earlier one
	err   error     // the first error of Read: the network's or of check
	told  bool      // Read has returned err

	// closeFrame is called with code and reason of the close frames that
	// gorilla sends when it finds an error. Nil during the handshake.
	closeFrame func(code int, reason string)
}

func newWire(cfg Config) *wire {
	return &wire{
		idle:  cfg.PingInterval + cfg.PongTimeout,
		in:    new(bufio.Reader),
		check: FrameCheck{MaxFrames: cfg.MaxFrames},
	}
}

const (
	// readAhead is how much is read at once: what comes is to be taken with few
	// system calls.
	readAhead = 16 << 10

	// ownBuffer is what gorilla's reader has where the wire cannot be waited for
	// without: no less, or gorilla would not take the reader it is given.
	ownBuffer = 257

	// lentBuffer is what it has elsewhere while something is read.
	lentBuffer = 4 << 10
)

// readers are those whose buffers are lent.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, lentBuffer) }}

// aheads are the buffers to read ahead.
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
		w.lend()
	} else {
		*w.in = *bufio.NewReaderSize(w, ownBuffer)
	}
}

// lend gives in a buffer.
func (w *wire) lend() {
	w.lent = readers.Get().(*bufio.Reader)
	w.lent.Reset(w)
	*w.in = *w.lent
}

// await waits until there is something to read, if it can do so without any buffer. That
// is done here and not in Read since gorilla calls that from so far down that the stack of
// an idle socket would be of twice the size. It reports true if nothing has come within
// the patience; zero is to wait as long as the peer has.
func (w *wire) await(patience time.Duration) (quiet bool) {
	if w.tcp == nil || w.err != nil || w.early != nil || w.ahead != nil || w.in.Buffered() > 0 {
		return false
	}
	if w.lent != nil {
		*w.in = bufio.Reader{}
		readers.Put(w.lent)
		w.lent = nil
	}
	w.extend(patience)
	w.readTCP()
	if w.hasty && errors.Is(w.err, os.ErrDeadlineExceeded) && time.Now().Before(w.until) {
		w.err = nil
		return true
	}
	w.lend()
	return false
}

// control takes the next frame if it is a ping or pong that has come whole. gorilla would
// take it as well, but then wait for the next from far down.
func (w *wire) control() (opcode byte, data string, ok bool) {
	if w.ahead == nil || w.err != nil || w.early != nil || w.in.Buffered() > 0 || !w.check.between() {
		return 0, "", false
	}
	const header = 2 + 4 // with the masking key
	p := (*w.ahead)[w.from:]
	if len(p) < header || p[0] != final|opPing && p[0] != final|opPong || p[1] < masked || p[1] > masked+125 {
		return 0, "", false
	}
	key, payload := p[2:header], p[header:]
	n := int(p[1] - masked)
	if len(payload) < n {
		return 0, "", false
	}
	payload = payload[:n]
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	opcode, data = p[0]&0xf, string(payload)
	w.skip(header + n)
	return opcode, data, true
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
	w.extend(0)
	var n int
	n, w.err = w.Conn.Read(p)
	w.busy = w.tcp == nil && n == len(p) && n < readAhead
	return n
}

// readAhead sets ahead, or err at the end of the connection.
func (w *wire) readAhead() {
	w.extend(0)
	if w.tcp != nil {
		w.readTCP()
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

// readTCP is readAhead without any regard to time.
func (w *wire) readTCP() {
	buf, n, err := w.ready.Read(w.tcp, readAhead, &aheads)
	if err != nil {
		w.err = err
		return
	}
	*buf = (*buf)[:n]
	w.ahead, w.from = buf, 0
}

// extend gives the peer its time, and the next read its patience, unless that is zero. It
// is called only when the network is asked, since several messages can come of one answer.
func (w *wire) extend(patience time.Duration) {
	if !w.heard && !w.hasty && patience == 0 {
		return
	}
	now := time.Now()
	if w.heard {
		w.heard = false
		w.until = now.Add(w.idle)
	}
	deadline := w.until
	if soon := now.Add(patience); patience > 0 && soon.Before(deadline) {
		deadline = soon
	}
	w.hasty = patience > 0
	w.SetReadDeadline(deadline)
}

func (w *wire) takeAhead(p []byte) int {
	n := copy(p, (*w.ahead)[w.from:])
	w.skip(n)
	return n
}

// skip lets go of n bytes ahead.
func (w *wire) skip(n int) {
	if w.from += n; w.from == len(*w.ahead) {
		aheads.Put(w.ahead)
		w.ahead = nil
	}
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
