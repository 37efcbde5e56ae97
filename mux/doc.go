// Package mux serves one gRPC service to every kind of client on one TCP port.
//
// A service registered once answers native gRPC (grpc-go's own transport),
// Connect, gRPC-Web, REST with JSON where its .proto has google.api.http options, gRPC
// over WebSocket, as clients of gRPC-Web have it and as wsrpc does, native gRPC through a
// WebSocket, and a client in the same process, beside
// the plain HTTP handlers of the program; all of it in cleartext and TLS.
//
//	s := mux.NewServer()
//	helloworld.RegisterGreeterServer(s, greeter)
//	s.Handle("GET /about", about)
//	log.Fatal(s.Serve(ln))
//
// # How a connection finds its server
//
// [Server.Serve] splits a listener by the first bytes of each connection: TLS
// is terminated, then native gRPC, WebSocket upgrades and other HTTP go to a
// server each. What is read for that is bounded in bytes and time, and handed on
// with the bare connection. The split is a hint, made once per connection: the
// HTTP servers answer every protocol request by request, by the table in
// protocol.go, since kept-alive and pooled connections mix them. Only a connection
// that began with native gRPC carries nothing else, unless [WithSharedHTTP2] gives
// it to an HTTP server as well.
//
// A WebSocket may be a stream of an HTTP/2 connection (RFC 8441), if the process was
// started with http2xconnect=1 in GODEBUG, at which net/http looks. To all handlers it
// is an upgrade of HTTP/1.1 even so. A socket of the program's own is then a request like
// others: it keeps Shutdown waiting until its handler has closed it.
//
// A WebSocket may be a connection itself (package tunnel): it goes to a split of its
// own, which carries calls only.
//
// # How a request finds its method
//
// Each protocol is an [net/http.Handler] outside and a grpc.ServerStream inside.
// All hand their calls to one dispatcher in this process: no loopback
// connection, no client stub, no second encoding. Interceptors, stats handlers,
// the message limit, deadlines and the panic guard hold there for all protocols
// alike, and for native gRPC by the same values.
//
// # What pages may do
//
// One policy, the origins of [WithAllowedOrigins] beside the server's own, decides
// whose pages may open WebSockets, call by HTTP and read the answers (CORS), and
// send anything that may change something.
//
// # What handlers see of the client
//
// peer.FromContext gives address and TLS state, client certificate included, of
// the connection the client made, whatever the road; http handlers find the
// latter in Request.TLS as usual.
//
// # How it ends
//
// [Server.Shutdown] turns readiness off, stops accepting, lets every call that
// had been accepted finish, tells clients to go (GOAWAY, Connection: close, a
// WebSocket close frame), and returns once all is still.
package mux
