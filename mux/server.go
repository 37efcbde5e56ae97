package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // for native gRPC; the other protocols have it
	"google.golang.org/grpc/reflection"

	"oneport/mux/internal/connectrpc"
	"oneport/mux/internal/rest"
	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
	"oneport/mux/internal/xconnect"
	"oneport/mux/tunnel"
	"oneport/mux/wsrpc"
)

// ErrServerClosed is what Serve returns after Shutdown or Close. It is
// http.ErrServerClosed.
var ErrServerClosed = http.ErrServerClosed

// Server serves gRPC services and HTTP handlers to clients of every protocol.
// Register everything first, then Serve; all methods but the registrations are
// safe for concurrent use.
type Server struct {
	cfg     config
	log     *slog.Logger
	origins originPolicy
	reg     *rpc.Registry
	conn    *rpc.Conn

	handlers *http.ServeMux // the program's own
	handles  bool           // there is one of these

	freeze    sync.Once
	table     []protocol
	streamed  http.Handler // for WebSockets on streams of HTTP/2
	streams   atomic.Bool  // there has been one of these
	native    *grpc.Server // gRPC on connections of its own
	http1     *http.Server
	http2     *http.Server
	upgrades  *http.Server
	redirects *http.Server // on a port that requires TLS, its cleartext side
	tunneled  *http.Server // HTTP/2 that comes through tunnels
	sockets   *socket.Server
	web       *connectrpc.Handler
	rest      *rest.Handler
	calls     *wsrpc.Handler
	tunnels   *tunnel.Handler
	services  func() []string // the names of all, for the welcome page
	paths     func() []string // likewise
	sample    func() sample   // likewise

	arriving arrivals
	conns    connStats
	between  between
	foreign  foreignRequests

	mu     sync.Mutex
	state  state               // guarded by mu
	splits map[*split]struct{} // guarded by mu
	within *tunnelListener     // of the split for tunnels, nil before the first; guarded by mu
	closed chan struct{}       // closed when Shutdown or Close is over

	tunneling sync.WaitGroup // the split for tunnels
	answering atomic.Int64   // calls by HTTP that run

	cut    context.Context // ends when Close begins, and with it what Shutdown waits for
	cutNow context.CancelCauseFunc
}

type state int

const (
	running state = iota
	draining
	closing
)

var (
	_ grpc.ServiceRegistrar          = (*Server)(nil)
	_ reflection.ServiceInfoProvider = (*Server)(nil)
	_ http.Handler                   = (*Server)(nil)
)

// NewServer returns a Server without services. It serves cleartext only unless
// an option says otherwise, and needs no closing unless it has been used.
func NewServer(opts ...Option) *Server {
	cfg := config{sniffTimeout: defaultSniffTimeout}
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.tls == nil {
		cfg.cleartext = true
	}
	if cfg.log == nil {
		cfg.log = slog.Default()
	}
	cfg.rpc.Log = cfg.log
	s := &Server{
		cfg:      cfg,
		log:      cfg.log,
		origins:  newOriginPolicy(cfg.origins, cfg.log),
		reg:      rpc.NewRegistry(cfg.rpc),
		handlers: http.NewServeMux(),
		conns:    connStats{handlers: cfg.rpc.StatsHandlers},
		splits:   make(map[*split]struct{}),
		closed:   make(chan struct{}),
		foreign:  foreignRequests{log: cfg.log},
	}
	s.conn = rpc.NewConn(s.reg)
	s.rest = rest.New(s.reg)
	s.cut, s.cutNow = context.WithCancelCause(context.Background())
	return s
}

// RegisterService adds a service, as generated code does. It panics once the
// server has started, when a service of that name is there already, and when a
// google.api.http option of its methods is wrong or stands for the same requests as
// another.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.reg.RegisterService(desc, impl)
	if err := s.rest.Add(desc.ServiceName); err != nil {
		panic("mux: register " + desc.ServiceName + ": " + err.Error())
	}
}

// GetServiceInfo describes the registered services, for reflection.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo {
	return s.reg.GetServiceInfo()
}

// Handle adds an HTTP handler for a pattern of http.ServeMux. It panics where
// ServeMux does and once the server has started. The program's handlers come
// before the built-in pages ("/", "/healthz", "/readyz", "/ws", and those of
// WithOpenAPI) and after the RPC protocols; and before the paths of google.api.http
// options, but for a pattern that is "/" alone, which comes after those. Of the built-in
// pages all but "/" come before such paths.
func (s *Server) Handle(pattern string, h http.Handler) {
	if s.reg.Frozen() {
		panic("mux: Handle " + pattern + ": the server has started; register before Serve")
	}
	s.handlers.Handle(pattern, h)
	s.handles = true
}

