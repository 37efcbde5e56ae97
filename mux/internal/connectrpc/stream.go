package connectrpc

import (
	"context"
	"encoding/base64"
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

// stall is how long a client may take nothing of what is written to it once its call
// is over. While the call goes on it may do so for as long as it likes, as over
// grpc-go.
const stall = 30 * time.Second

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
		// What is left to write waits for a slow client no longer than this.
		_ = x.http.SetWriteDeadline(time.Now().Add(stall))
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
	if ctx.Err() != nil {
		return 0, rpc.ContextError(ctx)
	}
	if pm, ok := m.(proto.Message); ok {
		proto.Reset(pm) // connect leaves m as it is for an empty message
	}
	stop := func() (fired bool) { return false }
	if !s.body.ended.Load() { // else net/http reads on, for the next request
		stop = rpc.During(ctx, func() { _ = s.http.SetReadDeadline(time.Unix(1, 0)) })
	}
	err := s.wire.Receive(m)
	if stop() {
		s.body.spoiled.Store(true)
	}
	if err != nil {
		return 0, s.receiveError(err)
	}
	return s.info.ReceiveStats.Size, nil
}

// receiveError makes a status of what connect returns, but for a half-close.
func (s *stream) receiveError(err error) error {
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
	if bad, ok := errors.AsType[badMessage](err); ok {
		return status.Errorf(s.malformed(), "bad request message: %.200v", bad.error)
	}
	if _, ok := errors.AsType[base64.CorruptInputError](err); ok { // of a GET
		return status.Errorf(s.malformed(), "the message is not base64: %.200v", err)
	}
	switch {
	case !ok:
		return status.Errorf(codes.Unknown, "request cannot be read: %.200v", err)
	case ce.Code() == connect.CodeInvalidArgument: // it cannot be decompressed
		return status.Errorf(s.malformed(), "%.200s", ce.Message())
	default:
		return status.Error(codes.Code(ce.Code()), ce.Message())
	}
}

// malformed is the code for a message that cannot be decoded: INTERNAL is grpc-go's,
// the other one the Connect protocol's.
func (s *stream) malformed() codes.Code {
	if s.protocol == connectUnary || s.protocol == connectStream {
		return codes.InvalidArgument
	}
	return codes.Internal
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
	if ctx.Err() != nil {
		return 0, rpc.ContextError(ctx)
	}
	if m == nil {
		m = (*emptypb.Empty)(nil) // nil is something else to connect
	}
	// With time for what is being written, so that the status can follow it.
	stop := rpc.During(ctx, func() { _ = s.http.SetWriteDeadline(time.Now().Add(stall)) })
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
