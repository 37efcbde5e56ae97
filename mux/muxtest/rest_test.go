package muxtest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"oneport/mux/muxtest"
)

// restRoad calls methods by their paths of HTTP, and reads streams as lines of JSON or as
// events.
func restRoad(name string, version int, secure bool) road {
	return road{name: name, http: version, secure: secure, json: true, rest: true, connect: func(s *muxtest.Server) grpc.ClientConnInterface {
		c := s.HTTP1()
		if version == 2 {
			c = s.HTTP2()
		}
		wires := &wires{dial: s.DialContext}
		c.Transport.(*http.Transport).DialContext = wires.DialContext
		conn := &restConn{client: c, url: muxtest.URL, accept: "application/x-ndjson"}
		if secure {
			conn.url = muxtest.URLTLS
		}
		if strings.Contains(name, "events") {
			conn.accept = "text/event-stream"
		}
		return webConn{conn, wires}
	}}
}

// restConn makes gRPC calls of echo.v1.EchoService by its paths of HTTP. It is written to
// README and shares no code with the server.
type restConn struct {
	client      *http.Client
	url, accept string
}

var restPaths = map[string]string{
	"/echo.v1.EchoService/Echo":     "/v1/echo",
	"/echo.v1.EchoService/Expand":   "/v1/echo:expand",
	"/echo.v1.EchoService/Collect":  "/v1/echo:collect",
	"/echo.v1.EchoService/Converse": "/v1/echo:converse",
}

func (c *restConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{}, method, opts...)
	if err != nil {
		return err
	}
	if err := s.SendMsg(args); err != nil && err != io.EOF {
		return err
	}
	return s.RecvMsg(reply)
}

func (c *restConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	path := restPaths[method]
	if path == "" {
		path = "/v1" + method // on which there is nothing
	}
	s := &restStream{conn: c, desc: desc, opts: opts, caller: ctx, answered: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.body, s.send = io.Pipe()
	// As in webConn: net/http does not close the body with the request.
	context.AfterFunc(s.ctx, func() { s.body.Close() })
	r, err := http.NewRequestWithContext(s.ctx, "POST", c.url+path, s.body)
	if err != nil {
		return nil, err
	}
	r.Header = requestHeader(ctx)
	for _, key := range []string{"Content-Type", "Te", "Grpc-Encoding", "Grpc-Message", "Grpc-Message-Type", "Grpc-Status"} {
		r.Header.Del(key)
	}
	for key := range r.Header {
		if strings.HasPrefix(key, ":") {
			delete(r.Header, key)
		}
	}
	r.Header.Set("Content-Type", "application/json")
	if desc.ClientStreams {
		r.Header.Set("Content-Type", "application/x-ndjson")
	}
	r.Header.Set("Accept", c.accept)
	if desc.ClientStreams {
		go s.do(r)
	} else {
		s.request = r // goes with its message
	}
	return s, nil
}

// restStream is one call.
type restStream struct {
	conn    *restConn
	desc    *grpc.StreamDesc
	opts    []grpc.CallOption
	caller  context.Context
	ctx     context.Context // of the request
	cancel  context.CancelFunc
	request *http.Request // not yet begun
	body    *io.PipeReader
	send    *io.PipeWriter

	answered chan struct{} // closed when there is res or err
	res      *http.Response
	err      error

	lines   *bufio.Reader
	trailer metadata.MD
	ended   error // how, io.EOF for OK
}

// do sends the request.
func (s *restStream) do(r *http.Request) {
	defer close(s.answered)
	s.res, s.err = s.conn.client.Do(r)
}

func (s *restStream) Context() context.Context { return s.caller }

func (s *restStream) CloseSend() error { return s.send.Close() }

func (s *restStream) SendMsg(m any) error {
	b, err := marshalJSON(m.(proto.Message))
	if err != nil {
		return err
	}
	if r := s.request; r != nil {
		s.request = nil
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		go s.do(r)
		return nil
	}
	if _, err := s.send.Write(append(b, '\n')); err != nil {
		return io.EOF // RecvMsg tells why
	}
	return nil
}

func (s *restStream) Header() (metadata.MD, error) {
	<-s.answered
	if s.err != nil {
		return nil, nil
	}
	md := restMetadata(s.res.Header)
	for key := range md {
		if strings.HasPrefix(key, "trailer-") {
			delete(md, key)
		}
	}
	for _, key := range []string{"cache-control", "x-accel-buffering", "x-content-type-options"} {
		delete(md, key)
	}
	return md, nil
}

func (s *restStream) Trailer() metadata.MD { return s.trailer }

// restMetadata is metadata of fields of HTTP.
func restMetadata(h http.Header) metadata.MD {
	md := metadata.MD{}
	for name, values := range h {
		key := strings.ToLower(name)
		for _, v := range values {
			if b, err := base64.RawStdEncoding.DecodeString(v); err == nil && strings.HasSuffix(key, "-bin") {
				v = string(b)
			}
			md.Append(key, v)
		}
	}
	return md
}

// RecvMsg reads the next message, then io.EOF or the status of the call, again and again.
func (s *restStream) RecvMsg(m any) error {
	if s.ended != nil {
		return s.ended
	}
	b, err := s.receive()
	if err != nil {
		s.end(err)
		return s.ended
	}
	if err := protojson.Unmarshal(b, m.(proto.Message)); err != nil {
		s.end(status.Errorf(codes.Internal, "%s: %v", b, err))
		return s.ended
	}
	if !s.desc.ServerStreams {
		s.end(io.EOF)
	}
	return nil
}

func (s *restStream) end(err error) {
	<-s.answered
	if s.err == nil {
		s.trailer = restMetadata(s.res.Trailer)
		for key, values := range restMetadata(s.res.Header) {
			if key, ok := strings.CutPrefix(key, "trailer-"); ok {
				s.trailer[key] = values
			}
		}
		delete(s.trailer, "grpc-status")
		s.res.Body.Close()
	}
	if _, ok := status.FromError(err); !ok && err != io.EOF {
		err = status.Error(codes.Unavailable, err.Error())
	}
	if cerr := s.caller.Err(); cerr != nil && status.Code(err) == codes.Unavailable {
		err = status.FromContextError(cerr).Err()
	}
	for _, opt := range s.opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			*opt.HeaderAddr, _ = s.Header()
		case grpc.TrailerCallOption:
			*opt.TrailerAddr = s.Trailer()
		}
	}
	s.ended = err
	s.cancel()
	s.body.Close() // or SendMsg may not know yet
}

