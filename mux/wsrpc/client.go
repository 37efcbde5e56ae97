package wsrpc

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/socket"
)

// DialOptions are the options of a ClientConn. Zero means the default of each.
type DialOptions struct {
	// TLSConfig is for wss URLs. Nil means the defaults of crypto/tls. NextProtos of
	// it do not count: a WebSocket needs HTTP/1.1.
	TLSConfig *tls.Config

	// Header is sent with each handshake, and is metadata of every call.
	Header http.Header

	// NetDialContext makes the connections. Nil means those of package net. No proxy
	// is asked, and no redirect followed.
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// PerRPCCredentials adds metadata to each call, before that of the call option
	// grpc.PerRPCCredentials and of the context. Dial refuses credentials that
	// require transport security at a ws URL.
	PerRPCCredentials credentials.PerRPCCredentials

	// JSON makes the frames text, which people can read, instead of protobuf.
	JSON bool

	// Window is how many bytes of answers may wait for the receiver of each call,
	// one message more apart. Zero means 65 536.
	Window uint32

	// MaxMessageBytes is the size of the largest answer taken, in the encoding of
	// the frames, at most 2^31-1. Zero means 4 MiB. The call option
	// grpc.MaxCallRecvMsgSize can lower it for a call, and not raise it.
	MaxMessageBytes int

	// Keepalive finds out that the server is gone without a word.
	Keepalive Keepalive

	// Backoff is the time between attempts to connect again; the delays are counted
	// from the failure before. The first comes at once, unless the connection was
	// lost before BaseDelay had passed, or by a close code that may come again
	// (PROTOCOL.md, section 6). Zero means backoff.DefaultConfig, also in a field
	// but Jitter.
	Backoff backoff.Config
}

// Keepalive are the times of a ClientConn's pings.
type Keepalive struct {
	// Interval is how long nothing may be heard of the server until it is pinged.
	// Zero means 30 seconds, less than balancers mostly wait; negative, no pings. A
	// server ends a socket with more than ten a second.
	Interval time.Duration

	// Timeout is how long nothing may be heard after that until the connection is
	// given up. Zero means 20 seconds. Bytes of a message that comes slowly are
	// heard; so is it when the server takes bytes of one that goes out. The status
	// of the calls then says how long the last ping and its answer took.
	Timeout time.Duration
}

const (
	defaultWindow     = 65536   // PROTOCOL.md, section 4
	defaultMaxMessage = 4 << 20 // section 5, and as in grpc-go
	maxClientFrames   = 1024    // of WebSocket, in one message

	// clientConnectTimeout bounds one attempt to connect again, and
	// clientCloseTimeout how long the end of a socket may take.
	clientConnectTimeout = 20 * time.Second
	clientCloseTimeout   = time.Second
)

// ClientConn makes calls over one WebSocket, and connects again when that ends. It
// is safe for concurrent use.
//
// A call waits for the first attempt to connect again. When that has failed, calls fail
// with UNAVAILABLE until another does not, but those made with grpc.WaitForReady. Calls
// in flight when a socket ends fail with the status of the table in PROTOCOL.md, section
// 6; after a goAway those that had not begun fail with UNAVAILABLE at once, and the text
// says that they may be made again. None is repeated.
//
// Call options about codecs, compression and the authority mean nothing here and are
// passed over.
type ClientConn struct {
	url  *url.URL
	opts DialOptions // with defaults filled in

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // readers of sockets, and reconnect; none is added once closed is set

	mu       sync.Mutex
	closed   bool                       // guarded by mu
	state    connectivity.State         // guarded by mu
	changed  chan struct{}              // closed when state changes; guarded by mu
	current  *clientSocket              // that new calls go to, nil unless state is READY; guarded by mu
	sockets  map[*clientSocket]struct{} // all whose readers run; guarded by mu
	failures int                        // attempts to connect that have failed in a row; guarded by mu
	pause    time.Duration              // before the next attempt, at least; guarded by mu
	lost     error                      // why there is no current socket; guarded by mu
}

var _ grpc.ClientConnInterface = (*ClientConn)(nil)

// Dial connects to a server of grpc-ws.v1 at a URL of scheme ws or wss, such as
// "wss://example.com/grpc-ws"; without a path, Path is meant. It returns when the
// server has said hello. ctx ends the attempt, and means nothing afterwards. Nil opts
// are the defaults.
func Dial(ctx context.Context, rawURL string, opts *DialOptions) (*ClientConn, error) {
	u, err := socket.ParseURL(rawURL, Path)
	if err != nil {
		return nil, fmt.Errorf("wsrpc: dial: %w", err)
	}
	c := &ClientConn{url: u, state: connectivity.Connecting, changed: make(chan struct{}), sockets: make(map[*clientSocket]struct{})}
	if opts != nil {
		c.opts = *opts
	}
	if err := c.opts.fill(); err != nil {
		return nil, err
	}
	if creds := c.opts.PerRPCCredentials; creds != nil && creds.RequireTransportSecurity() && u.Scheme != "wss" {
		return nil, errors.New("wsrpc: dial: the credentials require transport security: use wss")
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s, err := c.connect(ctx)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("wsrpc: dial: %w", err)
	}
	c.install(s)
	return c, nil
}

