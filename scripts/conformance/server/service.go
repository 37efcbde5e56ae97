package main

import (
	"context"
	"encoding/base64"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// registerService registers the suite's service as generated code would. What its
// methods must do is told in the suite's service.proto.
func registerService(r grpc.ServiceRegistrar, d protoreflect.ServiceDescriptor) {
	desc := &grpc.ServiceDesc{
		ServiceName: string(d.FullName()),
		HandlerType: (*any)(nil), // the methods hang on no Go type
		Metadata:    d.ParentFile().Path(),
	}
	methods := d.Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		if !m.IsStreamingClient() && !m.IsStreamingServer() {
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: string(m.Name()), Handler: unaryHandler(m)})
			continue
		}
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName:    string(m.Name()),
			Handler:       streamHandler(m),
			ClientStreams: m.IsStreamingClient(),
			ServerStreams: m.IsStreamingServer(),
		})
	}
	r.RegisterService(desc, nil)
}

func unaryHandler(d protoreflect.MethodDescriptor) grpc.MethodHandler {
	info := &grpc.UnaryServerInfo{FullMethod: "/" + string(d.Parent().FullName()) + "/" + string(d.Name())}
	serve := func(ctx context.Context, req any) (any, error) {
		if d.Name() == "Unimplemented" {
			return nil, status.Error(codes.Unimplemented, "not implemented, as the suite wants it")
		}
		return unary(ctx, message{req.(proto.Message).ProtoReflect()}, newMessage(d.Output()))
	}
	return func(_ any, ctx context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
		req := newMessage(d.Input()).Interface()
		if err := decode(req); err != nil {
			return nil, err
		}
		if i == nil {
			return serve(ctx, req)
		}
		return i(ctx, req, info, serve)
	}
}

func streamHandler(d protoreflect.MethodDescriptor) grpc.StreamHandler {
	serve := bidiStream
	switch {
	case !d.IsStreamingServer():
		serve = clientStream
	case !d.IsStreamingClient():
		serve = serverStream
	}
	return func(_ any, ss grpc.ServerStream) error { return serve(stream{ss, d}) }
}

func unary(ctx context.Context, req, reply message) (any, error) {
	def := req.sub("response_definition")
	if err := grpc.SetHeader(ctx, toMetadata(def, "response_headers")); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, toMetadata(def, "response_trailers")); err != nil {
		return nil, err
	}
	if err := answer(ctx, def, []message{req}, reply); err != nil {
		return nil, err
	}
	return reply.Interface(), nil
}

func clientStream(s stream) error {
	var reqs []message
	def := newMessage(s.method.Input()).sub("response_definition")
	for {
		req, err := s.receive()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if len(reqs) == 0 {
			def = req.sub("response_definition")
		}
		reqs = append(reqs, req)
	}
	if err := s.SetHeader(toMetadata(def, "response_headers")); err != nil {
		return err
	}
	s.SetTrailer(toMetadata(def, "response_trailers"))
	reply := newMessage(s.method.Output())
	if err := answer(s.Context(), def, reqs, reply); err != nil {
		return err
	}
	return s.SendMsg(reply.Interface())
}

func serverStream(s stream) error {
	req, err := s.receive()
	if err != nil {
		return err
	}
	r := replies{stream: s, def: req.sub("response_definition")}
	if err := s.SendHeader(toMetadata(r.def, "response_headers")); err != nil {
		return err
	}
	s.SetTrailer(toMetadata(r.def, "response_trailers"))
	return r.end([]message{req})
}

func bidiStream(s stream) error {
	var (
		reqs       []message // those of which the client has not been told
		fullDuplex bool
		begun      bool
		r          = replies{stream: s, def: newMessage(s.method.Input()).sub("response_definition")}
	)
	for {
		req, err := s.receive()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		reqs = append(reqs, req)
		if !begun {
			begun, fullDuplex, r.def = true, req.get("full_duplex").Bool(), req.sub("response_definition")
			// At half duplex nothing may be sent yet: over HTTP/1.1 the client's
			// messages are read no further after that.
			header := s.SetHeader
			if fullDuplex {
				header = s.SendHeader
			}
			if err := header(toMetadata(r.def, "response_headers")); err != nil {
				return err
			}
			s.SetTrailer(toMetadata(r.def, "response_trailers"))
		}
		if !fullDuplex {
			continue
		}
		if !r.left() {
			break
		}
		if err := r.send(reqs); err != nil {
			return err
		}
		reqs = nil
	}
	return r.end(reqs)
}

// stream is the server's side of a streaming call.
type stream struct {
	grpc.ServerStream
	method protoreflect.MethodDescriptor
}

