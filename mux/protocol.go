package mux

import (
	"net/http"
	"strings"
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
		{"connect, grpc-web, grpc", s.web.Match, s.origins.cors(s.web)},
		{"grpc-ws", under("/grpc-ws"), s.websocket(s.calls)},
		{"handlers", s.hasHandler, s.handlers},
		{"ws-echo", func(r *http.Request) bool { return r.URL.Path == "/ws" }, s.websocket(http.HandlerFunc(s.sockets.Echo))},
		{"pages", func(*http.Request) bool { return true }, s.pages()},
	}
}

// websocket is what goes before an upgrade.
func (s *Server) websocket(h http.Handler) http.Handler {
	return s.origins.guard(s.conns.sockets(h))
}

// hasHandler tells whether the program has registered a pattern that fits r.
func (s *Server) hasHandler(r *http.Request) bool {
	_, pattern := s.handlers.Handler(r)
	return pattern != ""
}

// under matches a path and everything below it.
func under(path string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		rest, ok := strings.CutPrefix(r.URL.Path, path)
		return ok && (rest == "" || rest[0] == '/')
	}
}
