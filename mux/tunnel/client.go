package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/credentials"

	"oneport/mux/internal/socket"
)

// DialOptions are the options of Dial. Zero means the default of each. In a browser
// none can be set: it makes the connection, by rules of its own.
type DialOptions struct {
	// TLSConfig is for wss URLs. Nil means the defaults of crypto/tls. NextProtos of
	// it do not count: a WebSocket needs HTTP/1.1.
	TLSConfig *tls.Config

	// Header is sent with the handshake.
	Header http.Header

	// NetDialContext makes the connection. Nil means one of package net. No proxy is
	// asked, and no redirect followed.
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// closeTimeout bounds how long Close takes, and the server to answer a close frame.
const closeTimeout = time.Second

// Dial opens a tunnel at a URL of scheme ws or wss, such as
// "wss://example.com/grpc-ws-tunnel"; without a path, Path is meant. ctx ends the attempt,
// and means nothing afterwards. Nil opts are the defaults.
//
// The connection is a net.Conn like one of TLS: a Write that has failed, because of a
// deadline say, fails all later ones. Close waits for the server, for a second at most.
func Dial(ctx context.Context, rawURL string, opts *DialOptions) (net.Conn, error) {
	u, err := socket.ParseURL(rawURL, Path)
	if err != nil {
		return nil, fmt.Errorf("tunnel: dial: %w", err)
	}
	if opts == nil {
		opts = new(DialOptions)
	}
	c, err := dial(ctx, u, *opts)
	if err != nil {
		return nil, fmt.Errorf("tunnel: dial: %w", err)
	}
	return c, nil
}

// Credentials tells grpc-go that a connection made by Dial at a wss URL is in TLS, so
// that it may carry credentials of calls; and fails for others. For ws use
// insecure.NewCredentials.
func Credentials() credentials.TransportCredentials { return clientCredentials{} }

type clientCredentials struct{}

func (clientCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, errors.New("tunnel: the WebSocket is not in TLS: use wss, or insecure credentials")
	}
	info := credentials.TLSInfo{State: t.ConnectionState()}
	info.SecurityLevel = credentials.PrivacyAndIntegrity
	return c, info, nil
}

func (clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("tunnel: these credentials are for clients only")
}

func (clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c clientCredentials) Clone() credentials.TransportCredentials { return c }

func (clientCredentials) OverrideServerName(string) error { return nil }
