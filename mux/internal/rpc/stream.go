package rpc

import (
	"context"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serverStream is what a handler sees of a call: the rules of grpc.ServerStream
// over an adapter's Stream. The context is a field because the interface of
// grpc.ServerStream demands it.
type serverStream struct {
	ctx    context.Context
	call   *Call
	method *Method
	wire   Stream
	stats  recorder

	received bool // a message has come; used by the receiving side only

	uses       atomic.Int32 // of wire, that use has begun; with over once no more may begin
	headerSent atomic.Bool  // set with mu held

	mu           sync.Mutex
	unused       chan struct{} // gets a token when a use was the last; nil unless finish waits; guarded by mu
	header       metadata.MD   // guarded by mu
	trailer      metadata.MD   // guarded by mu
	trailerTaken bool          // guarded by mu
	answered     bool          // the one message of a method that answers with one has been sent, or tried to be; guarded by mu
	failure      error         // the first of wire, then the outcome of the call; guarded by mu
	done         bool          // the handler has returned; guarded by mu
}

// over is the sign of uses: with it no sum of them is positive.
const over = math.MinInt32

var _ grpc.ServerStream = (*serverStream)(nil)

func (s *serverStream) Context() context.Context { return s.ctx }

// use begins a use of the wire, which unuse ends. It fails, and nothing has begun, once
// the handler has returned or the wire has failed. Each message pays for it, so there is
// no lock.
func (s *serverStream) use() error {
	if s.uses.Load() >= 0 { // so that one who tries again and again does not keep waitUnused waiting
		if s.uses.Add(1) > 0 {
			return nil
		}
		s.unuse()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return errReturned
	}
	return s.failure
}

func (s *serverStream) unuse() {
	if s.uses.Add(-1) != over {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unused != nil {
		signal(s.unused)
	}
}

// waitUnused waits for the uses that began before over.
func (s *serverStream) waitUnused() {
	s.mu.Lock()
	if s.uses.Load() == over {
		s.mu.Unlock()
		return
	}
	s.unused = make(chan struct{}, 1)
	s.mu.Unlock()
	<-s.unused
}

// fail notes that the wire has failed and returns the error. The call ends with
// it even when the handler takes the failure for the end of its input and
// returns nil, as over grpc-go.
func (s *serverStream) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	return err
}

func (s *serverStream) failLocked(err error) {
	if s.failure == nil {
		s.failure = err
	}
	s.uses.Or(over)
}

func (s *serverStream) SetHeader(md metadata.MD) error {
	if len(md) == 0 {
		return nil
	}
	if err := validate(md); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.done:
		return errReturned
	case s.headerSent.Load():
		return errHeaderSent
	}
	s.header = appendMD(s.header, md)
	return nil
}

func (s *serverStream) SendHeader(md metadata.MD) error {
	if err := validate(md); err != nil {
		return err
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.unuse()
	header, ok := s.takeHeader(md)
	if !ok {
		return errHeaderSent
	}
	return s.writeHeader(header, true)
}

// takeHeader adds md to what was set and marks the header as sent. It reports
// false when the header had gone before.
func (s *serverStream) takeHeader(md metadata.MD) (metadata.MD, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headerSent.Swap(true) {
		return nil, false
	}
	if len(md) > 0 {
		s.header = appendMD(s.header, md)
	}
	return dropReserved(s.header), true
}

// writeHeader sends the header: now, or with what follows where the wire can do so.
// It is called without s.mu: stats handlers are the user's code.
func (s *serverStream) writeHeader(md metadata.MD, now bool) error {
	s.stats.outHeader(s.ctx, md)
	if late, ok := s.wire.(LateHeader); ok && !now {
		late.SetHeader(md)
		return nil
	}
	if err := s.wire.SendHeader(md); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *serverStream) SetTrailer(md metadata.MD) {
	if err := s.setTrailer(md); err != nil {
		// The interface leaves no other way to say so, and a trailer that
		// disappears would be worse.
		s.method.reg.cfg.Log.Error("rpc: trailer dropped", "method", s.method.FullName, "err", err)
	}
}

func (s *serverStream) setTrailer(md metadata.MD) error {
	if len(md) == 0 {
		return nil
	}
	if err := validate(md); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.trailerTaken {
		return errReturned
	}
	s.trailer = appendMD(s.trailer, md)
	return nil
}

// takeTrailer returns what is the trailer now and will be the whole of it: the
// handler has returned.
func (s *serverStream) takeTrailer() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailerTaken = true
	return dropReserved(s.trailer)
}

