package mux

import (
	"net"
	"net/http"
	"sync"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"

	"oneport/mux/internal/sniff"
)

// stage is a cmux of a split, and where its connections go. First say that by run or
// outlet, then open it.
type stage struct {
	sp      *split
	root    *sniff.Listener // what mux accepts from
	mux     cmux.CMux
	outlets map[sniff.Kind]*outlet // of every kind that is not refused
}

// add makes a stage of the connections of ln.
func (sp *split) add(ln net.Listener) *stage {
	root := sniff.NewListener(ln, sniff.Config{
		Timeout:  sp.s.cfg.sniffTimeout,
		Settings: sp.s.earlySettings(),
		Foreign:  sp.s.foreign.note,
		Log:      sp.s.log,
	})
	st := &stage{sp: sp, root: root, mux: cmux.New(root), outlets: make(map[sniff.Kind]*outlet)}
	// One connection that fits nowhere must never end the listener, which is
	// what false would do.
	st.mux.HandleError(func(error) bool { return true })
	sp.stages = append(sp.stages, st)
	return st
}

// serveAll sends everything to the servers.
func (st *stage) serveAll() {
	s := st.sp.s
	st.serveHTTP2(s.http2)
	st.run(s.upgrades.Serve, sniff.Upgrade)
	st.run(s.http1.Serve, sniff.HTTP1)
	st.open(s.refusal())
}

// serveHTTP2 sends native gRPC to its server and other HTTP/2 to web, or all to that.
func (st *stage) serveHTTP2(web *http.Server) {
	kinds := []sniff.Kind{sniff.HTTP2}
	if s := st.sp.s; s.cfg.sharedHTTP2 {
		kinds = append(kinds, sniff.GRPC)
	} else {
		st.run(s.native.Serve, sniff.GRPC)
	}
	st.run(web.Serve, kinds...)
}

// run has a server accept the connections of some kinds, from the first one on: until
// then it takes no goroutine. It ends when the server is shut down or the split is closed,
// and is over when the split's serve returns.
func (st *stage) run(serve func(net.Listener) error, kinds ...sniff.Kind) {
	o := st.outlet(&st.sp.s.arriving, kinds...)
	o.begin = sync.OnceFunc(func() {
		st.sp.running.Go(func() { serve(o) })
	})
}

// outlet makes a way out for some kinds.
func (st *stage) outlet(arriving *arrivals, kinds ...sniff.Kind) *outlet {
	o := newOutlet(st.root.Addr(), arriving)
	for _, k := range kinds {
		st.outlets[k] = o
	}
	return o
}

// open has cmux part the connections: gRPC, WebSocket, and HTTP with all the rest. Each
// outlet does not have a listener of cmux to itself, since one has room for 1024
// connections: 18 KB that the garbage collector looks through every time.
func (st *stage) open(code http2.ErrCode, text string) {
	for _, ln := range []net.Listener{
		st.mux.MatchWithWriters(sniff.Match(sniff.GRPC)),
		st.mux.MatchWithWriters(sniff.Match(sniff.Upgrade)),
		st.mux.Match(cmux.Any()),
	} {
		st.sp.running.Go(func() { st.pump(ln, code, text) })
	}
}

// pump passes connections on until cmux's listener ends, which it does when the split is
// closed. What has no outlet is refused with code and text. No connection waits for another,
// as a server may be slow to accept: a stats handler looks at each as it does.
func (st *stage) pump(ln net.Listener, code http2.ErrCode, text string) {
	over := make(chan struct{})
	defer close(over)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		st.sp.running.Go(func() {
			if o := st.outlets[sniff.KindOf(c)]; o != nil {
				o.put(c, over)
			} else { // bounded in time whatever the peer does
				st.sp.s.reject(c, code, text)
			}
		})
	}
}
