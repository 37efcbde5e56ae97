package rpc

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// NewStream starts a call of any kind. Its handler runs on a goroutine that the
// Conn owns and that ends with the handler; as with grpc-go, the caller ends the
// call by receiving to the end, by cancelling ctx, or with an error of SendMsg
// other than io.EOF.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	o := inProcessOptions(opts)
	m, call, err := c.begin(ctx, method, o)
	if err != nil {
		o.Finish(err)
		return nil, err
	}
	s := &clientStream{desc: desc, opts: o, toHandler: newPipe(), toCaller: newPipe(),
		headerSent: make(chan struct{}), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	if !c.add(s) {
		s.cancel(errClosed)
		o.Finish(errClosed)
		return nil, errClosed
	}
	// OnFinish does not wait for a caller that receives no more.
	context.AfterFunc(s.ctx, func() { s.finish(s.contextError()) })
	go s.serve(c, m, call)
	return s, nil
}

// clientStream is a call in process as its caller sees it. The context is a
// field because the interface of grpc.ClientStream demands it.
type clientStream struct {
	ctx    context.Context // ends with the caller's, by Conn.Shutdown, and with finish
	cancel context.CancelCauseFunc
	desc   *grpc.StreamDesc
	opts   *CallOptions

	toHandler, toCaller *pipe

	sentLast bool // nothing more may be sent; used by the sending side only

	headerOnce sync.Once
	header     metadata.MD   // set before headerSent is closed
	headerSent chan struct{} // closed by SendHeader or at the end

	trailer metadata.MD   // set before done is closed
	err     error         // likewise; nil for OK
	done    chan struct{} // closed when the handler has returned

	mu      sync.Mutex
	outcome error // once the caller's side has ended: io.EOF for OK; guarded by mu
}

var _ grpc.ClientStream = (*clientStream)(nil)

// serve runs the handler. It is started by NewStream, ends with the handler,
// and has ended when Conn.Shutdown sees it removed.
func (s *clientStream) serve(c *Conn, m *Method, call *Call) {
	defer c.remove(s)
	var trailer metadata.MD
	err := errGone
	defer func() { s.close(trailer, err) }() // also when the handler ends this goroutine
	trailer, err = m.Serve(handlerContext{s.ctx}, call, &handlerSide{clientStream: s, method: m})
}

// close tells the caller how the call ended.
func (s *clientStream) close(trailer metadata.MD, err error) {
	s.trailer, s.err = trailer, err
	s.publishHeader(nil)
	close(s.done)
	s.toCaller.end()
	s.toHandler.end()
}

func (s *clientStream) publishHeader(md metadata.MD) {
	s.headerOnce.Do(func() {
		s.header = md
		close(s.headerSent)
	})
}

// finish ends the caller's side, with io.EOF for OK, and cancels a handler that
// still runs. It returns the outcome, which is another where the end came before.
func (s *clientStream) finish(err error) error {
	s.mu.Lock()
	if s.outcome != nil {
		defer s.mu.Unlock()
		return s.outcome
	}
	s.outcome = err
	s.mu.Unlock()
	s.cancel(nil)
	s.opts.Finish(err)
	return err
}

func (s *clientStream) contextError() error {
	if context.Cause(s.ctx) == errClosed {
		return errClosed
	}
	return status.FromContextError(s.ctx.Err()).Err()
}

func (s *clientStream) Context() context.Context { return s.ctx }

// Header waits for the header. Without one it returns nil, and RecvMsg tells
// the status.
func (s *clientStream) Header() (metadata.MD, error) {
	select {
	case <-s.headerSent:
	case <-s.ctx.Done():
	}
	return s.headerNow(), nil
}

func (s *clientStream) headerNow() metadata.MD {
	select {
	case <-s.headerSent:
		if s.header == nil {
			return nil
		}
		return s.header.Copy()
	default:
		return nil
	}
}

// Trailer is there once RecvMsg has returned an error, io.EOF included.
func (s *clientStream) Trailer() metadata.MD {
	select {
	case <-s.done:
		return s.trailer.Copy()
	default:
		return nil
	}
}

