package wsrpc

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// closeStatus is the close code of status code 0; the others follow. RFC 6455
// §7.4.2 leaves 4000 to 4999 to applications.
const closeStatus = 4000

// session is one socket in the one-method form. The socket's own goroutine
// reads, so that pings are answered and a lost client is noticed while the
// handler is busy; a second one runs the calls. Both end with the socket.
type session struct {
	conn   *socket.Conn
	method *rpc.Method
	shake  *handshake

	inbox *inbox

	mu   sync.Mutex
	kind socket.Kind // in which answers go out; guarded by mu
}

func newSession(c *socket.Conn, m *rpc.Method, h *handshake) *session {
	return &session{conn: c, method: m, shake: h, inbox: newInbox(), kind: socket.Binary}
}

// run returns when the socket is ending and no call runs any more.
func (s *session) run() {
	var calls sync.WaitGroup
	calls.Go(s.serve)
	s.read()
	calls.Wait()
}

// read fills the inbox until the socket ends.
func (s *session) read() {
	single := !s.method.Unary() && !s.method.ClientStreams // takes one message
	open := true
	for first := true; ; first = false {
		m, err := s.conn.Read()
		if err != nil {
			return
		}
		if first {
			s.setKind(m.Kind) // for a handler that answers before it receives
		}
		switch halfClose := m.Kind == socket.Text && len(m.Data) == 0; {
		case halfClose:
			m.Release()
			s.inbox.close()
			open = false
		case !open:
			m.Release()
			s.conn.CloseWith(socket.CloseProtocol, "message after the half-close, or a second one where the method takes one")
		default:
			if !s.inbox.put(s.conn.Context(), m) {
				m.Release()
				continue // Read reports the end
			}
			if single {
				s.inbox.close()
				open = false
			}
		}
	}
}

// serve runs the calls and then ends the socket.
func (s *session) serve() {
	if !s.method.Unary() {
		_, err := s.method.Serve(s.conn.Context(), s.shake.call(), s)
		s.finish(err)
		return
	}
	draining := s.conn.Draining()
	left := -1 // messages to answer still, once the server drains
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
				s.conn.CloseWith(socket.CloseGoingAway, "server is shutting down")
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
		select {
		case <-s.inbox.filled:
		case <-leave:
		case <-s.conn.Context().Done():
			return
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
