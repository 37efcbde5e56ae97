package mux

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/soheilhy/cmux"

	"oneport/mux/internal/sniff"
)

// split is one listener with everything that hangs on it: a cmux for the bytes
// as they come, and where TLS is on a second one for what is inside it.
//
//	ln ─► outer ─┬ TLS ─► inner ┬ gRPC ────► Server.native
//	             │             ├ Upgrade ─► Server.upgrades
//	             ├ gRPC, …     ├ HTTP/2 ──► Server.http2
//	             │             ├ HTTP/1 ──► Server.http1
//	             └ other       └ other ───► refused with a reason
type split struct {
	s       *Server
	roots   []*sniff.Listener // outermost first
	muxes   []cmux.CMux       // likewise
	outlets []*outlet
	running sync.WaitGroup // the cmuxes, and the servers on the outlets
}

func newSplit(s *Server, ln net.Listener) *split {
	sp := &split{s: s}
	outer := sp.add(ln)
	if s.cfg.tls != nil {
		// The second stage counts these connections itself.
		secure := sp.outlet(outer, nil, sniff.TLS)
		sp.serveAll(sp.add(tls.NewListener(secure, s.cfg.tls)))
	}
	if s.cfg.cleartext {
		sp.serveAll(outer)
	} else {
		sp.redirectAll(outer)
	}
	return sp
}

// add starts a stage of the split on ln.
func (sp *split) add(ln net.Listener) cmux.CMux {
	root := sniff.NewListener(ln, sniff.Config{
		Timeout:  sp.s.cfg.sniffTimeout,
		Settings: sp.s.earlySettings(),
		Foreign:  sp.s.foreign.note,
		Log:      sp.s.log,
	})
	m := cmux.New(root)
	// One connection that fits nowhere must never end the listener, which is
	// what false would do.
	m.HandleError(func(error) bool { return true })
	sp.roots = append(sp.roots, root)
	sp.muxes = append(sp.muxes, m)
	return m
}

// serveAll sends what m finds to the servers.
func (sp *split) serveAll(m cmux.CMux) {
	sp.serveHTTP2(m, sp.s.http2)
	sp.run(m, sp.s.upgrades.Serve, sniff.Upgrade)
	sp.run(m, sp.s.http1.Serve, sniff.HTTP1)
	sp.refuse(m)
}

// serveHTTP2 sends native gRPC to its server and other HTTP/2 to web, or all to that.
func (sp *split) serveHTTP2(m cmux.CMux, web *http.Server) {
	kinds := []sniff.Kind{sniff.HTTP2}
	if sp.s.cfg.sharedHTTP2 {
		kinds = append(kinds, sniff.GRPC)
	} else {
		sp.run(m, sp.s.native.Serve, sniff.GRPC)
	}
	sp.run(m, web.Serve, kinds...)
}

// outlet makes a way out of m for some kinds.
func (sp *split) outlet(m cmux.CMux, arriving *arrivals, kinds ...sniff.Kind) *outlet {
	o := newOutlet(m.MatchWithWriters(sniff.Match(kinds...)), arriving)
	sp.running.Go(o.pump)
	sp.outlets = append(sp.outlets, o)
	return o
}

// run has a server accept the connections of some kinds. It ends when the server
// is shut down or the split is closed, and is over when sp.serve returns.
func (sp *split) run(m cmux.CMux, serve func(net.Listener) error, kinds ...sniff.Kind) {
	ln := sp.outlet(m, &sp.s.arriving, kinds...)
	sp.running.Go(func() { serve(ln) })
}

// serve accepts until the listener fails or the server ends, waits for all that
// hangs on the split but the connections, and returns why.
func (sp *split) serve() error {
	for _, m := range sp.muxes[1:] {
		sp.running.Go(func() { m.Serve() })
	}
	err := sp.muxes[0].Serve()
	if sp.s.isRunning() {
		sp.close()
	} // else Shutdown or Close does so, in its order
	sp.running.Wait()
	return fmt.Errorf("mux: accept: %w", err)
}

// close ends the split at once, with the connections that it still holds.
func (sp *split) close() {
	for _, root := range sp.roots {
		root.Close()
	}
	for _, o := range sp.outlets {
		o.Close()
	}
}

// drain stops accepting and returns when every connection accepted so far is in
// the books of its server, or ctx has ended.
func (sp *split) drain(ctx context.Context) {
	for _, root := range sp.roots {
		root.Drain(ctx)
	}
	sp.s.arriving.wait(ctx)
}
