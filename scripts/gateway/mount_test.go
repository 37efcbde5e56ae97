package gateway_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"

	"oneport/mux"
	"oneport/mux/muxtest"
	echopb "oneport/proto/echo"
	echogw "oneport/scripts/gateway/echo"
	"oneport/services/echo"
)

func TestMain(m *testing.M) {
	// grpc-gateway logs what it answers to bad requests.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	goleak.VerifyTestMain(m)
}

// client of the echo service over cc, for registration functions that want it.
func client(cc grpc.ClientConnInterface) echopb.EchoServiceClient {
	return echopb.NewEchoServiceClient(cc)
}

// TestMount has a gateway on a Server, fed by its Conn and, for comparison, as a
// gateway calls a service in the same process by itself. The one passes the interceptors
// and streams; the other does neither.
func TestMount(t *testing.T) {
	tests := []struct {
		name      string
		register  func(*runtime.ServeMux, *mux.Server) error
		intercept int // calls of the four
		statuses  []int
	}{
		{"Server.Conn", func(m *runtime.ServeMux, s *mux.Server) error {
			return echogw.RegisterEchoServiceHandlerClient(context.Background(), m, client(s.Conn()))
		}, 4, []int{200, 200, 200, 200}},
		{"HandlerServer", func(m *runtime.ServeMux, _ *mux.Server) error {
			var r registrar
			echo.Register(&r)
			return echogw.RegisterEchoServiceHandlerServer(context.Background(), m, r.impl)
		}, 0, []int{200, 501, 501, 501}},
	}
	requests := []struct{ method, path, body, want string }{
		{"GET", "/v1/echo/hello", "", `{"message":"hello"}`},
		{"GET", "/v1/echo/hello:expand?count=2", "", `{"result":{"message":"hello"}}` + "\n" + `{"result":{"message":"hello"}}` + "\n"},
		{"POST", "/v1/echo:collect", `{"message":"a"}{"message":"b"}`, `{"messages":["a","b"]}`},
		{"POST", "/v1/echo:converse", `{"message":"a"}{"message":"b"}`, `{"result":{"message":"a"}}` + "\n" + `{"result":{"message":"b"}}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			s := muxtest.New(t, func(s *mux.Server) {
				echo.Register(s)
				gateway := runtime.NewServeMux()
				if err := tt.register(gateway, s); err != nil {
					t.Fatal(err)
				}
				s.Handle("/v1/", gateway)
			}, mux.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				calls.Add(1)
				return h(ctx, req)
			}), mux.WithStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
				calls.Add(1)
				return h(srv, stream)
			}))
			for i, r := range requests {
				req, err := http.NewRequestWithContext(t.Context(), r.method, muxtest.URL+r.path, strings.NewReader(r.body))
				if err != nil {
					t.Fatal(err)
				}
				res, err := s.HTTP1().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != tt.statuses[i] || res.StatusCode == 200 && unspaced(body) != unspaced([]byte(r.want)) {
					t.Errorf("%s %s: %d %s, %v, want %d %s", r.method, r.path, res.StatusCode, body, err, tt.statuses[i], r.want)
				}
			}
			if got := int(calls.Load()); got != tt.intercept {
				t.Errorf("%d calls were intercepted, want %d", got, tt.intercept)
			}
		})
	}
}

// unspaced is JSON without the blank that protojson writes now and then.
func unspaced(b []byte) string { return strings.ReplaceAll(string(b), " ", "") }

// registrar keeps what is registered.
type registrar struct{ impl echopb.EchoServiceServer }

func (r *registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	r.impl = impl.(echopb.EchoServiceServer)
}
