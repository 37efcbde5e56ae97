package wsrpc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// closeStatus is the close code of status code 0; the others follow. RFC 6455
// §7.4.2 leaves 4000 to 4999 to applications.
const closeStatus = 4000

// session is one socket in the one-method form. The socket's own goroutine reads, so that
// pings are answered and a lost client is noticed while the handler is busy; a second one,
// while there are calls, runs them. Both have ended when the socket has.
type session struct {
	conn   *socket.Conn
	method *rpc.Method
	shake  *handshake

	unnamed bool // the client has not named the method

	inbox *inbox
	calls sync.WaitGroup // serve; the reader alone adds

	// The reader's own.
	late       *time.Timer // ends the wait for the first message; nil without one, or after it
	heard      bool        // a message has come
	halfClosed bool        // no more may come

	mu      sync.Mutex
	kind    socket.Kind // in which answers go out; guarded by mu
	serving bool        // serve runs, or has run for the last time; guarded by mu
}

// linger is how long a goroutine that has run unary calls waits for the next.
const linger = time.Second

func newSession(c *socket.Conn, m *rpc.Method, h *handshake) *session {
	return &session{conn: c, method: m, shake: h, inbox: newInbox(), kind: socket.Binary}
}

// run returns when the socket rests, or is ending and no call runs any more.
func (s *session) run() {
	if s.method.ClientStreams {
		s.begin() // a call to which no message need come
	} else {
		s.late = time.AfterFunc(firstFrame, func() {
			s.conn.CloseWith(closeNoFrame, fmt.Sprintf("no message within %v", firstFrame))
		})
	}
	s.conn.OnDrain(s.drain)
	s.read(s.conn)
}

// begin has serve run, unless it does.
func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving {
		s.serving = true
		s.calls.Go(s.serve)
	}
}

// retire reports whether serve is to return since no call waits. Where the server drains
// serve is to end the socket.
func (s *session) retire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inbox.filledOrClosed() || s.conn.Draining().Err() != nil {
		return false
	}
	s.serving = false
	return true
}

// drain is called once, when the server begins to shut down. A call that has begun goes on,
// and serve answers what has been received.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving && !s.inbox.filledOrClosed() {
		s.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	}
}

// read fills the inbox until the socket rests or ends.
func (s *session) read(*socket.Conn) {
	for {
		m, err := s.conn.ReadSoon()
		if err == socket.ErrQuiet {
			s.conn.Rest(s.read)
			return
		}
		if err != nil {
			break
		}
		if s.late != nil {
			s.late.Stop()
			s.late = nil
		}
		if !s.heard {
			s.heard = true
			s.setKind(m.Kind) // for a handler that answers before it receives
			if s.unnamed && opensCall(m) {
				m.Release()
				s.finish(status.Error(codes.InvalidArgument, "this is a frame of "+Subprotocol+": offer that subprotocol"))
				continue // to the end of the socket
			}
		}
		s.receive(m)
	}
	if s.late != nil {
		s.late.Stop()
	}
	s.calls.Wait()
}

// opensCall tells a frame of grpc-ws.v1 that opens a call from a request. As JSON of a request
// it would be taken for one without fields, since it knows none of them.
func opensCall(m *socket.Message) bool {
	var frame struct{ Call, Open json.RawMessage }
	return m.Kind == socket.Text && json.Unmarshal(m.Data, &frame) == nil && frame.Call != nil && frame.Open != nil
}

// receive puts a message into the inbox, and sees to it that it is served.
func (s *session) receive(m *socket.Message) {
	switch halfClose := m.Kind == socket.Text && len(m.Data) == 0; {
	case halfClose:
		m.Release()
		s.inbox.close()
		s.halfClosed = true
	case s.halfClosed:
		m.Release()
		s.conn.CloseWith(socket.CloseProtocol, "message after the half-close, or a second one where the method takes one")
		return
	case !s.inbox.put(s.conn.Context(), m):
		m.Release()
		return // Read reports the end
	case !s.method.Unary() && !s.method.ClientStreams: // which takes one message
		s.inbox.close()
		s.halfClosed = true
	}
	s.begin()
}