// Conn returns a client in this process: calls through it reach the handlers
// by the same dispatcher, with interceptors, stats and limits, but without a
// connection. It may be used before Serve, and by handlers; after Shutdown its
// calls fail with UNAVAILABLE. A unary call runs on the goroutine of its caller,
// who waits for it: Shutdown and Close do not, nor do they cut it.
func (s *Server) Conn() grpc.ClientConnInterface { return s.conn }

// ServeHTTP answers one request of any protocol but native gRPC on a connection
// of its own. Use it to mount the server in an http.Server of the program, which
// then is to be shut down before this one. Such a server tells of a client over HTTP/1
// that has gone once its request has been read to the end, and else to those who read
// or write.
//
// An extended CONNECT (RFC 8441), by which a WebSocket is opened on an HTTP/2
// connection, becomes the upgrade here that it would be over HTTP/1.1.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.start()
	if xconnect.Is(r) {
		s.streams.Store(true)
		xconnect.Serve(w, r, s.streamed)
		return
	}
	s.route(w, r)
}

// route is ServeHTTP for a started server and requests that are what they seem.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && !s.isRunning() {
		w.Header().Set("Connection", "close")
	}
	r, done := s.watchBody(w, r)
	defer done()
	r = withIdentity(r)
	if err := s.origins.checkUnsafe(r); err != nil {
		s.origins.forbid(w, r, err)
		return
	}
	for _, p := range s.table {
		if p.match(r) {
			p.handler.ServeHTTP(w, r)
			return
		}
	}
}

// start ends registration and builds the servers behind the split.
func (s *Server) start() { s.freeze.Do(s.build) }

func (s *Server) build() {
	s.reg.Freeze()
	s.sockets = socket.NewServer(socket.Config{
		MaxMessageBytes: s.reg.MaxMessageBytes(),
		Ended:           s.conns.socketEnded,
		Log:             s.log,
	})
	s.calls = wsrpc.NewHandler(s.reg, s.sockets)
	s.tunnels = tunnel.NewHandler(s.sockets, s.acceptTunnel)

	native := append(grpcDefaults(), s.reg.ServerOptions()...)
	native = append(native, s.cfg.grpcOptions...)
	// Last: TLS is terminated before grpc-go sees the connection.
	native = append(native, grpc.Creds(splitCredentials{s.arriving.end}))
	s.native = grpc.NewServer(native...)
	s.reg.RegisterOn(s.native)
	s.web = connectrpc.New(s.reg)

	s.table = s.protocols()
	s.streamed = s.conns.hide(http.HandlerFunc(s.route))
	s.services = sync.OnceValue(s.reg.Services)
	s.paths = sync.OnceValue(s.pickPaths)
	s.sample = sync.OnceValue(s.pickSample)
	s.http1 = s.newHTTPServer(s, http1IdleTimeout)
	s.http2 = s.newHTTPServer(s, http2IdleTimeout)
	s.upgrades = s.newHTTPServer(s, upgradeIdleTimeout)
	s.redirects = s.newHTTPServer(http.HandlerFunc(s.redirect), upgradeIdleTimeout)
	s.tunneled = s.newHTTPServer(http.HandlerFunc(s.serveTunneled), http2IdleTimeout)
	for _, hs := range []*http.Server{s.http1, s.upgrades, s.redirects} {
		hs.ConnState = s.http1State
		hs.ConnContext = s.http1Context
		hs.Handler = s.between.handler(hs.Handler)
	}
}

// Serve accepts connections on ln until Shutdown or Close, then returns
// ErrServerClosed once they are over; or until ln fails, then returns why. It
// always returns a non-nil error and closes ln. It may be called for several
// listeners. With a TLS configuration that has no certificate it returns at once.
func (s *Server) Serve(ln net.Listener) error {
	if !hasCertificate(s.cfg.tls) {
		ln.Close()
		return errors.New("mux: the configuration of WithTLSConfig has no certificate; set Certificates, GetCertificate or GetConfigForClient")
	}
	s.start()
	s.mu.Lock()
	if s.state != running {
		s.mu.Unlock()
		ln.Close()
		return ErrServerClosed
	}
	sp := newSplit(s, ln)
	s.splits[sp] = struct{}{}
	s.mu.Unlock()

	err := sp.serve()

	s.mu.Lock()
	delete(s.splits, sp)
	ended := s.state != running
	s.mu.Unlock()
	if ended {
		<-s.closed
		return ErrServerClosed
	}
	return err
}

// hasCertificate tells whether clients can be served with cfg, if it is there.
func hasCertificate(cfg *tls.Config) bool {
	return cfg == nil || len(cfg.Certificates) > 0 || cfg.GetCertificate != nil || cfg.GetConfigForClient != nil
}

// httpServers are all of them.
func (s *Server) httpServers() []*http.Server {
	return []*http.Server{s.http1, s.http2, s.upgrades, s.redirects, s.tunneled}
}
