package mux

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"oneport/mux/internal/sniff"
)

// split is one listener with everything that hangs on it: a stage for the bytes
// as they come, and where TLS is on a second one for what is inside it.
//
//	ln ─► outer ─┬ TLS ─► inner ┬ gRPC ────► Server.native
//	             │              ├ Upgrade ─► Server.upgrades
//	             ├ gRPC, …      ├ HTTP/2 ──► Server.http2
//	             │              ├ HTTP/1 ──► Server.http1
//	             └ other        └ other ───► refused with a reason
type split struct {
	s       *Server
	stages  []*stage       // outermost first
	running sync.WaitGroup // all that hangs on it but the connections
}

func newSplit(s *Server, ln net.Listener) *split {
	sp := &split{s: s}
	outer := sp.add(ln)
	if s.cfg.tls != nil {
		// The second stage counts these connections itself.
		secure := outer.outlet(nil, sniff.TLS)
		sp.add(tls.NewListener(secure, s.cfg.tls)).serveAll()
	}
	if s.cfg.cleartext {
		outer.serveAll()
	} else {
		outer.redirectAll()
	}
	return sp
}

// serve accepts until the listener fails or the server ends, waits for all that
// hangs on the split but the connections, and returns why.
func (sp *split) serve() error {
	for _, st := range sp.stages[1:] {
		sp.running.Go(func() { st.mux.Serve() })
	}
	err := sp.stages[0].mux.Serve()
	if sp.s.isRunning() {
		sp.close()
	} // else Shutdown or Close does so, in its order
	sp.running.Wait()
	return fmt.Errorf("mux: accept: %w", err)
}

// close ends the split at once, with the connections that it still holds.
func (sp *split) close() {
	for _, st := range sp.stages {
		st.root.Close()
	}
	for _, st := range sp.stages {
		for _, o := range st.outlets {
			o.Close()
		}
	}
}

// drain stops accepting and returns when every connection accepted so far is in
// the books of its server, or ctx has ended.
func (sp *split) drain(ctx context.Context) {
	for _, st := range sp.stages {
		st.root.Drain(ctx)
	}
	sp.s.arriving.wait(ctx)
}
