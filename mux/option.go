package mux

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux/internal/rpc"
)

// Option configures a Server. Options are applied in order by NewServer, which
// panics on a value that cannot be right.
type Option func(*config)

type config struct {
	tls          *tls.Config
	cleartext    bool
	rpc          rpc.Config
	origins      []string
	sniffTimeout time.Duration
	sharedHTTP2  bool
	grpcOptions  []grpc.ServerOption
	openAPI      bool
	descriptors  *descriptorpb.FileDescriptorSet // nil for none
	log          *slog.Logger
}

// defaultSniffTimeout is how long a new connection may take to show what it
// speaks, and a TLS one to shake hands and then show it.
const defaultSniffTimeout = 3 * time.Second

// WithTLSConfig makes the server terminate TLS. Cleartext connections are then
// refused, GET and HEAD requests redirected to https, unless WithCleartext is
// given as well. The server works on a copy, in which "h2" and "http/1.1" are
// added to NextProtos where missing: grpc-go refuses a server without the first,
// browsers open WebSockets over the second. Nil means no TLS, the default.
func WithTLSConfig(cfg *tls.Config) Option {
	return func(c *config) {
		if cfg == nil {
			c.tls = nil
			return
		}
		c.tls = cfg.Clone()
		for _, proto := range []string{"h2", "http/1.1"} {
			if !slices.Contains(c.tls.NextProtos, proto) {
				c.tls.NextProtos = append(slices.Clip(c.tls.NextProtos), proto)
			}
		}
	}
}

// WithCleartext serves cleartext beside TLS, on the same port. Without
// WithTLSConfig it changes nothing: the server is all cleartext then.
func WithCleartext() Option {
	return func(c *config) { c.cleartext = true }
}

// WithUnaryInterceptor adds an interceptor around the unary calls of every
// protocol. The first one added is outermost.
func WithUnaryInterceptor(i grpc.UnaryServerInterceptor) Option {
	if i == nil {
		panic("mux: WithUnaryInterceptor(nil)")
	}
	return func(c *config) { c.rpc.UnaryInterceptors = append(c.rpc.UnaryInterceptors, i) }
}

// WithStreamInterceptor adds an interceptor around the streaming calls of every
// protocol. The first one added is outermost.
func WithStreamInterceptor(i grpc.StreamServerInterceptor) Option {
	if i == nil {
		panic("mux: WithStreamInterceptor(nil)")
	}
	return func(c *config) { c.rpc.StreamInterceptors = append(c.rpc.StreamInterceptors, i) }
}

// WithStatsHandler adds a handler that sees the calls of every protocol and the
// connections of all. OpenTelemetry's otelgrpc is one. A connection that one of
// the program's HTTP handlers hijacks has ended for it.
func WithStatsHandler(h stats.Handler) Option {
	if h == nil {
		panic("mux: WithStatsHandler(nil)")
	}
	return func(c *config) { c.rpc.StatsHandlers = append(c.rpc.StatsHandlers, h) }
}

// WithAllowedOrigins lets pages of further origins reach this server, beside those
// that this port has served itself: open WebSockets, make calls by Connect, gRPC-Web
// and REST and read their answers (CORS), and send requests that may change
// something, to the program's handlers too. An origin is scheme, host and port as
// a browser sends them, such as "https://app.example.com". "*" allows all, but by
// HTTP without cookies, client certificates and passwords. Handlers of the program answer
// CORS for themselves. Behind a proxy that terminates TLS name the public origin
// here; behind any on the same machine as well, or calls by GET that name its host are
// refused, as those of a page would be that has pointed its own name at this machine.
func WithAllowedOrigins(origins ...string) Option {
	for _, o := range origins {
		if _, err := parseOrigin(o); err != nil && o != "*" {
			panic(fmt.Sprintf("mux: WithAllowedOrigins: %v", err))
		}
	}
	return func(c *config) { c.origins = append(c.origins, origins...) }
}

// WithMaxMessageBytes limits the size of one message that a client sends,
// encoded and before any compression, in every protocol. The default is 4 MiB.
func WithMaxMessageBytes(n int) Option {
	if n <= 0 {
		panic(fmt.Sprintf("mux: WithMaxMessageBytes(%d): want a positive number of bytes", n))
	}
	return func(c *config) { c.rpc.MaxMessageBytes = n }
}

