package wsrpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

func (c *ClientConn) callOptions(opts []grpc.CallOption) *rpc.CallOptions {
	o := rpc.NewCallOptions(opts, c.opts.MaxMessageBytes)
	o.MaxRecv = min(o.MaxRecv, c.opts.MaxMessageBytes)
	return o
}

// callMetadata is what a call opens with: of the credentials, then of ctx. The codes of
// errors are grpc-go's.
func (c *ClientConn) callMetadata(ctx context.Context, s *clientSocket, method string, o *rpc.CallOptions) (metadata.MD, error) {
	out, _ := metadata.FromOutgoingContext(ctx) // a copy
	if o.Creds != nil && o.Creds.RequireTransportSecurity() && c.url.Scheme != "wss" {
		return nil, status.Error(codes.Unauthenticated, "wsrpc: the credentials of the call require transport security: use wss")
	}
	if !strings.HasPrefix(method, "/") {
		method = "/" + method
	}
	var mds []metadata.MD
	for _, from := range []struct {
		creds credentials.PerRPCCredentials
		code  codes.Code
	}{{c.opts.PerRPCCredentials, codes.Unauthenticated}, {o.Creds, codes.Internal}} {
		if from.creds == nil {
			continue
		}
		md, err := rpc.CredentialsMetadata(ctx, from.creds, c.url.Host, method, s.peer.AuthInfo, from.code)
		if err != nil {
			return nil, err
		}
		mds = append(mds, md)
	}
	if mds != nil {
		out = metadata.Join(append(mds, out)...)
	}
	return rpc.OutgoingMetadata(out)
}
