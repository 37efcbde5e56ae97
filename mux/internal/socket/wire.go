package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// wire is the connection gorilla reads from. What gorilla writes once the
// handshake is over goes to the socket's queue instead.
type wire struct {
	net.Conn
	idle  time.Duration // how long the peer may be silent
	early []byte        // came together with the handshake, to be read first
	check frameCheck
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
		check: frameCheck{maxFrames: cfg.MaxFrames},
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
	if n > 0 {
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
	} else {
		// Set only when the network is asked, since several messages can
		// come of one answer.
		if w.heard {
			w.heard = false
			w.SetReadDeadline(time.Now().Add(w.idle))
		}
		n, w.err = w.Conn.Read(p)
	}
	ok, err := w.check.check(p[:n])
	if err != nil {
		w.err = err
	}
	if ok > 0 || w.err == nil {
		return ok, nil
	}
	w.told = true
	return 0, w.err
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
