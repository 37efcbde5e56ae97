package gateway_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"oneport/mux"
	echopb "oneport/proto/echo"
	echogw "oneport/scripts/gateway/echo"
	"oneport/services/echo"
)

// A gateway that a program has already, on the port of its services: it calls them in the
// same process, through the interceptors, and streams.
//
// A pattern such as "/v1/" is what gives it the paths; with "/" alone the Server would
// answer them by itself, as it does without a gateway.
func Example() {
	s := mux.NewServer(
		mux.WithUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			fmt.Println("intercepted", info.FullMethod)
			return h(ctx, req)
		}),
		mux.WithStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			fmt.Println("intercepted", info.FullMethod)
			return h(srv, stream)
		}))
	echo.Register(s)

	gateway := runtime.NewServeMux()
	client := echopb.NewEchoServiceClient(s.Conn())
	if err := echogw.RegisterEchoServiceHandlerClient(context.Background(), gateway, client); err != nil {
		fmt.Println(err)
		return
	}
	s.Handle("/v1/", gateway)

	for _, path := range []string{"/v1/echo/hello", "/v1/echo/hello:expand?count=3"} {
		w := httptest.NewRecorder() // or a client of s.Serve
		s.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(w.Code, w.Body)
	}

	// Output:
	// intercepted /echo.v1.EchoService/Echo
	// 200 {"message":"hello"}
	// intercepted /echo.v1.EchoService/Expand
	// 200 {"result":{"message":"hello"}}
	// {"result":{"message":"hello"}}
	// {"result":{"message":"hello"}}
}
