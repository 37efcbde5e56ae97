package rest

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// Handler answers the requests that the google.api.http options of methods describe. The
// peer must be in the context of a request, and the page it comes from must have been
// judged. It is safe for concurrent use once all services are there.
type Handler struct {
	reg    *rpc.Registry
	routes []*Route
	router router

	unpopulated rpc.Codec // see exchange
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler for methods of reg, as yet without any.
func New(reg *rpc.Registry) *Handler {
	opts := reg.JSONOptions()
	opts.EmitUnpopulated = true
	return &Handler{reg: reg, unpopulated: rpc.NewJSON(opts)}
}

// Add adds the routes of a registered service. The error says which rule is wrong, or which
// two stand for the same requests.
func (h *Handler) Add(service string) error {
	methods := make(map[string]*rpc.Method)
	for _, m := range h.reg.Methods() {
		if strings.HasPrefix(m.FullName, "/"+service+"/") {
			methods[m.FullName] = m
		}
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		routes, err := routesOf(methods[name])
		if err != nil {
			return err
		}
		for _, r := range routes {
			if err := h.router.add(r); err != nil {
				return ruleError(r.Method, r.HTTPMethod, r.text, err)
			}
			h.routes = append(h.routes, r)
		}
	}
	return nil
}

// Routes returns all routes, by service in the order of Add and then by method.
func (h *Handler) Routes() []*Route { return h.routes }

// Match tells whether the path of r is on a route, whatever its HTTP method.
func (h *Handler) Match(r *http.Request) bool {
	if len(h.routes) == 0 {
		return false
	}
	p := newPath(r)
	if p == nil {
		return false
	}
	defer p.release()
	return h.router.fits(p)
}

// Methods returns the HTTP methods that the path of r takes, as in an Allow header.
func (h *Handler) Methods(r *http.Request) string {
	p := newPath(r)
	if p == nil {
		return ""
	}
	defer p.release()
	return strings.Join(h.router.methods(p), ", ")
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, http: http.NewResponseController(w), json: h.reg.JSON(), unpopulated: h.unpopulated}
	if p := newPath(r); p != nil {
		if x.route = h.router.find(r.Method, p); x.route != nil {
			x.captured = x.route.template.captures(x.captures[:0], p)
		}
		p.release()
	}
	if x.route == nil {
		x.refuseMethod(h.Methods(r))
		return
	}
	// To see whether there is more than that one byte more is read.
	x.body = body{src: r.Body, http: x.http, limit: min(h.reg.MaxMessageBytes(), math.MaxInt-1)}
	x.form = x.route.formOf(r.Header)
	if x.form == events && r.Header.Get("Last-Event-Id") == lastEvent {
		// The only answer after which an EventSource does not ask again.
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if code, err := x.prepare(); err != nil {
		x.fail(code, status.Convert(err))
		return
	}
	x.run()
}

// refuseMethod answers a request whose HTTP method is on no route of its path.
func (x *exchange) refuseMethod(methods string) {
	if methods == "" {
		x.fail(http.StatusNotFound, status.New(codes.NotFound, "no such path"))
		return
	}
	x.w.Header().Set("Allow", methods+", OPTIONS")
	if x.r.Method == http.MethodOptions {
		x.w.WriteHeader(http.StatusNoContent)
		return
	}
	x.fail(http.StatusMethodNotAllowed, status.Newf(codes.Unimplemented, "this path takes %s", methods))
}

// prepare makes the call of the header of a request. With an error comes the status of
// HTTP for it.
func (x *exchange) prepare() (int, error) {
	const bad = http.StatusBadRequest
	if code, err := x.checkBody(); err != nil {
		return code, err
	}
	if v := x.r.Header.Get("Grpc-Timeout"); v != "" {
		timeout, err := rpc.ParseTimeout(v)
		if err != nil {
			return bad, err
		}
		x.call.Timeout = timeout
	}
	md, err := rpc.RequestMetadata(x.r.Header, x.r.Host)
	if err != nil {
		return bad, err
	}
	x.call.Metadata = md
	client, ok := peer.FromContext(x.r.Context())
	if !ok {
		client = new(peer.Peer)
	}
	x.call.Peer = client
	return 0, nil
}

// checkBody judges the body of a request by its header.
func (x *exchange) checkBody() (int, error) {
	if !x.hasBody() {
		x.body.ended.Store(x.r.ContentLength == 0)
		return 0, nil
	}
	switch encoding := strings.ToLower(x.r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		x.body.zipped = true
	default:
		x.w.Header().Set("Accept-Encoding", "gzip")
		return http.StatusUnsupportedMediaType, status.Errorf(codes.InvalidArgument,
			"the body has Content-Encoding %.100q; send it in gzip or without", encoding)
	}
	stream := x.route.Method.ClientStreams
	if contentType := x.r.Header.Get("Content-Type"); !x.route.input && !isJSON(contentType, stream) {
		want := "application/json (curl -H 'Content-Type: application/json')"
		if stream {
			want = "application/x-ndjson (curl -H 'Content-Type: application/x-ndjson')"
		}
		return http.StatusUnsupportedMediaType, status.Errorf(codes.InvalidArgument,
			"the body has Content-Type %.100q; send JSON in UTF-8 as %s", contentType, want)
	}
	return 0, nil
}

// hasBody tells whether r has a body that goes into the request message.
func (x *exchange) hasBody() bool {
	return x.route.takesBody() && x.r.Body != nil && x.r.Body != http.NoBody && x.r.ContentLength != 0
}

func (r *Route) takesBody() bool { return r.WholeBody || r.Body != nil }

// run runs the method and ends the answer.
func (x *exchange) run() {
	defer x.release()
	if !x.route.Method.Unary() && x.r.ProtoMajor == 1 {
		x.duplex = rpc.Duplex(x.http, x.r.Body)
	}
	if x.form == events {
		if n, err := strconv.ParseUint(x.r.Header.Get("Last-Event-Id"), 10, 63); err == nil {
			x.first = n
		}
		x.mu.Lock()
		x.keepAlive = time.AfterFunc(keepAliveEvery, x.sendKeepAlive)
		x.mu.Unlock()
	}
	trailer, err := x.route.Method.Serve(x.r.Context(), &x.call, x)
	if !x.finish(trailer, err) {
		panic(http.ErrAbortHandler) // the client is not to take what it has for all
	}
}

// buffers holds *[]byte, for messages.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// maxKept is the capacity above which a buffer is not kept for reuse.
const maxKept = 64 << 10

func putBuffer(b *[]byte) {
	if cap(*b) <= maxKept {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}
