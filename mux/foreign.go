package mux

import (
	"log/slog"
	"net"
	"sync/atomic"
)

// foreignRequests counts the connections of native gRPC on which grpc-go has refused
// a request that was none of gRPC. A client that does so on purpose is rare; a proxy
// that puts the requests of several clients on one connection does it all the time,
// and those clients see 415 or 405 for what the server could well answer.
type foreignRequests struct {
	conns atomic.Int64
	log   *slog.Logger
}

// note is called for each such connection. Only the first is worth a warning: the
// cure is the same for all.
func (f *foreignRequests) note(remote net.Addr) {
	n := f.conns.Add(1)
	if n > 1 {
		f.log.Debug("another request on a connection of native gRPC was refused", "remote", remote, "connections", n)
		return
	}
	f.log.Warn("a connection that began with native gRPC brought another request, which was refused with 415 or 405: "+
		"behind proxies that pool connections use mux.WithSharedHTTP2 (command: --http2 shared)", "remote", remote)
}
