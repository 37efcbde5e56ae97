package conformance

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
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
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(panicking{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)})
	os.Exit(m.Run())
}

// panicking is a logger that panics where grpc would end the process, which is how
// an interop case fails.
type panicking struct{ grpclog.LoggerV2 }

func (panicking) Fatalln(args ...any) { panic(fmt.Sprint(args...)) }

// interopCase is a case of grpc-go's interop client.
type interopCase struct {
	name string
	run  func(ctx context.Context, r road)
}

// road is a way to a server. dial makes a channel, which the caller closes.
type road struct {
	conn grpc.ClientConnInterface
	dial func(...grpc.DialOption) *grpc.ClientConn
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
	}
	// These take a *grpc.ClientConn, which Server.Conn does not return.
	everyChannel = []interopCase{
		{"unimplemented_method", func(ctx context.Context, r road) {
			cc := r.dial()
			defer cc.Close()
			interop.DoUnimplementedMethod(ctx, cc)
		}},
		{"rpc_soak", func(ctx context.Context, r road) {
			cc := r.dial()
			defer cc.Close()
			soak(ctx, func() (*grpc.ClientConn, func()) { return cc, func() {} })
		}},
		{"channel_soak", func(ctx context.Context, r road) {
			soak(ctx, func() (*grpc.ClientConn, func()) {
				cc := r.dial()
				return cc, func() { cc.Close() }
			})
		}},
	}
	// The server's part of this is a grpc.ServerOption.
	everyNative = []interopCase{
		{"orca_per_rpc", func(ctx context.Context, r road) {
			cc := r.dial(grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`))
			defer cc.Close()
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
	native := slices.Concat(everyRoad, everyChannel, everyNative)
	shared := slices.Concat(everyRoad, everyChannel)
	t.Run("native cleartext", func(t *testing.T) { interopByTCP(t, false, native) })
	t.Run("native TLS", func(t *testing.T) { interopByTCP(t, true, native) })
	t.Run("shared cleartext", func(t *testing.T) { interopByTCP(t, false, shared, mux.WithSharedHTTP2()) })
	t.Run("shared TLS", func(t *testing.T) { interopByTCP(t, true, shared, mux.WithSharedHTTP2()) })
	t.Run("in process", func(t *testing.T) {
		s := mux.NewServer()
		interoppb.RegisterTestServiceServer(s, interop.NewTestServer())
		runInterop(t, road{conn: s.Conn()}, everyRoad)
	})
}

// interopByTCP runs cases against a server of its own.
func interopByTCP(t *testing.T, secure bool, cases []interopCase, opts ...mux.Option) {
	opts = append(opts, mux.WithGRPCServerOptions(orca.CallMetricsServerOption(nil)))
	creds := insecure.NewCredentials()
	if secure {
		server, client := newTLS(t)
		opts = append(opts, mux.WithTLSConfig(server))
		creds = credentials.NewTLS(client)
	}
	s := mux.NewServer(opts...)
	interoppb.RegisterTestServiceServer(s, interop.NewTestServer())
	addr := serve(t, s)
	dial := func(opts ...grpc.DialOption) *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:"+addr, append(opts, grpc.WithTransportCredentials(creds))...)
		if err != nil {
			panic(err) // as a failing case does
		}
		return cc
	}
	cc := dial()
	t.Cleanup(func() { cc.Close() })
	runInterop(t, road{conn: cc, dial: dial}, cases)
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