// serve runs the calls and then ends the socket; or of a unary method those that come with
// no long time between them.
func (s *session) serve() {
	if !s.method.Unary() {
		_, err := s.method.Serve(s.conn.Context(), s.shake.call(), s)
		s.finish(err)
		return
	}
	draining := s.conn.Draining()
	left := -1 // messages to answer still, once the server drains
	idle := time.NewTimer(linger)
	defer idle.Stop()
	for {
		leave := draining.Done()
		if draining.Err() != nil {
			leave = nil
			if left < 0 {
				// What comes later has not been accepted: a client that
				// asks again whenever it is answered would never let go.
				left = s.inbox.len()
			}
			if left == 0 {
				s.conn.CloseWith(socket.CloseGoingAway, leavingReason)
				return
			}
			left--
		}
		m, ok, err := s.inbox.take()
		if ok {
			err = s.answer(m)
		}
		switch {
		case err == io.EOF:
			s.finish(nil)
			return
		case err != nil:
			s.finish(err)
			return
		case ok:
			continue
		}
		idle.Reset(linger)
		select {
		case <-s.inbox.filled:
		case <-leave:
		case <-s.conn.Context().Done():
			return
		case <-idle.C:
			if s.retire() {
				return
			}
		}
	}
}

// answer runs the unary call that m asks for.
func (s *session) answer(m *socket.Message) error {
	_, err := s.method.Serve(s.conn.Context(), s.shake.call(), &unary{session: s, request: m})
	return err
}

// finish ends the socket with the outcome of a call.
func (s *session) finish(err error) {
	if err == nil {
		s.conn.CloseWith(socket.CloseNormal, "")
		return
	}
	st := status.Convert(err)
	s.conn.CloseWith(closeStatus+int(st.Code()), st.Message())
}

func (s *session) setKind(k socket.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind = k
}

// A session is the dispatcher's Stream of a streaming call.
var _ rpc.Stream = (*session)(nil)

func (s *session) RecvMsg(ctx context.Context, m any) (int, error) {
	msg, err := s.inbox.receive(ctx)
	if err != nil {
		return 0, err
	}
	return s.decode(msg, m)
}

// decode reads a request and turns later answers to its kind.
func (s *session) decode(msg *socket.Message, m any) (int, error) {
	defer msg.Release()
	s.setKind(msg.Kind)
	if err := codec(s.method, msg.Kind).Unmarshal(msg.Data, m); err != nil {
		return 0, status.Errorf(codes.InvalidArgument, "bad request message: %.200v", err)
	}
	return len(msg.Data), nil
}

// SendHeader drops md: this form has no place for it.
func (s *session) SendHeader(metadata.MD) error { return nil }

func (s *session) SendMsg(ctx context.Context, m any) (int, error) {
	s.mu.Lock()
	kind := s.kind
	s.mu.Unlock()
	b, err := codec(s.method, kind).Append(nil, m)
	if err != nil {
		return 0, status.Errorf(codes.Internal, "answer cannot be encoded: %v", err)
	}
	if err := s.conn.Write(ctx, kind, b); err != nil {
		return 0, status.Errorf(codes.Unavailable, "answer cannot be sent: %v", err)
	}
	return len(b), nil
}

// unary is the dispatcher's Stream of one call on a unary method.
type unary struct {
	*session
	request *socket.Message // nil once received
}

func (u *unary) RecvMsg(_ context.Context, m any) (int, error) {
	if u.request == nil {
		return 0, io.EOF
	}
	msg := u.request
	u.request = nil
	return u.decode(msg, m)
}

// codec is for messages of m, in those of a socket of this kind.
func codec(m *rpc.Method, k socket.Kind) rpc.Codec {
	if k == socket.Text {
		return m.JSON()
	}
	return rpc.Proto
}