func (s stream) receive() (message, error) {
	m := newMessage(s.method.Input())
	return m, s.RecvMsg(m.Interface())
}

// replies sends what a StreamResponseDefinition asks for.
type replies struct {
	stream stream
	def    message
	sent   int
}

// left tells whether there are replies yet to be sent.
func (r *replies) left() bool { return r.sent < r.def.get("response_data").List().Len() }

// send sends the next reply, which tells the client of reqs. The first tells of the
// call as well.
func (r *replies) send(reqs []message) error {
	delay(r.def)
	reply := newMessage(r.stream.method.Output())
	payload := reply.fill("payload")
	payload.set("data", r.def.get("response_data").List().Get(r.sent).Bytes())
	if r.sent == 0 {
		describeCall(r.stream.Context(), payload.fill("request_info"))
	}
	if err := describeRequests(payload, reqs); err != nil {
		return err
	}
	r.sent++
	return r.stream.SendMsg(reply.Interface())
}

// end sends the replies that are left and returns the error that is asked for.
func (r *replies) end(reqs []message) error {
	for r.left() {
		if err := r.send(reqs); err != nil {
			return err
		}
		reqs = nil
	}
	if !r.def.has("error") {
		return nil
	}
	if r.sent > 0 {
		return toError(r.def.sub("error"))
	}
	payload := newMessage(r.stream.method.Output()).fill("payload")
	describeCall(r.stream.Context(), payload.fill("request_info"))
	if err := describeRequests(payload, reqs); err != nil {
		return err
	}
	return toError(r.def.sub("error"), payload.sub("request_info"))
}

// answer writes the one reply that a UnaryResponseDefinition asks for, or returns
// the error.
func answer(ctx context.Context, def message, reqs []message, reply message) error {
	delay(def)
	payload := reply.fill("payload")
	describeCall(ctx, payload.fill("request_info"))
	if err := describeRequests(payload, reqs); err != nil {
		return err
	}
	if def.has("error") {
		return toError(def.sub("error"), payload.sub("request_info"))
	}
	payload.set("data", def.get("response_data").Bytes())
	return nil
}

// delay waits as long as def says. That the call has ended meanwhile changes nothing:
// an error at the deadline would meet the client's own, and what the client then has of
// it, which may be a part, is judged as an answer.
func delay(def message) {
	time.Sleep(time.Duration(def.get("response_delay_ms").Uint()) * time.Millisecond)
}

// describeCall writes what came with a call before its messages to a RequestInfo.
func describeCall(ctx context.Context, info message) {
	md, _ := metadata.FromIncomingContext(ctx)
	for name, values := range md {
		addHeader(info, "request_headers", name, values)
	}
	if deadline, ok := ctx.Deadline(); ok {
		info.set("timeout_ms", max(0, time.Until(deadline).Milliseconds()))
	}
	if http, ok := connecthttp.ServerInfoForContext(ctx); ok {
		for name, values := range http.HTTPGetQueryParams() {
			addHeader(info.fill("connect_get_info"), "query_params", name, values)
		}
	}
}

// describeRequests writes requests to the RequestInfo of a ConformancePayload.
func describeRequests(payload message, reqs []message) error {
	for _, req := range reqs {
		if err := payload.fill("request_info").add("requests").setAny(req); err != nil {
			return err
		}
	}
	return nil
}

// addHeader adds a Header to a list of them. Values that are binary are in base64
// there, as on the wire.
func addHeader(m message, list protoreflect.Name, name string, values []string) {
	h := m.add(list)
	h.set("name", name)
	for _, v := range values {
		if strings.HasSuffix(name, "-bin") {
			v = base64.RawStdEncoding.EncodeToString([]byte(v))
		}
		h.Mutable(h.field("value")).List().Append(protoreflect.ValueOfString(v))
	}
}

// toMetadata returns what a list of Header says.
func toMetadata(m message, list protoreflect.Name) metadata.MD {
	md := metadata.MD{}
	for h := range m.list(list) {
		name, values := h.get("name").String(), h.get("value").List()
		for i := range values.Len() {
			v := values.Get(i).String()
			if strings.HasSuffix(name, "-bin") {
				if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err == nil {
					v = string(raw)
				}
			}
			md.Append(name, v)
		}
	}
	return md
}

// toError returns what an Error says, with further details.
func toError(e message, more ...message) error {
	st := &rpcstatus.Status{Code: int32(e.get("code").Enum()), Message: e.get("message").String()}
	for d := range e.list("details") {
		st.Details = append(st.Details, d.any())
	}
	for _, m := range more {
		packed, err := anypb.New(m.Interface())
		if err != nil {
			return err
		}
		st.Details = append(st.Details, packed)
	}
	return status.ErrorProto(st)
}
