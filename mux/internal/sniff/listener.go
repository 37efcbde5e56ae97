package sniff

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Config limits how long and how far a [Listener] looks at a connection.
type Config struct {
	// Timeout is the time from Accept to the verdict. Zero means 3 seconds.
	Timeout time.Duration
	// Budget is how much of a connection is read and held for the verdict, in bytes. Zero means 32 KiB.
	Budget int
	// Settings are announced to an HTTP/2 client that waits to hear from the server before it sends a request. They
	// must grant no more than each of the servers behind does, and should be just what those announce: then the client
	// sees but one SETTINGS frame. Without any the defaults of RFC 9113, section 6.5.2, hold until the server has
	// announced its own. No setting may be there twice.
	Settings []http2.Setting
	// Foreign is called once for each GRPC connection on which the server, if it is grpc-go's, refuses a request that
	// is none of gRPC. A Write waits for it. May be nil.
	Foreign func(remote net.Addr)
	// Log gets a line when Accept has to wait and when a matcher panics. Nil means slog.Default().
	Log *slog.Logger
}

// takeGrace is how long after Timeout a connection is closed that was matched but that no server took.
const takeGrace = time.Second

// A Listener accepts the connections of another listener as [Conn], to be the root of a cmux. Its methods may be
// called concurrently.
type Listener struct {
	ln       net.Listener
	cfg      Config
	greeting []byte

	quit chan struct{} // closed by the first Drain or Close
	done chan struct{} // closed when, after that, nothing is held and no connection can come

	mu        sync.Mutex
	accepting int                // guarded by mu: calls of ln.Accept under way
	conns     map[*Conn]struct{} // guarded by mu: accepted, and neither handed off nor closed
	closed    bool               // guarded by mu: Close was called
	closeLn   func() error
}

// NewListener returns a Listener that accepts from ln, which it owns from then on.
func NewListener(ln net.Listener, cfg Config) *Listener {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 3 * time.Second
	}
	if cfg.Budget <= 0 {
		cfg.Budget = 32 << 10
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Listener{
		ln:       ln,
		cfg:      cfg,
		greeting: greeting(cfg.Settings),
		quit:     make(chan struct{}),
		done:     make(chan struct{}),
		conns:    make(map[*Conn]struct{}),
		closeLn:  sync.OnceValue(ln.Close),
	}
}

// Addr returns the address of the listener underneath.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Accept returns the next connection as a *[Conn].
//
// While the listener underneath has a temporary error, such as too many open files, Accept waits and tries again.
// After Drain or Close it returns [net.ErrClosed], but not before the last connection given out has been handed off or
// closed: cmux drops what it still has in its queues when Accept fails.
func (l *Listener) Accept() (net.Conn, error) {
	var delay time.Duration
	for {
		c, err := l.accept()
		switch {
		case err == nil:
			return c, nil
		case l.quitting():
			<-l.done
			return nil, net.ErrClosed
		case !isTemporary(err):
			return nil, err
		}
		// The same waits as net/http.
		if delay == 0 {
			delay = 5 * time.Millisecond
			l.cfg.Log.Warn("accept failed, trying again", "addr", l.Addr(), "err", err)
		} else {
			delay = min(2*delay, time.Second)
		}
		select {
		case <-time.After(delay):
		case <-l.quit:
		}
	}
}

// accept makes one attempt to accept a connection.
func (l *Listener) accept() (*Conn, error) {
	l.mu.Lock()
	if l.quitting() {
		l.mu.Unlock()
		return nil, net.ErrClosed
	}
	l.accepting++
	l.mu.Unlock()

	nc, err := l.ln.Accept()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepting--
	defer l.settle()
	if err != nil {
		return nil, err
	}
	if l.closed {
		nc.Close()
		return nil, net.ErrClosed
	}
	c := &Conn{Conn: nc, ln: l}
	nc.SetDeadline(time.Now().Add(l.cfg.Timeout))
	c.expiry = time.AfterFunc(l.cfg.Timeout+takeGrace, c.expire)
	l.conns[c] = struct{}{}
	return c, nil
}

// forget lets go of c. It reports whether c was still held: of those who want to take c or close it, one is told so.
func (l *Listener) forget(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.expiry.Stop()
	_, held := l.conns[c]
	delete(l.conns, c)
	l.settle()
	return held
}

// settle closes done once nothing is left to wait for. Callers hold mu.
func (l *Listener) settle() {
	if !l.quitting() || l.accepting > 0 || len(l.conns) > 0 {
		return
	}
	select {
	case <-l.done:
	default:
		close(l.done)
	}
}

func (l *Listener) quitting() bool {
	select {
	case <-l.quit:
		return true
	default:
		return false
	}
}

// stop makes Accept take no more connections.
func (l *Listener) stop() error {
	l.mu.Lock()
	if !l.quitting() {
		close(l.quit)
	}
	l.settle()
	l.mu.Unlock()
	return l.closeLn()
}

// Drain stops accepting and waits until every connection that was accepted has been handed off, refused or closed;
// Accept then returns. The child listeners must be served until then, or what they queue is lost when its time is
// over: Drain takes no longer than Timeout and a second. If ctx ends first, Drain returns its cause, and the caller
// may call it again or Close.
func (l *Listener) Drain(ctx context.Context) error {
	// An error of the listener underneath is nothing to the caller: it is no longer used either way.
	_ = l.stop()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close stops accepting and closes every connection that was accepted and not handed off. It may be called more than
// once and returns the error of the listener underneath.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	held := l.conns
	l.conns = nil
	l.mu.Unlock()

	err := l.stop()
	for c := range held {
		c.expiry.Stop()
		c.Conn.Close()
	}
	return err
}

// isTemporary reports whether trying to accept again may help. The method of net.Error is deprecated for errors in
// general; for Accept it is still what net/http goes by.
func isTemporary(err error) bool {
	type temporary interface {
		error
		Temporary() bool
	}
	t, ok := errors.AsType[temporary](err)
	return ok && t.Temporary()
}
