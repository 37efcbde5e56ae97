package rpc

import (
	"context"

	"google.golang.org/grpc"
)

// chainUnary makes one interceptor of many, the first outermost; nil of none.
func chainUnary(chain []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	switch len(chain) {
	case 0:
		return nil
	case 1:
		return chain[0]
	}
	first, rest := chain[0], chainUnary(chain[1:])
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return first(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return rest(ctx, req, info, handler)
		})
	}
}

// chainStream makes one interceptor of many, the first outermost; nil of none.
func chainStream(chain []grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	switch len(chain) {
	case 0:
		return nil
	case 1:
		return chain[0]
	}
	first, rest := chain[0], chainStream(chain[1:])
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return first(srv, ss, info, func(srv any, ss grpc.ServerStream) error {
			return rest(srv, ss, info, handler)
		})
	}
}

// ServerOptions gives a grpc.Server the behaviour that Method.Serve gives the
// other protocols: the same interceptors behind the same panic guard, the same
// message limit, and the same stats handlers.
func (r *Registry) ServerOptions() []grpc.ServerOption {
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
		defer r.recoverPanic(info.FullMethod, &err)
		if r.unary == nil {
			return handler(ctx, req)
		}
		return r.unary(ctx, req, info, handler)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer r.recoverPanic(info.FullMethod, &err)
		if r.stream == nil {
			return handler(srv, ss)
		}
		return r.stream(srv, ss, info, handler)
	}
	// Each is one interceptor for grpc-go, which allocates for every further one; in a
	// chain, since options of the caller may add more.
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(r.cfg.MaxMessageBytes),
		grpc.ChainUnaryInterceptor(unary),
		grpc.ChainStreamInterceptor(stream),
	}
	for _, h := range r.cfg.StatsHandlers {
		opts = append(opts, grpc.StatsHandler(h))
	}
	return opts
}
