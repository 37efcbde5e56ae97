package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "oneport/proto/echo"
)

// serveDialling is what is glued together where the server has no WebSocket of its own:
// a handler that makes each call of a socket once more, as a client of the gRPC port
// in the same process. Its frames are those of grpc-ws.v1, as far as the load needs
// them, so that both have the same to encode.
func serveDialling(ln net.Listener, register service) error {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := newGRPCServer()
	defer s.Stop()
	register(s)
	cc, err := grpc.NewClient(backend.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	failed := make(chan error, 2)
	go func() { failed <- s.Serve(backend) }()
	go func() { failed <- http.Serve(ln, &dialling{client: pb.NewEchoServiceClient(cc)}) }()
	return <-failed
}

type dialling struct {
	client   pb.EchoServiceClient
	upgrader websocket.Upgrader
}

func (d *dialling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := d.upgrader.Upgrade(w, r, http.Header{"Sec-Websocket-Protocol": {subprotocol}})
	if err != nil {
		return // Upgrade has answered
	}
	defer ws.Close()
	ws.SetReadLimit(4<<20 + 64<<10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var calls sync.WaitGroup
	defer calls.Wait()
	slots := make(chan struct{}, 100)
	s := &diallingSocket{ws: ws, client: d.client}
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		req, err := parseRequest(data)
		if err != nil {
			return
		}
		if req.method == "" {
			continue // the client's hello, or credit, which TCP has to be enough for here
		}
		slots <- struct{}{}
		calls.Go(func() {
			s.serve(ctx, req)
			<-slots
		})
	}
}

type diallingSocket struct {
	client pb.EchoServiceClient
	mu     sync.Mutex
	ws     *websocket.Conn // guarded by mu, for writing
}

func (s *diallingSocket) write(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.WriteMessage(websocket.BinaryMessage, frame)
}

// serve runs one call. An error of write is not told: the reader meets it as well.
func (s *diallingSocket) serve(ctx context.Context, req request) {
	ctx = metadata.NewOutgoingContext(ctx, req.metadata)
	frame := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), req.call)
	var err error
	switch req.method {
	case echoMethod:
		frame, err = s.unary(ctx, frame, req.message)
	case expandMethod:
		err = s.push(ctx, frame, req.message)
	default:
		err = fmt.Errorf("no method %q", req.method)
	}
	s.write(appendEnd(frame, err))
}

func (s *diallingSocket) unary(ctx context.Context, frame, message []byte) ([]byte, error) {
	var in pb.EchoRequest
	if err := proto.Unmarshal(message, &in); err != nil {
		return frame, err
	}
	out, err := s.client.Echo(ctx, &in)
	if err != nil {
		return frame, err
	}
	return appendMessage(frame, out)
}

func (s *diallingSocket) push(ctx context.Context, frame, message []byte) error {
	var in pb.ExpandRequest
	if err := proto.Unmarshal(message, &in); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.Expand(ctx, &in)
	if err != nil {
		return err
	}
	for {
		out, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f, err := appendMessage(frame[:len(frame):len(frame)], out)
		if err != nil {
			return err
		}
		if err := s.write(f); err != nil {
			return err
		}
	}
}

func appendMessage(frame []byte, m proto.Message) ([]byte, error) {
	frame = protowire.AppendTag(frame, 3, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(proto.Size(m)))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(frame, m)
}

func appendEnd(frame []byte, err error) []byte {
	var end []byte
	if err != nil {
		st := status.Convert(err)
		end = protowire.AppendVarint(protowire.AppendTag(end, 1, protowire.VarintType), uint64(st.Code()))
		end = protowire.AppendString(protowire.AppendTag(end, 2, protowire.BytesType), st.Message())
	}
	return protowire.AppendBytes(protowire.AppendTag(frame, 6, protowire.BytesType), end)
}

// request is a frame that opens a call, with its only message.
type request struct {
	call     uint64
	method   string
	metadata metadata.MD
	message  []byte
}

func parseRequest(frame []byte) (req request, err error) {
	req.metadata = metadata.MD{}
	err = eachField(frame, func(n protowire.Number, v uint64, b []byte) error {
		switch n {
		case 1:
			req.call = v
		case 2:
			return eachField(b, func(n protowire.Number, _ uint64, b []byte) error {
				switch n {
				case 1:
					req.method = string(b)
				case 2:
					return parseMetadata(b, req.metadata)
				}
				return nil
			})
		case 3:
			req.message = b
		}
		return nil
	})
	return req, err
}

func parseMetadata(b []byte, md metadata.MD) error {
	var key string
	return eachField(b, func(n protowire.Number, _ uint64, b []byte) error {
		switch n {
		case 1:
			key = string(b)
		case 2:
			md[key] = append(md[key], string(b))
		}
		return nil
	})
}

// eachField calls f with each field of a protobuf message: v of a number, b of bytes.
func eachField(p []byte, f func(n protowire.Number, v uint64, b []byte) error) error {
	for len(p) > 0 {
		number, kind, n := protowire.ConsumeTag(p)
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(p)
		default:
			return fmt.Errorf("field %d of wire type %d", number, kind)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		if err := f(number, v, b); err != nil {
			return err
		}
	}
	return nil
}
