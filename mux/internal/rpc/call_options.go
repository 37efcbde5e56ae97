package rpc

import (
	"context"
	"io"
	"math"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// CallOptions are the call options that clients of this module's own act on. Those
// about retries, compression, codecs and the authority are passed over.
type CallOptions struct {
	Creds            credentials.PerRPCCredentials // nil: none
	MaxSend, MaxRecv int                           // bytes of a message
	WaitForReady     bool

	headers, trailers []*metadata.MD
	peers             []*peer.Peer
	onFinish          []func(error)
}

// NewCallOptions reads opts. maxRecv is the limit of answers where they say none.
func NewCallOptions(opts []grpc.CallOption, maxRecv int) *CallOptions {
	o := &CallOptions{MaxSend: math.MaxInt32, MaxRecv: maxRecv}
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
			o.Creds = opt.Creds
		case grpc.MaxSendMsgSizeCallOption:
			o.MaxSend = opt.MaxSendMsgSize
		case grpc.MaxRecvMsgSizeCallOption:
			o.MaxRecv = opt.MaxRecvMsgSize
		case grpc.FailFastCallOption:
			o.WaitForReady = !opt.FailFast
		}
	}
	return o
}

// CheckSend judges the encoded size of a request, in the words of grpc-go.
func (o *CallOptions) CheckSend(size int) error { return CheckSend(size, o.MaxSend) }

// CheckSend judges the encoded size of a message to be sent, in the words of grpc-go.
func CheckSend(size, limit int) error {
	if size > limit {
		return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, limit)
	}
	return nil
}

// CheckRecv judges the encoded size of an answer.
func (o *CallOptions) CheckRecv(size int) error {
	if size > o.MaxRecv {
		return ErrTooLarge(size, o.MaxRecv)
	}
	return nil
}

// SetPeer tells those who want to know who answers.
func (o *CallOptions) SetPeer(p *peer.Peer) {
	for _, to := range o.peers {
		*to = *p
	}
}

// SetMetadata gives both away: nobody else may keep them. The variables that they are
// wanted in are the caller's, so it is called on the caller's goroutine.
func (o *CallOptions) SetMetadata(header, trailer metadata.MD) {
	for _, p := range o.headers {
		*p = header
	}
	for _, p := range o.trailers {
		*p = trailer
	}
}

// Finish tells the outcome of the call, nil or io.EOF for OK. It is called once.
func (o *CallOptions) Finish(err error) {
	if err == io.EOF {
		err = nil
	}
	for _, f := range o.onFinish {
		f(err)
	}
}

// CredentialsMetadata returns the metadata that credentials give for a call of method
// at this authority. They may ask by auth how safe the transport is. An error of theirs
// that is no status gets otherwise as code.
func CredentialsMetadata(ctx context.Context, creds credentials.PerRPCCredentials, authority, method string, auth credentials.AuthInfo, otherwise codes.Code) (metadata.MD, error) {
	ctx = credentials.NewContextWithRequestInfo(ctx, credentials.RequestInfo{Method: method, AuthInfo: auth})
	kv, err := creds.GetRequestMetadata(ctx, "https://"+authority+path.Dir(method))
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return nil, err
		}
		return nil, status.Errorf(otherwise, "rpc: per-call credentials: %v", err)
	}
	md := metadata.New(kv)
	return md, validate(md)
}
