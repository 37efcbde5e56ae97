package socket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Upgrade makes a WebSocket of r and runs handler on it, on a goroutine that the
// Server owns; it returns as soon as that has started, and so should the caller.
// The socket ends when handler returns: with the close frame it asked for, else
// with 1000, while draining with 1001, and after a panic with 1011.
//
// protocols are the subprotocols the endpoint knows, best first. A client that
// offers some, but none of these, is refused; without protocols its offer is
// ignored.
//
// A request that cannot be upgraded is answered here, with a text that names the
// cure. The caller must already have judged the request's Origin.
func (s *Server) Upgrade(w http.ResponseWriter, r *http.Request, handler func(*Conn), protocols ...string) {
	protocol, refused := check(r, protocols)
	if refused != nil {
		s.Refuse(w, r, refused.status, refused.text)
		return
	}
	if !s.enter() {
		w.Header().Set("Retry-After", "5")
		s.Refuse(w, r, http.StatusServiceUnavailable, "this server is going away; connect again in a moment")
		return
	}
	var c *Conn
	wire := newWire(s.cfg)
	defer func() {
		if c != nil {
			return
		}
		// Also if the ResponseWriter panics.
		s.leave(nil)
		if wire.Conn != nil && s.cfg.Ended != nil {
			s.cfg.Ended(r.Context()) // hijacked, and gone before the answer
		}
	}()
	header := http.Header{}
	if protocol != "" {
		header.Set("Sec-Websocket-Protocol", protocol)
	}
	ws, err := s.upgrader.Upgrade(&handover{ResponseWriter: w, wire: wire}, r, header)
	if err != nil {
		// Answered by upgrader.Error, or the client is gone.
		s.cfg.Log.Debug("websocket upgrade failed", "remote", r.RemoteAddr, "err", err)
		return
	}
	c = newConn(s, context.WithoutCancel(r.Context()), ws, wire)
	s.begin(c)
	go s.run(c, handler)
}

// Refuse answers a request that is not to become a WebSocket with the reason, and logs
// that at debug level.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	s.cfg.Log.Debug("websocket refused", "remote", r.RemoteAddr, "path", fmt.Sprintf("%.200s", r.URL.Path), "status", status, "reason", text)
	refusal{status, text}.write(w, r)
}

// check validates a handshake (RFC 6455 §4.2.1) and chooses the subprotocol.
func check(r *http.Request, protocols []string) (protocol string, refused *refusal) {
	keys := r.Header["Sec-Websocket-Key"]
	versions := r.Header["Sec-Websocket-Version"]
	switch {
	case r.ProtoMajor >= 2:
		return "", &refusal{http.StatusUpgradeRequired, "over HTTP/2 a WebSocket begins with an extended CONNECT (RFC 8441), if the server's SETTINGS allow it: else connect with HTTP/1.1, over TLS by ALPN http/1.1"}
	case !r.ProtoAtLeast(1, 1):
		return "", &refusal{http.StatusBadRequest, "WebSocket needs HTTP/1.1"}
	case r.Method != http.MethodGet:
		return "", &refusal{http.StatusMethodNotAllowed, "a WebSocket begins with a GET request"}
	case !Asks(r):
		return "", &refusal{http.StatusUpgradeRequired, "this is a WebSocket endpoint: open it with a WebSocket client, at a ws:// or wss:// URL"}
	case !hasToken(r.Header["Connection"], "upgrade"):
		return "", &refusal{http.StatusBadRequest, "the request lacks Connection: Upgrade; a proxy on the way may have to be told to pass WebSocket on"}
	case len(versions) != 1 || versions[0] != "13":
		return "", &refusal{http.StatusUpgradeRequired, "Sec-WebSocket-Version must be 13"}
	case len(keys) != 1 || !validKey(keys[0]):
		return "", &refusal{http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64, once"}
	case r.ContentLength != 0:
		// What follows the header would be taken for frames.
		return "", &refusal{http.StatusBadRequest, "a WebSocket handshake has no body"}
	}
	offers := tokens(r.Header["Sec-Websocket-Protocol"])
	if len(offers) == 0 || len(protocols) == 0 {
		return "", nil
	}
	for _, p := range protocols {
		if slices.Contains(offers, p) {
			return p, nil
		}
	}
	return "", &refusal{http.StatusBadRequest, "none of the offered subprotocols is known; known: " + strings.Join(protocols, ", ")}
}

// Asks tells whether the client of r wants the protocol changed to WebSocket, maybe among
// others (RFC 9110 §7.8). Whether it may have it is for Upgrade to say.
func Asks(r *http.Request) bool { return hasToken(r.Header["Upgrade"], "websocket") }

// Offers tells whether the client of r offers to speak a subprotocol.
func Offers(r *http.Request, protocol string) bool {
	return slices.Contains(tokens(r.Header["Sec-Websocket-Protocol"]), protocol)
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == 16
}

// hasToken tells whether a header that is a list of tokens has this one, in any
// case of letters.
func hasToken(values []string, token string) bool {
	return slices.ContainsFunc(tokens(values), func(s string) bool { return strings.EqualFold(s, token) })
}

// tokens splits the lines of a header that is a list (RFC 9110 §5.6.1).
func tokens(values []string) []string {
	var list []string
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.Trim(t, " \t"); t != "" {
				list = append(list, t)
			}
		}
	}
	return list
}

// refusal is the answer to a request that cannot be upgraded.
type refusal struct {
	status int
	text   string
}

func (f refusal) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch f.status {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusUpgradeRequired:
		h.Set("Sec-WebSocket-Version", "13")
		if r.ProtoMajor < 2 { // RFC 9113 §8.2.2 forbids both fields
			h.Set("Upgrade", "websocket")
			h.Set("Connection", "Upgrade")
		}
	}
	http.Error(w, f.text, f.status)
}

// handover lets gorilla's Upgrader take a connection over by way of a wire.
type handover struct {
	http.ResponseWriter
	wire *wire
}

var _ http.Hijacker = (*handover)(nil)

func (h *handover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// gorilla hangs up on a client whose first frames came together with the
	// handshake.
	if n := brw.Reader.Buffered(); n > 0 {
		early, _ := brw.Reader.Peek(n)
		h.wire.early = bytes.Clone(early)
		brw.Reader.Discard(n)
	}
	h.wire.attach(bare(conn))
	return h.wire, bufio.NewReadWriter(h.wire.in, brw.Writer), nil
}

// bare strips the wrappers of a connection that say, by NetConn, that they are
// of no more use: with them a socket would have a larger stack and no writev.
func bare(conn net.Conn) net.Conn {
	for {
		if _, ok := conn.(*tls.Conn); ok {
			return conn // beneath it lies the ciphertext
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		inner := wrapper.NetConn()
		if inner == nil || inner == conn {
			return conn // still needed
		}
		conn = inner
	}
}
