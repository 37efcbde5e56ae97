package rest

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"oneport/mux/internal/rpc"
)

// exchange is an HTTP request, the call that it makes and the answer.
type exchange struct {
	route    *Route
	captured []string  // by the variables of the route
	captures [4]string // where captured begins
	call     rpc.Call

	json        rpc.Codec
	unpopulated rpc.Codec // the same, but writes "0", false, [] and so on for what is not there

	r      *http.Request
	http   *http.ResponseController
	body   body
	duplex bool          // it is read while the answer is written, over HTTP/1
	query  proto.Message // what the query says, once a message of a stream had that

	w    http.ResponseWriter
	form form

	answer      *[]byte // the only one, from buffers; nil before it is there
	contentType string  // of answer
	trailed     bool    // the trailer is in the header

	sent  uint64 // messages of a stream
	first uint64 // the id of the event before the first of them

	mu        sync.Mutex   // of what follows and of w, which keepAlive uses as well
	begun     bool         // the header of the answer has gone, with a status of 200
	over      bool         // nothing is to be written any more
	zip       *gzip.Writer // compresses the answer, if not nil
	keepAlive *time.Timer  // of events; calls sendKeepAlive
}

var (
	_ rpc.EarlyTrailer = (*exchange)(nil)
	_ rpc.LateHeader   = (*exchange)(nil)
)

// RecvMsg makes the next message of the body, what the path has captured and the query.
func (x *exchange) RecvMsg(ctx context.Context, m any) (size int, err error) {
	pm, err := rpc.MessageOf(m)
	if err != nil {
		return 0, status.Error(codes.Internal, err.Error())
	}
	msg := pm.ProtoReflect()
	if msg.Descriptor() != x.route.Descriptor.Input() {
		return 0, status.Errorf(codes.Internal, "rest: the handler takes a %T, which is not what its .proto file says", m)
	}
	switch {
	case !x.route.takesBody():
		proto.Reset(pm)
	case x.route.Method.ClientStreams:
		size, err = x.receiveNext(ctx, pm)
	default:
		size, err = x.receiveAll(ctx, pm)
	}
	if err != nil {
		return 0, err
	}
	if err := x.route.bindPath(msg, x.captured); err != nil {
		return 0, bindError(err)
	}
	if err := x.bindQuery(msg); err != nil {
		return 0, bindError(err)
	}
	return size, nil
}

// bindQuery sets what the query says. For the messages of a stream after the first one that
// is copied: a query is much longer than the least of them.
func (x *exchange) bindQuery(m protoreflect.Message) error {
	if x.query != nil {
		proto.Merge(m.Interface(), x.query)
		return nil
	}
	query := x.r.URL.RawQuery
	if err := x.route.bindQuery(m, query); err != nil || !x.route.Method.ClientStreams {
		return err
	}
	only := m.New()
	x.query = only.Interface()
	return x.route.bindQuery(only, query)
}

