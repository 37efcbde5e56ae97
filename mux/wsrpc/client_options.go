package wsrpc

import (
	"context"
	"math"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// clientOptions are the options of one call.
type clientOptions struct {
	headers, trailers []*metadata.MD
	peers             []*peer.Peer
	onFinish          []func(error)
	creds             credentials.PerRPCCredentials
	maxSend, maxRecv  int
	waitForReady      bool
}

func (c *ClientConn) callOptions(opts []grpc.CallOption) *clientOptions {
	o := &clientOptions{maxSend: math.MaxInt32, maxRecv: c.opts.MaxMessageBytes}
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			o.headers = append(o.headers, opt.HeaderAddr)
		case grpc.TrailerCallOption:
			o.trailers = append(o.trailers, opt.TrailerAddr)
		case grpc.PeerCallOption:
			o.peers = append(o.peers, opt.PeerAddr)
		case grpc.OnFinishCallOption:
			o.onFinish = append(o.onFinish, opt.OnFinish)
		case grpc.PerRPCCredsCallOption:
			o.creds = opt.Creds
		case grpc.MaxSendMsgSizeCallOption:
			o.maxSend = opt.MaxSendMsgSize
		case grpc.MaxRecvMsgSizeCallOption:
			o.maxRecv = min(opt.MaxRecvMsgSize, c.opts.MaxMessageBytes)
		case grpc.FailFastCallOption:
			o.waitForReady = !opt.FailFast
		}
	}
	return o
}

func (o *clientOptions) finish(err error) {
	for _, f := range o.onFinish {
		f(err)
	}
}

// callMetadata is what a call opens with: of the credentials, then of ctx.
func (c *ClientConn) callMetadata(ctx context.Context, s *clientSocket, method string, o *clientOptions) (metadata.MD, error) {
	out, _ := metadata.FromOutgoingContext(ctx) // a copy
	if c.opts.PerRPCCredentials == nil && o.creds == nil {
		return rpc.OutgoingMetadata(out)
	}
	if o.creds != nil && o.creds.RequireTransportSecurity() && c.url.Scheme != "wss" {
		return nil, status.Error(codes.Unauthenticated, "wsrpc: the credentials of the call require transport security")
	}
	ctx = credentials.NewContextWithRequestInfo(ctx, credentials.RequestInfo{Method: method, AuthInfo: s.peer.AuthInfo})
	uri := "https://" + c.url.Host + path.Dir(method)
	var mds []metadata.MD
	for _, creds := range []credentials.PerRPCCredentials{c.opts.PerRPCCredentials, o.creds} {
		if creds == nil {
			continue
		}
		kv, err := creds.GetRequestMetadata(ctx, uri)
		if _, ok := status.FromError(err); !ok {
			err = status.Errorf(codes.Unauthenticated, "wsrpc: per-call credentials: %.200v", err)
		}
		if err != nil {
			return nil, err
		}
		mds = append(mds, metadata.New(kv))
	}
	return rpc.OutgoingMetadata(metadata.Join(append(mds, out)...))
}
