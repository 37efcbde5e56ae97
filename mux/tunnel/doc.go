// Package tunnel carries a connection through a WebSocket: a client that can open
// nothing else, such as a Go program in a browser, talks native gRPC through it, or
// HTTP/2 of any other kind.
//
//	cc, err := grpc.NewClient("passthrough:///example.com",
//		grpc.WithTransportCredentials(tunnel.Credentials()),
//		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
//			return tunnel.Dial(ctx, "wss://example.com/grpc-ws-tunnel", nil)
//		}))
//
// # The wire
//
// A client opens a WebSocket at /grpc-ws-tunnel (RFC 6455). Of subprotocols it offers
// none, or grpc-ws-tunnel.v1 among others; the server refuses a handshake that offers
// others only.
//
// The payloads of all binary messages from one side, put together in their order, are
// the bytes that this side would have written to a TCP connection. How they are cut
// into messages and frames means nothing, but one message has at most 1 MiB in at
// most 1024 frames. Text is an error.
//
// The first bytes of the client are the preface of HTTP/2 with prior knowledge (RFC
// 9113 §3.4), to which the limits in time of any new connection apply. What follows are
// calls: of native gRPC or, on a connection that does not begin with it, also of Connect
// and gRPC-Web. A tunnel leads neither to pages nor to other WebSockets.
//
// Either side ends the tunnel by a close frame; there is no half-close. Codes:
//
//	1000       closed; all that was written has come before
//	1001       the same, and the server goes away
//	1002       not WebSocket
//	1003       a text message
//	1008       too many frames in a message, or too many pings
//	1009       a message above the limit
//
// # Identity
//
// What is told of the client inside a tunnel, addresses and TLS state with its
// certificate, is of the connection that the WebSocket has come by. Header fields of
// the handshake are for the handshake alone: no call has them.
package tunnel

const (
	// Path is where a tunnel begins.
	Path = "/grpc-ws-tunnel"

	// Subprotocol is what a client may offer to be sure of the other end.
	Subprotocol = "grpc-ws-tunnel.v1"

	maxMessage = 1 << 20  // bytes of a message that is received
	maxFrames  = 1024     // of one
	maxWrite   = 32 << 10 // and of one that is sent, as many as grpc-go writes at once
)

// isEnd tells whether a close frame with this code is the end of the stream of the
// side that has sent it: 1005 stands for a frame without a code.
func isEnd(code int) bool { return code == 1000 || code == 1001 || code == 1005 }
