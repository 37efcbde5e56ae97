package mux

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// between are the HTTP/1 connections that stand between two requests, or whose next
// request has been read and its handler has not begun. net/http closes the first at a
// shutdown and drops the request of the others without an answer, on a connection that is
// new as well. Here the first are only read no further, and the others waited for.
type between struct {
	mu         sync.Mutex
	conns      map[net.Conn]http.ConnState // StateIdle or StateActive; guarded by mu
	dismissing bool                        // guarded by mu
}

// note is called for every change of the state of c.
func (b *between) note(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch state {
	case http.StateActive:
		if b.dismissing && b.conns[c] == http.StateIdle {
			// Its request was quicker; the deadline would look to net/http
			// as if the client had gone meanwhile.
			c.SetReadDeadline(time.Time{})
		}
	case http.StateIdle:
	default:
		delete(b.conns, c)
		return
	}
	if b.conns == nil {
		b.conns = make(map[net.Conn]http.ConnState)
	}
	b.conns[c] = state
}

// connKey is where the requests of HTTP/1 have their *http1Conn.
type connKey struct{}

// http1Conn is a connection of HTTP/1.
type http1Conn struct {
	conn    net.Conn
	ctx     context.Context // of the connection; that of each request is below it
	request context.Context // which net/http gave to the last request
}

// handler is next, and notes that it has begun.
func (b *between) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*http1Conn)
		c.request = r.Context()
		b.mu.Lock()
		delete(b.conns, c.conn)
		b.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// dismiss ends the connections, and returns when there are none or ctx has ended.
// It polls, since net/http sets deadlines as well and each may be the later one.
func (b *between) dismiss(ctx context.Context) {
	past := time.Unix(1, 0)
	for ctx.Err() == nil {
		b.mu.Lock()
		b.dismissing = true
		n := len(b.conns)
		for c, state := range b.conns {
			if state == http.StateIdle {
				c.SetReadDeadline(past)
			}
		}
		b.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
