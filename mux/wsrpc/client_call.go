package wsrpc

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// Invoke makes a unary call.
func (c *ClientConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	o := c.callOptions(opts)
	call, err := c.begin(ctx, &grpc.StreamDesc{}, method, o, func() ([]byte, error) { return c.encode(args, o) })
	if err != nil {
		o.Finish(err)
		return err
	}
	return call.RecvMsg(reply)
}

// NewStream begins a call of any kind. The caller must end it as with grpc-go: by
// receiving to the end, or by ending ctx.
func (c *ClientConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	o := c.callOptions(opts)
	call, err := c.begin(ctx, desc, method, o, nil)
	if err != nil {
		o.Finish(err)
		return nil, err
	}
	return call, nil
}

// encode makes bytes of a message, not nil, and judges their number.
func (c *ClientConn) encode(m any, o *rpc.CallOptions) ([]byte, error) {
	b, err := c.codec().Append([]byte{}, m)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return b, o.CheckSend(len(b))
}

func (c *ClientConn) codec() rpc.Codec {
	if c.opts.JSON {
		return rpc.JSON
	}
	return rpc.Proto
}

// begin opens a call, with the only message of a unary one.
func (c *ClientConn) begin(ctx context.Context, desc *grpc.StreamDesc, method string, o *rpc.CallOptions, only func() ([]byte, error)) (*clientCall, error) {
	f := new(frame)
	if only != nil {
		var err error
		if f.message, err = only(); err != nil {
			return nil, err
		}
		f.halfClose = true
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, status.FromContextError(err).Err()
		}
		s, err := c.pick(ctx, o.WaitForReady)
		if err != nil {
			return nil, err
		}
		md, err := c.callMetadata(ctx, s, method, o)
		if err != nil {
			return nil, err
		}
		if err := rpc.CheckSend(len(f.message), s.maxMessage()); err != nil {
			return nil, err
		}
		f.open = &openFrame{method: method, metadata: md}
		call := newClientCall(ctx, s, desc, o, only != nil)
		err = s.open(ctx, call, f)
		if err == nil {
			o.SetPeer(s.peer)
			// A stream whose caller receives no more ends as well.
			call.watch(ctx)
			return call, nil
		}
		call.cancel()
		if err != errNotOpened {
			return nil, err
		}
		c.left(s) // so that pick does not return it again
	}
}

// timeoutMS is the time until the deadline of ctx, in milliseconds, 0 for none.
func timeoutMS(ctx context.Context) uint64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint64(max(time.Until(deadline).Milliseconds(), 1))
}

// clientCall is a call as its caller sees it. The context is a field because the
// interface of grpc.ClientStream demands it.
type clientCall struct {
	ctx    context.Context // ends with the caller's, and with finish
	cancel context.CancelFunc
	parent context.Context // the caller's
	socket *clientSocket
	number uint32 // set by open
	desc   *grpc.StreamDesc
	opts   *rpc.CallOptions

	sentLast bool // nothing more may be sent; used by the sending side only

	headerDone chan struct{} // closed when the header is known, or that there is none
	done       chan struct{} // closed when the server's side is over
	filled     chan struct{} // holds a token when there may be something to receive
	granted    chan struct{} // likewise when there may be credit

	mu        sync.Mutex
	header    metadata.MD // set before headerDone is closed
	trailer   metadata.MD // set before done is closed
	status    error       // likewise; io.EOF for OK
	queue     [][]byte    // messages that have not been received; guarded by mu
	mayRecv   int64       // the server's credit; guarded by mu
	owed      int64       // of it, to be given back; guarded by mu
	maySend   int64       // our credit; guarded by mu
	outcome   error       // once the caller's side has ended, io.EOF for OK; guarded by mu
	unwatch   func() bool // guarded by mu
	knowsHead bool        // headerDone is closed; guarded by mu
}

var _ grpc.ClientStream = (*clientCall)(nil)

