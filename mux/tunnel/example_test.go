package tunnel_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"oneport/mux"
	"oneport/mux/tunnel"
	"oneport/proto/helloworld"
	"oneport/services/greeter"
)

// A client of generated stubs whose connection is a WebSocket. At a wss URL the
// credentials are tunnel.Credentials().
func ExampleDial() {
	s := mux.NewServer()
	greeter.Register(s)
	ln, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	url := "ws://" + ln.Addr().String() + tunnel.Path

	cc, err := grpc.NewClient("passthrough:///"+url,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, url string) (net.Conn, error) {
			return tunnel.Dial(ctx, url, nil)
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, err := helloworld.NewGreeterClient(cc).SayHello(ctx, &helloworld.HelloRequest{Name: "you"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.GetMessage())

	// Output: Hello you
}
