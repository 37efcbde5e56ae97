package xconnect

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"
)

// response is the ResponseWriter of a handler that may upgrade.
type response struct {
	stream   http.ResponseWriter
	request  *http.Request // of the stream
	conn     *conn         // once hijacked
	answered bool          // the handler has written a header
	dropping bool          // what it writes to the body is dropped
}

var (
	_ http.Hijacker = (*response)(nil)
	_ http.Flusher  = (*response)(nil)
)

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.stream }

func (w *response) Header() http.Header { return w.stream.Header() }

func (w *response) WriteHeader(code int) {
	switch {
	case w.conn != nil || w.answered:
	case code < 200 && code != http.StatusSwitchingProtocols:
		stripHop(w.Header())
		w.stream.WriteHeader(code)
	default:
		w.answered = true
		w.dropping = answer(w.stream, code)
	}
}

// answer writes the header of an answer that is not the 101 of an upgrade. To success,
// which would mean that there is a WebSocket now, it writes a refusal as a whole and is
// true.
func answer(w http.ResponseWriter, code int) bool {
	h := w.Header()
	if code < 300 {
		clear(h)
		http.Error(w, "there is no WebSocket at this path", http.StatusNotFound)
		return true
	}
	stripHop(h)
	w.WriteHeader(code)
	return false
}

// stripHop removes the fields that belong to a connection of HTTP/1 (RFC 9113 §8.2.2).
// To net/http "Connection: close" would mean the whole connection.
func stripHop(h http.Header) {
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"} {
		delete(h, name)
	}
}

func (w *response) Write(p []byte) (int, error) {
	if w.conn != nil {
		return 0, http.ErrHijacked
	}
	if !w.answered {
		w.WriteHeader(http.StatusOK)
	}
	if w.dropping {
		return len(p), nil
	}
	return w.stream.Write(p)
}

func (w *response) Flush() {
	if w.conn != nil {
		return
	}
	if !w.answered {
		w.WriteHeader(http.StatusOK)
	}
	// A stream that is gone is noticed by who writes.
	_ = http.NewResponseController(w.stream).Flush()
}

// Hijack makes a connection of the stream. As over HTTP/1 it has no deadline then, and
// nothing is sent of the header that has been set.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.conn != nil {
		return nil, nil, http.ErrHijacked
	}
	if w.answered {
		return nil, nil, errors.New("xconnect: hijack after the header was written")
	}
	clear(w.Header())
	stream := http.NewResponseController(w.stream)
	if err := errors.Join(stream.SetReadDeadline(time.Time{}), stream.SetWriteDeadline(time.Time{})); err != nil {
		return nil, nil, err
	}
	w.conn = newConn(w.stream, w.request)
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}
