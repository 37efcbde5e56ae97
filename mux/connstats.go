package mux

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// connStats tells the stats handlers of the connections of the HTTP servers, as
// grpc-go tells them of its own: TagConn and ConnBegin before the first request,
// ConnEnd once. Calls over a WebSocket carry what TagConn put into the context.
type connStats struct {
	handlers []stats.Handler
	open     sync.Map // net.Conn to *connRecord; hijacked ones have left
}

// connRecord is one connection that has begun.
type connRecord struct {
	ctx    context.Context
	socket atomic.Bool // becomes a WebSocket if it is hijacked
}

type connRecordKey struct{}

// begin returns the context for the requests on c.
func (s *connStats) begin(ctx context.Context, c net.Conn) context.Context {
	if len(s.handlers) == 0 {
		return ctx
	}
	for _, h := range s.handlers {
		ctx = h.TagConn(ctx, &stats.ConnTagInfo{RemoteAddr: c.RemoteAddr(), LocalAddr: c.LocalAddr()})
		h.HandleConn(ctx, &stats.ConnBegin{})
	}
	rec := &connRecord{ctx: ctx}
	s.open.Store(c, rec)
	return context.WithValue(ctx, connRecordKey{}, rec)
}

// leave is called when c is closed or hijacked. A connection that one of the
// program's handlers has hijacked ends here, since nobody hears of it again.
func (s *connStats) leave(c net.Conn, state http.ConnState) {
	v, ok := s.open.LoadAndDelete(c)
	if !ok {
		return
	}
	if rec := v.(*connRecord); state == http.StateClosed || !rec.socket.Load() {
		s.end(rec)
	}
}

func (s *connStats) end(rec *connRecord) {
	for _, h := range s.handlers {
		h.HandleConn(rec.ctx, &stats.ConnEnd{})
	}
}

// sockets marks requests that this server will make WebSockets of, so that their
// connections end with socketEnded.
func (s *connStats) sockets(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rec, ok := r.Context().Value(connRecordKey{}).(*connRecord); ok {
			rec.socket.Store(true)
			defer rec.socket.Store(false)
		}
		next.ServeHTTP(w, r)
	})
}

// hide keeps the connection's record from next. A tunnel is a connection of its own,
// which begins when this one, hijacked, has ended, so that they count as one; and the end
// of a WebSocket on a stream of HTTP/2 is not that of its connection.
func (s *connStats) hide(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connRecordKey{}, nil)))
	})
}

// socketEnded is called with the context of a WebSocket.
func (s *connStats) socketEnded(ctx context.Context) {
	if rec, ok := ctx.Value(connRecordKey{}).(*connRecord); ok {
		s.end(rec)
	}
}
