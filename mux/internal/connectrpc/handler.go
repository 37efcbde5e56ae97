package connectrpc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux/internal/rpc"
)

// compressMinBytes is the size from which an answer is compressed for a client
// that takes gzip: below it the work costs more than the bytes. It is about what
// fits into one TCP segment.
const compressMinBytes = 1 << 10

// Handler answers the calls of Connect, gRPC-Web and gRPC. The peer must be in
// the context of a request, and the page it comes from must have been judged.
type Handler struct {
	reg      *rpc.Registry
	routes   func() routes   // made for the first call: clients may all speak native gRPC
	services map[string]bool // by name
	unknown  *connecthttp.ErrorWriter
}

// routes are what connecthttp.Mount gives away, by path: of a method, its full name.
type routes map[string]http.Handler

func (r routes) Handle(path string, h http.Handler) { r[path] = h }

var _ http.Handler = (*Handler)(nil)

// New returns a Handler for the methods of reg, which must get no more of them.
func New(reg *rpc.Registry) *Handler {
	h := &Handler{
		reg:      reg,
		services: make(map[string]bool),
		unknown:  connecthttp.NewErrorWriter(),
	}
	h.routes = sync.OnceValue(h.mount)
	for _, name := range reg.Services() {
		h.services[name] = true
	}
	return h
}

func (h *Handler) mount() routes {
	server := connect.NewServer()
	for _, m := range h.reg.Methods() {
		server.Register(connect.Method{Spec: spec(m), Handler: serve(m)})
	}
	r := make(routes)
	connecthttp.Mount(r, server,
		connecthttp.WithCodecs(codec{connect.CodecNameProto, rpc.Proto}, codec{connect.CodecNameJSON, h.reg.JSON()}),
		connecthttp.WithReadMaxBytes(h.reg.MaxMessageBytes()),
		connecthttp.WithCompressMinBytes(compressMinBytes))
	return r
}

func spec(m *rpc.Method) connect.Spec {
	s := connect.Spec{Procedure: m.FullName}
	if m.ClientStreams {
		s.StreamType |= connect.StreamTypeClient
	}
	if m.ServerStreams {
		s.StreamType |= connect.StreamTypeServer
	}
	if d := m.Descriptor(); d != nil {
		s.Schema = d
	}
	if m.Idempotency() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		s.IdempotencyLevel = connect.IdempotencyNoSideEffects // which opens GET
	}
	return s
}

// IsCall tells whether r is a call of some method, by its content type or because it
// says so; or a browser's question whether a page may make one.
func IsCall(r *http.Request) bool {
	return protocolOf(r).streams() || r.Header.Get("Connect-Protocol-Version") != "" || asksForCall(r)
}

// asksForCall tells whether r is a preflight for a call, by the headers of its client.
func asksForCall(r *http.Request) bool {
	if r.Method != http.MethodOptions {
		return false
	}
	names := strings.ToLower(strings.Join(r.Header["Access-Control-Request-Headers"], ","))
	return strings.Contains(names, "connect-protocol-version") || strings.Contains(names, "x-grpc-web")
}

// Match tells whether r is for a method that a Handler has: its path is that of one,
// or of a registered service where the request may be a call.
func (h *Handler) Match(r *http.Request) bool {
	path := r.URL.EscapedPath()
	if h.reg.Has(path) {
		return true
	}
	return h.Serves(r) && (r.Method == http.MethodPost || r.Method == http.MethodOptions || IsCall(r))
}

// Serves tells whether the path of r is below a registered service.
func (h *Handler) Serves(r *http.Request) bool {
	path := r.URL.EscapedPath()
	i := strings.LastIndexByte(path, '/')
	return i >= 1 && h.services[path[1:i]]
}

// ServeHTTP answers one call. A request that cannot be one gets a text that says
// why: 405 for an HTTP method, 415 for a content type, 505 for gRPC over HTTP/1.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, sent := protocolOf(r), r.Body
	// Escapes are not undone: who judges paths in front of this server need not
	// know of them.
	m, err := h.reg.Lookup(r.URL.EscapedPath())
	if p == grpc && r.ProtoMajor < 2 {
		http.Error(w, "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web or Connect", http.StatusHTTPVersionNotSupported)
		return
	}
	if p == grpcWebText {
		text := newTextResponse(w, r)
		defer text.end()
		w = text
	}
	if err != nil {
		if r.ProtoMajor == 1 && p.streams() {
			// As for a stream below: its client may wait for the answer.
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Connection", "close")
		}
		st := status.Convert(err)
		_ = h.unknown.Write(notFound{w}, r, connectError(st, p)) // the client has gone, if anything
		return
	}
	out := &response{ResponseWriter: w, method: m, protocol: p}
	x := newExchange(out, r, h.reg.MaxMessageBytes(), p)
	if p == grpc && r.Header.Get("Grpc-Encoding") == "" {
		// As grpc-go, which compresses for those only who do so themselves.
		r.Header.Del("Grpc-Accept-Encoding")
	}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	r.Body = x.body
	if r.ProtoMajor == 1 {
		out.http1 = x.body
		defer out.start() // where nothing was written, net/http does so after this
	}
	if r.ProtoMajor == 1 && !m.Unary() {
		out.duplex = rpc.Duplex(x.http, sent)
		// connecthttp refuses a bidi-streaming method over HTTP/1.
		r.ProtoMajor, r.ProtoMinor = 2, 0
	}
	h.routes()[m.FullName].ServeHTTP(out, r)
}

// usage is the way to call m, for those who did otherwise.
func usage(m *rpc.Method) string {
	if !m.Unary() {
		return fmt.Sprintf("%s streams: POST it as application/connect+json or application/connect+proto, application/grpc-web or application/grpc", m.FullName)
	}
	text := fmt.Sprintf("%s is unary: POST it as application/json or application/proto, application/grpc-web or application/grpc", m.FullName)
	if m.Idempotency() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		return text + "; or GET it with the parameters encoding=json and message={…} (curl -G --data-urlencode)"
	}
	return text + "; it may have side effects, so not by GET"
}
