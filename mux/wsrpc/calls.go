package wsrpc

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// Subprotocol is the name of the protocol of many calls on one socket, specified in
// PROTOCOL.md.
const Subprotocol = "grpc-ws.v1"

// Limits of one socket (PROTOCOL.md, section 5).
const (
	maxCalls      = 100
	maxMetadata   = 16 << 10 // bytes of open or hello
	metadataCost  = 32       // of each key and value, beside their length
	frameRoom     = 64 << 10 // bytes of a frame around its message
	firstFrame    = 10 * time.Second
	pingRate      = 10 // a second
	pingBurst     = 20
	closeNoFrame  = 4408
	leavingReason = "server is shutting down"
)

// multiplexer is one socket of grpc-ws.v1. The socket's own goroutine reads and never
// waits for a call. Each call runs on a worker: a goroutine that stays, with the stack
// it has grown, for further calls as long as there are any. All have ended when run
// returns.
type multiplexer struct {
	conn *socket.Conn
	reg  *rpc.Registry

	// The reader's own.
	handshake *rpc.Call
	metadata  metadata.MD // of the handshake and the client's last hello
	refusal   error       // of calls, for metadata of the client's last hello
	window    int64       // of the client
	pings     *rate.Limiter

	workers sync.WaitGroup

	mu       sync.Mutex
	kind     socket.Kind      // of the client's first frame, zero before; guarded by mu
	last     uint32           // the last call that was opened; written by the reader; guarded by mu
	calls    map[uint32]*call // those that are not over for the client; guarded by mu
	running  int              // calls whose worker is not done with them; guarded by mu
	draining bool             // guarded by mu
	resting  *worker          // guarded by mu
}

func newMultiplexer(c *socket.Conn, reg *rpc.Registry, handshake *rpc.Call) *multiplexer {
	return &multiplexer{
		conn:      c,
		reg:       reg,
		handshake: handshake,
		metadata:  handshake.Metadata,
		window:    window,
		pings:     rate.NewLimiter(pingRate, pingBurst),
		calls:     make(map[uint32]*call),
	}
}

// run returns when the socket is ending and no call runs any more.
func (s *multiplexer) run() {
	s.conn.SetLimit(s.reg.MaxMessageBytes() + frameRoom)
	late := time.AfterFunc(firstFrame, func() {
		s.conn.CloseWith(closeNoFrame, fmt.Sprintf("no frame within %v", firstFrame))
	})
	drained := make(chan struct{})
	stop := context.AfterFunc(s.conn.Draining(), func() {
		defer close(drained)
		s.drain()
	})
	for {
		m, err := s.conn.Read()
		if err != nil {
			break
		}
		late.Stop()
		if err := s.receive(m); err != nil {
			s.conn.CloseWith(err.Code, err.Reason)
		}
	}
	late.Stop()
	// The context of the socket has ended, and with it those of the calls.
	s.workers.Wait()
	if !stop() {
		<-drained
	}
}

// receive does what a frame says. The error ends the socket.
func (s *multiplexer) receive(m *socket.Message) *socket.CloseError {
	kept := false
	defer func() {
		if !kept {
			m.Release()
		}
	}()
	var f frame
	if err := f.parse(m.Kind, m.Data); err != nil {
		return &socket.CloseError{Code: socket.CloseInvalid, Reason: err.Error()}
	}
	s.greet(m.Kind)
	if why := s.breach(&f); why != "" {
		return &socket.CloseError{Code: socket.CloseProtocol, Reason: why}
	}
	if f.ping != nil {
		if !s.pings.Allow() {
			return &socket.CloseError{Code: socket.ClosePolicy, Reason: "too many pings"}
		}
		s.writeNow(m.Kind, &frame{pong: f.ping})
	}
	if f.hello != nil {
		s.hello(f.hello)
	}
	c := s.find(f.call)
	if f.open != nil {
		c = s.open(&f, m.Kind)
	}
	if c == nil { // it is over, or was refused, or the frame is not of a call
		return nil
	}
	kept = c.feed(&f, m)
	switch {
	case f.cancel:
		c.abort()
		if f.open != nil {
			s.served()
		}
	case f.open != nil:
		s.start(c)
	}
	return nil
}

