package mux

import (
	"errors"
	"net/http"

	"github.com/soheilhy/cmux"
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

// refuse answers every connection that no outlet of m before this one took.
func (sp *split) refuse(m cmux.CMux) {
	code := http2.ErrCodeProtocol
	if !sp.s.cfg.cleartext {
		code = http2.ErrCodeInadequateSecurity
	}
	sp.refuseWith(m, code, sp.s.speaks())
}

func (sp *split) refuseWith(m cmux.CMux, code http2.ErrCode, text string) {
	rest := m.MatchWithWriters(sniff.Match(sniff.TLS, sniff.GRPC, sniff.HTTP2, sniff.Upgrade, sniff.HTTP1, sniff.Unknown))
	sp.running.Go(func() {
		for {
			c, err := rest.Accept()
			if err != nil {
				return
			}
			// Bounded in time whatever the peer does.
			sp.running.Go(func() {
				remote := c.RemoteAddr()
				kind, reason := sniff.Reject(c, code, text)
				if reason == nil {
					reason = errors.New(text)
				}
				sp.s.log.Debug("connection refused", "remote", remote, "kind", kind, "reason", reason)
			})
		}
	})
}

// redirectAll serves the cleartext side of a port that requires TLS.
func (sp *split) redirectAll(m cmux.CMux) {
	sp.run(m, sp.s.redirects.Serve, sniff.HTTP1, sniff.Upgrade)
	sp.refuse(m)
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
