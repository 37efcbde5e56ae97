// Package connectrpc answers the RPC protocols of the web, request by request,
// on any HTTP connection: Connect (POST, GET and streams), gRPC-Web (binary and
// text), and native gRPC where a connection is shared with other requests.
//
// # A bridge
//
// The wire formats are those of connectrpc.com/connect/v2. What this package adds
// is the way from there to the dispatcher: every method of a registry is given to
// a connect server whose handler wraps the connect stream in a [rpc.Stream] and
// calls [rpc.Method.Serve]. So interceptors, stats handlers, deadlines, the
// message limit, the peer, header and trailer rules and the panic guard are those
// of every other protocol. Neither generated connect code nor connect's own
// interceptors are used.
//
//	request ─► Handler ─► (text) ─► connecthttp ─► serve ─► rpc.Method.Serve ─► handler
//	                                     ▲            │
//	                                     └── stream ◄─┘
//
// # What net/http leaves to do
//
// A read of a request body does not end with the context of a call, nor does a
// write: [stream] ends both by deadlines. HTTP/1 lets a handler read or write, one
// after the other, unless told otherwise: streams are told. And what needs no
// flush gets none, so that a unary answer is one write.
package connectrpc
