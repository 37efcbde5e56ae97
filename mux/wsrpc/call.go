package wsrpc

import (
	"context"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// call is one call of grpc-ws.v1. The goroutine that reads the socket feeds it, a
// worker runs it and writes all there is to write of it.
type call struct {
	owner  *multiplexer
	after  *call // that waits for a worker as well; guarded by the crew's mu
	number uint32
	kind   socket.Kind // in which it is answered
	method *rpc.Method
	known  rpc.Call

	in  requests
	out credit

	maxAnswer int // bytes of a message that the client takes

	// The handler's side.
	header metadata.MD // to go with the next frame; nil if there is none
	answer answer      // the last; of a method that answers with one, to go with the end
	end    endFrame

	mu      sync.Mutex
	failure error // why the call ends, whatever the handler says; guarded by mu
}

// A call is the dispatcher's Stream of itself.
var _ rpc.LateHeader = (*call)(nil)

// feed gives the call what a frame has for it. It reports whether m, which holds the
// bytes of the frame, has been kept.
func (c *call) feed(f *frame, m *socket.Message) (kept bool) {
	if f.credit > 0 && !c.out.add(f.credit) {
		c.fail(status.Errorf(codes.ResourceExhausted, "credit above %d", maxCredit))
	}
	if f.message != nil {
		limit := c.owner.reg.MaxMessageBytes()
		if len(f.message) > limit {
			c.fail(rpc.ErrTooLarge(len(f.message), limit))
		} else {
			var err error
			if kept, err = c.in.put(c.owner.conn.Context(), f.message, m); err != nil {
				c.fail(err)
			}
		}
	}
	if f.halfClose {
		c.in.close()
	}
	return kept
}

// abort ends the call because the client has cancelled it.
func (c *call) abort() {
	c.owner.crew.remove(c)
	c.cut()
}

// cut ends the handler's context, and whatever it does with the call.
func (c *call) cut() {
	c.in.drop() // before the handler looks for what is left
	c.out.stop()
	c.known.Cancel()
}

// fail ends the call with err, a status. The worker tells the client, once the handler
// has noticed.
func (c *call) fail(err error) {
	c.mu.Lock()
	if c.failure == nil {
		c.failure = err
	}
	c.mu.Unlock()
	c.cut()
}

// failed is why the call has ended, or nil.
func (c *call) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// contextError is why a wait of the handler was in vain.
func (c *call) contextError(err error) error {
	if failure := c.failed(); failure != nil {
		return failure
	}
	return status.FromContextError(err).Err()
}

// errGone is the outcome of a call whose handler has ended its goroutine.
var errGone = status.Error(codes.Internal, "the handler did not return")

// run serves the call to its end.
func (c *call) run() {
	var trailer metadata.MD
	err := errGone
	defer func() { c.finish(trailer, err) }() // also when the handler ends this goroutine
	trailer, err = c.method.Serve(c.known.Context(), &c.known, c)
}

// finish tells the client how the call ended, unless it has cancelled it.
func (c *call) finish(trailer metadata.MD, err error) {
	c.known.Cancel()
	c.in.drop()
	if !c.owner.crew.remove(c) {
		return
	}
	if failure := c.failed(); failure != nil {
		err = failure
	}
	if err != nil || c.method.ServerStreams { // nothing of it goes with the end
		c.answer.release()
	}
	defer c.answer.release()
	c.end.set(err, trailer)
	b, err := c.lastFrame()
	if err != nil {
		return // which only a message could cause, and that is encoded
	}
	// Should the socket have ended, its reader knows why.
	_ = c.owner.conn.WriteHere(c.owner.conn.Context(), c.kind, b)
}

// errAnswerRoom is the outcome of a call whose answer no client could read.
var errAnswerRoom = status.Errorf(codes.ResourceExhausted, "header, status and trailer: %v", errTooMuch)

// lastFrame encodes the end of the call, with what goes with it.
func (c *call) lastFrame() ([]byte, error) {
	b, err := c.answer.encode(&frame{call: c.number, header: c.header, end: &c.end})
	if err == errTooMuch {
		c.answer.release()
		c.end.set(errAnswerRoom, nil)
		b, err = c.answer.encode(&frame{call: c.number, end: &c.end})
	}
	return b, err
}

// set makes e the last frame of a call with this outcome.
func (e *endFrame) set(err error, trailer metadata.MD) {
	e.trailer = trailer
	if err == nil {
		return
	}
	st := status.Convert(err)
	e.code = uint32(st.Code())
	e.message = strings.ToValidUTF8(st.Message(), "\uFFFD")
	e.details = st.Proto().GetDetails()
}

func (c *call) RecvMsg(ctx context.Context, m any) (int, error) {
	r, give, err := c.in.take(ctx)
	if err == io.EOF {
		return 0, io.EOF
	}
	if err != nil {
		return 0, c.contextError(err)
	}
	defer r.release()
	if give > 0 {
		c.owner.writeNow(c.kind, &frame{call: c.number, credit: give})
	}
	if err := codec(c.method, r.kind).Unmarshal(r.data, m); err != nil {
		return 0, status.Errorf(codes.InvalidArgument, "bad request message: %.200v", err)
	}
	return len(r.data), nil
}

// SetHeader keeps md for the next frame. The absence of a header says the same as an
// empty one.
func (c *call) SetHeader(md metadata.MD) {
	if len(md) > 0 {
		c.header = md
	}
}

func (c *call) SendHeader(md metadata.MD) error {
	if md == nil {
		md = metadata.MD{}
	}
	b, err := (&frame{call: c.number, header: md}).append(nil, c.kind)
	if err != nil {
		return status.Errorf(codes.Internal, "header cannot be encoded: %v", err)
	}
	if len(b) > frameRoom {
		return errAnswerRoom
	}
	ctx := c.known.Context()
	if err := ctx.Err(); err != nil {
		return c.contextError(err)
	}
	return c.send(ctx, b)
}

func (c *call) SendMsg(ctx context.Context, m any) (int, error) {
	err := c.out.wait(ctx)
	if err == nil && (c.known.Timeout > 0 || ctx != c.known.Context()) {
		err = ctx.Err() // what ends by itself, or is of a stats handler, leaves the credit there
	}
	if err != nil {
		return 0, c.contextError(err)
	}
	if err := c.answer.set(codec(c.method, c.kind), c.kind, c.number, m); err != nil {
		c.answer.release()
		return 0, status.Errorf(codes.Internal, "answer cannot be encoded: %v", err)
	}
	size := c.answer.size()
	if size > c.maxAnswer {
		c.answer.release()
		return 0, status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, c.maxAnswer)
	}
	c.out.spend(size)
	if !c.method.ServerStreams {
		return size, nil
	}
	err = c.sendAnswer(ctx)
	if cap(*c.answer.buf) > maxKeptAnswer {
		c.answer.release()
	}
	return size, err
}

// sendAnswer sends the answer while the call goes on.
func (c *call) sendAnswer(ctx context.Context) error {
	if c.header == nil && c.kind == socket.Binary { // as it mostly is
		return c.send(ctx, c.answer.alone())
	}
	b, err := c.answer.encode(&frame{call: c.number, header: c.header})
	if err == errTooMuch {
		return errAnswerRoom
	}
	if err != nil {
		return status.Errorf(codes.Internal, "answer cannot be encoded: %v", err)
	}
	c.header = nil
	return c.send(ctx, b)
}

// send writes a frame while the call goes on.
func (c *call) send(ctx context.Context, b []byte) error {
	err := c.owner.conn.Write(ctx, c.kind, b)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return c.contextError(ctx.Err())
	default:
		return status.Errorf(codes.Unavailable, "answer cannot be sent: %v", err)
	}
}
