package xconnect

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// Enabled tells whether net/http announces extended CONNECT to clients: if the process was
// started with http2xconnect=1 in GODEBUG. It looks there when it is initialised, and at the
// environment alone; directives in source files and go.mod do not reach it.
var Enabled = strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1")

// protocolField is where net/http puts the pseudo-header field. No field of HTTP/1 can have
// that name.
const protocolField = ":protocol"

// madeUpKey is the Sec-WebSocket-Key of all requests (the one of RFC 6455 §1.3): it tells a
// server of HTTP/1 that it talks to no web form, and has no place in HTTP/2.
const madeUpKey = "dGhlIHNhbXBsZSBub25jZQ=="

// Is tells whether r has a :protocol and is thus for [Serve].
func Is(r *http.Request) bool { return len(r.Header[protocolField]) > 0 }

// Serve has next answer an extended CONNECT as the upgrade to a WebSocket that it would be
// over HTTP/1.1, or refuses r with a text that names the reason. It returns when next has,
// and when the connection that next may have hijacked is closed; the context of the request
// ends as soon as next returns, as that of an upgrade does.
func Serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if status, text := check(r); status != 0 {
		http.Error(w, text, status)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	res := &response{stream: w, request: r}
	returned := false
	defer func() {
		cancel()
		if res.conn == nil {
			return
		}
		if !returned {
			res.conn.Close() // the panic is to end the stream
		}
		res.conn.wait()
	}()
	next.ServeHTTP(res, upgrade(ctx, r))
	returned = true
	if res.conn == nil && !res.answered {
		res.WriteHeader(http.StatusOK)
	}
}

// check returns status 0 for a request that can become a WebSocket.
func check(r *http.Request) (status int, text string) {
	switch {
	case r.Method != http.MethodConnect:
		return http.StatusBadRequest, "only a CONNECT request has a :protocol (RFC 8441, section 4)"
	case !strings.EqualFold(r.Header.Get(protocolField), "websocket"):
		return http.StatusNotImplemented, "the :protocol of a CONNECT request can only be websocket here"
	case r.ContentLength >= 0:
		return http.StatusBadRequest, "a WebSocket needs its stream: no END_STREAM with the CONNECT request, and no Content-Length (RFC 8441, section 5)"
	}
	return 0, ""
}

// upgrade is r in the terms of HTTP/1.1.
func upgrade(ctx context.Context, r *http.Request) *http.Request {
	u := r.WithContext(ctx)
	u.Method = http.MethodGet
	u.Proto, u.ProtoMajor, u.ProtoMinor = "HTTP/1.1", 1, 1
	u.Header = r.Header.Clone()
	delete(u.Header, protocolField)
	u.Header.Set("Connection", "Upgrade")
	u.Header.Set("Upgrade", "websocket")
	u.Header.Set("Sec-WebSocket-Key", madeUpKey)
	u.Body, u.ContentLength = http.NoBody, 0
	return u
}

// addresses are those of the connection that r has come by.
func addresses(r *http.Request) (local, remote net.Addr) {
	local, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		local = textAddr("")
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return local, net.TCPAddrFromAddrPort(ap)
	}
	return local, textAddr(r.RemoteAddr)
}

// textAddr is an address of which only the text is known.
type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