func (o *DialOptions) fill() error {
	o.Header = o.Header.Clone()
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = defaultMaxMessage
	}
	if o.MaxMessageBytes < 0 || o.MaxMessageBytes > math.MaxInt32 {
		return errors.New("wsrpc: dial: MaxMessageBytes is negative, or above 2^31-1")
	}
	if o.Window > maxCredit {
		return errors.New("wsrpc: dial: Window is above 2^31-1")
	}
	if o.Keepalive.Interval == 0 {
		o.Keepalive.Interval = 30 * time.Second
	}
	if o.Keepalive.Timeout == 0 {
		o.Keepalive.Timeout = 20 * time.Second
	}
	if o.Keepalive.Timeout < 0 {
		return errors.New("wsrpc: dial: Keepalive.Timeout is negative")
	}
	b := &o.Backoff
	if *b == (backoff.Config{}) {
		*b = backoff.DefaultConfig
	}
	b.BaseDelay = cmp.Or(b.BaseDelay, backoff.DefaultConfig.BaseDelay)
	b.Multiplier = cmp.Or(b.Multiplier, backoff.DefaultConfig.Multiplier)
	b.MaxDelay = cmp.Or(b.MaxDelay, backoff.DefaultConfig.MaxDelay)
	if b.BaseDelay < 0 || b.MaxDelay < 0 || !(b.Multiplier >= 1) || !(b.Jitter >= 0 && b.Jitter <= 1) {
		return errors.New("wsrpc: dial: Backoff has a negative delay, a Multiplier below 1 or a Jitter that is not in [0, 1]")
	}
	return nil
}

// connect makes a socket and waits for the server's hello.
func (c *ClientConn) connect(ctx context.Context) (*clientSocket, error) {
	ws, err := socket.Dial(ctx, c.url, socket.DialConfig{
		Subprotocol:    Subprotocol,
		Path:           Path,
		MaxFrames:      maxClientFrames,
		TLSConfig:      c.opts.TLSConfig,
		Header:         c.opts.Header,
		NetDialContext: c.opts.NetDialContext,
	})
	if err != nil {
		return nil, err
	}
	s := newClientSocket(c, ws)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		ws.Kill()
		return nil, errClientClosed
	}
	c.sockets[s] = struct{}{}
	c.work.Go(s.read)
	c.mu.Unlock()
	s.greet()
	select {
	case <-s.ready:
		return s, nil
	case <-s.over:
		code, err := s.why()
		c.mu.Lock()
		c.pause = pauseAfter(code)
		c.mu.Unlock()
		return nil, err
	case <-ctx.Done():
		s.end(0, status.FromContextError(ctx.Err()).Err())
		return nil, fmt.Errorf("no hello came from the server: %w", ctx.Err())
	}
}

// install gives new calls to s.
func (c *ClientConn) install(s *clientSocket) {
	c.mu.Lock()
	if !c.closed {
		c.current = s
		c.setStateLocked(connectivity.Ready)
	}
	c.mu.Unlock()
	select {
	case <-s.leaving: // before it was the current one
		c.left(s)
	default:
	}
}

// left is called when s takes no new calls any more.
func (c *ClientConn) left(s *clientSocket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.current != s {
		return
	}
	c.current = nil
	var code int
	code, c.lost = s.why()
	switch young := time.Since(s.born) < c.opts.Backoff.BaseDelay; {
	case young:
		c.failures++
	case mayRepeat(code):
		c.failures = 1
	default:
		c.failures = 0
	}
	c.pause = pauseAfter(code)
	c.setStateLocked(connectivity.Connecting)
	c.work.Go(c.reconnect)
}

// gone is called when the reader of s has ended.
func (c *ClientConn) gone(s *clientSocket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sockets, s)
}

var errClientClosed = status.Error(codes.Canceled, "wsrpc: the client connection is closing")

// Close ends the calls in flight with CANCELLED, and the connection. It returns when
// every goroutine of the ClientConn has ended, at the latest after a second.
func (c *ClientConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClientClosed
	}
	c.setStateLocked(connectivity.Shutdown)
	c.closed = true
	c.current = nil
	sockets := make([]*clientSocket, 0, len(c.sockets))
	for s := range c.sockets {
		sockets = append(sockets, s)
	}
	c.mu.Unlock()
	c.cancel()
	for _, s := range sockets {
		s.end(websocket.CloseNormalClosure, errClientClosed)
	}
	c.work.Wait()
	return nil
}

// pick returns the socket for a new call.
func (c *ClientConn) pick(ctx context.Context, wait bool) (*clientSocket, error) {
	for {
		c.mu.Lock()
		s, closed, lost, changed := c.current, c.closed, c.lost, c.changed
		failed := c.failures > 0
		c.mu.Unlock()
		switch {
		case closed:
			return nil, errClientClosed
		case s != nil:
			return s, nil
		case !wait && failed:
			return nil, status.Errorf(codes.Unavailable, "wsrpc: not connected: %.200v", lost)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}
