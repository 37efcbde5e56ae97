package muxtest

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"oneport/mux"
)

// URL and URLTLS are where the clients of every Server find it. The name is of a
// domain that is reserved for tests (RFC 6761 §6.2) and is never looked up.
const (
	URL    = "http://" + host
	URLTLS = "https://" + host

	host = "oneport.test"
)

// Server is a mux.Server on a listener in memory, with clients. Its methods are
// safe for concurrent use, but those that make a client end the test with
// tb.Fatal if they cannot, and so belong on the goroutine of the test.
type Server struct {
	*mux.Server

	// ClientTLS is what the clients use over TLS. It trusts this Server and
	// nobody else. Each client takes a copy when it is made: what is to be
	// different for a client must be changed before.
	ClientTLS *tls.Config

	// ClientCertificate is one that this Server accepts, of common name
	// "client". No client shows it unless it is put into ClientTLS.
	ClientCertificate tls.Certificate

	tb     testing.TB
	ln     *listener
	served chan error // holds what Serve has returned

	mu    sync.Mutex
	conns []net.Conn // of the clients, open or closed; guarded by mu
}

// New starts a server with what register registers, on cleartext and TLS. It ends
// with tb: its clients' connections are closed, and the calls that these leave
// behind get 5 seconds to return before tb fails.
//
// The server logs to the output of tb. It asks clients for a certificate, and
// checks one that is shown. opts come after these settings and may replace them;
// a mux.WithTLSConfig among them needs ClientTLS to be changed accordingly.
func New(tb testing.TB, register func(*mux.Server), opts ...mux.Option) *Server {
	tb.Helper()
	certs := newCertificates(tb)
	ours := []mux.Option{
		mux.WithTLSConfig(&tls.Config{
			Certificates: []tls.Certificate{certs.server},
			ClientAuth:   tls.VerifyClientCertIfGiven,
			ClientCAs:    certs.roots,
		}),
		mux.WithCleartext(),
		mux.WithLogger(slog.New(slog.NewTextHandler(tb.Output(), nil))),
	}
	s := &Server{
		Server:            mux.NewServer(append(ours, opts...)...),
		ClientTLS:         &tls.Config{RootCAs: certs.roots, ServerName: host},
		ClientCertificate: certs.client,
		tb:                tb,
		ln:                newListener(),
		served:            make(chan error, 1),
	}
	register(s.Server)
	go func() { s.served <- s.Serve(s.ln) }()
	tb.Cleanup(s.close)
	return s
}

// drainTimeout is how long calls may go on after their clients have gone.
const drainTimeout = 5 * time.Second

// close ends the clients' connections, then the server. Clients made by s have
// been closed before, since cleanups run in reverse.
func (s *Server) close() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.tb.Errorf("muxtest: calls still run %v after the end of the test: let handlers return when their context ends, "+
			"and start calls in process with the context of the test: %v", drainTimeout, err)
	}
	if err := <-s.served; !errors.Is(err, mux.ErrServerClosed) {
		s.tb.Errorf("muxtest: %v", err)
	}
}

// DialContext opens a connection to s, for clients that are not made here. Network
// and address are ignored. The connection ends with the test at the latest.
func (s *Server) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := s.ln.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	return c, nil
}
