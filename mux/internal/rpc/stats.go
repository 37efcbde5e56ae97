package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// recorder reports one call to the stats handlers, in the order in which
// grpc-go does: TagRPC, InHeader, Begin, then payloads and OutHeader as they
// come, OutTrailer, End. Without handlers it does nothing.
type recorder struct {
	handlers []stats.Handler
	began    time.Time
}

func (r *recorder) handle(ctx context.Context, s stats.RPCStats) {
	for _, h := range r.handlers {
		h.HandleRPC(ctx, s)
	}
}

func (r *recorder) begin(ctx context.Context, m *Method, call *Call) context.Context {
	if len(r.handlers) == 0 {
		return ctx
	}
	r.began = time.Now()
	for _, h := range r.handlers {
		ctx = h.TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: m.FullName})
	}
	r.handle(ctx, &stats.InHeader{
		FullMethod: m.FullName,
		RemoteAddr: call.Peer.Addr,
		LocalAddr:  call.Peer.LocalAddr,
		Header:     call.Metadata.Copy(),
	})
	r.handle(ctx, &stats.Begin{BeginTime: r.began, IsClientStream: m.ClientStreams, IsServerStream: m.ServerStreams})
	return ctx
}

func (r *recorder) inPayload(ctx context.Context, m any, size int) {
	if len(r.handlers) > 0 {
		r.handle(ctx, &stats.InPayload{Payload: m, Length: size, CompressedLength: size, WireLength: size, RecvTime: time.Now()})
	}
}

func (r *recorder) outHeader(ctx context.Context, md metadata.MD) {
	if len(r.handlers) > 0 {
		r.handle(ctx, &stats.OutHeader{Header: md.Copy()})
	}
}

func (r *recorder) outPayload(ctx context.Context, m any, size int) {
	if len(r.handlers) > 0 { // apart, so that this much is inlined
		r.sent(ctx, m, size)
	}
}

func (r *recorder) sent(ctx context.Context, m any, size int) {
	r.handle(ctx, &stats.OutPayload{Payload: m, Length: size, CompressedLength: size, WireLength: size, SentTime: time.Now()})
}

func (r *recorder) end(ctx context.Context, trailer metadata.MD, err error) {
	if len(r.handlers) > 0 {
		r.handle(ctx, &stats.OutTrailer{Trailer: trailer.Copy()})
		r.handle(ctx, &stats.End{BeginTime: r.began, EndTime: time.Now(), Error: err})
	}
}
