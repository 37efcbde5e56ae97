package socket

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/gorilla/websocket"
)

// What clients of the endpoints have in common. A client reads by gorilla, which checks
// what comes, and writes past it, by MaskFrame.

// ParseURL parses the URL of a WebSocket. path stands in for one that is missing.
func ParseURL(rawURL, path string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("the scheme of %.200q is neither ws nor wss", rawURL)
	}
	if u.Path == "" {
		u.Path = path
	}
	return u, nil
}

// DialConfig tells Dial what is not in the URL.
type DialConfig struct {
	Subprotocol    string      // which the server must speak
	TLSConfig      *tls.Config // for wss; may be nil
	Header         http.Header // of the handshake, beside its own; may be nil
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// clientWrites are the buffers gorilla would write from.
var clientWrites sync.Pool

// Dial opens a WebSocket. ctx ends the attempt, and means nothing afterwards. Without
// NetDialContext the connection is one of package net.
func Dial(ctx context.Context, u *url.URL, cfg DialConfig) (*websocket.Conn, error) {
	dial := cfg.NetDialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	// gorilla knows of deadlines only, once it is connected.
	var stop func() bool
	d := websocket.Dialer{
		Subprotocols:    []string{cfg.Subprotocol},
		TLSClientConfig: cfg.TLSConfig,
		WriteBufferPool: &clientWrites,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err == nil {
				stop = context.AfterFunc(ctx, func() { conn.Close() })
			}
			return conn, err
		},
	}
	ws, resp, err := d.DialContext(ctx, u.String(), cfg.Header)
	if stop != nil && !stop() && err == nil {
		ws.Close()
		return nil, ctx.Err()
	}
	if err != nil && resp != nil {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // of what gorilla has read
		return nil, fmt.Errorf("the server answered %q: %.200q", resp.Status, text)
	}
	if err != nil {
		return nil, err
	}
	if ws.Subprotocol() != cfg.Subprotocol {
		ws.Close()
		return nil, fmt.Errorf("the server does not speak %s", cfg.Subprotocol)
	}
	return ws, nil
}

// MaxClientHeader is the length of the longest header of a client's frame, with the key.
const MaxClientHeader = 14

// MaskFrame makes a frame of a client of b[start:], where the payload comes after
// MaxClientHeader bytes of room (RFC 6455 §5.2).
func MaskFrame(b []byte, start int, opcode byte) []byte {
	payload := b[start+MaxClientHeader:]
	h := append(b[start:start], 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		h = append(h, 0x80|byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 0x80|126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 0x80|127), uint64(n))
	}
	// The generator is seeded by the system and cannot be predicted, as §5.3 asks.
	var key [64]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	for n := 4; n < len(key); n *= 2 {
		copy(key[n:], key[:n])
	}
	h = append(h, key[:4]...)
	for p := payload; len(p) > 0; {
		p = p[subtle.XORBytes(p, p, key[:]):]
	}
	n := copy(b[start+len(h):], payload)
	return b[:start+len(h)+n]
}
