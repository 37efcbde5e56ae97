package muxtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/proto/helloworld"
)

// greeter is the service under test.
type greeter struct {
	helloworld.UnimplementedGreeterServer
}

func (greeter) SayHello(_ context.Context, req *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	if req.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "name is empty")
	}
	return &helloworld.HelloReply{Message: "Hello " + req.GetName()}, nil
}

func register(s *mux.Server) { helloworld.RegisterGreeterServer(s, greeter{}) }

// A test that holds on every road to the service: this runs once on each.
func TestGreeter(t *testing.T) {
	muxtest.Run(t, register, func(t *testing.T, cc grpc.ClientConnInterface) {
		client := helloworld.NewGreeterClient(cc)
		reply, err := client.SayHello(t.Context(), &helloworld.HelloRequest{Name: "Ada"})
		if err != nil || reply.GetMessage() != "Hello Ada" {
			t.Errorf("SayHello = %q, %v, want Hello Ada", reply.GetMessage(), err)
		}
		if _, err := client.SayHello(t.Context(), &helloworld.HelloRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("SayHello without a name = %v, want InvalidArgument", err)
		}
	})
}

// One server and a client of each protocol.
func Example() {
	t := newT() // the *testing.T of your test
	defer t.end()

	s := muxtest.New(t, register)

	for _, cc := range []grpc.ClientConnInterface{s.GRPC(), s.GRPCTLS(), s.Conn()} {
		reply, err := helloworld.NewGreeterClient(cc).SayHello(context.Background(), &helloworld.HelloRequest{Name: "gRPC"})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(reply.GetMessage())
	}

	ws := s.WebSocketTLS("/grpc-ws/helloworld.Greeter/SayHello", nil)
	for _, request := range []string{`{"name":"WebSocket"}`, `{}`} {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(request)); err != nil {
			t.Fatal(err)
		}
		_, reply, err := ws.ReadMessage()
		if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
			fmt.Println(ce.Code, ce.Text)
			break
		} else if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(reply))
	}

	res, err := s.HTTP2().Get(muxtest.URLTLS + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Printf("%s %s %q %v\n", res.Proto, res.Status, body, err)

	// Output:
	// Hello gRPC
	// Hello gRPC
	// Hello gRPC
	// {"message":"Hello WebSocket"}
	// 4003 name is empty
	// HTTP/2.0 200 OK "ok\n" <nil>
}
