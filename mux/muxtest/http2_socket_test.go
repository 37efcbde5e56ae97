package muxtest_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"oneport/mux/internal/xconnect"
	"oneport/mux/internal/xconnect/xconnecttest"
	"oneport/mux/muxtest"
)

func ifEnabled(rs []road) []road {
	if xconnect.Enabled {
		return rs
	}
	return nil
}

// TestHTTP2Sockets runs the suite again where WebSockets may be streams of HTTP/2, on those
// roads.
func TestHTTP2Sockets(t *testing.T) {
	if !xconnect.Enabled {
		pass := map[string]int{}
		for _, r := range streams {
			pass["/"+r.name+"$"] = 25 // each has about 30
		}
		xconnecttest.Again(t, "/over-http2", pass, "-test.skip=^TestRun$")
	}
}

// overHTTP2 dials for WebSockets that are streams, each of a connection of its own.
func overHTTP2(s *muxtest.Server, secure bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		var cfg *tls.Config
		if secure {
			cfg = s.ClientTLS
		}
		c, err := xconnecttest.New(conn, cfg)
		if err != nil {
			return nil, err
		}
		socket, err := c.DialContext(ctx, network, addr)
		return only{socket, c}, err
	}
}

// only is the only stream of a connection, which ends with it.
type only struct {
	net.Conn
	client *xconnecttest.Client
}

func (o only) Close() error {
	err := o.Conn.Close()
	go o.client.Shutdown(context.Background())
	return err
}
