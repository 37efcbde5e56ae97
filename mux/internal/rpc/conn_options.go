package rpc

import (
	"context"
	"math"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// options are the call options that mean something in process. Those about
// retries, compression, codecs and waiting for a connection have no wire to act
// on and are passed over.
type options struct {
	headers, trailers []*metadata.MD
	onFinish          []func(error)
	creds             credentials.PerRPCCredentials
	maxSend, maxRecv  int
}

func callOptions(opts []grpc.CallOption) *options {
	o := &options{maxSend: math.MaxInt32, maxRecv: DefaultMaxMessageBytes}
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			o.headers = append(o.headers, opt.HeaderAddr)
		case grpc.TrailerCallOption:
			o.trailers = append(o.trailers, opt.TrailerAddr)
		case grpc.PeerCallOption:
			*opt.PeerAddr = *inProcessPeer
		case grpc.OnFinishCallOption:
			o.onFinish = append(o.onFinish, opt.OnFinish)
		case grpc.PerRPCCredsCallOption:
			o.creds = opt.Creds
		case grpc.MaxSendMsgSizeCallOption:
			o.maxSend = opt.MaxSendMsgSize
		case grpc.MaxRecvMsgSizeCallOption:
			o.maxRecv = opt.MaxRecvMsgSize
		}
	}
	return o
}

// credentials returns the metadata that the caller's credentials give. They may
// ask how safe the transport is, and sign the URI of the service; both are what
// a network would have told them.
func (o *options) credentials(ctx context.Context, method string) (metadata.MD, error) {
	if o.creds == nil {
		return nil, nil
	}
	ctx = credentials.NewContextWithRequestInfo(ctx, credentials.RequestInfo{Method: method, AuthInfo: authInfo{}})
	uri := "https://" + address{}.String() + path.Dir(method)
	kv, err := o.creds.GetRequestMetadata(ctx, uri)
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return nil, err
		}
		return nil, status.Errorf(codes.Internal, "rpc: per-call credentials: %v", err)
	}
	md := metadata.New(kv)
	return md, validate(md)
}

func (o *options) checkSend(size int) error {
	if size > o.maxSend {
		return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, o.maxSend)
	}
	return nil
}

func (o *options) checkRecv(size int) error {
	if size > o.maxRecv {
		return ErrTooLarge(size, o.maxRecv)
	}
	return nil
}

// setMetadata gives both away: nobody else may keep them.
func (o *options) setMetadata(header, trailer metadata.MD) {
	for _, p := range o.headers {
		*p = header
	}
	for _, p := range o.trailers {
		*p = trailer
	}
}

func (o *options) finish(err error) {
	for _, f := range o.onFinish {
		f(err)
	}
}
