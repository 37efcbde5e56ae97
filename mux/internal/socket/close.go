package socket

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// Close codes (RFC 6455 §7.4.1) that this package sends, and some for handlers.
const (
	CloseNormal      = 1000
	CloseGoingAway   = 1001 // the server is shutting down
	CloseProtocol    = 1002
	CloseUnsupported = 1003 // not the kind of message expected
	CloseInvalid     = 1007 // not UTF-8, JSON or protobuf
	ClosePolicy      = 1008 // flood
	CloseTooBig      = 1009
	CloseInternal    = 1011
)

// cutWait is how long Server.Close waits for a close frame to be written.
const cutWait = 250 * time.Millisecond

var errHandlerExited = errors.New("socket: handler exited")

// CloseError is the end of a socket by a close frame.
type CloseError struct {
	Code   int    // 1005 if the peer's close frame has none
	Reason string // valid UTF-8, at most 123 bytes
	ByPeer bool   // the peer's close frame came first
}

func (e *CloseError) Error() string {
	side := "server"
	if e.ByPeer {
		side = "client"
	}
	return fmt.Sprintf("socket: closed by %s: %d %q", side, e.Code, e.Reason)
}

// CloseWith ends the socket: it sends a close frame after all messages whose Write
// has returned, and ends the context. It does not wait. TCP is closed when the peer
// has answered, or a second after the close frame has been written; or at once if
// the socket cannot be written to. Only the first call counts, and none after the
// peer's close frame.
//
// A code that must not be sent (RFC 6455 §7.4) is sent as 1011. The reason is made
// valid UTF-8 and cut to the 123 bytes that fit.
func (c *Conn) CloseWith(code int, reason string) { c.CloseAfter(nil, code, reason) }

// CloseAfter is CloseWith with one more binary message, unless it is nil, of which the
// same holds: it is the last, waits for no room, and is sent if the close frame is.
func (c *Conn) CloseAfter(message []byte, code int, reason string) {
	if !sendable(code) {
		code = CloseInternal
	}
	reason = cleanReason(reason)
	c.close(message, websocket.FormatCloseMessage(code, reason), &CloseError{Code: code, Reason: reason})
}

// sendable tells whether code may stand in a close frame.
func sendable(code int) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}

// cleanReason makes a reason fit a close frame: 125 bytes less the code.
func cleanReason(s string) string {
	const limit = 123
	// What lies beyond four times the limit cannot move into it, so
	// that a long text need not be looked through.
	s = strings.ToValidUTF8(s[:min(len(s), 4*limit)], "\uFFFD")
	if len(s) <= limit {
		return s
	}
	n := limit
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// close queues our close frame, after a message unless that is nil, and ends the context,
// unless the socket has ended.
func (c *Conn) close(message, frame []byte, cause *CloseError) {
	if c.out.last(message, frame, cause) {
		c.cancel(cause)
	}
}

// peerClosed is called by gorilla in Read. It answers the close frame in kind.
func (c *Conn) peerClosed(code int, reason string) error {
	c.close(nil, websocket.FormatCloseMessage(code, ""), &CloseError{Code: code, Reason: reason, ByPeer: true})
	c.hasten()
	return nil
}

// gorillaClosed is called in Read with the close frame that gorilla would send.
func (c *Conn) gorillaClosed(code int, reason string) {
	switch {
	case code == CloseTooBig:
		c.tooBig()
	case reason == "bad close code 1014":
		// gorilla's list of codes ends before 1014, Bad Gateway, which IANA
		// has registered since.
		c.peerClosed(1014, "")
	default:
		c.CloseWith(code, reason)
	}
}

func (c *Conn) tooBig() {
	c.CloseAfter(c.farewell, CloseTooBig, fmt.Sprintf("message larger than %d bytes", c.limit))
}

// flushed is called once by the queue, when our close frame has been written.
func (c *Conn) flushed() {
	c.mu.Lock()
	c.sent = true
	hurry := c.hurry
	if !hurry && !c.over {
		c.timer.Stop()
		c.timer = time.AfterFunc(closeWait, c.kill)
	}
	c.mu.Unlock()
	if hurry {
		c.hangUp()
	}
}

// hasten has TCP closed as soon as our close frame has been written.
func (c *Conn) hasten() {
	c.mu.Lock()
	c.hurry = true
	sent := c.sent
	c.mu.Unlock()
	if sent {
		c.hangUp()
	}
}

// cut ends the socket because the server cannot wait.
func (c *Conn) cut() {
	c.CloseWith(CloseGoingAway, "server closed")
	c.mu.Lock()
	c.hurry = true
	sent := c.sent
	if !sent && !c.over {
		c.timer.Stop()
		c.timer = time.AfterFunc(cutWait, c.kill)
	}
	c.mu.Unlock()
	if sent {
		c.kill()
	}
}

// writeFailed is called by the queue when a write has failed.
func (c *Conn) writeFailed(err error) { c.fail(fmt.Errorf("socket: write: %w", err)) }

// fail ends the socket at once because of cause, unless it has ended for another.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	c.over = true
	c.timer.Stop()
	c.mu.Unlock()
	c.cancel(c.out.abandon(cause))
	c.kill()
}

// kill closes TCP without a word, since TLS would wait for the peer to take its
// close alert.
func (c *Conn) kill() {
	if t, ok := c.wire.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.hangUp()
}

// hangUp closes TCP in order.
func (c *Conn) hangUp() {
	c.wire.Close()
	c.unpark()
}

// finish ends the socket in order. It is called once, after the handler, and
// returns when TCP is closed.
func (c *Conn) finish() {
	if c.server.drain.Err() != nil {
		c.CloseWith(CloseGoingAway, "server is shutting down")
	}
	c.CloseWith(CloseNormal, "")
	c.out.settle()
	// From now on c.timer, or somebody's kill, bounds the reading.
	for c.readErr == nil {
		c.Read()
	}
	// After an error frames cannot be told apart any more. Were TCP closed with
	// bytes unread, its reset could overtake our close frame.
	if half, ok := c.wire.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	c.wire.extend(0)
	io.Copy(io.Discard, c.wire.Conn)
	c.wire.Close()
}
