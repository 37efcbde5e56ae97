package wsrpc

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// Path is where a Handler belongs: it and everything below it.
const Path = "/grpc-ws"

// defaultMethod answers at Path itself, the shortest way to a first call.
const defaultMethod = "/helloworld.Greeter/SayHello"

// Handler upgrades requests for /grpc-ws/{service}/{method} and runs that method
// on the WebSocket, in this process; at /grpc-ws, for clients that offer grpc-ws.v1,
// any number of calls. The Origin of a request must have been judged, and its context
// must carry the peer.
type Handler struct {
	reg     *rpc.Registry
	sockets *socket.Server
	bench   bench

	farTooLarge []byte // how a call of grpc-websockets ends (web.go)
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns a Handler for the methods of reg. sockets owns the
// connections: shutting it down ends them.
func NewHandler(reg *rpc.Registry, sockets *socket.Server) *Handler {
	h := &Handler{reg: reg, sockets: sockets, farTooLarge: farTooLarge(reg.MaxMessageBytes())}
	context.AfterFunc(sockets.Draining(), h.bench.close)
	return h
}

// ServeHTTP answers what is not a call with the reason, before any upgrade: 404
// for an unknown method, 400 for headers that cannot be metadata or for a
// subprotocol that is not spoken there, and 426 for a request that is no upgrade.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, Path)
	unnamed := name == "" || name == "/"
	if unnamed {
		if offersSubprotocol(r) {
			h.serveCalls(w, r)
			return
		}
		name = defaultMethod
	}
	method, err := h.reg.Lookup(name)
	if err != nil {
		why := status.Convert(err).Message()
		if strings.LastIndexByte(name, '/') < 1 {
			why = "no method is named here"
		}
		h.sockets.Refuse(w, r, http.StatusNotFound, why+"; "+h.known(name))
		return
	}
	shake, err := newHandshake(r)
	if err != nil {
		h.sockets.Refuse(w, r, http.StatusBadRequest, status.Convert(err).Message())
		return
	}
	if offersSubprotocol(r) {
		// A browser would drop a socket that agrees to none of its offers.
		text := fmt.Sprintf("no subprotocol is spoken here: connect without one, or to %s with %s", Path, Subprotocol)
		h.sockets.Refuse(w, r, http.StatusBadRequest, text)
		return
	}
	h.sockets.Upgrade(w, r, func(c *socket.Conn) {
		s := newSession(c, method, shake)
		s.unnamed = unnamed
		s.run()
	})
}

// known tells a client that has named an unknown method of those that there are: the methods
// of its service, unless the server does not tell of methods, or else the services.
func (h *Handler) known(name string) string {
	service := strings.TrimPrefix(path.Dir(name), "/")
	if methods := h.reg.MethodsOf(service); len(methods) > 0 && h.reg.Reflects() {
		return fmt.Sprintf("it has: %s", strings.Join(methods, ", "))
	}
	return fmt.Sprintf("use %s/{service}/{method} with one of these services: %s", Path, strings.Join(h.reg.Services(), ", "))
}

// serveCalls begins a socket of grpc-ws.v1.
func (h *Handler) serveCalls(w http.ResponseWriter, r *http.Request) {
	shake, err := newHandshake(r)
	if err != nil {
		h.sockets.Refuse(w, r, http.StatusBadRequest, status.Convert(err).Message())
		return
	}
	h.sockets.Upgrade(w, r, func(c *socket.Conn) {
		newMultiplexer(c, h.reg, shake, &h.bench).read(c)
	}, Subprotocol)
}

func offersSubprotocol(r *http.Request) bool {
	return strings.Trim(strings.Join(r.Header["Sec-Websocket-Protocol"], ","), ", \t") != ""
}

// handshake is what the request that becomes a socket says of the calls on it.
type handshake struct {
	metadata metadata.MD // only read
	timeout  time.Duration
	peer     *peer.Peer
}

// newHandshake reads a request. The error is safe for the client.
func newHandshake(r *http.Request) (*handshake, error) {
	md, err := rpc.RequestMetadata(r.Header, r.Host)
	if err != nil {
		return nil, err
	}
	h := &handshake{metadata: md}
	if v := r.Header.Get("Grpc-Timeout"); v != "" {
		if h.timeout, err = rpc.ParseTimeout(v); err != nil {
			return nil, err
		}
	}
	var ok bool
	if h.peer, ok = peer.FromContext(r.Context()); !ok {
		h.peer = &peer.Peer{}
	}
	return h, nil
}

// call makes a call of what the handshake says alone.
func (h *handshake) call() *rpc.Call {
	return &rpc.Call{Metadata: h.metadata, Timeout: h.timeout, Peer: h.peer}
}
