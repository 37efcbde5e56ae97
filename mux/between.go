package mux

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// between are the HTTP/1 connections that stand between two requests. net/http
// closes those at a shutdown, also one whose next request it has just read: the
// handler then runs, and its answer is lost. Here they are only read no further,
// so that a request that has been read is answered.
type between struct {
	mu         sync.Mutex
	conns      map[net.Conn]struct{} // guarded by mu
	dismissing bool                  // guarded by mu
}

// note is called for every change of the state of c.
func (b *between) note(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state != http.StateIdle {
		if _, idle := b.conns[c]; idle && b.dismissing && state == http.StateActive {
			// Its request was quicker; the deadline would look to net/http
			// as if the client had gone meanwhile.
			c.SetReadDeadline(time.Time{})
		}
		delete(b.conns, c)
		return
	}
	if b.conns == nil {
		b.conns = make(map[net.Conn]struct{})
	}
	b.conns[c] = struct{}{}
}

// dismiss ends the connections, and returns when there are none or ctx has ended.
// It polls, since net/http sets deadlines as well and each may be the later one.
func (b *between) dismiss(ctx context.Context) {
	past := time.Unix(1, 0)
	for ctx.Err() == nil {
		b.mu.Lock()
		b.dismissing = true
		n := len(b.conns)
		for c := range b.conns {
			c.SetReadDeadline(past)
		}
		b.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
