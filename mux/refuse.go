package mux

import (
	"errors"
	"net"
	"net/http"

	"golang.org/x/net/http2"

	"oneport/mux/internal/sniff"
)

// speaks is what the refused are told, since they cannot guess.
func (s *Server) speaks() string {
	switch {
	case s.cfg.tls == nil:
		return "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket, without TLS"
	case !s.cfg.cleartext:
		return "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket over TLS only: use https:// or wss://"
	default:
		return "this port speaks HTTP/1.1, HTTP/2, gRPC and WebSocket, with and without TLS"
	}
}

// refusal is what a stage of a listener turns connections away with.
func (s *Server) refusal() (code http2.ErrCode, text string) {
	if s.cfg.cleartext {
		return http2.ErrCodeProtocol, s.speaks()
	}
	return http2.ErrCodeInadequateSecurity, s.speaks()
}

// reject answers and closes a connection that cmux gave out.
func (s *Server) reject(c net.Conn, code http2.ErrCode, text string) {
	remote := c.RemoteAddr()
	kind, reason := sniff.Reject(c, code, text)
	if reason == nil {
		reason = errors.New(text)
	}
	s.log.Debug("connection refused", "remote", remote, "kind", kind, "reason", reason)
}

// redirectAll serves the cleartext side of a port that requires TLS.
func (st *stage) redirectAll() {
	s := st.sp.s
	st.run(s.redirects.Serve, sniff.HTTP1, sniff.Upgrade)
	st.open(s.refusal())
}

// redirect sends a browser to https on the same host and port. A method that may
// change something is refused, for its body has already gone in the clear and
// the client should hear of it; so is a WebSocket, which no browser redirects.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request) {
	r, done := s.watchBody(w, r)
	defer done()
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !safe || r.Host == "" || r.Header.Get("Upgrade") != "" {
		w.Header().Set("Connection", "close")
		plain(w, http.StatusBadRequest, s.speaks()+"\n")
		return
	}
	http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusPermanentRedirect)
}
