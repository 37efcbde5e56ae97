package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callError is the one edge where a handler's error becomes a status: a status
// error keeps its code, message and details, also behind %w; a bare context
// error becomes CANCELLED or DEADLINE_EXCEEDED; anything else is UNKNOWN with
// its text, as in grpc-go. Nil stays nil.
//
// A call whose context has ended gets that as its status, whatever the handler
// made of it: over a network the client has already seen the same.
func callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ContextError(ctx)
	}
	return statusError(err)
}

// ErrShutdown is the outcome of a call that the server cuts because it shuts down, where
// it is the cause of the end of a context (see context.Cause). The client has not
// cancelled, and may try another server.
var ErrShutdown = status.Error(codes.Unavailable, "the server is shutting down")

// ContextError is the status of a call whose context is ctx, which has ended: ErrShutdown,
// CANCELLED or DEADLINE_EXCEEDED.
func ContextError(ctx context.Context) error {
	if context.Cause(ctx) == ErrShutdown {
		return ErrShutdown
	}
	return status.FromContextError(ctx.Err()).Err()
}

func statusError(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	if st.Code() == codes.OK {
		// An error whose status says OK is a bug of the handler's; it must not
		// reach the client as success.
		return status.Error(codes.Unknown, err.Error())
	}
	return st.Err()
}

// ErrTooLarge is the status of a message above the limit, in the words of
// grpc-go.
func ErrTooLarge(size, limit int) error {
	return status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, limit)
}

// ReadError is the status of a call whose request cannot be read to its end; err is what
// the transport says of that. It is the client's fault in any case: one that has gone is
// CANCELLED, one that was too slow DEADLINE_EXCEEDED, and what is left INVALID_ARGUMENT, a
// request that is cut short or malformed. A status stays what it is.
func ReadError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch { // without the text of a network, which has addresses
	case errors.Is(err, os.ErrDeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the rest of the request has not come in time")
	case hasGone(err):
		return status.Error(codes.Canceled, "the client has gone before the end of its request")
	}
	return status.Errorf(codes.InvalidArgument, "the request is cut short or malformed: %s", clip(err.Error()))
}

// hasGone tells whether err says that a connection has ended. net/http has a text alone for
// that over HTTP/2, where the context of the request may end a moment later.
func hasGone(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || err.Error() == "client disconnected"
}

// HTTPStatus is the status of HTTP for a code, as Connect has it for unary calls and
// grpc-gateway for all (the comments in google/rpc/code.proto).
func HTTPStatus(code codes.Code) int {
	switch code {
	case codes.OK:
		return 200
	case codes.Canceled:
		return 499 // "Client Closed Request" of nginx, which has no name in HTTP
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return 400
	case codes.Unauthenticated:
		return 401
	case codes.PermissionDenied:
		return 403
	case codes.NotFound:
		return 404
	case codes.AlreadyExists, codes.Aborted:
		return 409
	case codes.ResourceExhausted:
		return 429
	case codes.Unimplemented:
		return 501
	case codes.Unavailable:
		return 503
	case codes.DeadlineExceeded:
		return 504
	}
	return 500
}

// recoverPanic is deferred around a handler. It turns a panic into INTERNAL and
// logs value and stack under an id that the client is given as well; the client
// sees nothing else of it.
func (r *Registry) recoverPanic(method string, err *error) {
	v := recover()
	if v == nil {
		return
	}
	id := rand.Text()[:8]
	r.cfg.Log.Error("rpc: panic in handler", "method", method, "id", id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	*err = status.Errorf(codes.Internal, "internal error (id %s)", id)
}

var (
	// errHeaderSent answers SetHeader and SendHeader once the header has gone.
	errHeaderSent = status.Error(codes.Internal, "rpc: the header was already sent")

	// errReturned answers a goroutine that uses its call for longer than the
	// handler has run.
	errReturned = status.Error(codes.Internal, "rpc: the handler has returned")

	// errGone is the outcome of a call whose handler has ended its goroutine
	// (runtime.Goexit) instead of returning.
	errGone = status.Error(codes.Internal, "rpc: the handler did not return")

	// errClosed reports that the Conn was shut down.
	errClosed = status.Error(codes.Unavailable, "rpc: the server has shut down")
)

// clip makes text from a peer fit for an error: valid UTF-8, and no more than
// 200 bytes of it.
func clip(text string) string {
	const limit = 200
	if len(text) > limit {
		text = text[:limit] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