func newClientCall(ctx context.Context, s *clientSocket, desc *grpc.StreamDesc, o *rpc.CallOptions, sentLast bool) *clientCall {
	c := &clientCall{
		parent: ctx, socket: s, desc: desc, opts: o, sentLast: sentLast,
		headerDone: make(chan struct{}), done: make(chan struct{}),
		filled: make(chan struct{}, 1), granted: make(chan struct{}, 1),
		mayRecv: int64(s.conn.opts.Window), maySend: int64(s.hello.window),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// watch ends the call when the caller's context does.
func (c *clientCall) watch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.finish(status.FromContextError(ctx.Err()).Err()) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unwatch = stop
}

// handle does what a frame of the server says of the call. It is called by the reader
// of the socket.
func (c *clientCall) handle(f *frame, text bool) {
	if err := c.take(f, text); err != nil {
		c.over(nil, err)
		c.socket.remove(c, true)
		return
	}
	if e := f.end; e != nil {
		st := io.EOF
		if e.code != 0 {
			st = status.FromProto(&spb.Status{Code: int32(min(e.code, math.MaxInt32)), Message: e.message, Details: e.details}).Err()
		}
		c.socket.remove(c, false)
		c.over(e.trailer, st)
	}
}

// take does so but for the end. The error is the status of a call whose server has
// broken a rule.
func (c *clientCall) take(f *frame, text bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.credit > 0 {
		if c.maySend += int64(f.credit); c.maySend > maxCredit {
			return status.Error(codes.ResourceExhausted, "wsrpc: the server gave a credit above 2^31-1")
		}
		signal(c.granted)
	}
	if f.header != nil {
		if c.knowsHead {
			return status.Error(codes.Internal, "wsrpc: the server sent a header twice, or after a message")
		}
		c.setHeaderLocked(f.header)
	}
	if f.message == nil {
		return nil
	}
	if text != c.socket.conn.opts.JSON {
		return status.Error(codes.Internal, "wsrpc: the server answered in the other encoding")
	}
	if c.mayRecv <= 0 {
		return status.Error(codes.ResourceExhausted, "wsrpc: the server sent a message without credit")
	}
	c.mayRecv -= int64(len(f.message)) + messageCost
	c.setHeaderLocked(metadata.MD{})
	if c.outcome == nil {
		c.queue = append(c.queue, f.message)
		signal(c.filled)
	}
	return nil
}

// setHeaderLocked counts the first time.
func (c *clientCall) setHeaderLocked(md metadata.MD) {
	if !c.knowsHead {
		c.knowsHead = true
		c.header = md
		close(c.headerDone)
	}
}

// over ends the server's side, once.
func (c *clientCall) over(trailer metadata.MD, st error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != nil {
		return
	}
	c.trailer, c.status = trailer, st
	c.setHeaderLocked(nil)
	close(c.done)
}

// finish ends the caller's side, with io.EOF for OK, and cancels the call at the server
// if it is not over there. It returns the outcome, which is another where the end came
// before.
func (c *clientCall) finish(err error) error {
	c.mu.Lock()
	if c.outcome != nil {
		defer c.mu.Unlock()
		return c.outcome
	}
	c.outcome = err
	c.queue = nil
	unwatch := c.unwatch
	c.mu.Unlock()
	c.socket.remove(c, true)
	if unwatch != nil {
		unwatch()
	}
	c.cancel()
	c.opts.Finish(err)
	return err
}

func (c *clientCall) Context() context.Context { return c.ctx }

// Header waits for the header. Without one it returns nil, and RecvMsg tells the
// status.
func (c *clientCall) Header() (metadata.MD, error) {
	select {
	case <-c.headerDone:
	case <-c.ctx.Done():
	}
	return c.headerNow(), nil
}

func (c *clientCall) headerNow() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.header == nil {
		return nil
	}
	return c.header.Copy()
}

// Trailer is there once RecvMsg has returned an error, io.EOF included.
func (c *clientCall) Trailer() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trailer.Copy()
}