// RecvMsg reads one message. A method whose client does not stream has exactly
// one: none at all is UNIMPLEMENTED, "request cardinality violation" in the
// gRPC status codes document, and after it comes io.EOF.
func (s *serverStream) RecvMsg(m any) error {
	single := !s.method.ClientStreams
	if single && s.received {
		return io.EOF
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.unuse()
	size, err := s.wire.RecvMsg(s.ctx, m)
	limit := s.method.reg.cfg.MaxMessageBytes
	switch {
	case err == io.EOF && !single:
		return io.EOF
	case err == io.EOF:
		err = status.Errorf(codes.Unimplemented, "%s takes one request message and got none", s.method.FullName)
	case err == nil && size > limit:
		err = ErrTooLarge(size, limit)
	}
	if err != nil {
		return s.fail(err)
	}
	s.received = true
	s.stats.inPayload(s.ctx, m, size)
	return nil
}

// SendMsg sends one message, after the header if that has not gone yet. Like
// grpc-go's it may not run at the same time as SendHeader or another SendMsg.
func (s *serverStream) SendMsg(m any) error {
	if err := s.use(); err != nil {
		return err
	}
	defer s.unuse()
	if !s.method.ServerStreams {
		if err := s.answer(); err != nil {
			return err
		}
	}
	if !s.headerSent.Load() {
		if header, first := s.takeHeader(nil); first {
			if err := s.writeHeader(header, false); err != nil {
				return err
			}
		}
	}
	size, err := s.wire.SendMsg(s.ctx, m)
	if err != nil {
		return s.fail(err)
	}
	s.stats.outPayload(s.ctx, m, size)
	return nil
}

// answer notes the message of a method that answers with one. A second one ends the call.
func (s *serverStream) answer() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered {
		s.failLocked(status.Errorf(codes.Internal, "%s answers with one message and sent another", s.method.FullName))
		return s.failure
	}
	s.answered = true
	return nil
}

// finish ends the call: the handler's error becomes a status, the wire is free
// of goroutines that the handler has left behind, and a header that was set but
// never sent goes out.
func (s *serverStream) finish(err error) (metadata.MD, error) {
	s.mu.Lock()
	s.done = true
	s.uses.Or(over)
	switch {
	case s.failure != nil:
		err = s.failure
	case err == nil && !s.answered && !s.method.ServerStreams:
		err = status.Errorf(codes.Internal, "%s ended OK without an answer", s.method.FullName)
	}
	trailer := dropReserved(s.trailer)
	s.mu.Unlock()
	err = callError(s.ctx, err)
	s.call.Cancel() // which ends what is blocked in the wire
	s.waitUnused()
	if len(s.header) > 0 { // nobody else touches it any more
		if header, ok := s.takeHeader(nil); ok {
			if werr := s.writeHeader(header, false); werr != nil && err == nil {
				err = statusError(werr)
			}
		}
	}
	s.stats.end(s.ctx, trailer, err)
	return trailer, err
}

// transportStream is the same call as grpc.SetHeader, SendHeader, SetTrailer and
// Method find it in a context. It is a type of its own since its SetTrailer
// returns an error and that of grpc.ServerStream does not.
type transportStream serverStream

var _ grpc.ServerTransportStream = (*transportStream)(nil)

func (t *transportStream) Method() string { return t.method.FullName }

func (t *transportStream) SetHeader(md metadata.MD) error { return (*serverStream)(t).SetHeader(md) }

func (t *transportStream) SendHeader(md metadata.MD) error { return (*serverStream)(t).SendHeader(md) }

func (t *transportStream) SetTrailer(md metadata.MD) error { return (*serverStream)(t).setTrailer(md) }
