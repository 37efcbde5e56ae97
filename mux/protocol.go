package mux

import (
	"net/http"
	"strings"

	"oneport/mux/internal/connectrpc"
	"oneport/mux/internal/socket"
	"oneport/mux/tunnel"
	"oneport/mux/wsrpc"
)

// protocol is one row of the table by which every HTTP request is routed.
type protocol struct {
	name    string
	match   func(*http.Request) bool
	handler http.Handler
}

// protocols is the one list of what the HTTP servers speak; the first match
// wins. Native gRPC on a connection of its own never gets here.
func (s *Server) protocols() []protocol {
	return []protocol{
		{"connect, grpc-web, grpc", s.isCall, s.call(s.web, callMethods)},
		{"grpc-ws", under("/grpc-ws"), s.websocket(s.calls)},
		{"grpc-ws-tunnel", exactly(tunnel.Path), s.origins.guard(s.conns.hide(s.tunnels))},
		{"grpc-websockets", s.isSocketCall, s.websocket(http.HandlerFunc(s.calls.ServeWeb))},
		{"rest", s.isRoute, s.call(s.rest, s.rest.Methods)},
		{"handlers", s.hasHandler, s.handlers},
		{"ws-echo", exactly("/ws"), s.websocket(http.HandlerFunc(s.sockets.Echo))},
		{"misspelt calls", isUnaryPost, s.call(s.web, callMethods)},
		{"pages", func(*http.Request) bool { return true }, s.pages()},
	}
}

// call is what goes before a call by HTTP, with methods of that as in an Allow header.
func (s *Server) call(h http.Handler, methods func(*http.Request) string) http.Handler {
	h = s.origins.cors(h, methods)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.answering.Add(1)
		defer s.answering.Add(-1)
		h.ServeHTTP(w, r)
	})
}

// websocket is what goes before an upgrade.
func (s *Server) websocket(h http.Handler) http.Handler {
	return s.origins.guard(s.conns.sockets(connectionOnly(h)))
}

// hasHandler tells whether the program has registered a pattern that fits r.
func (s *Server) hasHandler(r *http.Request) bool {
	_, pattern := s.handlers.Handler(r)
	return pattern != ""
}

// isCall tells whether r is for a method of a registered service, or for one that
// nobody has. A program may have Connect handlers of its own, for other services, at
// their paths. A WebSocket upgrade, unlike one to HTTP/2 that a call may offer, is for
// others.
func (s *Server) isCall(r *http.Request) bool {
	return !socket.Asks(r) && (s.web.Match(r) || connectrpc.IsCall(r) && s.isNobodys(r))
}

// isSocketCall tells whether r opens a WebSocket for one call, at the path of its method.
// To a client that offers the subprotocol for that the rule of isCall applies. One that
// does not may be for a handler that the program has there, and is else told what to
// offer.
func (s *Server) isSocketCall(r *http.Request) bool {
	if !socket.Asks(r) {
		return false
	}
	if socket.Offers(r, wsrpc.WebSubprotocol) {
		return s.web.Serves(r) || strings.Count(r.URL.Path, "/") == 2 && s.isNobodys(r)
	}
	return s.web.Serves(r) && !s.hasHandler(r)
}

// isNobodys tells whether the program has no handler for r: one for everything is not
// meant for methods.
func (s *Server) isNobodys(r *http.Request) bool {
	if !s.handles {
		return true
	}
	_, pattern := s.handlers.Handler(r)
	return pattern == "" || pattern[strings.IndexByte(pattern, '/'):] == "/"
}

// isRoute tells whether the path of r is one of a google.api.http option, and nobody's
// else. A WebSocket is never for one.
func (s *Server) isRoute(r *http.Request) bool {
	return !socket.Asks(r) && s.rest.Match(r) && !s.isPage(r.URL.Path) && s.isNobodys(r)
}

// isPage tells whether a path is that of a page that others count on, probes above all: a
// rule such as /{name} is not meant for it.
func (s *Server) isPage(path string) bool {
	switch path {
	case "/healthz", "/readyz", "/ws":
		return true
	case "/openapi.json", "/descriptors.binpb":
		return s.cfg.openAPI
	}
	return false
}

// isUnaryPost tells whether r may be a unary call by Connect, without the header that would say
// so: a message posted to the path of a method. It may be anything else as well.
func isUnaryPost(r *http.Request) bool {
	service, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return r.Method == http.MethodPost && strings.Contains(service, ".") && method != "" && !strings.Contains(method, "/") &&
		(strings.EqualFold(media, "application/json") || strings.EqualFold(media, "application/proto"))
}

// callMethods are the HTTP methods of the RPC protocols.
func callMethods(*http.Request) string { return "GET, POST" }

// exactly matches a path.
func exactly(path string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.URL.Path == path }
}

// under matches a path and everything below it.
func under(path string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		rest, ok := strings.CutPrefix(r.URL.Path, path)
		return ok && (rest == "" || rest[0] == '/')
	}
}
