package mux

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"oneport/mux/internal/connectrpc"
	"oneport/mux/internal/rest"
)

// bodyStall is how long a request body may stand still. A timeout for the whole
// of it would cut slow but honest uploads and streams; without any, a client that
// sends nothing holds its connection for ever.
const bodyStall = 30 * time.Second

// How much of a body over HTTP/2 is read that the handler has left, and for how long
// the answer waits for it. The first is net/http's number for HTTP/1. The second is as well
// how long a stream over HTTP/1 is read on, after its answer.
const (
	drainBytes = 256 << 10
	drainTime  = 5 * time.Second
)

// watchedBody is a request body that is given up when nothing comes of it for
// bodyStall while somebody reads it. It does so by a read deadline in the past; one
// that the handler has set holds as well.
//
// On HTTP/1 that is also so while the handler does something else: net/http reads
// what it leaves of a body, by itself, when its answer begins. A handler that has
// only paused reads on. It is not so once ReadAhead was called: net/http then leaves the
// body alone, and the client has nothing to send while nobody wants it.
type watchedBody struct {
	io.ReadCloser
	conn  *http.ResponseController
	http1 bool
	asked bool        // the client has asked whether to send it (RFC 9110 §10.1.1)
	timer *time.Timer // calls giveUp

	mu     sync.Mutex
	ahead  *readAhead // reads from the ReadCloser, if not nil; guarded by mu
	lapsed bool       // given up while nobody read; guarded by mu
	over   bool       // the body has ended, or the request; guarded by mu
}

// watchBody gives r such a body, if it has any and came by a connection of this
// server: others have deadlines of their own. A stream of messages may stand
// still for as long as it likes if it has come by HTTP/2, where pings tell whether
// its client is there. The caller must call done after the handler.
//
// The request returned is a copy: net/http looks at the body of its own to tell
// what it is, when a client waits to be told to go on (RFC 9110 §10.1.1) say.
//
// A handler of the program may pass r on to ServeHTTP, with a body around this one
// (http.MaxBytesReader say). That is not watched again: it would be so while nobody but
// readAhead reads.
func (s *Server) watchBody(w http.ResponseWriter, r *http.Request) (watched *http.Request, done func()) {
	ctx := r.Context()
	_, ours := peer.FromContext(ctx)
	if !ours || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor == 2 && (connectrpc.Streams(r) || rest.Streams(r)) {
		return r, func() {}
	}
	var body io.ReadCloser
	end := func() {}
	if within, ok := ctx.Value(bodyKey{}).(*watchedBody); ok {
		body = passedBody{r.Body, within}
	} else {
		b := &watchedBody{ReadCloser: r.Body, conn: http.NewResponseController(w), http1: r.ProtoMajor == 1,
			asked: r.Header.Get("Expect") != ""}
		b.timer = time.AfterFunc(bodyStall, b.giveUp)
		if s.handles { // else nobody passes r on
			ctx = context.WithValue(ctx, bodyKey{}, b)
		}
		body, end = b, func() { b.done(w) }
	}
	other := r.WithContext(ctx)
	other.Body = body
	return other, func() {
		end()
		r.MultipartForm = other.MultipartForm // whose files net/http removes
	}
}

// bodyKey is where the requests that handlers of the program get have their *watchedBody.
type bodyKey struct{}

// passedBody is the body of a request that the program has passed on, and what is watched
// within it.
type passedBody struct {
	io.ReadCloser
	within *watchedBody
}

func (b passedBody) ReadAhead() { b.within.ReadAhead() }

func (b *watchedBody) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		// A server that cannot set deadlines has its own idea of them.
		_ = b.conn.SetReadDeadline(time.Unix(1, 0))
		b.lapsed = true
	}
}

// ReadAhead is called if net/http is to leave the body alone, which then notices by it that
// the client has gone.
func (b *watchedBody) ReadAhead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.ahead != nil {
		return
	}
	b.timer.Stop()
	b.resume()
	b.ahead = newReadAhead(b.ReadCloser)
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.watch(true).Read(p)
	b.watch(false)
	if err != nil {
		b.end()
	}
	return n, err
}

// watch starts the time for a Read, or for what comes after it, and returns what is to be
// read.
func (b *watchedBody) watch(reading bool) (src io.Reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	src = b.ReadCloser
	if b.ahead != nil {
		src = b.ahead
	}
	if b.over || !reading && (!b.http1 || b.ahead != nil) {
		b.timer.Stop()
		return src
	}
	if reading {
		b.resume()
	}
	b.timer.Reset(bodyStall)
	return src
}

// resume undoes giveUp. b.mu is held.
func (b *watchedBody) resume() {
	if b.lapsed {
		b.lapsed = false
		_ = b.conn.SetReadDeadline(time.Time{})
	}
}

// end reports whether it is the first: after that deadlines are net/http's again,
// which waits for the next request or for the end of the client.
func (b *watchedBody) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.over
	b.over = true
	b.timer.Stop()
	return first
}

// done is called when the handler has returned. What it has left of the body
// net/http reads now, on HTTP/1; but a connection that the handler has hijacked
// is the handler's, deadlines and all.
//
// On HTTP/2 net/http would reset the stream instead, right after the answer (RFC
// 9113 §8.1). Clients that heed the reset first lose the answer, as does haproxy
// 2.6 for those behind it, so here as much is read as on HTTP/1.
func (b *watchedBody) done(w http.ResponseWriter) {
	if b.ahead != nil && b.ahead.stop(func() { _ = b.conn.SetReadDeadline(time.Unix(1, 0)) }) {
		b.end()
		linger(w) // where the next request would begin nobody knows now
		return
	}
	if !b.end() {
		return
	}
	if !b.http1 {
		_ = b.conn.SetReadDeadline(time.Now().Add(drainTime))
		_, _ = io.CopyN(io.Discard, b.ReadCloser, drainBytes)
		return
	}
	if _, err := w.Write(nil); err == http.ErrHijacked {
		return
	}
	if b.asked {
		// net/http ends the connection, at once: it overlooks that the client, which it may
		// have told to go on, is sending.
		linger(w)
	}
	rest := bodyStall
	if b.ahead != nil { // its connection ends anyway
		rest = drainTime
	}
	_ = b.conn.SetReadDeadline(time.Now().Add(rest))
}

// linger has net/http end the connection, after the answer, as it does after a body above
// a limit: the client has time to read the answer although it goes on sending.
func linger(w http.ResponseWriter) {
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
