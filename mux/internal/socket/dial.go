package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// ParseURL parses the URL of a WebSocket. path stands in for one that is missing, or that
// is what libraries make of a missing one.
func ParseURL(rawURL, path string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The text of err has the URL, and that may have a password.
		return nil, fmt.Errorf("the URL is malformed: %w", errors.Unwrap(err))
	}
	switch {
	case u.Scheme == "http" || u.Scheme == "https":
		return nil, fmt.Errorf("the scheme is %s: use %s", u.Scheme, strings.Replace(u.Scheme, "http", "ws", 1))
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, fmt.Errorf("the scheme of %.200q is neither ws nor wss", u.Redacted())
	case u.Host == "":
		return nil, fmt.Errorf("%.200q has no host", u.Redacted())
	case u.User != nil:
		return nil, errors.New("a URL of a WebSocket has no user: set Authorization in DialOptions.Header")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = path
	}
	return u, nil
}

// DialConfig tells Dial what is not in the URL.
type DialConfig struct {
	Subprotocol    string      // which the server must speak
	Path           string      // where it mostly is
	MaxFrames      int         // of one message of the server
	TLSConfig      *tls.Config // for wss; may be nil. NextProtos of it do not count
	Header         http.Header // of the handshake, beside its own; may be nil
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// clientTLS is the configuration for a server with this name.
func clientTLS(cfg *tls.Config, name string) *tls.Config {
	if cfg == nil {
		cfg = new(tls.Config)
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = name
	}
	cfg.NextProtos = []string{"http/1.1"}
	return cfg
}

// clientWriteBuffers is never drawn from, since frames are written past gorilla; with
// it gorilla allocates no write buffer for each socket.
var clientWriteBuffers = new(sync.Pool)

// Dial opens a WebSocket, on which Begin must be called. ctx ends the attempt, and means
// nothing afterwards. Without NetDialContext the connection is one of package net. No
// redirect is followed. The error names the cure of what is wrong, in the words of a
// DialOptions with Header and NetDialContext.
func Dial(ctx context.Context, u *url.URL, cfg DialConfig) (*ClientConn, error) {
	netDial := cfg.NetDialContext
	if netDial == nil {
		netDial = new(net.Dialer).DialContext
	}
	w := &clientWire{check: FrameCheck{MaxFrames: cfg.MaxFrames}}
	// gorilla knows of deadlines only, once it is connected, and its error then is
	// another.
	stop := func() bool { return ctx.Err() == nil }
	dial := func(_ context.Context, network, addr string) (net.Conn, error) {
		raw, err := netDial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		stop = context.AfterFunc(ctx, func() { raw.Close() })
		w.Conn, w.raw = raw, raw
		if u.Scheme == "wss" {
			t := tls.Client(raw, clientTLS(cfg.TLSConfig, u.Hostname()))
			if err := t.HandshakeContext(ctx); err != nil {
				raw.Close()
				return nil, err
			}
			w.Conn = t
		}
		return w, nil
	}
	d := websocket.Dialer{
		Subprotocols:      []string{cfg.Subprotocol},
		NetDialContext:    dial,
		NetDialTLSContext: dial,
		WriteBufferPool:   clientWriteBuffers,
	}
	ws, resp, err := d.DialContext(context.WithoutCancel(ctx), u.String(), cfg.Header)
	if err == nil && (resp.Header.Get(extensionsHeader) != "" || ws.Subprotocol() != cfg.Subprotocol) {
		err = websocket.ErrBadHandshake
		w.raw.Close()
	}
	switch {
	case !stop():
		return nil, fmt.Errorf("the handshake did not end: %w", ctx.Err())
	case err == nil:
		return &ClientConn{ws, w}, nil
	case w.shook >= maxHandshake: // which gorilla takes for malformed
		return nil, errHandshakeTooLarge
	case resp != nil:
		return nil, answerError(resp, u, cfg)
	default:
		return nil, dialError(err, w.first)
	}
}

// extensionsHeader says which extensions the server has turned on. None is offered;
// gorilla would turn compression on, with no limit to what a message may become.
const extensionsHeader = "Sec-Websocket-Extensions"

// answerError tells what is wrong with an answer to the handshake, and the cure.
func answerError(resp *http.Response, u *url.URL, cfg DialConfig) error {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if ext := resp.Header.Get(extensionsHeader); ext != "" {
			return fmt.Errorf("the server has turned on what was not offered: %.100q", ext)
		}
		if got := resp.Header.Get("Sec-Websocket-Protocol"); got != cfg.Subprotocol {
			return fmt.Errorf("the server does not speak %s at %.100q, but %.100q; mostly it is at %s", cfg.Subprotocol, u.Path, got, cfg.Path)
		}
		return errors.New("the answer to the handshake is not that of a WebSocket; a proxy on the way may have to be told to pass it on")
	}
	cure := "what answers there is no WebSocket server, or a proxy on the way does not pass WebSocket on"
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		cure = fmt.Sprintf("redirects are not followed: dial %.200q if you trust it", resp.Header.Get("Location"))
	case code == http.StatusBadRequest:
		cure = "the text says what is wrong with URL or DialOptions.Header"
	case code == http.StatusUnauthorized:
		cure = "it wants credentials in DialOptions.Header"
	case code == http.StatusForbidden:
		cure = "it takes neither the credentials nor the Origin in DialOptions.Header"
	case code == http.StatusNotFound:
		cure = fmt.Sprintf("nothing is at %.100q; mostly %s is at %s", u.Path, cfg.Subprotocol, cfg.Path)
	case code == http.StatusProxyAuthRequired:
		cure = "proxies are not asked: connect through them by DialOptions.NetDialContext"
	case code == http.StatusTooManyRequests || code >= 500:
		cure = "try again later"
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // of what gorilla has read
	return fmt.Errorf("the server answered %.100q: %q; %s", resp.Status, text, cure)
}

// dialError names the cure where what answered does not speak HTTP. first is the first
// byte that came, unless that was zero.
func dialError(err error, first byte) error {
	const tlsAlert = 0x15 // RFC 8446 §5.1
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("%w; if the server is in cleartext, use ws", err)
	}
	switch {
	case first == tlsAlert:
		return errors.New("the server speaks TLS: use wss")
	case strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("what answers there does not speak HTTP/1.1: %.200w", err)
	}
	return err
}
