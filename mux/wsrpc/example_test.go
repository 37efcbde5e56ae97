package wsrpc_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"oneport/mux"
	"oneport/mux/wsrpc"
	"oneport/proto/helloworld"
	"oneport/services/greeter"
)

// A client of generated stubs, all of whose calls go over one WebSocket.
func ExampleDial() {
	s := mux.NewServer()
	greeter.Register(s)
	ln, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	url := "ws://" + ln.Addr().String() + wsrpc.Path

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := wsrpc.Dial(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	reply, err := helloworld.NewGreeterClient(conn).SayHello(ctx, &helloworld.HelloRequest{Name: "you"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.GetMessage())

	// Output: Hello you
}
