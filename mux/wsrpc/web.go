package wsrpc

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// WebSubprotocol is the name that the clients of improbable-eng/grpc-web gave to
// gRPC-Web over a WebSocket.
const WebSubprotocol = "grpc-websockets"

// What the first byte of a client's message says of the rest, from the second on.
const (
	webData       = 0 // bytes of the body
	webFinishSend = 1 // there are none, and none will follow
)

// ServeWeb upgrades requests for /{service}/{method} whose clients offer
// grpc-websockets. What [Handler] says of requests holds here as well.
//
// It answers what is no such request with the reason, before any upgrade. An unknown
// method is told on the socket, where clients look for a status.
func (h *Handler) ServeWeb(w http.ResponseWriter, r *http.Request) {
	shake, err := newHandshake(r)
	if err != nil {
		h.sockets.Refuse(w, r, http.StatusBadRequest, status.Convert(err).Message())
		return
	}
	if !offersSubprotocol(r) {
		text := fmt.Sprintf("a WebSocket here needs the subprotocol %s; without one connect to %s%.200s", WebSubprotocol, Path, r.URL.EscapedPath())
		h.sockets.Refuse(w, r, http.StatusBadRequest, text)
		return
	}
	// Escapes are not undone, as on the other roads at this path.
	method, err := h.reg.Lookup(r.URL.EscapedPath())
	h.sockets.Upgrade(w, r, func(c *socket.Conn) {
		call := &webCall{conn: c, method: method, shake: shake, inbox: newInbox()}
		call.body.limit = h.reg.MaxMessageBytes()
		call.run(err, h.farTooLarge)
	}, WebSubprotocol)
}

// webCall is one socket of grpc-websockets, which carries one call. The socket's own
// goroutine reads; a second one runs the call. Both end with the socket.
//
// A message of the client's is bytes of a body of gRPC-Web after the first, which is its
// header. Answers are such a body: a header, messages, a trailer, each in a WebSocket
// message of its own, since @improbable-eng/grpc-web looks at what comes after a header
// only when it gets more.
type webCall struct {
	conn   *socket.Conn
	method *rpc.Method // nil if it is unknown
	shake  *handshake
	inbox  *inbox

	// The handler's receiving side.
	body    envelopes
	message *socket.Message // that body reads

	headed bool // the header has been sent; of the handler's sending side, then of finish
}

// A webCall is the dispatcher's Stream of its call.
var _ rpc.Stream = (*webCall)(nil)

// run returns when the socket is ending and the call does not run any more. unknown is
// why there is no method, farewell what to say to a message that is far too large.
func (c *webCall) run(unknown error, farewell []byte) {
	c.conn.SetLimit(frameRoom)
	c.conn.SetFarewell(headerTooLarge)
	late := time.AfterFunc(firstFrame, func() {
		c.conn.CloseWith(socket.ClosePolicy, fmt.Sprintf("no header within %v", firstFrame))
	})
	leave := context.AfterFunc(c.conn.Draining(), func() {
		c.conn.CloseWith(socket.CloseGoingAway, leavingReason)
	})
	m, err := c.conn.Read()
	late.Stop()
	if !leave() || err != nil {
		return // a server that drains has not accepted the call
	}
	c.conn.SetLimit(min(c.body.limit, math.MaxInt-frameRoom-1) + frameRoom)
	c.conn.SetFarewell(farewell)
	var call sync.WaitGroup
	switch known, err := c.begin(m); {
	case m.Kind == socket.Text:
		c.refuseText()
	case unknown != nil:
		c.finish(nil, unknown)
	case err != nil:
		c.finish(nil, err)
	default:
		call.Go(func() { c.serve(known) })
	}
	m.Release()
	c.read()
	call.Wait()
}

// begin makes a call of its header. The error is a status and safe for the client.
func (c *webCall) begin(m *socket.Message) (*rpc.Call, error) {
	fields, err := parseFields(m.Data)
	if err != nil {
		return nil, err
	}
	if err := checkContentType(fields["content-type"]); err != nil {
		return nil, err
	}
	known := c.shake.call()
	if v := fields["grpc-timeout"]; len(v) > 0 {
		if known.Timeout, err = rpc.ParseTimeout(v[0]); err != nil {
			return nil, err
		}
	}
	md, err := rpc.RequestMetadata(fields, "")
	if err != nil {
		return nil, err
	}
	if err := checkMetadata(md); err != nil {
		return nil, err
	}
	known.Metadata, err = rpc.OverlayMetadata(known.Metadata, md)
	return known, err
}

