package wsrpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// clientSocket is one WebSocket of a ClientConn and the calls on it. One goroutine
// reads, as long as the socket lives; flush writes.
type clientSocket struct {
	conn *ClientConn
	ws   *socket.ClientConn // read by one goroutine
	peer *peer.Peer
	born time.Time

	ready   chan struct{} // closed when the server has said hello
	leaving chan struct{} // closed when no new calls are taken: by goAway or the end
	over    chan struct{} // closed by end

	// Set before ready is closed.
	hello helloFrame    // with defaults filled in
	slots chan struct{} // holds a token for each call

	out clientQueue

	mu       sync.Mutex // taken before out.mu
	calls    map[uint32]*clientCall
	last     uint32 // number of the last call; guarded by mu
	draining error  // why no new calls are taken; set before leaving is closed
	ended    error  // the status of calls at the end; set before over is closed
	code     int    // the close code of the end, 0 if there is none; set before over is closed

	heard     atomic.Int64  // time since born when something came, in ns
	pinged    int64         // likewise when the last ping was sent, or zero; guarded by mu
	asked     bool          // it has had no pong; guarded by mu
	roundTrip time.Duration // of the last ping that had one, or zero; guarded by mu
	keepalive *time.Timer   // nil if there are no pings
}

func newClientSocket(c *ClientConn, ws *socket.ClientConn) *clientSocket {
	s := &clientSocket{
		conn: c, ws: ws, born: time.Now(),
		ready: make(chan struct{}), leaving: make(chan struct{}), over: make(chan struct{}),
		calls: make(map[uint32]*clientCall),
	}
	ws.Begin(s.touch, s.wrong)
	nc := ws.NetConn()
	s.peer = &peer.Peer{Addr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr()}
	if t, ok := nc.(*tls.Conn); ok {
		s.peer.AuthInfo = credentials.TLSInfo{
			State:          t.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	s.out = clientQueue{conn: nc, wrote: s.touch, failed: func(err error) {
		s.end(0, status.Errorf(codes.Unavailable, "wsrpc: write: %v", err))
	}}
	ws.SetReadLimit(int64(c.opts.MaxMessageBytes) + frameRoom)
	ws.SetPingHandler(func(data string) error { return s.answered(s.out.rawPong(data)) })
	ws.SetCloseHandler(s.closed)
	return s
}

// touch notes that the server lives.
func (s *clientSocket) touch() { s.heard.Store(int64(time.Since(s.born))) }

// greet says hello and begins with pings.
func (s *clientSocket) greet() {
	s.send(&frame{hello: &helloFrame{window: s.conn.opts.Window, maxMessage: uint32(s.conn.opts.MaxMessageBytes)}})
	if every := s.conn.opts.Keepalive.Interval; every > 0 {
		s.mu.Lock()
		if s.ended == nil {
			s.keepalive = time.AfterFunc(every, s.keepAlive)
		}
		s.mu.Unlock()
	}
}

// send queues a small frame, which never waits. After the end it is dropped.
func (s *clientSocket) send(f *frame) { s.out.push(f, s.conn.opts.JSON) }

// answered makes the outcome of queueing a pong that of reading the ping.
func (s *clientSocket) answered(err error) error {
	if err == errQueueFull {
		return &breach{websocket.ClosePolicyViolation, "it sends pings and does not read the answers"}
	}
	return nil
}

// read is the goroutine of the socket. It ends when the connection is closed, at the
// latest a moment after end.
func (s *clientSocket) read() {
	s.end(readStatus(s.readFrames()))
	s.out.settle()
	// The server is to read the close frame, and to close the connection. Closed at
	// once, with what it has sent unread, it could be reset before.
	io.Copy(io.Discard, s.ws.NetConn())
	s.ws.Kill()
	s.conn.gone(s)
}

// breach is what ends a socket by our close frame.
type breach struct {
	code int
	text string
}

func (b *breach) Error() string { return b.text }

// status is that of calls.
func (b *breach) status() error {
	return status.Errorf(closeCodeStatus(b.code), "wsrpc: the server has broken the protocol (%d): %.200s", b.code, strings.ToValidUTF8(b.text, "?"))
}

// readStatus is what end is to be told of an error of readFrames.
func readStatus(err error) (int, error) {
	if b, ok := errors.AsType[*breach](err); ok {
		return b.code, b.status()
	}
	if err == websocket.ErrReadLimit { // gorilla sends nothing if the sum of lengths overflows
		return websocket.CloseMessageTooBig, errTooLargeFrame.status()
	}
	return 0, status.Errorf(codes.Unavailable, "wsrpc: read: %.200v", err)
}

var errTooLargeFrame = &breach{websocket.CloseMessageTooBig, "a WebSocket message is too large"}

// wrong is called in read with the close frame to send for what is not WebSocket.
func (s *clientSocket) wrong(code int, reason string) {
	switch {
	case code == websocket.CloseMessageTooBig:
		s.end(code, errTooLargeFrame.status())
	case reason == "bad close code 1014":
		// gorilla's list of codes ends before 1014, Bad Gateway, which IANA
		// has registered since.
		s.closed(1014, "")
	default:
		s.end(code, (&breach{code, reason}).status())
	}
}

// closed is called by gorilla in read, with the close frame of the server.
func (s *clientSocket) closed(code int, reason string) error {
	st := status.Errorf(closeCodeStatus(code), "wsrpc: the server has closed the socket with %d: %.200s", code, strings.ToValidUTF8(reason, "?"))
	if code == websocket.CloseNoStatusReceived {
		code = websocket.CloseNormalClosure
	}
	s.end(code, st)
	return nil
}

// Close codes that are not RFC 6455's (PROTOCOL.md, section 6).
const (
	closeUnauthenticated  = 4401
	closePermissionDenied = 4403
)

// closeCodeStatus is the status code of calls that are open when a socket ends
// (PROTOCOL.md, section 6).
func closeCodeStatus(code int) codes.Code {
	switch code {
	case websocket.CloseNormalClosure:
		return codes.Canceled
	case websocket.CloseProtocolError, websocket.CloseUnsupportedData, websocket.CloseInvalidFramePayloadData, websocket.CloseInternalServerErr:
		return codes.Internal
	case websocket.ClosePolicyViolation, websocket.CloseMessageTooBig:
		return codes.ResourceExhausted
	case closeUnauthenticated:
		return codes.Unauthenticated
	case closePermissionDenied:
		return codes.PermissionDenied
	}
	return codes.Unavailable
}

// end ends the socket and its calls with st, once. code is that of the close frame to
// send; without one, 0, the connection is closed at once.
func (s *clientSocket) end(code int, st error) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended, s.code = st, code
	calls := s.calls
	s.calls = nil
	if s.keepalive != nil {
		s.keepalive.Stop()
	}
	s.leave(st)
	close(s.over)
	// Before the reader, which finds the socket ended, waits for what is written.
	if code != 0 {
		s.out.last(websocket.FormatCloseMessage(code, ""))
		s.ws.SetReadDeadline(time.Now().Add(clientCloseTimeout))
	} else {
		s.out.abandon()
		s.ws.Kill()
	}
	s.mu.Unlock()
	for _, c := range calls {
		c.over(nil, st)
	}
	s.conn.left(s)
}

// leave refuses new calls. Called with s.mu held.
func (s *clientSocket) leave(why error) {
	if s.draining == nil {
		s.draining = why
		close(s.leaving)
	}
}

// why tells why no new calls are taken, once they are not, after the close code if that
// is the end of the socket.
func (s *clientSocket) why() (code int, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code, s.draining
}

// keepAlive is called by the timer.
func (s *clientSocket) keepAlive() {
	o := s.conn.opts.Keepalive
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	now, heard := int64(time.Since(s.born)), s.heard.Load()
	if idle := time.Duration(now - heard); idle < o.Interval {
		s.keepalive.Reset(o.Interval - idle)
		s.mu.Unlock()
		return
	}
	if s.pinged > heard {
		last := ""
		if s.roundTrip > 0 {
			last = fmt.Sprintf("; the last round trip took %v", s.roundTrip)
		}
		s.mu.Unlock()
		s.end(0, status.Errorf(codes.Unavailable, "wsrpc: the server has not answered a ping for %v%s", o.Timeout, last))
		return
	}
	s.pinged, s.asked = now, true
	s.keepalive.Reset(o.Timeout)
	s.mu.Unlock()
	clock := uint64(now)
	s.send(&frame{ping: &clock})
}

// ponged takes a pong, with the clock of a ping. One that nobody has asked for is ignored.
func (s *clientSocket) ponged(clock uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked && clock == uint64(s.pinged) {
		s.asked = false
		s.roundTrip = time.Since(s.born) - time.Duration(clock)
	}
}

// clientBuffers holds *bytes.Buffer for messages that are read.
var clientBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (s *clientSocket) readFrames() error {
	for {
		kind, r, err := s.ws.NextReader()
		if err != nil {
			return err
		}
		buf := clientBuffers.Get().(*bytes.Buffer)
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil {
			return err
		}
		if kind == websocket.TextMessage && !utf8.Valid(buf.Bytes()) {
			return &breach{websocket.CloseInvalidFramePayloadData, "text is not UTF-8"}
		}
		f := new(frame)
		if err := f.parse(socket.Kind(kind), buf.Bytes()); err != nil {
			return &breach{parseCode(err), err.Error()}
		}
		// What waits is to hold little more memory than it counts for.
		keep := kind == websocket.BinaryMessage && f.message != nil && buf.Cap() <= 2*len(f.message)
		if !keep && kind == websocket.BinaryMessage && f.message != nil {
			f.message = append([]byte{}, f.message...)
		}
		if !keep && buf.Cap() <= clientQueueBytes {
			clientBuffers.Put(buf)
		}
		if err := s.handle(f, kind == websocket.TextMessage); err != nil {
			return err
		}
	}
}

// handle does what a frame says.
func (s *clientSocket) handle(f *frame, text bool) error {
	ofCall := f.credit > 0 || f.header != nil || f.message != nil || f.end != nil
	s.mu.Lock()
	last, c := s.last, s.calls[f.call]
	s.mu.Unlock()
	switch {
	case f.open != nil || f.halfClose || f.cancel:
		return &breach{websocket.CloseProtocolError, "open, halfClose and cancel are the client's"}
	case f.call == 0 && ofCall:
		return &breach{websocket.CloseProtocolError, "things of a call in a frame without its number"}
	case f.call > last:
		return &breach{websocket.CloseProtocolError, fmt.Sprintf("call %d has not been opened", f.call)}
	}
	if f.ping != nil {
		if err := s.answered(s.out.pong(&frame{pong: f.ping}, text)); err != nil {
			return err
		}
	}
	if f.pong != nil {
		s.ponged(*f.pong)
	}
	if f.hello != nil {
		s.greeted(*f.hello)
	}
	if f.goAway != nil {
		s.goAway(f.goAway)
	}
	if c != nil && ofCall {
		c.handle(f, text)
	}
	return nil
}

// greeted takes the server's hello. Only the first counts.
func (s *clientSocket) greeted(h helloFrame) {
	select {
	case <-s.ready:
		return
	default:
	}
	if h.window == 0 {
		h.window = defaultWindow
	}
	h.window = min(h.window, maxCredit)
	if h.maxMessage == 0 {
		h.maxMessage = defaultMaxMessage
	}
	slots := math.MaxInt32
	if h.maxCalls != 0 {
		slots = int(min(h.maxCalls, math.MaxInt32))
	}
	s.hello = h
	s.slots = make(chan struct{}, slots) // takes no memory of its own
	close(s.ready)
}

// maxMessage is how large a message the server takes.
func (s *clientSocket) maxMessage() int { return int(min(s.hello.maxMessage, math.MaxInt32)) }

func (s *clientSocket) goAway(g *goAwayFrame) {
	reason := strings.ToValidUTF8(g.reason, "?")
	refused := status.Errorf(codes.Unavailable, "wsrpc: the server goes away and has not begun the call, which may be made again: %.200s", reason)
	var calls []*clientCall
	s.mu.Lock()
	s.leave(status.Errorf(codes.Unavailable, "wsrpc: the server goes away: %.200s", reason))
	for number, c := range s.calls {
		if number > g.lastCall {
			calls = append(calls, c)
			s.removeLocked(c)
		}
	}
	s.mu.Unlock()
	for _, c := range calls {
		c.over(nil, refused)
	}
	s.conn.left(s)
	s.retire()
}

// retire ends a socket that takes no new calls once it has none. Were that left to the
// server, one that only says goAway could make the client keep any number of sockets.
func (s *clientSocket) retire() {
	s.mu.Lock()
	why, done := s.draining, s.draining != nil && len(s.calls) == 0
	s.mu.Unlock()
	if done {
		s.end(websocket.CloseNormalClosure, why)
	}
}

// errNotOpened is the outcome of an attempt to open a call on a socket that takes
// none any more: nothing of it has been sent.
var errNotOpened = errors.New("wsrpc: the socket takes no new calls")

// open begins c by f, which has all of the frame but the number.
func (s *clientSocket) open(ctx context.Context, c *clientCall, f *frame) error {
	select {
	case s.slots <- struct{}{}:
	case <-s.leaving:
		return errNotOpened
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	for {
		room := s.out.room()
		if room != nil {
			select {
			case <-room:
				continue
			case <-s.leaving:
				<-s.slots
				return errNotOpened
			case <-ctx.Done():
				<-s.slots
				return status.FromContextError(ctx.Err()).Err()
			}
		}
		s.mu.Lock()
		if s.draining != nil {
			s.mu.Unlock()
			<-s.slots
			return errNotOpened
		}
		// The order of the frames is that of the numbers.
		f.call = s.last + 1
		f.open.timeoutMS = timeoutMS(ctx)
		switch err := s.out.pushMessage(f, s.conn.opts.JSON); err {
		case nil:
		case errQueueFull:
			s.mu.Unlock()
			continue
		case errTooMuch:
			s.mu.Unlock()
			<-s.slots
			return status.Errorf(codes.ResourceExhausted, "wsrpc: metadata and method name: %v", err)
		default:
			s.mu.Unlock()
			<-s.slots
			return status.Error(codes.Internal, err.Error())
		}
		s.last++
		c.number = s.last
		s.calls[c.number] = c
		exhausted := s.last == math.MaxUint32
		if exhausted {
			s.leave(status.Error(codes.Unavailable, "wsrpc: the socket has no number left for a call"))
		}
		s.mu.Unlock()
		if exhausted {
			s.conn.left(s)
		}
		return nil
	}
}

// sendMessage queues a frame of c, waiting for room. It is io.EOF if the call is over.
func (s *clientSocket) sendMessage(c *clientCall, f *frame) error {
	for {
		if room := s.out.room(); room != nil {
			select {
			case <-room:
				continue
			case <-c.done:
				return io.EOF
			case <-c.ctx.Done():
				return io.EOF
			}
		}
		s.mu.Lock()
		if s.calls[c.number] != c {
			s.mu.Unlock()
			return io.EOF
		}
		err := s.out.pushMessage(f, s.conn.opts.JSON)
		s.mu.Unlock()
		if err != errQueueFull {
			return err
		}
	}
}

// remove forgets a call that is over, and tells the server if it does not know: before
// another call takes its place, or the server had more than it allows.
func (s *clientSocket) remove(c *clientCall, cancel bool) {
	s.mu.Lock()
	if s.calls[c.number] == c && cancel {
		s.send(&frame{call: c.number, cancel: true})
	}
	s.removeLocked(c)
	s.mu.Unlock()
	s.retire()
}

func (s *clientSocket) removeLocked(c *clientCall) {
	if s.calls[c.number] == c {
		delete(s.calls, c.number)
		<-s.slots
	}
}
