package muxtest

import (
	"context"
	"net"
	"sync"
)

// The ends of every connection. They look as on a network, for handlers that
// take addresses apart, and are of a block that is never in use (RFC 5737).
var (
	serverAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	clientAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 50000}
)

// listener accepts connections in memory. grpc's test/bufconn would do but for two
// things. Its error at a deadline does not call itself temporary, so that
// crypto/tls gives up each connection which net/http hands over. And every dial
// and every deadline in the past sets a timer that fires at once: where two
// goroutines do so in one bubble, the race detector crashes (Go 1.26.8).
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

var _ net.Listener = (*listener)(nil)

func newListener() *listener {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.close()
	return nil
}

func (l *listener) Addr() net.Addr { return serverAddr }

// dial waits for Accept.
func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	up, down := newPipe(), newPipe()
	select {
	case l.conns <- &conn{in: up, out: down, local: serverAddr, remote: clientAddr}:
		return &conn{in: down, out: up, local: clientAddr, remote: serverAddr}, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