// checkContentType takes what both clients send, or nothing.
func checkContentType(values []string) error {
	media, _, _ := strings.Cut(strings.Join(values, ","), ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "", "application/grpc-web", webContentType:
		return nil
	}
	return status.Errorf(codes.Unimplemented, "content-type %.100q is not spoken over %s: use %s", media, WebSubprotocol, webContentType)
}

// read fills the inbox until the socket ends.
func (c *webCall) read() {
	for open := true; ; {
		m, err := c.conn.Read()
		if err != nil {
			return
		}
		switch {
		case m.Kind == socket.Text:
			m.Release()
			c.refuseText()
		case !open:
			m.Release()
			c.conn.CloseWith(socket.CloseProtocol, "message after the half-close")
		case len(m.Data) == 1 && m.Data[0] == webFinishSend:
			m.Release()
			c.inbox.close()
			open = false
		case !c.inbox.put(c.conn.Context(), m):
			m.Release() // Read reports the end
		}
	}
}

func (c *webCall) refuseText() {
	c.conn.CloseWith(socket.CloseUnsupported, "grpc-websockets has binary messages, no text")
}

// serve runs the call and then ends the socket.
func (c *webCall) serve(known *rpc.Call) {
	var trailer metadata.MD
	err := errGone
	defer func() { c.finish(trailer, err) }() // also when the handler ends this goroutine
	trailer, err = c.method.Serve(c.conn.Context(), known, c)
}

// finish tells the client how the call ended, and ends the socket. Should that have
// ended, its reader knows why.
func (c *webCall) finish(trailer metadata.MD, err error) {
	if c.message != nil {
		c.message.Release()
	}
	if !c.headed {
		_ = c.SendHeader(nil)
	}
	c.conn.CloseAfter(trailerFrame(trailer, err), socket.CloseNormal, "")
}

// trailerFrame is the end of a body.
func trailerFrame(trailer metadata.MD, err error) []byte {
	return seal(appendOutcome(make([]byte, prefixBytes, 64), trailer, err), trailerFlag)
}

// headerTooLarge and farTooLarge are the ends of calls with a message of which the rest is
// not even read. One that is a little too large is refused like any other.
var headerTooLarge = trailerFrame(nil, status.Errorf(codes.ResourceExhausted, "a header of more than %d bytes", frameRoom))

func farTooLarge(limit int) []byte {
	return trailerFrame(nil, status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d)", limit))
}

func (c *webCall) RecvMsg(ctx context.Context, m any) (int, error) {
	for {
		message, ok, err := c.body.next()
		if err != nil {
			return 0, err
		}
		if ok {
			if err := rpc.Proto.Unmarshal(message, m); err != nil {
				return 0, status.Errorf(codes.Internal, "bad request message: %.200v", err) // as gRPC-Web has it
			}
			return len(message), nil
		}
		if err := c.receive(ctx); err != nil {
			return 0, err
		}
	}
}

// receive gives body its next part, in place of the last one.
func (c *webCall) receive(ctx context.Context) error {
	if c.message != nil {
		c.message.Release()
		c.message = nil
	}
	m, err := c.inbox.receive(ctx)
	switch {
	case err == io.EOF && c.body.partial():
		return status.Error(codes.InvalidArgument, "half-close inside an envelope")
	case err != nil:
		return err
	}
	c.message = m
	if len(m.Data) == 0 || m.Data[0] != webData {
		return status.Error(codes.InvalidArgument, "a message begins with a byte 0, or is a single byte 1 after the last")
	}
	c.body.add(m.Data[1:])
	return nil
}

func (c *webCall) SendHeader(md metadata.MD) error {
	c.headed = true
	b := appendField(make([]byte, prefixBytes, 64), "content-type", webContentType)
	return c.write(c.conn.Context(), seal(appendMetadataFields(b, md), trailerFlag))
}

func (c *webCall) SendMsg(ctx context.Context, m any) (int, error) {
	buf := answerBuffers.Get().(*[]byte)
	defer recycle(buf)
	b, err := rpc.Proto.Append((*buf)[:prefixBytes], m)
	if err != nil {
		return 0, status.Errorf(codes.Internal, "answer cannot be encoded: %v", err)
	}
	*buf = b
	size := len(b) - prefixBytes
	if size > math.MaxInt32 {
		return 0, status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, math.MaxInt32)
	}
	return size, c.write(ctx, seal(b, 0))
}

func (c *webCall) write(ctx context.Context, b []byte) error {
	err := ctx.Err() // for which a socket with room does not ask
	if err == nil {
		err = c.conn.Write(ctx, socket.Binary, b)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	default:
		return status.Errorf(codes.Unavailable, "answer cannot be sent: %v", err)
	}
}
