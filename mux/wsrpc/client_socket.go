package wsrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// clientSocket is one WebSocket of a ClientConn and the calls on it. One goroutine
// reads, as long as the socket lives; flush writes.
type clientSocket struct {
	conn *ClientConn
	ws   *websocket.Conn // read by one goroutine, written to past it
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

	heard     time.Time   // when the last message came; guarded by mu
	pinged    time.Time   // when the last ping was sent; guarded by mu
	keepalive *time.Timer // nil if there are no pings
}

// clientReadSlack is what a WebSocket message of the server may have beside a message
// of a call.
const clientReadSlack = 64 << 10

func newClientSocket(c *ClientConn, ws *websocket.Conn) *clientSocket {
	now := time.Now()
	s := &clientSocket{
		conn: c, ws: ws, born: now, heard: now,
		ready: make(chan struct{}), leaving: make(chan struct{}), over: make(chan struct{}),
		calls: make(map[uint32]*clientCall),
	}
	nc := ws.NetConn()
	s.peer = &peer.Peer{Addr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr()}
	if t, ok := nc.(tlsConn); ok {
		s.peer.AuthInfo = credentials.TLSInfo{
			State:          t.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	s.out = clientQueue{conn: nc, failed: func(err error) {
		s.end(0, status.Errorf(codes.Unavailable, "wsrpc: write: %v", err))
	}}
	ws.SetReadLimit(int64(c.opts.MaxMessageBytes) + clientReadSlack)
	ws.SetPingHandler(func(data string) error { return s.answered(s.out.rawPong(data)) })
	ws.SetCloseHandler(s.closed)
	return s
}

// greet says hello and begins with pings.
func (s *clientSocket) greet() {
	s.send(&frame{hello: &helloFrame{window: s.conn.opts.Window}})
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
	err := s.readFrames()
	code, st := readStatus(err)
	s.end(code, st)
	s.out.settle()
	// The server is to read the close frame, and to close the connection. Closed at
	// once, with what it has sent unread, it could be reset before.
	io.Copy(io.Discard, s.ws.NetConn())
	s.ws.NetConn().Close()
	s.conn.gone(s)
}

// breach is what ends a socket by our close frame.
type breach struct {
	code int
	text string
}

func (b *breach) Error() string { return "wsrpc: the server broke the protocol: " + b.text }

// readStatus is the code that end wants, and the status of calls.
func readStatus(err error) (int, error) {
	if b, ok := errors.AsType[*breach](err); ok {
		return b.code, status.Error(codes.Internal, b.Error())
	}
	if err == websocket.ErrReadLimit { // gorilla has sent 1009
		return alreadyClosed, closeCodeStatus(websocket.CloseMessageTooBig, "a WebSocket message of the server is too large")
	}
	if _, ok := errors.AsType[*websocket.CloseError](err); !ok && strings.HasPrefix(err.Error(), "websocket: ") {
		// gorilla has no type for what is not WebSocket, and has sent 1002.
		return alreadyClosed, closeCodeStatus(websocket.CloseProtocolError, err.Error())
	}
	return 0, status.Errorf(codes.Unavailable, "wsrpc: read: %.200v", err)
}

// closed is called by gorilla in read, with the close frame of the server.
func (s *clientSocket) closed(code int, reason string) error {
	answer := code
	if code == websocket.CloseNoStatusReceived {
		answer = websocket.CloseNormalClosure
	}
	s.end(answer, closeCodeStatus(code, reason))
	return nil
}

// closeCodeStatus is the status of calls that are open when a socket ends (PROTOCOL.md,
// section 6).
func closeCodeStatus(code int, reason string) error {
	c := codes.Unavailable
	switch code {
	case websocket.CloseNormalClosure:
		c = codes.Canceled
	case websocket.CloseProtocolError, websocket.CloseUnsupportedData, websocket.CloseInvalidFramePayloadData, websocket.CloseInternalServerErr:
		c = codes.Internal
	case websocket.ClosePolicyViolation, websocket.CloseMessageTooBig:
		c = codes.ResourceExhausted
	}
	return status.Errorf(c, "wsrpc: the socket has ended with %d: %.200s", code, strings.ToValidUTF8(reason, "?"))
}

// alreadyClosed is for end: the close frame has gone out.
const alreadyClosed = -1

// end ends the socket and its calls with st, once. code is that of the close frame to
// send; without one, 0, the connection is closed at once.
func (s *clientSocket) end(code int, st error) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended = st
	calls := s.calls
	s.calls = nil
	if s.keepalive != nil {
		s.keepalive.Stop()
	}
	s.leave(st)
	close(s.over)
	s.mu.Unlock()
	if code > 0 {
		s.out.last(websocket.FormatCloseMessage(code, ""))
	} else {
		s.out.abandon()
	}
	if code != 0 {
		s.ws.NetConn().SetReadDeadline(time.Now().Add(clientCloseTimeout))
	} else {
		s.ws.NetConn().Close()
	}
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

// why tells why no new calls are taken, once they are not.
func (s *clientSocket) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// keepAlive is called by the timer.
func (s *clientSocket) keepAlive() {
	o := s.conn.opts.Keepalive
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	idle := now.Sub(s.heard)
	if idle < o.Interval {
		s.keepalive.Reset(o.Interval - idle)
		s.mu.Unlock()
		return
	}
	if s.pinged.After(s.heard) {
		s.mu.Unlock()
		s.end(0, status.Errorf(codes.Unavailable, "wsrpc: the server has not answered a ping for %v", o.Timeout))
		return
	}
	s.pinged = now
	s.keepalive.Reset(o.Timeout)
	s.mu.Unlock()
	clock := uint64(now.UnixMilli())
	s.send(&frame{ping: &clock})
}

func (s *clientSocket) readFrames() error {
	for {
		kind, r, err := s.ws.NextReader()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		f := new(frame)
		text := kind == websocket.TextMessage
		if text {
			err = f.parseJSON(b)
		} else {
			err = f.parseBinary(b)
		}
		if err != nil {
			return &breach{websocket.CloseInvalidFramePayloadData, err.Error()}
		}
		// A small message must not keep much alive.
		if len(b) > 2*len(f.message)+1024 && f.message != nil {
			f.message = append([]byte{}, f.message...)
		}
		if err := s.handle(f, text); err != nil {
			return err
		}
	}
}

// handle does what a frame says.
func (s *clientSocket) handle(f *frame, text bool) error {
	ofCall := f.credit > 0 || f.header != nil || f.message != nil || f.end != nil
	s.mu.Lock()
	s.heard = time.Now()
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

func (s *clientSocket) goAway(g *goAwayFrame) {
	st := status.Errorf(codes.Unavailable, "wsrpc: the server goes away: %.200s", strings.ToValidUTF8(g.reason, "?"))
	var refused []*clientCall
	s.mu.Lock()
	s.leave(st)
	for number, c := range s.calls {
		if number > g.lastCall {
			refused = append(refused, c)
			s.removeLocked(c)
		}
	}
	s.mu.Unlock()
	for _, c := range refused {
		c.over(nil, st)
	}
	s.conn.left(s)
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
		switch err := s.out.pushMessage(f, s.conn.opts.JSON); err {
		case nil:
		case errQueueFull:
			s.mu.Unlock()
			continue
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

// remove forgets a call that is over, and tells the server if it does not know.
func (s *clientSocket) remove(c *clientCall, cancel bool) {
	s.mu.Lock()
	removed := s.removeLocked(c)
	s.mu.Unlock()
	if removed && cancel {
		s.send(&frame{call: c.number, cancel: true})
	}
}

func (s *clientSocket) removeLocked(c *clientCall) bool {
	if s.calls[c.number] != c {
		return false
	}
	delete(s.calls, c.number)
	<-s.slots
	return true
}

// tlsConn is a *tls.Conn, or one that wraps it.
type tlsConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}