// WithJSON sets how messages are written in JSON, in every protocol that has it:
// EmitUnpopulated also what is at its default, UseProtoNames names as in the .proto
// file, and so on. Multiline and Indent do not count. The default are no options.
//
// They say nothing of what is read, which is as protojson does it with DiscardUnknown: fields
// that the .proto file does not have are ignored, so that an older server serves a newer
// client. That takes in names of enum values, since protojson ignores both or neither: a
// misspelt one leaves its field unset, and its list or map without it. A handler to which
// that matters must refuse the zero value, which should mean "unspecified" (AIP-126). The
// number of a value that is not known is kept, as in the binary format, and in the path and
// the query of REST an unknown name is INVALID_ARGUMENT.
func WithJSON(opts protojson.MarshalOptions) Option {
	return func(c *config) { c.rpc.JSON = opts }
}

// WithOpenAPI serves a description of all registered services to whoever can reach the
// server, as reflection does: /openapi.json is an OpenAPI 3.1 document of what HTTP and
// JSON can call, /descriptors.binpb a google.protobuf.FileDescriptorSet for clients that
// learn of services at run time. Services that are not in protoregistry.GlobalFiles, where
// generated code registers them, are left out.
//
// Generated code has no comments. They come from descriptorSet, a FileDescriptorSet of the
// same .proto files, as "buf build -o FILE" or "protoc --include_source_info
// --descriptor_set_out=FILE" writes it; go:embed is a way to have it in the program. Nil
// means no comments. WithOpenAPI panics if descriptorSet is something else, or has no
// source info. A file in it that declares something else than the program has is not used,
// and the log says so.
func WithOpenAPI(descriptorSet []byte) Option {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(descriptorSet, set); err != nil {
		panic(fmt.Sprintf("mux: WithOpenAPI: want a google.protobuf.FileDescriptorSet, such as buf build -o writes: %v", err))
	}
	commented := func(f *descriptorpb.FileDescriptorProto) bool { return f.SourceCodeInfo != nil }
	if len(set.File) > 0 && !slices.ContainsFunc(set.File, commented) {
		panic("mux: WithOpenAPI: the descriptor set has no comments; make it with protoc --include_source_info, or buf build")
	}
	return func(c *config) { c.openAPI, c.descriptors = true, set }
}

// WithSniffTimeout limits the time in which a new connection must show what it
// speaks; one over TLS has it once for the handshake and what follows. A
// connection that has said nothing by then is closed, but one that has opened
// HTTP/2 and is merely idle is kept. The default is 3 s.
func WithSniffTimeout(d time.Duration) Option {
	if d <= 0 {
		panic(fmt.Sprintf("mux: WithSniffTimeout(%v): want a positive duration", d))
	}
	return func(c *config) { c.sniffTimeout = d }
}

// WithSharedHTTP2 gives all HTTP/2 connections to the HTTP server, which looks
// at every request for itself. It is for use behind proxies that pool
// connections and so mix gRPC with other requests on one of them (Envoy, Cloud
// Run, ALB); without it a connection that began with gRPC carries nothing else,
// and the server warns, once, when something else was refused on one. gRPC calls
// cost more CPU this way.
func WithSharedHTTP2() Option {
	return func(c *config) { c.sharedHTTP2 = true }
}

// WithLogger sets where the server logs. The default, also for nil, is
// slog.Default.
func WithLogger(log *slog.Logger) Option {
	return func(c *config) { c.log = log }
}

// WithGRPCServerOptions adds options for the native gRPC transport, such as
// keepalive. They hold there alone: an interceptor given here lets every call of another
// protocol, also of native gRPC on a shared connection, pass by it, and so does a limit.
// WithUnaryInterceptor, WithStreamInterceptor, WithStatsHandler and WithMaxMessageBytes
// hold for all.
func WithGRPCServerOptions(opts ...grpc.ServerOption) Option {
	return func(c *config) { c.grpcOptions = append(c.grpcOptions, opts...) }
}