// receive returns the JSON of the next message. An error that is no status is one of the
// connection.
func (s *restStream) receive() ([]byte, error) {
	<-s.answered
	if s.err != nil {
		return nil, s.err
	}
	if s.res.StatusCode != http.StatusOK || !s.desc.ServerStreams {
		b, err := io.ReadAll(s.res.Body)
		if err != nil || s.res.StatusCode == http.StatusOK {
			return b, err
		}
		if s.res.Header.Get("Content-Type") != "application/json" {
			code := codes.Unavailable
			if s.res.StatusCode == http.StatusNotFound {
				code = codes.Unimplemented
			}
			return nil, status.Errorf(code, "%s %s", s.res.Status, b)
		}
		return nil, restStatus(b)
	}
	if s.lines == nil {
		s.lines = bufio.NewReader(s.res.Body)
	}
	if s.conn.accept == "text/event-stream" {
		return s.event()
	}
	line, err := s.lines.ReadBytes('\n')
	if err == io.EOF && len(line) == 0 && s.res.Trailer.Get("Grpc-Status") == "0" {
		return nil, io.EOF
	}
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if b, ok := bytes.CutPrefix(line, []byte(`{"error":`)); ok {
		_, err = io.Copy(io.Discard, s.lines) // the trailer comes after it
		if err != nil {
			return nil, err
		}
		return nil, restStatus(bytes.TrimSuffix(b, []byte("}\n")))
	}
	b, ok := bytes.CutPrefix(line, []byte(`{"result":`))
	if !ok {
		return nil, status.Errorf(codes.Internal, "a line is %q", line)
	}
	return bytes.TrimSuffix(b, []byte("}\n")), nil
}

// event reads the next server-sent event (HTML, "Server-sent events").
func (s *restStream) event() ([]byte, error) {
	fields := map[string]string{}
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" && len(fields) > 0 {
			break
		}
		if name, value, ok := strings.Cut(line, ": "); ok {
			fields[name] = value
		}
	}
	if fields["event"] != "status" {
		return []byte(fields["data"]), nil
	}
	if _, err := io.Copy(io.Discard, s.lines); err != nil {
		return nil, err
	}
	if err := restStatus([]byte(fields["data"])); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

// restStatus is the error that a google.rpc.Status in JSON tells of, nil for OK.
func restStatus(b []byte) error {
	st := new(spb.Status)
	if err := protojson.Unmarshal(b, st); err != nil {
		return status.Errorf(codes.Internal, "%q: %v", b, err)
	}
	return status.ErrorProto(st)
}
