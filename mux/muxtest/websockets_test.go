package muxtest_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
	"oneport/mux/muxtest"
)

func webSocketRoad(name string, secure bool) road {
	return road{name: name, secure: secure, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
		return &webSocketConn{dialer{server: s, secure: secure}}
	}}
}

// webSocketConn makes gRPC calls over grpc-websockets, a socket each, as the
// WebsocketTransport of @improbable-eng/grpc-web and that of nice-grpc-web do. It looks
// at answers as strictly as either.
type webSocketConn struct{ dialer }

var _ grpc.ClientConnInterface = (*webSocketConn)(nil)

func (c *webSocketConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
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

func (c *webSocketConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ws, err := c.dial(ctx, method, nil, "grpc-websockets")
	if err != nil {
		return nil, err
	}
	s := &webSocketStream{ctx: ctx, ws: ws, desc: desc, opts: rpc.NewCallOptions(opts, 0)}
	if ws.Subprotocol() != "grpc-websockets" {
		ws.Close()
		return nil, status.Errorf(codes.Internal, "subprotocol %q", ws.Subprotocol())
	}
	s.release = context.AfterFunc(ctx, func() { ws.Close() })
	// Should the socket have ended, RecvMsg tells why.
	ws.WriteMessage(websocket.BinaryMessage, headerLines(ctx))
	return s, nil
}

// headerLines carries metadata and deadline of ctx.
func headerLines(ctx context.Context) []byte {
	b := []byte("content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n")
	md, _ := metadata.FromOutgoingContext(ctx)
	for key, values := range md {
		if key == "content-type" {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(key, "-bin") {
				v = base64.StdEncoding.EncodeToString([]byte(v))
			}
			b = fmt.Appendf(b, "%s: %s\r\n", key, v)
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		b = fmt.Appendf(b, "grpc-timeout: %dm\r\n", time.Until(deadline).Milliseconds())
	}
	return b
}

// webSocketStream is one socket.
type webSocketStream struct {
	ctx     context.Context // grpc.ClientStream demands it
	ws      *websocket.Conn
	desc    *grpc.StreamDesc
	opts    *rpc.CallOptions
	release func() bool

	// The receiving side's own.
	header, trailer metadata.MD // nil until they have come
	outcome         error       // what the trailer says; io.EOF for OK
	ended           error       // how the call ended for the caller, likewise
}

func (s *webSocketStream) Context() context.Context { return s.ctx }
func (s *webSocketStream) Trailer() metadata.MD     { return s.trailer }

// Header waits for the header.
func (s *webSocketStream) Header() (metadata.MD, error) {
	if s.header == nil && s.ended == nil {
		if flags, _, err := s.frame(); err != nil {
			return nil, err
		} else if flags != 0x80 {
			return nil, status.Error(codes.Internal, "a message before the header")
		}
	}
	return s.header, nil
}

func (s *webSocketStream) CloseSend() error {
	s.ws.WriteMessage(websocket.BinaryMessage, []byte{1})
	return nil
}

func (s *webSocketStream) SendMsg(m any) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 6), m.(proto.Message))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)-6))
	if err := s.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return io.EOF // RecvMsg tells why
	}
	return nil
}

func (s *webSocketStream) RecvMsg(m any) error {
	if s.ended != nil {
		return s.ended
	}
	err := s.receive(m)
	if err == nil && s.desc.ServerStreams {
		return nil
	}
	if err == nil {
		if err = s.receive(proto.Clone(m.(proto.Message))); err == nil {
			err = status.Error(codes.Internal, "two answers")
		}
	} else if err == io.EOF && !s.desc.ServerStreams {
		err = status.Error(codes.Internal, "OK without an answer")
	}
	s.ended = err
	s.release()
	s.ws.Close()
	s.opts.SetMetadata(s.header, s.trailer)
	s.opts.Finish(err)
	if err == io.EOF && !s.desc.ServerStreams {
		return nil
	}
	return err
}

func (s *webSocketStream) receive(m any) error {
	for {
		flags, message, err := s.frame()
		if err != nil {
			return err
		}
		if flags != 0 {
			continue
		}
		if s.header == nil || s.trailer != nil {
			return status.Error(codes.Internal, "a message that is not between header and trailer")
		}
		return proto.Unmarshal(message, m.(proto.Message))
	}
}

// frame reads one frame of the body, or how it ended. One with lines must be the last of
// its WebSocket message.
func (s *webSocketStream) frame() (flags byte, payload []byte, err error) {
	kind, b, err := s.ws.ReadMessage()
	if err != nil {
		return 0, nil, s.end(err)
	}
	if kind != websocket.BinaryMessage || len(b) < 5 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		return 0, nil, status.Errorf(codes.Internal, "an answer of kind %d that is no frame: %q", kind, b)
	}
	flags, payload = b[0], b[5:]
	if flags == 0x80 {
		err = s.lines(string(payload))
	}
	return flags, payload, err
}

// lines takes a header or a trailer.
func (s *webSocketStream) lines(text string) error {
	md := metadata.MD{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || name != strings.ToLower(name) {
			return status.Errorf(codes.Internal, "line %q", line)
		}
		if strings.HasSuffix(name, "-bin") {
			b, err := base64.RawStdEncoding.DecodeString(value)
			if err != nil {
				return status.Errorf(codes.Internal, "line %q: %v", line, err)
			}
			value = string(b)
		}
		md.Append(name, value)
	}
	switch {
	case s.header == nil:
		s.header = md
		return nil
	case s.trailer != nil:
		return status.Error(codes.Internal, "two trailers")
	}
	s.trailer = md
	s.outcome = outcomeOf(md)
	return nil
}

// outcomeOf takes the status out of a trailer.
func outcomeOf(md metadata.MD) error {
	take := func(key string) string {
		defer delete(md, key)
		return strings.Join(md[key], ",")
	}
	code, details := take("grpc-status"), take("grpc-status-details-bin")
	message, err := url.PathUnescape(take("grpc-message"))
	n, aerr := strconv.Atoi(code)
	if err = errors.Join(err, aerr); err != nil {
		return status.Errorf(codes.Internal, "trailer: %v", err)
	}
	if n == 0 {
		return io.EOF
	}
	st := &spb.Status{Code: int32(n), Message: message}
	if details != "" {
		whole := new(spb.Status)
		if err := proto.Unmarshal([]byte(details), whole); err != nil || whole.Code != st.Code || whole.Message != st.Message {
			return status.Errorf(codes.Internal, "details %v of %v: %v", whole, st, err)
		}
		st = whole
	}
	return status.ErrorProto(st)
}

// end makes a status of the end of the socket.
func (s *webSocketStream) end(err error) error {
	if cerr := s.ctx.Err(); cerr != nil && s.outcome == nil {
		return status.FromContextError(cerr).Err()
	}
	ce, ok := errors.AsType[*websocket.CloseError](err)
	switch {
	case s.outcome != nil && ok && ce.Code == websocket.CloseNormalClosure:
		return s.outcome
	case ok && ce.Code == websocket.CloseMessageTooBig:
		return status.Error(codes.ResourceExhausted, ce.Text)
	default:
		return status.Errorf(codes.Unavailable, "read: %v", err)
	}
}