// receiveAll makes a message of all of the body.
func (x *exchange) receiveAll(ctx context.Context, pm proto.Message) (int, error) {
	if !x.hasBody() {
		return 0, x.setBody(pm, nil)
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	read := func() (err error) {
		*buf, err = x.body.appendAll(*buf)
		return err
	}
	var err error
	if x.route.Method.Unary() && x.call.Timeout <= 0 {
		err = read() // its end is that of the request, and that of the read
	} else {
		err = x.body.during(ctx, read)
	}
	if err != nil {
		return 0, err
	}
	return len(*buf), x.setBody(pm, *buf)
}

// receiveNext makes a message of the next part of the body.
func (x *exchange) receiveNext(ctx context.Context, pm proto.Message) (int, error) {
	if !x.hasBody() {
		return 0, io.EOF
	}
	var part []byte
	err := x.body.during(ctx, func() (err error) {
		if x.route.input {
			part, err = x.body.chunk()
		} else {
			part, err = x.body.next()
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(part), x.setBody(pm, part)
}

// setBody replaces pm by what the body says, or a part of it.
func (x *exchange) setBody(pm proto.Message, b []byte) error {
	field := x.route.Body
	if x.route.input {
		proto.Reset(pm)
		m := pm.ProtoReflect()
		if field != nil {
			m = m.Mutable(field).Message()
		}
		fields := m.Descriptor().Fields()
		if ct := x.r.Header.Get("Content-Type"); ct != "" {
			m.Set(fields.ByName("content_type"), protoreflect.ValueOfString(ct))
		}
		if len(b) > 0 {
			m.Set(fields.ByName("data"), protoreflect.ValueOfBytes(append([]byte(nil), b...)))
		}
		return nil
	}
	if len(b) == 0 {
		proto.Reset(pm)
		if field != nil && single(field) != nil {
			pm.ProtoReflect().Mutable(field) // handlers count on it, as behind grpc-gateway
		}
		return nil
	}
	source := bodySource{text: b, name: "body"}
	if x.route.Method.ClientStreams {
		source.name = "message " + strconv.Itoa(x.body.values.n)
	}
	target := pm
	if field != nil {
		source.field = field.JSONName()
	}
	switch {
	case field == nil:
	case single(field) != nil:
		proto.Reset(pm)
		target = pm.ProtoReflect().Mutable(field).Message().Interface()
	default:
		if !json.Valid(b) { // it could close the object around it
			return source.error(json.Unmarshal(b, new(json.RawMessage)))
		}
		start := appendString([]byte{'{'}, field.JSONName())
		start = append(start, ':')
		source.before = utf8.RuneCount(start)
		b = append(append(start, b...), '}')
	}
	if err := x.json.Unmarshal(b, target); err != nil {
		return source.error(err)
	}
	return nil
}

func (x *exchange) SendHeader(md metadata.MD) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addHeader(md)
	if !x.route.Method.ServerStreams {
		return nil // it may fail yet
	}
	x.begin(0, "")
	return x.sendOn()
}

// SetHeader keeps the header for the first message, or for an error.
func (x *exchange) SetHeader(md metadata.MD) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addHeader(md)
}

func (x *exchange) addHeader(md metadata.MD) {
	if !x.begun {
		rpc.AddHeader(x.w.Header().Add, md)
	}
}

// SetTrailer puts the trailer of a call with one answer, or an error in its place, into the
// header, where clients of HTTP can see it, as Connect does. It is called for a unary call
// when its answer is there, and at the end of any.
func (x *exchange) SetTrailer(md metadata.MD) {
	if x.trailed {
		return
	}
	x.trailed = true
	rpc.AddHeader(func(key, value string) { x.w.Header().Add("Trailer-"+key, value) }, md)
}

// SendMsg writes the next message of a stream, or keeps the only answer until its call is
// over: that may fail yet.
func (x *exchange) SendMsg(ctx context.Context, m any) (int, error) {
	if ctx.Err() != nil {
		return 0, rpc.ContextError(ctx)
	}
	streams := x.route.Method.ServerStreams
	buf := buffers.Get().(*[]byte)
	b, size, contentType, err := x.encode((*buf)[:0], m)
	if err != nil {
		putBuffer(buf)
		return 0, status.Errorf(codes.Internal, "answer cannot be encoded: %.200v", err)
	}
	*buf = b
	if !streams {
		x.answer, x.contentType = buf, contentType
		return size, nil
	}
	defer putBuffer(buf)
	// With time for what is being written, so that the status can follow it.
	stop := rpc.During(ctx, func() { _ = x.http.SetWriteDeadline(time.Now().Add(stall)) })
	defer stop()
	if err := x.writeMessage(b, contentType); err != nil {
		return 0, status.Errorf(codes.Unavailable, "answer cannot be sent: %.200v", err)
	}
	return size, nil
}

// encode appends m as it is to be written, and returns the size of the message alone and
// its content type.
func (x *exchange) encode(b []byte, m any) (out []byte, size int, contentType string, err error) {
	if x.form == raw {
		return x.encodeRaw(b, m)
	}
	switch x.form {
	case ndjson:
		b = append(b, `{"result":`...)
	case events:
		b = append(b, "id: "...)
		b = strconv.AppendUint(b, x.first+x.sent+1, 10)
		b = append(b, "\ndata: "...)
	case array:
		b = append(b, separator(x.sent)...)
	}
	start := len(b)
	if b, err = x.encodeJSON(b, m); err != nil {
		return nil, 0, "", err
	}
	size = len(b) - start
	switch x.form {
	case ndjson:
		b = append(b, "}\n"...)
	case events:
		b = append(b, "\n\n"...)
	}
	return b, size, mediaTypes[x.form], nil
}