// greet sends the hello, in the encoding of the first frame.
func (s *multiplexer) greet(kind socket.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind != 0 {
		return
	}
	s.kind = kind
	s.writeNow(kind, &frame{hello: &helloFrame{
		window:     window,
		maxMessage: uint32(min(uint64(s.reg.MaxMessageBytes()), math.MaxUint32)),
		maxCalls:   maxCalls,
	}})
}

// breach is the rule of section 6 that the frame breaks, or "".
func (s *multiplexer) breach(f *frame) string {
	switch {
	case f.header != nil || f.end != nil || f.goAway != nil:
		return "header, end and goAway are the server's to send"
	case f.call == 0 && (f.open != nil || f.credit > 0 || f.message != nil || f.halfClose || f.cancel):
		return "a frame with something of a call and no number"
	case f.open != nil && f.call <= s.last:
		return fmt.Sprintf("open of call %d, not above call %d", f.call, s.last)
	case f.open == nil && f.call > s.last:
		return fmt.Sprintf("call %d was not opened", f.call)
	}
	return ""
}

// hello takes what holds for later calls.
func (s *multiplexer) hello(h *helloFrame) {
	if h.window > 0 {
		s.window = min(int64(h.window), maxCredit)
	}
	if s.refusal = checkMetadata(h.metadata); s.refusal == nil {
		s.metadata, s.refusal = rpc.OverlayMetadata(s.handshake.Metadata, h.metadata)
	}
}

func checkMetadata(md metadata.MD) error {
	size := 0
	for key, values := range md {
		for _, v := range values {
			size += len(key) + len(v) + metadataCost
		}
		if len(values) == 0 { // as JSON can say
			size += len(key) + metadataCost
		}
	}
	if size > maxMetadata {
		return status.Errorf(codes.ResourceExhausted, "metadata of %d bytes, more than %d", size, maxMetadata)
	}
	return nil
}

// open takes a call, or refuses it and returns nil.
func (s *multiplexer) open(f *frame, kind socket.Kind) *call {
	c := &call{owner: s, number: f.call, kind: kind, out: credit{left: s.window}, in: requests{left: window}}
	c.ctx, c.cancel = context.WithCancel(s.conn.Context())
	taken, err := s.add(c)
	if taken {
		if err = s.prepare(c, f.open); err == nil {
			return c
		}
		s.remove(c)
		s.served()
	}
	c.cancel()
	if err != nil {
		// Should the socket have ended, Read tells why. A client that takes no
		// answers is not read from.
		_ = s.write(s.conn.Context(), kind, &frame{call: c.number, end: newEnd(err, nil)})
	}
	return nil
}

// prepare fills in what the client says of the call.
func (s *multiplexer) prepare(c *call, o *openFrame) (err error) {
	if s.refusal != nil {
		return s.refusal
	}
	if err := checkMetadata(o.metadata); err != nil {
		return err
	}
	c.known = rpc.Call{Peer: s.handshake.Peer, Timeout: timeout(o.timeoutMS)}
	if c.known.Metadata, err = rpc.OverlayMetadata(s.metadata, o.metadata); err != nil {
		return err
	}
	name := o.method
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	if c.method, err = s.reg.Lookup(name); err != nil {
		return err
	}
	c.in.single = !c.method.ClientStreams
	return nil
}

func timeout(ms uint64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// drain is called once, when the server begins to shut down. Calls that are opened
// from now on are not taken.
func (s *multiplexer) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if s.kind != 0 {
		s.writeNow(s.kind, &frame{goAway: &goAwayFrame{lastCall: s.last, reason: leavingReason}})
	}
	if s.running == 0 {
		s.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
}

// write sends a frame, waiting for room in the socket's queue.
func (s *multiplexer) write(ctx context.Context, kind socket.Kind, f *frame) error {
	b, err := f.append(nil, kind)
	if err != nil {
		return err
	}
	return s.conn.Write(ctx, kind, b)
}

// writeNow sends a frame that the client cannot have many of.
func (s *multiplexer) writeNow(kind socket.Kind, f *frame) {
	b, err := f.append(nil, kind)
	if err != nil {
		panic(fmt.Sprintf("wsrpc: frame without a message: %v", err)) // only messages can be wrong
	}
	s.conn.WriteNow(kind, b)
}
