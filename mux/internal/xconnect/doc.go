// Package xconnect runs WebSocket handlers made for HTTP/1.1 on streams of HTTP/2
// (RFC 8441).
//
// A client that wants a WebSocket on an HTTP/2 connection sends a CONNECT request with
// the pseudo-header field :protocol, an extended CONNECT; with the answer 200 its stream
// becomes what a TCP connection is after an upgrade. Handlers know nothing of that: they
// check the header of an upgrade, call Hijack, write "HTTP/1.1 101 Switching Protocols" to
// the connection, and have it to themselves. [Serve] shows them such a request and such a
// connection.
//
//	CONNECT, :protocol: websocket ─► GET, Upgrade: websocket, a Sec-WebSocket-Key
//	200 ◄─ HTTP/1.1 101, without the fields of the upgrade
//	DATA ◄─► Read and Write of the connection
//	END_STREAM ◄─ Close
//
// A handler that refuses does so with the ResponseWriter, as it always did.
//
// # Where a stream is no connection
//
// The stream ends when its handler returns, so the goroutine of the request stays until
// the connection is closed. Closing it ends both directions, since net/http cannot end one.
// A Read or Write that its deadline has cut cannot be repeated, as over TLS a Write cannot:
// later ones fail as well. Deadlines that pass between two of them do nothing.
package xconnect
