package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux"
)

// faults are servers that do one thing wrong, for all protocols, each under its
// name. With any of them the suite must fail.
var faults = map[string][]mux.Option{
	// The details of errors are lost.
	"details": {
		mux.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			reply, err := h(ctx, req)
			return reply, withoutDetails(err)
		}),
		mux.WithStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return withoutDetails(h(srv, ss))
		}),
	},
	// Trailers are lost.
	"trailers": {
		mux.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			ts := unaryWithoutTrailer{grpc.ServerTransportStreamFromContext(ctx)}
			return h(grpc.NewContextWithServerTransportStream(ctx, ts), req)
		}),
		mux.WithStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, streamWithoutTrailer{ss})
		}),
	},
}

func withoutDetails(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	return status.Error(s.Code(), s.Message())
}

type unaryWithoutTrailer struct{ grpc.ServerTransportStream }

func (unaryWithoutTrailer) SetTrailer(metadata.MD) error { return nil }

type streamWithoutTrailer struct{ grpc.ServerStream }

func (streamWithoutTrailer) SetTrailer(metadata.MD) {}
