package conformance

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	interoppb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"oneport/mux"
	"oneport/mux/tunnel"
	"oneport/mux/wsrpc"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(panicking{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)})
	os.Exit(m.Run())
}

// panicking is a logger that panics where grpc would end the process, which is how
// an interop case fails.
type panicking struct{ grpclog.LoggerV2 }

func (panicking) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (panicking) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panicking) Fatalln(args ...any)               { panic(fmt.Sprint(args...)) }

// By whichever of its functions grpc would end the process, the case fails instead.
func TestFatal(t *testing.T) {
	component := grpclog.Component("interop")
	for name, fatal := range map[string]func(){
		"Fatal":             func() { grpclog.Fatal("why") },
		"Fatalf":            func() { grpclog.Fatalf("w%s", "hy") },
		"Fatalln":           func() { grpclog.Fatalln("why") },
		"Component.Fatal":   func() { component.Fatal("why") },
		"Component.Fatalf":  func() { component.Fatalf("w%s", "hy") },
		"Component.Fatalln": func() { component.Fatalln("why") },
	} {
		func() {
			defer func() {
				if r := recover(); !strings.Contains(fmt.Sprint(r), "why") {
					t.Errorf("%s panics with %v, want why", name, r)
				}
			}()
			fatal()
		}()
	}
}

// interopCase is a case of grpc-go's interop client.
type interopCase struct {
	name string
	run  func(ctx context.Context, r road)
}

// road is a way to a server. dial makes a channel, and hangUp ends it.
type road struct {
	conn grpc.ClientConnInterface
	dial func(...grpc.DialOption) (cc *grpc.ClientConn, hangUp func())
}

