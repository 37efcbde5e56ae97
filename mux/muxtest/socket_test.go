package muxtest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"oneport/mux/muxtest"
)

// socketConn makes gRPC calls in the one-method form of WebSocket, a socket each.
// It is written to the documentation of package wsrpc and shares no code with it.
type socketConn struct {
	dialer
	message int // kind of the messages sent
}

var _ grpc.ClientConnInterface = (*socketConn)(nil)

// dialer opens the sockets of one client.
type dialer struct {
	server *muxtest.Server
	secure bool
	http2  bool // each is a stream

	mu   sync.Mutex
	open map[io.Closer]struct{} // guarded by mu
}

// Close cuts all sockets without a word.
func (d *dialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ws := range d.open {
		ws.Close()
	}
	return nil
}

// forget lets go of a socket whose call is over.
func (d *dialer) forget(ws io.Closer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, ws)
}

// dial opens a socket for a call with this context. The error is a status.
func (d *dialer) dial(ctx context.Context, path string, header http.Header, subprotocols ...string) (*websocket.Conn, error) {
	scheme, wsd := "ws", websocket.Dialer{NetDialContext: d.server.DialContext, Subprotocols: subprotocols}
	switch {
	case d.http2:
		wsd.NetDialContext = overHTTP2(d.server, d.secure)
	case d.secure:
		scheme, wsd.TLSClientConfig = "wss", d.server.ClientTLS.Clone()
	}
	ws, res, err := wsd.DialContext(ctx, scheme+strings.TrimPrefix(muxtest.URL, "http")+path, header)
	switch {
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil && res != nil && res.StatusCode == http.StatusNotFound:
		text, _ := io.ReadAll(res.Body)
		return nil, status.Error(codes.Unimplemented, string(text))
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "handshake: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = make(map[io.Closer]struct{})
	}
	d.open[ws] = struct{}{}
	context.AfterFunc(ctx, func() {
		ws.Close()
		d.forget(ws)
	})
	return ws, nil
}

func (c *socketConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{}, method, opts...)
	if err != nil {
		return err
	}
	if err := s.SendMsg(args); err != nil && err != io.EOF {
		return err
	}
	s.CloseSend()
	return s.RecvMsg(reply)
}

func (c *socketConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	ws, err := c.dial(ctx, "/grpc-ws"+method, requestHeader(ctx))
	if err != nil {
		return nil, err
	}
	s := &socketStream{ctx: ctx, ws: ws, desc: desc, message: c.message}
	s.release = context.AfterFunc(ctx, func() { ws.Close() })
	return s, nil
}

// requestHeader carries metadata and deadline of ctx, as far as a handshake can.
func requestHeader(ctx context.Context) http.Header {
	h := http.Header{}
	md, _ := metadata.FromOutgoingContext(ctx)
	for k, vs := range md {
		for _, v := range vs {
			if strings.HasSuffix(k, "-bin") {
				v = base64.StdEncoding.EncodeToString([]byte(v))
			}
			h.Add(k, v)
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		h.Set("Grpc-Timeout", fmt.Sprintf("%dm", time.Until(deadline).Milliseconds()))
	}
	return h
}

// socketStream is one socket.
type socketStream struct {
	ctx     context.Context // grpc.ClientStream demands it
	ws      *websocket.Conn
	desc    *grpc.StreamDesc
	message int
	release func() bool

	sent  atomic.Bool // a message
	ended error       // how; io.EOF for OK
}

func (s *socketStream) Header() (metadata.MD, error) { return nil, nil }
func (s *socketStream) Trailer() metadata.MD         { return nil }
func (s *socketStream) Context() context.Context     { return s.ctx }

func (s *socketStream) CloseSend() error {
	s.ws.WriteMessage(websocket.TextMessage, nil)
	return nil
}

func (s *socketStream) SendMsg(m any) error {
	b, err := proto.Marshal(m.(proto.Message))
	if s.message == websocket.TextMessage {
		b, err = marshalJSON(m.(proto.Message))
	}
	if err != nil {
		return err
	}
	s.sent.Store(true)
	if err := s.ws.WriteMessage(s.message, b); err != nil {
		return io.EOF // RecvMsg tells why
	}
	return nil
}

// marshalJSON makes the shortest JSON, of which the length can be foretold.
func marshalJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var short bytes.Buffer
	err = json.Compact(&short, b)
	return short.Bytes(), err
}

func (s *socketStream) RecvMsg(m any) error {
	if err := s.receive(m); err != nil {
		if err == io.EOF && !s.desc.ServerStreams {
			return status.Error(codes.Internal, "OK without an answer")
		}
		return err
	}
	if s.desc.ServerStreams {
		return nil
	}
	switch err := s.receive(proto.Clone(m.(proto.Message))); err {
	case io.EOF:
		return nil
	case nil:
		return status.Error(codes.Internal, "two answers")
	default:
		return err
	}
}

func (s *socketStream) receive(m any) error {
	if s.ended != nil {
		return s.ended
	}
	kind, b, err := s.ws.ReadMessage()
	if err != nil {
		s.ended = s.outcome(err)
		s.release()
		s.ws.Close()
		return s.ended
	}
	if s.sent.Load() && kind != s.message {
		return status.Errorf(codes.Internal, "answer of kind %d to a request of kind %d", kind, s.message)
	}
	if kind == websocket.TextMessage {
		return protojson.Unmarshal(b, m.(proto.Message))
	}
	return proto.Unmarshal(b, m.(proto.Message))
}

// outcome reads the status from the end of the socket.
func (s *socketStream) outcome(err error) error {
	if cerr := s.ctx.Err(); cerr != nil {
		return status.FromContextError(cerr).Err()
	}
	ce, ok := errors.AsType[*websocket.CloseError](err)
	switch {
	case !ok:
		return status.Errorf(codes.Unavailable, "read: %v", err)
	case ce.Code == websocket.CloseNormalClosure:
		return io.EOF
	case ce.Code > 4000 && ce.Code <= 4016:
		return status.Error(codes.Code(ce.Code-4000), ce.Text)
	case ce.Code == websocket.CloseMessageTooBig:
		return status.Error(codes.ResourceExhausted, ce.Text)
	case ce.Code == websocket.CloseGoingAway, ce.Code == websocket.CloseAbnormalClosure:
		return status.Error(codes.Unavailable, ce.Text)
	default:
		return status.Errorf(codes.Internal, "closed with %d %q", ce.Code, ce.Text)
	}
}