func (c *clientCall) CloseSend() error {
	if !c.sentLast {
		c.sentLast = true
		c.socket.send(&frame{call: c.number, halfClose: true})
	}
	return nil
}

// SendMsg waits for credit. After the end of the call it returns io.EOF and RecvMsg
// tells the status; but nil where the client does not stream, as generated code
// expects. m may be changed afterwards.
func (c *clientCall) SendMsg(m any) error {
	if c.sentLast {
		return c.finish(status.Error(codes.Internal, "wsrpc: SendMsg called after CloseSend"))
	}
	b, err := c.socket.conn.encode(m, c.opts)
	if err == nil {
		err = rpc.CheckSend(len(b), c.socket.maxMessage())
	}
	if err != nil {
		return c.finish(err)
	}
	err = c.spend(int64(len(b)) + messageCost)
	if err == nil {
		c.sentLast = !c.desc.ClientStreams
		err = c.socket.sendMessage(c, &frame{call: c.number, message: b, halfClose: c.sentLast})
	}
	if err != nil && c.desc.ClientStreams {
		return io.EOF
	}
	return nil
}

// spend waits for credit and takes cost off it. It is io.EOF if the call is over
// before.
func (c *clientCall) spend(cost int64) error {
	for {
		c.mu.Lock()
		over, may := c.status != nil || c.outcome != nil, c.maySend > 0
		if may && !over {
			c.maySend -= cost
		}
		c.mu.Unlock()
		switch {
		case over:
			return io.EOF
		case may:
			return nil
		}
		select {
		case <-c.granted:
		case <-c.done:
		case <-c.ctx.Done():
			return io.EOF
		}
	}
}

// RecvMsg reads the next message, then io.EOF or the status of the call, again and
// again. Where the server does not stream, the message comes only with an OK status.
func (c *clientCall) RecvMsg(m any) error {
	b, err := c.next()
	if err == io.EOF && !c.desc.ServerStreams && c.running() {
		err = status.Error(codes.Internal, "wsrpc: the call ended OK without an answer")
	}
	if err == nil {
		err = c.opts.CheckRecv(len(b))
	}
	if err == nil {
		if derr := c.socket.conn.codec().Unmarshal(b, m); derr != nil {
			err = status.Errorf(codes.Internal, "wsrpc: bad answer: %.200v", derr)
		}
	}
	if err != nil {
		return c.finishReceiving(err)
	}
	if c.desc.ServerStreams {
		return nil
	}
	if _, err = c.next(); err == nil {
		err = status.Error(codes.Internal, "wsrpc: the server sent a second answer where the method has one")
	}
	if err = c.finishReceiving(err); err == io.EOF {
		return nil
	}
	return err
}

func (c *clientCall) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outcome == nil
}

// finishReceiving is finish on the caller's goroutine, with header and trailer.
func (c *clientCall) finishReceiving(err error) error {
	c.opts.SetMetadata(c.headerNow(), c.Trailer())
	return c.finish(err)
}

// next returns the next message, or how the call ended: io.EOF for OK.
func (c *clientCall) next() ([]byte, error) {
	for {
		if err := c.parent.Err(); err != nil {
			return nil, c.finish(status.FromContextError(err).Err())
		}
		b, ok, err := c.pop()
		if ok || err != nil {
			return b, err
		}
		select {
		case <-c.filled:
		case <-c.done:
		case <-c.ctx.Done():
		}
	}
}

// pop takes the next message if there is one, and gives credit for it.
func (c *clientCall) pop() (b []byte, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.outcome != nil:
		return nil, false, c.outcome
	case len(c.queue) == 0:
		return nil, false, c.status
	}
	b = c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	c.owed += int64(len(b)) + messageCost
	if c.status == nil && c.desc.ServerStreams && 2*c.owed >= int64(c.socket.conn.opts.Window) {
		c.mayRecv += c.owed
		c.socket.send(&frame{call: c.number, credit: uint32(c.owed)})
		c.owed = 0
	}
	return b, true, nil
}
