package wsrpc

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// Subprotocol is the name of the protocol of many calls on one socket, specified in
// PROTOCOL.md.
const Subprotocol = "grpc-ws.v1"

// Limits of one socket (PROTOCOL.md, section 5).
const (
	maxCalls      = 256
	maxMetadata   = 16 << 10 // bytes of open or hello
	metadataCost  = 32       // of each key and value, beside their length
	firstFrame    = 10 * time.Second
	pingRate      = 10 // a second
	pingBurst     = 20
	maxRefusals   = 100 // of calls, that wait beside what else does
	closeNoFrame  = 4408
	leavingReason = "server is shutting down"
)

// multiplexer is one socket of grpc-ws.v1. The socket's own goroutine reads; a crew runs
// the calls, for none of which the reader waits, but a moment for all where too much of
// them does (backlog.go). All have ended when the socket has.
type multiplexer struct {
	conn    *socket.Conn
	reg     *rpc.Registry
	crew    crew
	backlog backlog

	// The reader's own.
	peer      *peer.Peer
	handshake fields        // its metadata
	greeting  fields        // that of the client's last hello, with the rest of handshake
	metadata  metadata.MD   // the same as greeting; nil before it is needed
	refusal   error         // of calls, for metadata of the client's last hello
	window    int64         // of the client
	maxAnswer int           // likewise, in bytes of a message
	last      uint32        // the last call that was opened
	pings     *rate.Limiter // nil before the first
	lastOpen  *lastOpen     // nil while the socket rests
	refusals  int           // in a row that found the queue of the socket full
	late      *time.Timer   // ends the wait for the first frame; nil after it

	mu   sync.Mutex
	kind socket.Kind // of the client's first frame, zero before; written by the reader; guarded by mu
}

// newMultiplexer begins a socket, of which read is to be called.
func newMultiplexer(c *socket.Conn, reg *rpc.Registry, handshake *handshake, b *bench) *multiplexer {
	s := &multiplexer{
		conn:      c,
		reg:       reg,
		crew:      crew{conn: c, bench: b},
		peer:      handshake.peer,
		handshake: fieldsOf(handshake.metadata),
		window:    window,
		maxAnswer: math.MaxInt,
	}
	s.greeting = s.handshake
	s.backlog.setLimit(reg.MaxMessageBytes())
	c.SetLimit(min(reg.MaxMessageBytes(), math.MaxInt-frameRoom-1) + frameRoom)
	c.Gather(s.crew.several)
	s.late = time.AfterFunc(firstFrame, func() {
		c.CloseWith(closeNoFrame, fmt.Sprintf("no frame within %v", firstFrame))
	})
	c.OnDrain(s.drain)
	return s
}

// read returns when the socket rests, or is ending and no call runs any more.
func (s *multiplexer) read(*socket.Conn) {
	for {
		m, err := s.conn.ReadSoon()
		if err == socket.ErrQuiet {
			s.rest()
			return
		}
		if err != nil {
			break
		}
		if s.late != nil {
			s.late.Stop()
			s.late = nil // an idle socket keeps nothing it can do without
		}
		kept, breach := s.receive(m)
		if !kept {
			m.Release()
		}
		if breach != nil {
			s.conn.CloseWith(breach.Code, breach.Reason)
		}
	}
	if s.late != nil {
		s.late.Stop()
	}
	s.crew.wait()
}

// rest lets go of what is only there to be quick, and of the goroutine.
func (s *multiplexer) rest() {
	s.lastOpen, s.metadata = nil, nil
	s.crew.rest()
	s.conn.Rest(s.read)
}

// receive does what a frame says. It reports whether it has kept m, which holds the
// bytes. The error ends the socket.
func (s *multiplexer) receive(m *socket.Message) (kept bool, breach *socket.CloseError) {
	if s.lastOpen == nil {
		s.lastOpen = &lastOpen{room: len(s.greeting) / 2}
	}
	f := frame{last: s.lastOpen}
	if err := f.parse(m.Kind, m.Data); err != nil {
		return false, &socket.CloseError{Code: parseCode(err), Reason: err.Error()}
	}
	s.greet(m.Kind)
	if why := s.breach(&f); why != "" {
		return false, &socket.CloseError{Code: socket.CloseProtocol, Reason: why}
	}
	if f.ping != nil {
		if s.pings == nil {
			s.pings = rate.NewLimiter(pingRate, pingBurst)
		}
		if !s.pings.Allow() {
			return false, &socket.CloseError{Code: socket.ClosePolicy, Reason: "too many pings"}
		}
		s.writeNow(m.Kind, &frame{pong: f.ping})
	}
	if f.hello != nil {
		s.hello(f.hello)
	}
	if f.open != nil {
		kept = s.begin(&f, m)
		s.lastOpen.space = openFrame{} // through which an idle socket would keep m
		return kept, nil
	}
	c := s.crew.find(f.call)
	if c == nil { // it is over, or was refused, or the frame is not of a call
		return false, nil
	}
	kept = c.feed(&f, m)
	if f.cancel {
		c.abort()
	}
	return kept, nil
}

