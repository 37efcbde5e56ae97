package socket

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"oneport/mux/internal/ready"
)

// closeWait is how long a socket stays open for the peer's answer to our close
// frame, and Close for handlers that ignore the end of their context.
const closeWait = time.Second

// Config bounds the sockets of a [Server]. Zero in a field means the value named
// there.
type Config struct {
	// MaxMessageBytes is the largest message accepted, summed over its
	// frames. A larger one ends the socket with 1009. Zero means 4 MiB.
	MaxMessageBytes int

	// MaxFrames is the largest number of frames of one message. One more ends
	// the socket with 1008. Zero means 1024.
	MaxFrames int

	// PingInterval is the time between pings to the peer. Zero means 25 s.
	PingInterval time.Duration

	// PongTimeout is how long after PingInterval a peer of which nothing has
	// been heard is given up. A message counts when it is complete, and by
	// each 16 KiB of it. Zero means 10 s.
	PongTimeout time.Duration

	// WriteTimeout bounds each write to the network, of at most about
	// QueueBytes. A peer that does not take those in time is given up. Zero
	// means 10 s.
	WriteTimeout time.Duration

	// QueueBytes is how much may wait to be written to one socket, beside as
	// much that is just being written. Zero means 64 KiB.
	QueueBytes int

	// Patience is how long ReadSoon waits. Zero means 1 s.
	Patience time.Duration

	// Ended, unless nil, is called once for each connection that was taken
	// over, when it has ended and its handler has returned, with the context
	// of the socket or, if none came of it, of the request.
	Ended func(context.Context)

	// Log receives panics of handlers, as errors, and the end of each socket,
	// at debug level. Nil means slog.Default().
	Log *slog.Logger
}

// Server upgrades requests to sockets and owns them until they have ended. Its
// methods may be called concurrently.
type Server struct {
	cfg      Config
	upgrader websocket.Upgrader
	lot      ready.Lot     // of sockets that rest
	idle     chan struct{} // closed when draining and the last socket has ended

	// drain stands in a struct because it is nothing but the signal that
	// startDrain gives, in the form context.AfterFunc takes.
	drain      context.Context
	startDrain context.CancelFunc

	mu      sync.Mutex
	active  int                // sockets, and upgrades that may become one; guarded by mu
	conns   map[*Conn]struct{} // guarded by mu
	cutting bool               // new sockets are to be cut at once; guarded by mu
}

// NewServer returns a Server with no sockets. It panics if a field of cfg is
// negative.
func NewServer(cfg Config) *Server {
	if min(cfg.MaxMessageBytes, cfg.MaxFrames, cfg.QueueBytes) < 0 ||
		min(cfg.PingInterval, cfg.PongTimeout, cfg.WriteTimeout, cfg.Patience) < 0 {
		panic(fmt.Sprintf("socket: negative limit in %+v", cfg))
	}
	cfg.MaxMessageBytes = cmp.Or(cfg.MaxMessageBytes, 4<<20)
	cfg.MaxFrames = cmp.Or(cfg.MaxFrames, 1024)
	cfg.PingInterval = cmp.Or(cfg.PingInterval, 25*time.Second)
	cfg.PongTimeout = cmp.Or(cfg.PongTimeout, 10*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 10*time.Second)
	cfg.QueueBytes = cmp.Or(cfg.QueueBytes, 64<<10)
	cfg.Patience = cmp.Or(cfg.Patience, time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	s := &Server{
		cfg:   cfg,
		idle:  make(chan struct{}),
		conns: make(map[*Conn]struct{}),
		upgrader: websocket.Upgrader{
			HandshakeTimeout: cfg.WriteTimeout,
			// ReadBufferSize stays 0: gorilla reads through what handover gives it.
			// Never drawn from, since frames are written by the queue; with
			// it gorilla allocates no write buffer for each socket.
			WriteBufferPool: new(sync.Pool),
			CheckOrigin:     func(*http.Request) bool { return true },
			Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
				refusal{status: status, text: reason.Error()}.write(w, r)
			},
		},
	}
	s.drain, s.startDrain = context.WithCancel(context.Background())
	return s
}

// Draining returns a context that ends when the server begins to shut down.
func (s *Server) Draining() context.Context { return s.drain }

// enter counts an upgrade, unless the server drains.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain.Err() != nil {
		return false
	}
	s.active++
	return true
}

// leave ends what enter began. c is nil if no socket came of it.
func (s *Server) leave(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.active--
	s.checkIdle()
}

// checkIdle is called with s.mu held, once after active or drain has changed.
func (s *Server) checkIdle() {
	if s.active == 0 && s.drain.Err() != nil {
		close(s.idle)
	}
}

// begin takes a socket after the handshake.
func (s *Server) begin(c *Conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	cutting := s.cutting
	s.mu.Unlock()
	if cutting {
		c.cut()
	}
}

// run is the socket's own goroutine, until it ends or rests.
func (s *Server) run(c *Conn, handler func(*Conn)) {
	defer s.pass(c)
	s.contain(c, handler)
	if c.resume == nil {
		s.contain(c, (*Conn).finish)
	}
}

// pass has the socket go on without a goroutine, or lets go of it.
func (s *Server) pass(c *Conn) {
	if c.resume != nil {
		c.park()
		return
	}
	defer s.leave(c)
	c.fail(errHandlerExited) // which is the cause only if the handler has called runtime.Goexit
	s.cfg.Log.Debug("websocket ended", "remote", c.wire.RemoteAddr().String(), "reason", context.Cause(c.ctx))
	if s.cfg.Ended != nil {
		s.cfg.Ended(c.ctx)
	}
}

// contain runs f and keeps a panic from ending the process.
func (s *Server) contain(c *Conn, f func(*Conn)) {
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Log.Error("panic in a websocket handler", "panic", fmt.Sprintf("%.1000s", fmt.Sprint(v)), "stack", string(debug.Stack()))
			c.CloseWith(CloseInternal, "internal error")
		}
	}()
	f(c)
}

// Shutdown refuses new sockets with 503, tells every handler by [Conn.Draining]
// to finish what it has begun and close, and waits until all sockets have ended.
// When ctx ends first it does as Close and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginDrain()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		if err := s.Close(); err != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return ctx.Err()
	}
}

// Close sends every socket a close frame with 1001 and ends it without waiting
// for an answer. It returns when all handlers have, or after a second, with an
// error, if some ignore the end of their context.
func (s *Server) Close() error {
	s.beginDrain()
	s.mu.Lock()
	s.cutting = true
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.cut()
	}
	timeout := time.NewTimer(closeWait)
	defer timeout.Stop()
	select {
	case <-s.idle:
		return nil
	case <-timeout.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("socket: close: %d handlers go on after the end of their context", s.active)
	}
}

func (s *Server) beginDrain() {
	s.mu.Lock()
	if s.drain.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.startDrain()
	s.checkIdle()
	var told []func()
	for c := range s.conns {
		if c.drained != nil {
			told = append(told, c.drained)
		}
	}
	s.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// onDrain has f called when the server begins to shut down, by whoever calls Shutdown or
// Close, or now if it has.
func (s *Server) onDrain(c *Conn, f func()) {
	s.mu.Lock()
	c.drained = f
	draining := s.drain.Err() != nil
	s.mu.Unlock()
	if draining {
		f()
	}
}
