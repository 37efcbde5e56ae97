package sniff

import (
	"bytes"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"golang.org/x/net/http2"
)

// firstRead is the room for the first read, in bytes: the usual request, preface or ClientHello fits, and a silent
// connection holds no more than this.
const firstRead = 2 << 10

// greeting is what a client that waits for the server gets: a SETTINGS frame, and the acknowledgement of the client's
// (RFC 9113, section 6.5).
func greeting(settings []http2.Setting) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.WriteSettings(settings...)
	fr.WriteSettingsAck()
	return b.Bytes()
}

// A Conn is a connection of which the kind is being told. It is of use to [Match], [KindOf], [Handoff] and [Reject] only,
// which know what is under it; until one of the last two has taken it, it has a deadline and a budget.
//
// Only Close may be called concurrently with other methods.
type Conn struct {
	net.Conn // the accepted connection
	ln       *Listener
	expiry   *time.Timer // closes the connection if nobody has taken it long after the deadline

	head []byte // all that was read so far
	read int    // how much of head was given out by Read

	judged bool
	kind   Kind
	reason error // why it is that kind, if not plain

	stream   uint32 // of the first request over HTTP/2; 0 until its header was read
	window   uint32 // what the client's first SETTINGS let the server send on it
	opening  int    // where the client's first SETTINGS end; 0 until they were read
	greeted  bool   // greeting was written
	greetErr error  // or was not, or in part
}

// Read gives out what was read from the start on, then reads on within the budget. It never returns bytes together
// with an error, since cmux would return that error again with every part of those bytes.
func (c *Conn) Read(p []byte) (int, error) {
	if c.read == len(c.head) {
		if err := c.need(len(c.head) + 1); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.head[c.read:])
	c.read += n
	return n, nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.ln.forget(c)
	return c.Conn.Close()
}

// expire closes the connection if nobody has taken it.
func (c *Conn) expire() {
	if c.ln.forget(c) {
		c.Conn.Close()
	}
}

// need reads until head has n bytes. It returns errBudget, and reads nothing, if they would be more than the budget.
func (c *Conn) need(n int) error {
	if n > c.ln.cfg.Budget {
		return errBudget
	}
	for len(c.head) < n {
		if c.opening > 0 && !c.greeted {
			c.greeted = true
			if _, c.greetErr = c.Conn.Write(c.ln.greeting); c.greetErr != nil {
				return c.greetErr
			}
		}
		if len(c.head) == cap(c.head) {
			grown := make([]byte, len(c.head), min(max(2*cap(c.head), firstRead), c.ln.cfg.Budget))
			copy(grown, c.head)
			c.head = grown
		}
		got, err := c.Conn.Read(c.head[len(c.head):cap(c.head)])
		c.head = c.head[:len(c.head)+got]
		if got == 0 && err != nil {
			return err
		}
	}
	return nil
}

// judge returns the kind of the connection. It reads for it the first time it is called.
func (c *Conn) judge() Kind {
	if !c.judged {
		c.judged = true
		c.kind, c.reason = c.classifySafely()
	}
	return c.kind
}

// classifySafely is classify, with a panic made Unknown: cmux calls matchers on a goroutine of its own, where a panic
// would end the process.
func (c *Conn) classifySafely() (k Kind, err error) {
	defer func() {
		if r := recover(); r != nil {
			k, err = Unknown, fmt.Errorf("sniff: panic: %v", r)
			c.ln.cfg.Log.Error("panic while telling what a connection speaks",
				"remote", c.RemoteAddr(), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return c.classify()
}