// greet sends the hello, in the encoding of the first frame.
func (s *multiplexer) greet(kind socket.Kind) {
	if s.kind != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if h.maxMessage > 0 {
		s.maxAnswer = int(min(h.maxMessage, math.MaxInt32))
	}
	if s.refusal = checkMetadata(h.metadata); s.refusal == nil {
		s.metadata, s.refusal = rpc.OverlayMetadata(s.handshake.metadata(), h.metadata)
		s.greeting = fieldsOf(s.metadata)
	}
	s.lastOpen.raw, s.lastOpen.room, s.lastOpen.whole = nil, len(s.greeting)/2, nil
}

// fields are metadata as keys and values in turn. Many sockets are idle, and a map of a few
// keys is large.
type fields []string

func fieldsOf(md metadata.MD) fields {
	n := 0
	for _, values := range md {
		n += len(values)
	}
	f := make(fields, 0, 2*n)
	for key, values := range md {
		for _, v := range values {
			f = append(f, key, v)
		}
	}
	return f
}

func (f fields) metadata() metadata.MD {
	md := make(metadata.MD, len(f)/2)
	for ; len(f) > 0; f = f[2:] {
		md[f[0]] = append(md[f[0]], f[1])
	}
	return md
}

func checkMetadata(md metadata.MD) error {
	size := 0
	for key, values := range md {
		for _, v := range values {
			size += len(key) + len(v) + metadataCost
		}
	}
	if size > maxMetadata {
		return status.Errorf(codes.ResourceExhausted, "metadata of %d bytes, more than %d", size, maxMetadata)
	}
	return nil
}

// begin takes a call, or refuses it. It reports whether it has kept m.
func (s *multiplexer) begin(f *frame, m *socket.Message) (kept bool) {
	s.last = f.call
	c := &call{
		owner: s, number: f.call, kind: m.Kind,
		in: requests{left: window, all: &s.backlog}, maxAnswer: s.maxAnswer,
		answer: answer{kind: m.Kind},
	}
	c.out.left.Store(s.window)
	err := s.prepare(c, f.open)
	if err != nil || f.cancel {
		if s.crew.pass(f.call) == nil && !f.cancel {
			s.refuse(c, err)
		}
		return false
	}
	c.known.Begin(s.conn.Context())
	kept = c.feed(f, m)
	if err := s.crew.start(c); err != nil {
		c.known.Cancel()
		c.in.drop()
		if err != errLeaving {
			s.refuse(c, err)
		}
	}
	return kept
}

// refuse ends a call that has not begun.
func (s *multiplexer) refuse(c *call, err error) {
	c.end.set(err, nil)
	b, err := c.lastFrame()
	if err != nil {
		panic(fmt.Sprintf("wsrpc: frame without a message: %v", err)) // only messages can be wrong
	}
	switch {
	case s.conn.TryWrite(c.kind, b):
		s.refusals = 0 // those that still wait have all found room
	case s.refusals < maxRefusals:
		// If the reader waited, cancels and pings would wait as well.
		s.refusals++
		s.conn.WriteNow(c.kind, b)
	default:
		// A client that opens ever more calls and takes no answers is not read
		// from. Should the socket have ended, Read tells why.
		_ = s.conn.Write(s.conn.Context(), c.kind, b)
		s.refusals = 0
	}
}

// prepare fills in what the client says of the call.
func (s *multiplexer) prepare(c *call, o *openFrame) (err error) {
	if s.refusal != nil {
		return s.refusal
	}
	c.known.Peer, c.known.Timeout = s.peer, timeout(o.timeoutMS)
	if c.known.Metadata, err = s.callMetadata(o); err != nil {
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

// callMetadata returns the metadata of the call that is opened. Since it is only read,
// calls may share it.
func (s *multiplexer) callMetadata(o *openFrame) (metadata.MD, error) {
	if o.repeats && s.lastOpen.whole != nil {
		return s.lastOpen.whole, nil
	}
	if o.repeats { // and a hello has come with it
		if err := o.parseMetadata(o.raw, s.lastOpen.room); err != nil {
			return nil, err
		}
	}
	if err := checkMetadata(o.metadata); err != nil {
		return nil, err
	}
	if s.metadata == nil {
		s.metadata = s.greeting.metadata()
	}
	md, err := rpc.OverlayMetadata(s.metadata, o.metadata)
	if err == nil && s.lastOpen.keep(o) {
		s.lastOpen.whole = md
	}
	return md, err
}

func timeout(ms uint64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// drain is called once, when the server begins to shut down. Calls that are opened
// from now on are not taken.
func (s *multiplexer) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, idle := s.crew.drain()
	if s.kind != 0 {
		s.writeNow(s.kind, &frame{goAway: &goAwayFrame{lastCall: last, reason: leavingReason}})
	}
	if idle {
		s.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
}

// writeNow sends a frame that the client cannot have many of.
func (s *multiplexer) writeNow(kind socket.Kind, f *frame) {
	b, err := f.append(nil, kind)
	if err != nil {
		panic(fmt.Sprintf("wsrpc: frame without a message: %v", err)) // only messages can be wrong
	}
	s.conn.WriteNow(kind, b)
}
