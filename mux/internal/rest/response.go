package rest

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"oneport/mux/internal/rpc"
)

const (
	// stall is how long a client may take nothing of what is written to it once its call
	// is over. While the call goes on it may do so for as long as it likes, as over
	// grpc-go.
	stall = 30 * time.Second

	// maxWrite is how much is written at once then.
	maxWrite = 64 << 10

	// compressMinBytes is the size from which an answer is compressed for a client that
	// takes gzip, and a stream if its first message has it: below it the work costs more
	// than the bytes.
	compressMinBytes = 1 << 10

	// keepAliveEvery is how long a stream of events may be silent; proxies take one that
	// is so for longer for dead ("Authoring notes" of server-sent events in HTML).
	keepAliveEvery = 15 * time.Second

	// lastEvent is the id of the event that tells that a stream is over and was OK. An
	// EventSource that asks again after it has missed nothing.
	lastEvent = "end"
)

var nosniff = []string{"nosniff"} // which nobody changes

var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// encodeJSON appends the JSON of m, or of the field that the rule names.
func (x *exchange) encodeJSON(b []byte, m any) ([]byte, error) {
	fd := x.route.ResponseBody
	if fd == nil {
		return x.json.Append(b, m)
	}
	msg, err := x.output(m)
	if err != nil {
		return nil, err
	}
	if single(fd) != nil {
		return x.json.Append(b, msg.Get(fd).Message().Interface())
	}
	// Only messages have JSON, so one with this field alone.
	codec, only := x.unpopulated, msg.New()
	if msg.Has(fd) {
		codec = x.json
		only.Set(fd, msg.Get(fd))
	}
	text, err := codec.Append(nil, only.Interface())
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	for _, name := range []string{fd.JSONName(), string(fd.Name())} {
		if value, ok := fields[name]; ok {
			return append(b, value...), nil
		}
	}
	return append(b, "null"...), nil
}

// output is an answer of a handler as its .proto file says it is.
func (x *exchange) output(m any) (protoreflect.Message, error) {
	if m == nil { // counts as empty, as in the codecs
		return nil, errors.New("the handler has returned nil")
	}
	pm, err := rpc.MessageOf(m)
	if err != nil {
		return nil, err
	}
	msg := pm.ProtoReflect()
	if msg.Descriptor() != x.route.Descriptor.Output() {
		return nil, errors.New("the handler answers with a message that is not what its .proto file says")
	}
	return msg, nil
}

// encodeRaw appends the bytes of a google.api.HttpBody.
func (x *exchange) encodeRaw(b []byte, m any) (out []byte, size int, contentType string, err error) {
	msg, err := x.output(m)
	if err != nil {
		return nil, 0, "", err
	}
	if fd := x.route.ResponseBody; fd != nil {
		msg = msg.Get(fd).Message()
	}
	fields := msg.Descriptor().Fields()
	contentType = msg.Get(fields.ByName("content_type")).String()
	data := msg.Get(fields.ByName("data")).Bytes()
	return append(b, data...), len(data), contentType, nil
}

// begin sends the header of an answer, unless it has gone. x.mu is held.
func (x *exchange) begin(size int, contentType string) {
	if x.begun {
		return
	}
	x.begun = true
	h := x.w.Header()
	if contentType == "" || contentType == mediaTypes[x.form] {
		h["Content-Type"] = contentTypes[x.form]
	} else {
		h.Set("Content-Type", contentType)
	}
	h["X-Content-Type-Options"] = nosniff
	if x.route.Method.ServerStreams {
		h.Add("Vary", "Accept")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect the messages
	}
	if x.form != raw { // whose bytes may be compressed in their own way
		h.Add("Vary", "Accept-Encoding")
		if size >= compressMinBytes && AcceptsGzip(x.r.Header) {
			h.Set("Content-Encoding", "gzip")
			x.zip = zippers.Get().(*gzip.Writer)
			x.zip.Reset(x.w)
		}
	}
	if !x.route.Method.ServerStreams && x.zip == nil {
		h.Set("Content-Length", strconv.Itoa(size))
	}
	x.closeSpoiled()
	x.w.WriteHeader(http.StatusOK)
}

// closeSpoiled is called before the header goes out. The connection of an HTTP/1 request
// must end with the call
//
//   - while there is more to read of a stream: net/http would read the rest after the
//     handler, and having done so panics (https://go.dev/issue/68560) or having failed
//     takes what comes then for the next request;
//   - when it has a read deadline that has passed: net/http would take that for the
//     end of the client, and the next requests for cancelled.
func (x *exchange) closeSpoiled() {
	if x.r.ProtoMajor == 1 && (x.duplex && !x.body.ended.Load() || x.body.spoiled.Load()) {
		x.w.Header().Set("Connection", "close")
	}
}

func (x *exchange) write(b []byte) error {
	var err error
	if x.zip != nil {
		_, err = x.zip.Write(b)
	} else {
		_, err = x.w.Write(b)
	}
	return err
}

