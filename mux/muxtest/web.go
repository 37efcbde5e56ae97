package muxtest

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
)

// Connect returns a client of the Connect protocol in cleartext, for generated
// gRPC stubs. c says by which HTTP: it is what HTTP1 or HTTP2 returns, or another
// that reaches s. Without opts messages are protobuf; connecthttp.WithProtoJSON
// makes them JSON, connecthttp.WithGRPCWeb the protocol gRPC-Web, and so on.
//
// All kinds of call work by both HTTPs, also bidi streams, as far as s reads and
// writes at the same time. Of call options grpc.Header, grpc.Trailer and
// grpc.OnFinish count; what the others are for is in opts or in c.
func (s *Server) Connect(c *http.Client, opts ...connecthttp.Option) grpc.ClientConnInterface {
	return s.webConn(c, URL, opts)
}

// ConnectTLS is Connect over TLS.
func (s *Server) ConnectTLS(c *http.Client, opts ...connecthttp.Option) grpc.ClientConnInterface {
	return s.webConn(c, URLTLS, opts)
}

func (s *Server) webConn(c *http.Client, url string, opts []connecthttp.Option) *webConn {
	open, cancel := context.WithCancel(context.Background())
	s.tb.Cleanup(cancel)
	return &webConn{connect.NewClient(connecthttp.NewTransport(webClient{c}, url, opts...)), open}
}

// webConn makes gRPC calls by a client of package connect.
type webConn struct {
	client *connect.Client
	open   context.Context // ends with the test, and calls with it
}

var _ grpc.ClientConnInterface = (*webConn)(nil)

// Invoke makes a unary call.
func (c *webConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	call := c.call(ctx, opts)
	call.unary = true
	proto.Reset(reply.(proto.Message)) // connect leaves it as it is for an empty message
	err := c.client.CallUnary(call.ctx, connect.Spec{Procedure: method}, args, reply)
	if err != nil {
		err = call.status(err)
	}
	call.finish(err)
	return err
}

// NewStream starts a call of any other kind. To connect it is always a bidi stream,
// which is the same on the wire and lets no method wait for the answer but RecvMsg.
func (c *webConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	call := c.call(ctx, opts)
	wire, err := c.client.CallClientStream(call.ctx, connect.Spec{Procedure: method, StreamType: connect.StreamTypeBidi})
	if err == nil {
		err = wire.SendHeaders() // as grpc-go: the handler may begin
	}
	if err != nil {
		err = call.status(err)
		call.finish(err)
		return nil, err
	}
	// net/http does not close the body of a request over HTTP/1.1 when that has
	// ended, and a goroutine of its own goes on to read it.
	context.AfterFunc(call.ctx, func() { wire.CloseSend() })
	return &webStream{webCall: call, desc: desc, wire: wire}, nil
}

// webCall is one call, of any kind.
type webCall struct {
	caller context.Context
	ctx    context.Context // of the request: ends with the caller's, and with the call
	cancel context.CancelFunc
	info   *connect.CallInfo
	unary  bool

	opts *rpc.CallOptions

	header   metadata.MD   // set before answered is closed
	answered chan struct{} // closed when the header has come, or will not
}

type webCallKey struct{}

func (c *webConn) call(ctx context.Context, opts []grpc.CallOption) *webCall {
	call := &webCall{caller: ctx, answered: make(chan struct{}), opts: rpc.NewCallOptions(opts, 0)}
	ctx, call.info = connect.NewClientContext(context.WithValue(ctx, webCallKey{}, call))
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.open, cancel)
	call.ctx, call.cancel = ctx, func() { stop(); cancel() }
	md, _ := metadata.FromOutgoingContext(ctx)
	for key, values := range md {
		if reserved(key) {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(key, "-bin") {
				v = connect.EncodeBinaryHeader([]byte(v))
			}
			call.info.RequestHeader().Add(key, v)
		}
	}
	return call
}

// reserved are the keys that grpc-go does not send for its callers either.
func reserved(key string) bool {
	switch key {
	case "content-type", "user-agent", "te", "grpc-message-type", "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout":
		return true
	}
	return strings.HasPrefix(key, ":")
}

// webClient sends the requests of webCalls.
type webClient struct{ *http.Client }