// The cases that need a server and nothing else: no account in a cloud, no second
// server. orca_oob is not among them; it waits for the 30 s that pass at least
// between two reports. timeout_on_sleeping_server passes without any server, so it
// stands between cases that do not.
var (
	everyRoad = []interopCase{
		withClient("empty_unary", interop.DoEmptyUnaryCall),
		withClient("large_unary", interop.DoLargeUnaryCall),
		withClient("client_streaming", interop.DoClientStreaming),
		withClient("server_streaming", interop.DoServerStreaming),
		withClient("ping_pong", interop.DoPingPong),
		withClient("empty_stream", interop.DoEmptyStream),
		withClient("timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer),
		withClient("cancel_after_begin", interop.DoCancelAfterBegin),
		withClient("cancel_after_first_response", interop.DoCancelAfterFirstResponse),
		withClient("status_code_and_message", interop.DoStatusCodeAndMessage),
		withClient("special_status_message", interop.DoSpecialStatusMessage),
		withClient("custom_metadata", interop.DoCustomMetadata),
		{"unimplemented_service", func(ctx context.Context, r road) {
			interop.DoUnimplementedService(ctx, interoppb.NewUnimplementedServiceClient(r.conn))
		}},
		{"unimplemented_method", func(ctx context.Context, r road) {
			cc, hangUp := r.dial()
			defer hangUp()
			interop.DoUnimplementedMethod(ctx, cc)
		}},
		{"rpc_soak", func(ctx context.Context, r road) {
			cc, hangUp := r.dial()
			defer hangUp()
			soak(ctx, func() (*grpc.ClientConn, func()) { return cc, func() {} })
		}},
		{"channel_soak", func(ctx context.Context, r road) {
			soak(ctx, func() (*grpc.ClientConn, func()) { return r.dial() })
		}},
	}
	// The client's part of this is a load balancer of grpc-go's channel, the server's
	// a grpc.ServerOption.
	everyNative = []interopCase{
		{"orca_per_rpc", func(ctx context.Context, r road) {
			cc, hangUp := r.dial(grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`))
			defer hangUp()
			interop.DoORCAPerRPCTest(ctx, interoppb.NewTestServiceClient(cc))
		}},
	}
)

func withClient(name string, do func(context.Context, interoppb.TestServiceClient, ...grpc.CallOption)) interopCase {
	return interopCase{name, func(ctx context.Context, r road) { do(ctx, interoppb.NewTestServiceClient(r.conn)) }}
}

// soak calls one after the other, each on what channel returns and then closes.
func soak(ctx context.Context, channel func() (*grpc.ClientConn, func())) {
	const timeout = 10 * time.Second
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize:                      271828, // as large_unary
		ResponseSize:                     314159,
		PerIterationMaxAcceptableLatency: timeout,
		OverallTimeout:                   timeout,
		NumWorkers:                       2,
		Iterations:                       20,
		ChannelForTest:                   channel,
	})
}

func TestInterop(t *testing.T) {
	native := slices.Concat(everyRoad, everyNative)
	t.Run("native cleartext", func(t *testing.T) { interopByTCP(t, false, native) })
	t.Run("native TLS", func(t *testing.T) { interopByTCP(t, true, native) })
	t.Run("shared cleartext", func(t *testing.T) { interopByTCP(t, false, everyRoad, mux.WithSharedHTTP2()) })
	t.Run("shared TLS", func(t *testing.T) { interopByTCP(t, true, everyRoad, mux.WithSharedHTTP2()) })
	t.Run("grpc-ws cleartext", func(t *testing.T) { interopBySocket(t, false, false) })
	t.Run("grpc-ws TLS", func(t *testing.T) { interopBySocket(t, true, false) })
	t.Run("grpc-ws JSON", func(t *testing.T) { interopBySocket(t, false, true) })
	t.Run("tunnel cleartext", func(t *testing.T) { interopByTunnel(t, false) })
	t.Run("tunnel TLS", func(t *testing.T) { interopByTunnel(t, true) })
	t.Run("in process", func(t *testing.T) {
		s := mux.NewServer()
		interoppb.RegisterTestServiceServer(s, interop.NewTestServer())
		runInterop(t, road{s.Conn(), func(...grpc.DialOption) (*grpc.ClientConn, func()) {
			cc := channelOver(s.Conn())
			return cc, func() { cc.Close() }
		}}, everyRoad)
	})
}

// interopByTCP runs cases over grpc-go's transport.
func interopByTCP(t *testing.T, secure bool, cases []interopCase, opts ...mux.Option) {
	addr, client := serveInterop(t, secure, opts...)
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(client)
	}
	interopByChannel(t, addr, creds, cases)
}

// interopByTunnel is interopByTCP through a WebSocket.
func interopByTunnel(t *testing.T, secure bool) {
	addr, client := serveInterop(t, secure)
	url, creds := "ws://"+addr, insecure.NewCredentials()
	if secure {
		url, creds = "wss://"+addr, tunnel.Credentials()
	}
	interopByChannel(t, addr, creds, slices.Concat(everyRoad, everyNative),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return tunnel.Dial(ctx, url, &tunnel.DialOptions{TLSConfig: client})
		}))
}

// interopByChannel runs cases with channels of grpc-go, which have opts.
func interopByChannel(t *testing.T, addr string, creds credentials.TransportCredentials, cases []interopCase, opts ...grpc.DialOption) {
	dial := func(more ...grpc.DialOption) (*grpc.ClientConn, func()) {
		cc := newChannel("passthrough:"+addr, slices.Concat(opts, more, []grpc.DialOption{grpc.WithTransportCredentials(creds)})...)
		return cc, func() { cc.Close() }
	}
	cc, hangUp := dial()
	t.Cleanup(hangUp)
	runInterop(t, road{cc, dial}, cases)
}

// interopBySocket runs the cases over grpc-ws.v1.
func interopBySocket(t *testing.T, secure, json bool) {
	addr, client := serveInterop(t, secure)
	url := "ws://" + addr + wsrpc.Path
	if secure {
		url = "wss://" + addr + wsrpc.Path
	}
	dial := func(...grpc.DialOption) (*grpc.ClientConn, func()) {
		ws, err := wsrpc.Dial(t.Context(), url, &wsrpc.DialOptions{TLSConfig: client, JSON: json})
		if err != nil {
			panic(err) // as a failing case does
		}
		cc := channelOver(ws)
		return cc, func() { cc.Close(); ws.Close() }
	}
	cc, hangUp := dial()
	t.Cleanup(hangUp)
	runInterop(t, road{cc, dial}, everyRoad)
}

// serveInterop serves the service of the cases on a port of its own, to clients that
// have client.
func serveInterop(t *testing.T, secure bool, opts ...mux.Option) (addr string, client *tls.Config) {
	opts = append(opts, mux.WithGRPCServerOptions(orca.CallMetricsServerOption(nil)))
	if secure {
		var server *tls.Config
		server, client = newTLS(t)
		opts = append(opts, mux.WithTLSConfig(server))
	}
	s := mux.NewServer(opts...)
	interoppb.RegisterTestServiceServer(s, interop.NewTestServer())
	return serve(t, s), client
}

// channelOver makes a channel, which some cases ask for, that never connects: its
// interceptors give all calls to conn.
func channelOver(conn grpc.ClientConnInterface) *grpc.ClientConn {
	return newChannel("passthrough:nowhere",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return conn.Invoke(ctx, method, req, reply, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return conn.NewStream(ctx, desc, method, opts...)
		}))
}

func newChannel(target string, opts ...grpc.DialOption) *grpc.ClientConn {
	cc, err := grpc.NewClient(target, opts...)
	if err != nil {
		panic(err) // as a failing case does
	}
	return cc
}

func runInterop(t *testing.T, r road, cases []interopCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			defer func() {
				if v := recover(); v != nil {
					t.Error(v)
				}
			}()
			c.run(ctx, r)
		})
	}
}