// flush sends on what has been written. A server that cannot do so does later.
func (x *exchange) flush() error {
	if x.zip != nil {
		if err := x.zip.Flush(); err != nil {
			return err
		}
	}
	if err := x.http.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// writeMessage writes a message of a stream.
func (x *exchange) writeMessage(b []byte, contentType string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begin(len(b), contentType)
	if err := x.write(b); err != nil {
		return err
	}
	x.sent++
	return x.sendOn()
}

// sendOn flushes, and sets the timer of keepAlive.
func (x *exchange) sendOn() error {
	err := x.flush()
	if x.keepAlive != nil {
		x.keepAlive.Reset(keepAliveEvery)
	}
	return err
}

// sendKeepAlive writes a comment, which clients ignore. While something else is being
// written there is no need for one; whoever does so sets the timer again.
func (x *exchange) sendKeepAlive() {
	if !x.mu.TryLock() {
		return
	}
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.begin(0, "")
	if x.write([]byte(":\n\n")) == nil {
		_ = x.sendOn() // or the client has gone, and the call with it
	}
}

// finish writes what is left: the only answer, the end of a stream, or the error. It reports
// false if the client cannot know by now that the call has failed.
func (x *exchange) finish(trailer metadata.MD, err error) bool {
	// What is left to write waits for a slow client no longer than this.
	_ = x.http.SetWriteDeadline(time.Now().Add(stall))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	if err == rpc.ErrShutdown && x.form == events {
		return false // an EventSource asks again after a cut, but not after an answer of 503
	}
	streams := x.route.Method.ServerStreams
	switch st := status.Convert(err); {
	case err != nil && !x.begun:
		x.SetTrailer(trailer)
		x.fail(rpc.HTTPStatus(st.Code()), st)
		return true
	case streams:
		return x.end(trailer, st)
	default:
		x.SetTrailer(trailer)
		return x.writeAnswer(*x.answer)
	}
}

// writeAnswer writes the only answer.
func (x *exchange) writeAnswer(b []byte) bool {
	x.begin(len(b), x.contentType)
	for len(b) > 0 {
		n := min(len(b), maxWrite)
		if x.write(b[:n]) != nil {
			return true // the client has gone
		}
		if b = b[n:]; len(b) > 0 {
			_ = x.http.SetWriteDeadline(time.Now().Add(stall))
		}
	}
	return x.zip == nil || x.zip.Close() == nil
}

// end writes the end of a stream.
func (x *exchange) end(trailer metadata.MD, st *status.Status) bool {
	ok := st.Code() == codes.OK
	if x.form == raw && !ok {
		return false
	}
	var b []byte
	switch {
	case x.form == events:
		b = append(b, "event: status\n"...)
		if ok {
			b = append(b, "id: "+lastEvent+"\n"...)
		}
		b = append(appendStatus(append(b, "data: "...), x.json, st.Proto()), "\n\n"...)
	case x.form == ndjson && !ok:
		b = append(appendStatus(append(b, `{"error":`...), x.json, st.Proto()), "}\n"...)
	case x.form == array && ok:
		if x.sent == 0 {
			b = append(b, '[')
		}
		b = append(b, "]\n"...)
	case x.form == array:
		// Without its end, so that nobody takes it for one.
		b = append(append(b, separator(x.sent)...), `{"error":`...)
		b = append(appendStatus(b, x.json, st.Proto()), "}\n"...)
	}
	if !x.begun {
		x.begin(len(b), "")
		_ = x.flush() // or net/http tells the length, over HTTP/1, and then has no trailer
	}
	h := x.w.Header()
	rpc.AddHeader(func(key, value string) { h.Add(http.TrailerPrefix+key, value) }, trailer)
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(int(st.Code())))
	if x.write(b) != nil || x.zip != nil && x.zip.Close() != nil {
		return false
	}
	return true
}

// separator is what comes before a message of an array.
func separator(sent uint64) string {
	if sent == 0 {
		return "["
	}
	return ",\n"
}

// fail answers with an error and the status of HTTP for it.
func (x *exchange) fail(code int, st *status.Status) {
	h := x.w.Header()
	h.Set("Content-Type", typeJSON)
	h["X-Content-Type-Options"] = nosniff
	b := appendStatus(nil, x.json, st.Proto())
	h.Set("Content-Length", strconv.Itoa(len(b)))
	x.closeSpoiled()
	x.w.WriteHeader(code)
	_, _ = x.w.Write(b) // the client has gone, if anything
}

// release gives back what x has borrowed. Nothing is written any more, also if the handler
// has ended its goroutine and finish was not called.
func (x *exchange) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	if x.keepAlive != nil {
		x.keepAlive.Stop()
	}
	x.body.release()
	if x.answer != nil {
		putBuffer(x.answer)
	}
	if x.zip != nil {
		x.zip.Reset(nil)
		zippers.Put(x.zip)
	}
}