// Do tells a call of the header of the response as soon as that has come, where
// connect waits for the first message.
func (c webClient) Do(r *http.Request) (*http.Response, error) {
	call := r.Context().Value(webCallKey{}).(*webCall)
	defer close(call.answered)
	res, err := c.Client.Do(r)
	if err != nil {
		return nil, err
	}
	call.header = toMetadata(maps.All(res.Header))
	maps.DeleteFunc(call.header, func(key string, _ []string) bool {
		if call.info.Protocol == connect.ProtocolNameConnect {
			return call.unary && strings.HasPrefix(key, "trailer-") // where that has its trailer
		}
		return res.Header.Get("Grpc-Status") != "" // the header is the trailer
	})
	// Else connect would refuse bidi streams over HTTP/1.1.
	res.ProtoMajor, res.ProtoMinor = 2, 0
	return res, nil
}

// finish ends the call, with nil or io.EOF for OK, and hands over what its options ask for.
func (c *webCall) finish(err error) {
	c.cancel()
	header, _ := c.Header()
	c.opts.SetMetadata(header, c.Trailer())
	c.opts.Finish(err)
}

// Header waits for the header.
func (c *webCall) Header() (metadata.MD, error) {
	select {
	case <-c.answered:
	case <-c.ctx.Done():
	}
	select {
	case <-c.answered:
		return c.header, nil
	default:
		return nil, nil
	}
}

// Trailer is there when the call is over.
func (c *webCall) Trailer() metadata.MD { return toMetadata(c.info.ResponseTrailer().All()) }

// toMetadata takes fields as gRPC shows them to clients.
func toMetadata(fields iter.Seq2[string, []string]) metadata.MD {
	md := metadata.MD{}
	for name, values := range fields {
		key := strings.ToLower(name)
		switch key {
		case "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding":
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(key, "-bin") {
				if b, err := connect.DecodeBinaryHeader(v); err == nil {
					v = string(b)
				} // else it shows as it is, for the test to see
			}
			md.Append(key, v)
		}
	}
	return md
}

// status makes a status of an error of connect. What the server has said comes
// before the end of the caller's context, and that before all else.
func (c *webCall) status(err error) error {
	ce, ok := errors.AsType[*connect.Error](err)
	if cerr := c.caller.Err(); cerr != nil && !(ok && ce.IsRemote()) {
		return status.FromContextError(cerr).Err()
	}
	if !ok {
		return status.Error(codes.Unknown, err.Error())
	}
	st := &spb.Status{Code: int32(ce.Code()), Message: ce.Message()}
	for _, d := range ce.Details() {
		st.Details = append(st.Details, connectproto.ErrorDetailToAny(d))
	}
	return status.ErrorProto(st)
}

// webStream is a call of any kind but unary.
type webStream struct {
	*webCall
	desc *grpc.StreamDesc
	wire connect.ClientStream

	sentLast bool  // used by the sending side only
	ended    error // how, io.EOF for OK; used by the receiving side only
}

var _ grpc.ClientStream = (*webStream)(nil)

func (s *webStream) Context() context.Context { return s.caller }

func (s *webStream) CloseSend() error {
	s.sentLast = true
	_ = s.wire.CloseSend() // what is wrong RecvMsg tells
	return nil
}

// SendMsg returns io.EOF when the call is over and RecvMsg tells how; or nil, where
// the client does not stream.
func (s *webStream) SendMsg(m any) error {
	if s.sentLast {
		return status.Error(codes.Internal, "muxtest: SendMsg called after CloseSend")
	}
	err := s.wire.Send(m)
	if err != nil && !errors.Is(err, io.EOF) && s.ctx.Err() == nil { // it is no message
		s.cancel()
		return s.status(err)
	}
	if !s.desc.ClientStreams {
		return s.CloseSend()
	}
	if err != nil {
		return io.EOF
	}
	return nil
}

// RecvMsg reads the next message, then io.EOF or the status of the call, again and
// again. Where the server does not stream, the message comes only with an OK status.
func (s *webStream) RecvMsg(m any) error {
	if s.ended != nil {
		return s.ended
	}
	err := s.receive(m)
	switch {
	case err == nil && s.desc.ServerStreams:
		return nil
	case err == nil:
		if err = s.receive(new(emptypb.Empty)); err == nil {
			err = status.Error(codes.Internal, "muxtest: the server sent a second answer where the method has one")
		}
		s.end(err)
		if err == io.EOF {
			return nil
		}
		return err
	case err == io.EOF && !s.desc.ServerStreams:
		err = status.Error(codes.Internal, "muxtest: the call ended OK without an answer")
	}
	s.end(err)
	return err
}

func (s *webStream) receive(m any) error {
	proto.Reset(m.(proto.Message)) // as in Invoke
	err := s.wire.Receive(m)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return s.status(err)
}

func (s *webStream) end(err error) {
	s.ended = err
	s.finish(err)
}
