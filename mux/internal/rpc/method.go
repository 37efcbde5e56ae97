package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Method is one method of a registered service. It is safe for concurrent use.
type Method struct {
	FullName      string // "/pkg.Service/Method"
	ClientStreams bool
	ServerStreams bool

	reg        *Registry
	impl       any
	unary      grpc.MethodHandler // of a unary method
	stream     grpc.StreamHandler // of any other
	streamInfo grpc.StreamServerInfo
}

// JSON encodes messages of the method as the Config says.
func (m *Method) JSON() Codec { return m.reg.json }

// Unary tells whether the method takes one message and answers with one.
func (m *Method) Unary() bool { return m.unary != nil }

// Call is one call: what an adapter knows of it before its first message, and the
// context of its handler. It is for one use of Serve and must not be copied after.
type Call struct {
	// Metadata is the client's, filtered by RequestMetadata or the like. It is
	// only read: handlers get copies.
	Metadata metadata.MD

	// Timeout ends the call with DEADLINE_EXCEEDED. Zero or less means that
	// only the context limits it.
	Timeout time.Duration

	// Peer is the client. It may not be nil.
	Peer *peer.Peer

	begun  bool
	ctx    callContext
	stream serverStream
}

// Begin makes the context of the call, below ctx, and starts its timeout. Serve does so
// for adapters that have not, which never end a call before its handler does.
func (c *Call) Begin(ctx context.Context) {
	c.begun = true
	c.ctx.begin(ctx, c)
}

// Context returns the context of a call that has begun.
func (c *Call) Context() context.Context { return &c.ctx }

// Cancel ends the context of a call that has begun. It may be called at any time, and
// more than once.
func (c *Call) Cancel() { c.ctx.end() }

// Stream is an adapter's side of one call. Serve calls RecvMsg from one
// goroutine at a time and SendHeader and SendMsg from one at a time; both sides
// may run at once. Before Serve returns all of them have, since it waits for
// what goroutines of the handler still do: so RecvMsg and SendMsg must return
// once ctx ends.
//
// An error other than io.EOF ends the call: no message is received or sent any
// more, and it is the outcome, whatever the handler makes of it. So it should be
// a status error.
type Stream interface {
	// RecvMsg reads the next message into m and returns its encoded size in
	// bytes. It returns io.EOF, bare, after the client has half-closed. A
	// message beyond MaxMessageBytes is ErrTooLarge: best before it is read and
	// decoded, at the latest by Serve.
	RecvMsg(ctx context.Context, m any) (size int, err error)

	// SendHeader sends header metadata. It is called at most once, and before
	// the first SendMsg if at all. The adapter may keep md.
	SendHeader(md metadata.MD) error

	// SendMsg encodes and sends m and returns its encoded size in bytes. It
	// keeps no reference to m. For a method that does not stream answers it is
	// called at most once, and once if the outcome is OK.
	SendMsg(ctx context.Context, m any) (size int, err error)
}

// An EarlyTrailer is a Stream whose wire has the trailer of a unary call in front
// of the message, among the fields of an HTTP header. SetTrailer is called once,
// before SendMsg, with the trailer that Serve will return as well; not for a call
// that fails, nor for one of another kind.
type EarlyTrailer interface {
	Stream
	SetTrailer(md metadata.MD)
}

// A LateHeader is a Stream whose wire can carry the header together with what
// follows it. SetHeader is called instead of SendHeader when the handler has not
// asked for the header to go out by itself: before the first SendMsg, or at the end
// of a call without one, if there is something in it.
type LateHeader interface {
	Stream
	SetHeader(md metadata.MD)
}

// Serve runs one call to its end on the caller's goroutine and returns the
// trailer and the outcome: nil for OK, else an error of package status, safe for
// the client. The handler's context ends when the handler returns, when ctx
// ends, or at the deadline. A call that is late already runs no handler. ctx is of no
// account for a call that has begun.
func (m *Method) Serve(ctx context.Context, call *Call, s Stream) (trailer metadata.MD, err error) {
	if !call.begun {
		call.Begin(ctx)
	}
	defer call.Cancel()
	ctx = &call.ctx
	if err := ctx.Err(); err != nil {
		return nil, callError(ctx, err)
	}
	ss := &call.stream
	ss.call, ss.method, ss.wire = call, m, s
	ss.stats.handlers = m.reg.cfg.StatsHandlers
	ss.ctx = ctx // stats handlers find the stream in it already
	ss.ctx = ss.stats.begin(ctx, m, call)
	returned := false
	defer func() {
		if !returned { // the handler has ended its goroutine, but not those that it has left behind
			ss.finish(errGone)
		}
	}()
	err = m.run(ss)
	returned = true
	return ss.finish(err)
}

// run calls the handler through the interceptors, behind the panic guard.
func (m *Method) run(ss *serverStream) (err error) {
	defer m.reg.recoverPanic(m.FullName, &err)
	switch {
	case m.Unary():
		reply, err := m.unary(m.impl, ss.ctx, ss.RecvMsg, m.reg.unary)
		if err != nil {
			return err
		}
		if s, ok := ss.wire.(EarlyTrailer); ok {
			s.SetTrailer(ss.takeTrailer())
		}
		return ss.SendMsg(reply)
	case m.reg.stream != nil:
		return m.reg.stream(m.impl, ss, &m.streamInfo, m.stream)
	default:
		return m.stream(m.impl, ss)
	}
}
