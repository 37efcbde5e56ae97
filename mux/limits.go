package mux

import (
	"context"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"oneport/mux/internal/xconnect"
)

// Limits of the servers behind the split. An idle HTTP/2 connection is kept much
// longer than one of HTTP/1: gRPC channels are made to stand idle, and pings
// tell the dead ones from the quiet.
const (
	http1IdleTimeout   = 2 * time.Minute
	upgradeIdleTimeout = 30 * time.Second
	http2IdleTimeout   = 15 * time.Minute
	readHeaderTimeout  = 5 * time.Second
	maxHeaderBytes     = 16 << 10
	pingAfter          = time.Minute
	pingTimeout        = 20 * time.Second
	writeStall         = 10 * time.Second

	// What clients of HTTP/2 are told, whichever server they reach.
	maxStreams    = 100                    // of one connection at once
	maxFrame      = 16 << 10               // grpc-go knows no other
	headerTable   = 4 << 10                // likewise
	maxHeaderList = maxHeaderBytes + 10*32 // what net/http makes of the former
	streamWindow  = 256 << 10              // what a client may send on, of one stream
	connWindow    = 1 << 20                // and of one connection, before anybody has read it
)

// http2Settings is what both servers announce to every client.
func http2Settings() []http2.Setting {
	return []http2.Setting{
		{ID: http2.SettingMaxFrameSize, Val: maxFrame},
		{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
		{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
		{ID: http2.SettingHeaderTableSize, Val: headerTable},
		{ID: http2.SettingInitialWindowSize, Val: streamWindow},
	}
}

// earlySettings is what the split may announce before it knows to which of them
// the client goes. With options of the program nobody knows what grpc-go will
// announce, and a client must not be granted what the server then denies it.
//
// Extended CONNECT is announced even so, since clients may look for that in the first
// SETTINGS alone (Go's do). It comes from net/http, and grpc-go refuses it as it does all
// that is not gRPC.
func (s *Server) earlySettings() []http2.Setting {
	var settings []http2.Setting
	if len(s.cfg.grpcOptions) == 0 || s.cfg.sharedHTTP2 {
		settings = http2Settings()
	}
	if xconnect.Enabled {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	return settings
}

// grpcDefaults are the limits of native gRPC; grpc-go's own are without bound
// for streams and headers, and it keeps dead connections for ever.
func grpcDefaults() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.HeaderTableSize(headerTable),
		// Static: left to itself grpc-go raises the window of every stream to
		// 16 MiB for a client that is fast enough, also where nobody reads.
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ConnectionTimeout(readHeaderTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: http2IdleTimeout, Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// newHTTPServer makes a server that finds HTTP/1 and HTTP/2 in the clear: the
// split has taken TLS away, where there was any.
func (s *Server) newHTTPServer(h http.Handler, idle time.Duration) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReadFrameSize:              maxFrame,
			MaxDecoderHeaderTableSize:     headerTable,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              writeStall,
		},
		// Else a handler over HTTP/1 that does not read when Close comes never
		// learns that its connection has ended.
		BaseContext: func(net.Listener) context.Context { return s.cut },
		ConnContext: s.connContext,
		ConnState:   s.connState,
		ErrorLog:    newHTTPLog(s.log),
	}
}
