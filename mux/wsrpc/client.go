package wsrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	// TLSConfig is for wss URLs. Nil means the defaults of crypto/tls. ALPN is left
	// to it: a WebSocket needs HTTP/1.1.
	TLSConfig *tls.Config

	// Header is sent with each handshake, and is metadata of every call.
	Header http.Header

	// NetDialContext makes the connections. Nil means those of package net. No proxy
	// is asked.
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
	// the frames. Zero means 4 MiB. The call option grpc.MaxCallRecvMsgSize can lower
	// it for a call, and not raise it.
	MaxMessageBytes int

	// Keepalive finds out that the server is gone without a word.
	Keepalive Keepalive

	// Backoff is the time between attempts to connect again. The first comes at
	// once, unless the connection was lost before BaseDelay had passed; the delays
	// are counted from the failure before. Zero means backoff.DefaultConfig.
	Backoff backoff.Config
}

// Keepalive are the times of a ClientConn's pings.
type Keepalive struct {
	// Interval is how long nothing may be heard of the server until it is pinged.
	// Zero means 30 seconds, less than balancers mostly wait; negative, no pings.
	Interval time.Duration

	// Timeout is how long nothing may be heard after that until the connection is
	// given up. Zero means 20 seconds.
	Timeout time.Duration
}

const (
	defaultWindow     = 65536   // PROTOCOL.md, section 4
	defaultMaxMessage = 4 << 20 // section 5, and as in grpc-go

	// clientConnectTimeout bounds one attempt to connect again, and
	// clientCloseTimeout how long the end of a socket may take.
	clientConnectTimeout = 20 * time.Second
	clientCloseTimeout   = time.Second
)

// ClientConn makes calls over one WebSocket, and connects again when that ends. It
// is safe for concurrent use.
//
// A call fails with UNAVAILABLE while there is no connection, unless it is made with
// grpc.WaitForReady. Calls in flight when a socket ends fail with the status of the
// table in PROTOCOL.md, section 6; after a goAway those that had not begun fail with
// UNAVAILABLE at once. None is repeated.
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
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = defaultMaxMessage
	}
	if o.MaxMessageBytes < 0 {
		return errors.New("wsrpc: dial: MaxMessageBytes is negative")
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
	if o.Backoff == (backoff.Config{}) {
		o.Backoff = backoff.DefaultConfig
	}
	return nil
}

// connect makes a socket and waits for the server's hello.
func (c *ClientConn) connect(ctx context.Context) (*clientSocket, error) {
	ws, err := socket.Dial(ctx, c.url, socket.DialConfig{
		Subprotocol:    Subprotocol,
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
		ws.NetConn().Close()
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
		return nil, s.ended
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
	c.lost = s.why()
	c.failures++
	if time.Since(s.born) >= c.opts.Backoff.BaseDelay {
		c.failures = 0
	}
	c.setStateLocked(connectivity.Connecting)
	c.work.Go(c.reconnect)
}

// gone is called when the reader of s has ended.
func (c *ClientConn) gone(s *clientSocket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sockets, s)
}

// reconnect makes the next socket. It is started by left, and ended by success or
// Close.
func (c *ClientConn) reconnect() {
	for {
		c.mu.Lock()
		failures := c.failures
		c.mu.Unlock()
		if failures > 0 {
			c.setState(connectivity.TransientFailure)
			t := time.NewTimer(backoffDelay(c.opts.Backoff, failures))
			select {
			case <-t.C:
			case <-c.ctx.Done():
				t.Stop()
				return
			}
			c.setState(connectivity.Connecting)
		}
		ctx, cancel := context.WithTimeout(c.ctx, clientConnectTimeout)
		s, err := c.connect(ctx)
		cancel()
		if err == nil {
			c.install(s)
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.failures++
		c.lost = err
		c.mu.Unlock()
	}
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
		c.mu.Unlock()
		switch {
		case closed:
			return nil, errClientClosed
		case s != nil:
			return s, nil
		case !wait:
			return nil, status.Errorf(codes.Unavailable, "wsrpc: not connected: %.200v", lost)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}
