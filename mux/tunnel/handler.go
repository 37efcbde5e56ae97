package tunnel

import (
	"net"
	"net/http"

	"google.golang.org/grpc/peer"

	"oneport/mux/internal/socket"
)

// Handler makes connections of WebSockets. The Origin of a request must have been
// judged, and its context must carry the peer.
type Handler struct {
	sockets *socket.Server
	accept  func(net.Conn) bool
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns a Handler that gives each connection to accept, which is to take
// it without waiting for what the client sends; or to return false if it takes none,
// since the server goes away. Whoever has it closes it. sockets owns the WebSockets:
// shutting it down waits for the connections, and cuts them at the end of its time.
func NewHandler(sockets *socket.Server, accept func(net.Conn) bool) *Handler {
	return &Handler{sockets: sockets, accept: accept}
}

// ServeHTTP answers what is not a handshake with the reason.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in, out := net.Pipe()
	c := &serverConn{reader: reader{in: in}, writing: make(turn, 1)}
	if p, ok := peer.FromContext(r.Context()); ok {
		c.local, c.remote = p.LocalAddr, p.Addr
	}
	var conn net.Conn = c
	if r.TLS != nil {
		conn = &tlsServerConn{c, *r.TLS}
	}
	h.sockets.Upgrade(w, r, func(ws *socket.Conn) {
		c.ws = ws
		if !h.accept(conn) {
			ws.CloseWith(socket.CloseGoingAway, "server is shutting down")
			return
		}
		c.run(out)
	}, Subprotocol)
}
