package connectrpc

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
)

// serve returns what connect runs for a call of m.
func serve(m *rpc.Method) connect.ServerFunc {
	return func(ctx context.Context, _ connect.Spec, wire connect.ServerStream) error {
		x := ctx.Value(exchangeKey{}).(*exchange)
		if x.err != nil {
			return connectError(status.Convert(x.err), x.protocol)
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		s := &stream{exchange: x, wire: wire, info: info}
		trailer, err := m.Serve(ctx, x.call, s)
		if !s.trailed {
			rpc.AddHeader(info.ResponseTrailer().Add, trailer)
		}
		if err != nil {
			return connectError(status.Convert(err), x.protocol)
		}
		return nil
	}
}

// stream is a connect stream as the dispatcher wants it.
type stream struct {
	*exchange
	wire connect.ServerStream
	info *connect.CallInfo

	trailed bool // the trailer is in info
}

var _ rpc.EarlyTrailer = (*stream)(nil)

func (s *stream) RecvMsg(ctx context.Context, m any) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, status.FromContextError(err).Err()
	}
	if pm, ok := m.(proto.Message); ok {
		proto.Reset(pm) // connect leaves m as it is for an empty message
	}
	stop := during(ctx, s.http.SetReadDeadline)
	err := s.wire.Receive(m)
	stop()
	if err != nil {
		return 0, s.receiveError(err)
	}
	return s.info.ReceiveStats.Size, nil
}

// receiveError makes a status of what connect returns, but for a half-close.
func (s *stream) receiveError(err error) error {
	if bad, ok := errors.AsType[badMessage](err); ok {
		// The codes differ by protocol: INTERNAL is grpc-go's, the other one the
		// Connect protocol's.
		code := codes.Internal
		if s.protocol == connectUnary || s.protocol == connectStream {
			code = codes.InvalidArgument
		}
		return status.Errorf(code, "bad request message: %.200v", bad.error)
	}
	if st, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return st.GRPCStatus().Err() // of the body
	}
	ce, ok := errors.AsType[*connect.Error](err)
	if errors.Is(err, io.EOF) && (!ok || ce.Code() == connect.CodeUnknown) {
		return io.EOF
	}
	if !ok {
		return status.Errorf(codes.Unknown, "request cannot be read: %.200v", err)
	}
	return status.Error(codes.Code(ce.Code()), ce.Message())
}

func (s *stream) SendHeader(md metadata.MD) error {
	rpc.AddHeader(s.info.ResponseHeader().Add, md)
	return sendError(s.wire.SendHeaders())
}

// SetTrailer is for unary calls: connect looks for the trailer of one when its
// message is sent, and not again.
func (s *stream) SetTrailer(md metadata.MD) {
	s.trailed = true
	rpc.AddHeader(s.info.ResponseTrailer().Add, md)
}

func (s *stream) SendMsg(ctx context.Context, m any) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, status.FromContextError(err).Err()
	}
	if m == nil {
		m = (*emptypb.Empty)(nil) // nil is something else to connect
	}
	stop := during(ctx, s.http.SetWriteDeadline)
	err := s.wire.Send(m)
	stop()
	return s.info.SendStats.Size, sendError(err)
}

func sendError(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Unavailable
	if ce, ok := errors.AsType[*connect.Error](err); ok && ce.Code() != connect.CodeUnknown {
		code = codes.Code(ce.Code())
	}
	return status.Errorf(code, "answer cannot be sent: %.200v", err)
}

// during has a read or a write end with ctx: net/http's do not by themselves. The
// caller must call stop when it is over; after that no deadline is set any more.
func during(ctx context.Context, setDeadline func(time.Time) error) (stop func()) {
	set := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(set)
		// A server that has no deadlines to set ends the body by itself, later.
		_ = setDeadline(time.Unix(1, 0))
	})
	return func() {
		if !cancel() {
			<-set
		}
	}
}
