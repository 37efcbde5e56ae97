package rpc

import (
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Conn is a client of a Registry in the same process. It is safe for concurrent
// use and needs no closing; Shutdown belongs to the server.
//
// Caller and handler are as strangers as over a network: they share no message,
// no metadata and no context value, only cancellation and the deadline.
type Conn struct {
	reg *Registry

	mu      sync.Mutex
	running map[*clientStream]struct{} // handlers on goroutines of their own; guarded by mu
	closed  bool                       // guarded by mu
	idle    chan struct{}              // closed once closed is set and running is empty
}

var _ grpc.ClientConnInterface = (*Conn)(nil)

// NewConn returns a Conn on reg.
func NewConn(reg *Registry) *Conn {
	return &Conn{reg: reg, running: make(map[*clientStream]struct{}), idle: make(chan struct{})}
}

// Invoke runs a unary call. The handler runs on the caller's goroutine, so
// Invoke returns when the handler does, also when ctx has ended before; the
// status then says so.
func (c *Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) (err error) {
	o := inProcessOptions(opts)
	defer func() { o.Finish(err) }()
	m, call, err := c.begin(ctx, method, o)
	if err != nil {
		return err
	}
	if c.isClosed() {
		return errClosed
	}
	s := &invocation{args: args, reply: reply, opts: o}
	trailer, err := m.Serve(handlerContext{ctx}, call, s)
	o.SetMetadata(s.header, trailer)
	if err == nil && !s.replied {
		return status.Errorf(codes.Internal, "%s ended OK without an answer", method)
	}
	return err
}

// begin finds the method and makes the Call of it.
func (c *Conn) begin(ctx context.Context, method string, o *CallOptions) (*Method, *Call, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, status.FromContextError(err).Err()
	}
	m, err := c.reg.Lookup(method)
	if err != nil {
		return nil, nil, err
	}
	out, _ := metadata.FromOutgoingContext(ctx) // a copy
	if err := validate(out); err != nil {
		return nil, nil, err
	}
	var creds metadata.MD
	if o.Creds != nil {
		// What a network would have told them.
		creds, err = CredentialsMetadata(ctx, o.Creds, address{}.String(), method, authInfo{}, codes.Internal)
		if err != nil {
			return nil, nil, err
		}
	}
	return m, &Call{Metadata: dropReserved(metadata.Join(creds, out)), Peer: inProcessPeer}, nil
}

// invocation is the Stream of a call made by Invoke: one message each way,
// copied without encoding.
type invocation struct {
	args, reply any
	opts        *CallOptions
	header      metadata.MD
	sent        bool
	replied     bool
}

func (s *invocation) RecvMsg(_ context.Context, m any) (int, error) {
	if s.sent {
		return 0, io.EOF
	}
	s.sent = true
	return copyMessage(m, s.args, s.opts.CheckSend)
}

func (s *invocation) SendHeader(md metadata.MD) error {
	s.header = md
	return nil
}

func (s *invocation) SendMsg(_ context.Context, m any) (int, error) {
	if s.replied {
		return 0, status.Error(codes.Internal, "a unary call got a second answer")
	}
	s.replied = true
	return copyMessage(s.reply, m, s.opts.CheckRecv)
}

// copyMessage makes dst a deep copy of src and returns the encoded size, which
// check has approved. Messages of one type are copied field by field; for
// others (a dynamic message and a generated one) the encoding is the bridge.
func copyMessage(dst, src any, check func(int) error) (int, error) {
	d, err := MessageOf(dst)
	if err != nil {
		return 0, status.Error(codes.Internal, err.Error())
	}
	s, err := source(src)
	if err != nil {
		return 0, status.Error(codes.Internal, err.Error())
	}
	size := proto.Size(s)
	if err := check(size); err != nil {
		return 0, err
	}
	if d.ProtoReflect().Descriptor() == s.ProtoReflect().Descriptor() {
		proto.Reset(d)
		proto.Merge(d, s)
		return size, nil
	}
	b, err := proto.Marshal(s)
	if err == nil {
		err = proto.Unmarshal(b, d)
	}
	if err != nil {
		return 0, status.Error(codes.Internal, err.Error())
	}
	return size, nil
}

// Shutdown refuses new calls with UNAVAILABLE and waits for the handlers of the
// streams that run. Those that still do when ctx ends are cancelled, their
// callers get UNAVAILABLE, and Shutdown returns the error of ctx at once; called
// again, it waits for what is left of them. Calls by Invoke run on goroutines of
// the callers, who wait for them.
func (c *Conn) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.closeIdleLocked()
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	running := slices.Collect(maps.Keys(c.running))
	c.mu.Unlock()
	if len(running) == 0 {
		return nil
	}
	for _, s := range running {
		s.cancel(errClosed)
	}
	return ctx.Err()
}

func (c *Conn) closeIdleLocked() {
	if c.closed && len(c.running) == 0 {
		close(c.idle)
	}
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Conn) add(s *clientStream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running[s] = struct{}{}
	return true
}

func (c *Conn) remove(s *clientStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, s)
	c.closeIdleLocked()
}

// handlerContext is a caller's context as its handler may see it: it ends with
// the caller's but carries none of its values.
type handlerContext struct{ context.Context }

func (handlerContext) Value(any) any { return nil }

// AfterFunc spares package context a goroutine for each context that is derived
// from this one (see context.AfterFunc).
func (c handlerContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.Context, f)
}

// inProcessOptions reads the options of a call. It need not wait for a connection.
func inProcessOptions(opts []grpc.CallOption) *CallOptions {
	o := NewCallOptions(opts, DefaultMaxMessageBytes)
	o.SetPeer(inProcessPeer)
	return o
}

// inProcessPeer is the client that handlers of calls in process see.
var inProcessPeer = &peer.Peer{Addr: address{}, LocalAddr: address{}, AuthInfo: authInfo{}}

type address struct{}

var _ net.Addr = address{}

func (address) Network() string { return "inprocess" }
func (address) String() string  { return "inprocess" }

// authInfo says that nothing can listen in.
type authInfo struct{}

func (authInfo) AuthType() string { return "inprocess" }

func (authInfo) GetCommonAuthInfo() credentials.CommonAuthInfo {
	return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
}
