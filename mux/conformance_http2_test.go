package mux_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"oneport/mux"
	"oneport/mux/internal/socket/sockettest"
	"oneport/mux/internal/xconnect/xconnecttest"
)

// The WebSocket cases on streams of HTTP/2 (RFC 8441), by clients that know nothing of
// that.

// streams returns a client whose WebSockets are streams of one connection.
func (p *port) streams(secure bool) *xconnecttest.Client {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	var cfg *tls.Config
	if secure {
		cfg = p.clientTLS.Clone()
		cfg.ServerName = "localhost"
	}
	c, err := xconnecttest.New(conn, cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// streamDialer is dialer for WebSockets on streams of one connection.
func streamDialer(t testing.TB, c *xconnecttest.Client) func() net.Conn {
	return func() net.Conn {
		conn, err := c.DialContext(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func TestWebSocketConformanceHTTP2(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	p := start(t, both, services, mux.WithMaxMessageBytes(conformanceLimit))
	for scheme, secure := range schemes {
		c := p.streams(secure)
		for name, e := range endpoints {
			t.Run(name+" "+scheme, func(t *testing.T) { sockettest.Run(t, e, streamDialer(t, c)) })
		}
	}
	if n := p.accepted.Load(); n != 2 {
		t.Errorf("%d connections for all cases, want 1 for each scheme", n)
	}
}
