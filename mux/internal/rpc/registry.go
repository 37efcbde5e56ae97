package rpc

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// DefaultMaxMessageBytes is the largest message accepted when Config does not
// say otherwise: 4 MiB, as in grpc-go.
const DefaultMaxMessageBytes = 4 << 20

// Config holds what is common to every call of a Registry.
type Config struct {
	// UnaryInterceptors and StreamInterceptors run in this order, the first
	// outermost, as with grpc.ChainUnaryInterceptor.
	UnaryInterceptors  []grpc.UnaryServerInterceptor
	StreamInterceptors []grpc.StreamServerInterceptor

	// StatsHandlers see every call, in this order.
	StatsHandlers []stats.Handler

	// MaxMessageBytes is the largest message a handler may receive, encoded.
	// Zero means DefaultMaxMessageBytes.
	MaxMessageBytes int

	// JSON says how messages are written in JSON, in every protocol that has it. Multiline
	// and Indent do not count.
	JSON protojson.MarshalOptions

	// Log receives panics of handlers. Nil means slog.Default.
	Log *slog.Logger
}

// Registry holds the services of a server and runs their methods. Registration
// must be over before the first Lookup; after that all methods are safe for
// concurrent use.
type Registry struct {
	cfg    Config
	unary  grpc.UnaryServerInterceptor  // the chain of all; nil without any
	stream grpc.StreamServerInterceptor // likewise
	json   Codec

	mu       sync.RWMutex
	frozen   bool               // guarded by mu
	methods  map[string]*Method // by full name, guarded by mu
	services map[string]service // by name, guarded by mu
}

// service is what was registered under one service name.
type service struct {
	desc *grpc.ServiceDesc
	impl any
}

var _ grpc.ServiceRegistrar = (*Registry)(nil)

// NewRegistry returns an empty Registry.
func NewRegistry(cfg Config) *Registry {
	if cfg.MaxMessageBytes == 0 {
		cfg.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Registry{
		cfg:      cfg,
		unary:    chainUnary(cfg.UnaryInterceptors),
		stream:   chainStream(cfg.StreamInterceptors),
		json:     NewJSON(cfg.JSON),
		methods:  make(map[string]*Method),
		services: make(map[string]service),
	}
}

// MaxMessageBytes is the largest message a handler may receive, encoded.
func (r *Registry) MaxMessageBytes() int { return r.cfg.MaxMessageBytes }

// JSON encodes messages as the Config says.
func (r *Registry) JSON() Codec { return r.json }

// JSONOptions is how messages are written in JSON.
func (r *Registry) JSONOptions() protojson.MarshalOptions { return r.cfg.JSON }

// RegisterService adds a service. It panics on a duplicate, on an impl that is
// not of the service's type, and after Freeze: only the programmer can be wrong.
func (r *Registry) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if impl != nil {
		want := reflect.TypeOf(desc.HandlerType).Elem()
		if got := reflect.TypeOf(impl); !got.Implements(want) {
			panic(fmt.Sprintf("rpc: register %s: %v does not implement %v", desc.ServiceName, got, want))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen {
		panic(fmt.Sprintf("rpc: register %s: the server has started; register before Serve", desc.ServiceName))
	}
	if _, ok := r.services[desc.ServiceName]; ok {
		panic(fmt.Sprintf("rpc: register %s: registered twice", desc.ServiceName))
	}
	r.services[desc.ServiceName] = service{desc, impl}
	for i := range desc.Methods {
		d := &desc.Methods[i]
		m := &Method{reg: r, impl: impl, unary: d.Handler}
		r.addLocked(desc.ServiceName, d.MethodName, m)
	}
	for i := range desc.Streams {
		d := &desc.Streams[i]
		m := &Method{reg: r, impl: impl, stream: d.Handler, ClientStreams: d.ClientStreams, ServerStreams: d.ServerStreams}
		r.addLocked(desc.ServiceName, d.StreamName, m)
	}
}

func (r *Registry) addLocked(service, name string, m *Method) {
	m.FullName = "/" + service + "/" + name
	m.streamInfo = grpc.StreamServerInfo{FullMethod: m.FullName, IsClientStream: m.ClientStreams, IsServerStream: m.ServerStreams}
	r.methods[m.FullName] = m
}

// Freeze ends registration.
func (r *Registry) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = true
}

// Frozen reports whether registration has ended.
func (r *Registry) Frozen() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.frozen
}

// Lookup finds the method with this full name, "/pkg.Service/Method". The error
// is UNIMPLEMENTED and safe for the client.
func (r *Registry) Lookup(fullName string) (*Method, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m, ok := r.methods[fullName]; ok {
		return m, nil
	}
	i := strings.LastIndexByte(fullName, '/')
	if i < 1 || fullName[0] != '/' {
		return nil, status.Errorf(codes.Unimplemented, "malformed method name %.200q: want /pkg.Service/Method", fullName)
	}
	svc, method := fullName[1:i], fullName[i+1:]
	if _, ok := r.services[svc]; !ok {
		return nil, status.Errorf(codes.Unimplemented, "unknown service %s", clip(svc))
	}
	return nil, status.Errorf(codes.Unimplemented, "unknown method %s for service %s", clip(method), svc)
}

// Has tells whether there is a method with this full name. It costs less than Lookup where
// there is none.
func (r *Registry) Has(fullName string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.methods[fullName] != nil
}

// Methods returns all methods, in no order.
func (r *Registry) Methods() []*Method {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.methods))
}

// Services returns the names of the registered services, sorted.
func (r *Registry) Services() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.services))
}

// Reflects tells whether a service is registered that tells clients of all methods.
func (r *Registry) Reflects() bool {
	return r.Impl("grpc.reflection.v1.ServerReflection") != nil || r.Impl("grpc.reflection.v1alpha.ServerReflection") != nil
}

// MethodsOf returns the names of the methods of a service, sorted; none if there is no such service.
func (r *Registry) MethodsOf(service string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for full := range r.methods {
		if name, ok := strings.CutPrefix(full, "/"+service+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Impl returns what was registered for a service, or nil.
func (r *Registry) Impl(service string) any {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.services[service].impl
}

// RegisterOn registers every service on another registrar, in order of name.
func (r *Registry) RegisterOn(other grpc.ServiceRegistrar) {
	r.mu.RLock()
	services := maps.Clone(r.services) // other is not ours: no call of it under mu
	r.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		other.RegisterService(services[name].desc, services[name].impl)
	}
}

// GetServiceInfo describes the registered services, as grpc.Server does, for
// reflection.
func (r *Registry) GetServiceInfo() map[string]grpc.ServiceInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	infos := make(map[string]grpc.ServiceInfo, len(r.services))
	for name, s := range r.services {
		info := grpc.ServiceInfo{Metadata: s.desc.Metadata}
		for _, m := range s.desc.Methods {
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: m.MethodName})
		}
		for _, m := range s.desc.Streams {
			info.Methods = append(info.Methods, grpc.MethodInfo{
				Name: m.StreamName, IsClientStream: m.ClientStreams, IsServerStream: m.ServerStreams})
		}
		infos[name] = info
	}
	return infos
}