func (s *clientStream) CloseSend() error {
	s.sentLast = true
	s.toHandler.end()
	return nil
}

// SendMsg encodes m, so the caller may change it afterwards. After the end of
// the call it returns io.EOF and RecvMsg tells the status; but nil where the
// client does not stream, as generated code expects.
func (s *clientStream) SendMsg(m any) error {
	if s.sentLast {
		return s.finish(status.Error(codes.Internal, "rpc: SendMsg called after CloseSend"))
	}
	b, err := Proto.Append(nil, m)
	if err != nil {
		return s.finish(status.Error(codes.Internal, err.Error()))
	}
	if err := s.opts.CheckSend(len(b)); err != nil {
		return s.finish(err)
	}
	err = s.toHandler.push(s.ctx, b)
	if !s.desc.ClientStreams {
		return s.CloseSend()
	}
	if err != nil {
		return io.EOF
	}
	return nil
}

// RecvMsg reads the next message, then io.EOF or the status of the call, again
// and again. Where the server does not stream, the message comes only with an OK
// status.
func (s *clientStream) RecvMsg(m any) error {
	if s.ctx.Err() != nil {
		return s.end(s.contextError())
	}
	b, err := s.next()
	if err == io.EOF && !s.desc.ServerStreams {
		err = status.Error(codes.Internal, "rpc: the call ended OK without an answer")
	}
	if err == nil {
		err = s.opts.CheckRecv(len(b))
	}
	if err == nil {
		err = unmarshal(b, m)
	}
	if err != nil {
		return s.end(err)
	}
	if s.desc.ServerStreams {
		return nil
	}
	if _, err = s.next(); err == nil {
		err = status.Error(codes.Internal, "rpc: the server sent a second answer where the method has one")
	}
	if err = s.end(err); err == io.EOF {
		return nil
	}
	return err
}

// end is finish on the caller's goroutine: the variables that header and trailer
// are wanted in are the caller's.
func (s *clientStream) end(err error) error {
	s.opts.SetMetadata(s.headerNow(), s.Trailer())
	return s.finish(err)
}

// next returns the next message, or how the call ended: io.EOF for OK.
func (s *clientStream) next() ([]byte, error) {
	b, err := s.toCaller.pop(s.ctx)
	switch {
	case err == nil:
		return b, nil
	case s.ctx.Err() != nil:
		return nil, s.contextError()
	case s.err != nil: // the pipe has ended, and so has the handler
		return nil, s.err
	}
	return nil, io.EOF
}

// handlerSide is the same call as the dispatcher's Stream.
type handlerSide struct {
	*clientStream
	method *Method
}

// RecvMsg waits for the half-close where the client does not stream: only then
// is the message known to be the only one.
func (h *handlerSide) RecvMsg(ctx context.Context, m any) (int, error) {
	b, err := h.toHandler.pop(ctx)
	if err == nil && !h.method.ClientStreams {
		err = h.halfClose(ctx)
	}
	switch {
	case err == io.EOF:
		return 0, err
	case err != nil:
		return 0, statusError(err)
	}
	return len(b), unmarshal(b, m)
}

func (h *handlerSide) halfClose(ctx context.Context) error {
	switch _, err := h.toHandler.pop(ctx); err {
	case io.EOF:
		return nil
	case nil:
		return status.Errorf(codes.Unimplemented, "%s takes one request message and got more", h.method.FullName)
	default:
		return err
	}
}

func (h *handlerSide) SendHeader(md metadata.MD) error {
	h.publishHeader(md)
	return nil
}

func (h *handlerSide) SendMsg(ctx context.Context, m any) (int, error) {
	b, err := Proto.Append(nil, m)
	if err != nil {
		return 0, status.Error(codes.Internal, err.Error())
	}
	return len(b), statusError(h.toCaller.push(ctx, b))
}

func unmarshal(b []byte, m any) error {
	if err := Proto.Unmarshal(b, m); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}
