package connectrpc

import (
	"net/http"

	"oneport/mux/internal/rpc"
)

// response is what connecthttp writes an answer to.
type response struct {
	http.ResponseWriter
	method   *rpc.Method
	protocol protocol
	wrote    bool // of the body

	http1   *body // of a request over HTTP/1; else nil
	duplex  bool  // it is read while this is written
	started bool  // the header goes out
}

// start is called before the header goes out. The connection of an HTTP/1 request
// must end with the call
//
//   - while there is more to read of a stream: net/http would read the rest after the
//     handler, and having done so panics (https://go.dev/issue/68560) or having failed
//     takes what comes then for the next request;
//   - when it has a read deadline that has passed: net/http would take that for the
//     end of the client, and the next requests for cancelled.
func (w *response) start() {
	if !w.started && w.http1 != nil && (w.duplex && !w.http1.ended.Load() || w.http1.spoiled.Load()) {
		w.Header().Set("Connection", "close")
	}
	w.started = true
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader gives a reason where connecthttp has none: it answers a request that
// is not a call with a bare code, and no call with one of these.
func (w *response) WriteHeader(code int) {
	w.start()
	switch code {
	case http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		http.Error(w.ResponseWriter, usage(w.method), code)
	default:
		w.ResponseWriter.WriteHeader(code)
	}
}

func (w *response) Write(p []byte) (int, error) {
	w.start()
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Flush sends a stream on. A unary answer is over when the handler has returned,
// and goes out in one piece then; but gRPC must have its header out before the
// trailer where there is no message, or net/http drops the trailer
// (https://go.dev/issue/54723).
func (w *response) Flush() {
	if w.method.Unary() && (w.wrote || w.protocol != grpc) {
		return
	}
	w.start()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// notFound is an answer that there is no such method. In unary Connect that is 404,
// and 501 only for a method that is there and not implemented, which the ErrorWriter
// cannot tell apart ("Error Codes" in the Connect protocol).
type notFound struct{ http.ResponseWriter }

func (w notFound) WriteHeader(code int) {
	if code == http.StatusNotImplemented {
		code = http.StatusNotFound
	}
	w.ResponseWriter.WriteHeader(code)
}
