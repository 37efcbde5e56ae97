package socket

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// ClientConn is a WebSocket that Dial has opened. It is read by gorilla, and written to
// past it: whole frames made by MaskFrame, to NetConn.
type ClientConn struct {
	*websocket.Conn
	wire *clientWire
}

// Begin ends the handshake; it is called before the first read. heard, which may be nil,
// is called when something has come. wrong is called when what has come is not WebSocket
// or above a limit, with code and reason of the close frame that is to be sent; the read
// under way fails. Both are called on the goroutine that reads.
func (c *ClientConn) Begin(heard func(), wrong func(code int, reason string)) {
	c.wire.heard, c.wire.wrong = heard, wrong
}

// NetConn returns what frames are written to: the connection, or that in TLS.
func (c *ClientConn) NetConn() net.Conn { return c.wire.Conn }

// Kill closes the connection without a word, since TLS would wait for the server to take
// its close alert.
func (c *ClientConn) Kill() { c.wire.raw.Close() }

// clientWire is the connection that gorilla reads from. It bounds the handshake,
// refuses frames that gorilla would let pass, and takes the close frames that gorilla
// sends by itself.
type clientWire struct {
	net.Conn
	raw   net.Conn // beneath TLS
	heard func()   // see Begin; likewise wrong, which is nil during the handshake
	wrong func(code int, reason string)

	early []byte // has come and is to be read first
	shook int    // bytes of the handshake's answer that were read
	first byte   // of them
	check FrameCheck
	err   error // of check
}

// maxHandshake is how many bytes the answer to the handshake may have.
const maxHandshake = 64 << 10

var errHandshakeTooLarge = fmt.Errorf("the answer to the handshake is larger than %d bytes", maxHandshake)

// Read implements net.Conn. It never returns data and an error at once.
func (w *clientWire) Read(p []byte) (int, error) {
	if w.wrong == nil {
		return w.readHandshake(p)
	}
	if w.err == nil {
		n, err := w.readFrames(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	if ce, ok := errors.AsType[*CloseError](w.err); ok {
		w.wrong(ce.Code, ce.Reason)
	}
	return 0, w.err
}

// readFrames returns neither data nor an error if the first byte is wrong.
func (w *clientWire) readFrames(p []byte) (int, error) {
	n := copy(p, w.early)
	if n > 0 {
		w.early = w.early[n:]
	} else {
		var err error
		w.early = nil
		if n, err = w.Conn.Read(p); n == 0 {
			return 0, err
		}
		if w.heard != nil {
			w.heard()
		}
	}
	n, w.err = w.check.Check(p[:n])
	return n, nil
}

// readHandshake gives one byte at a time, so that gorilla has read nothing of what
// follows when it has read the answer.
func (w *clientWire) readHandshake(p []byte) (int, error) {
	if w.shook >= maxHandshake {
		return 0, errHandshakeTooLarge
	}
	if len(w.early) == 0 {
		b := make([]byte, 2048)
		n, err := w.Conn.Read(b)
		if n == 0 {
			return 0, err
		}
		w.early = b[:n]
	}
	n := copy(p[:min(len(p), 1)], w.early)
	if w.shook == 0 {
		w.first = w.early[0]
	}
	w.early = w.early[n:]
	w.shook += n
	return n, nil
}

// Write implements net.Conn. After the handshake gorilla writes nothing but whole
// close frames, since all its other writing goes past it.
func (w *clientWire) Write(p []byte) (int, error) {
	if w.wrong == nil {
		return w.Conn.Write(p)
	}
	const header = 2 + 4 // with the masking key
	if len(p) < header+2 {
		return 0, errors.New("socket: gorilla wrote another frame than a close frame")
	}
	payload := make([]byte, len(p)-header)
	for i := range payload {
		payload[i] = p[header+i] ^ p[2+i%4]
	}
	w.wrong(int(binary.BigEndian.Uint16(payload)), string(payload[2:]))
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. After the handshake who writes past gorilla
// alone sets write deadlines.
func (w *clientWire) SetWriteDeadline(t time.Time) error {
	if w.wrong == nil {
		return w.Conn.SetWriteDeadline(t)
	}
	return nil
}

// MaxClientHeader is the length of the longest header of a client's frame, with the key.
const MaxClientHeader = 14

// MaskFrame makes a frame of a client of b[start:], where the payload comes after
// MaxClientHeader bytes of room (RFC 6455 §5.2).
func MaskFrame(b []byte, start int, opcode byte) []byte {
	payload := b[start+MaxClientHeader:]
	h := append(b[start:start], 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		h = append(h, 0x80|byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 0x80|126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 0x80|127), uint64(n))
	}
	// The generator is seeded by the system and cannot be predicted, as §5.3 asks.
	var key [64]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	for n := 4; n < len(key); n *= 2 {
		copy(key[n:], key[:n])
	}
	h = append(h, key[:4]...)
	for p := payload; len(p) > 0; {
		p = p[subtle.XORBytes(p, p, key[:]):]
	}
	n := copy(b[start+len(h):], payload)
	return b[:start+len(h)+n]
}
