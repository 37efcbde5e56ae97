// Command wasm is a client of generated stubs and grpc-go's own transport, to run in a
// browser: its calls go through the tunnel at the URL that it is given. It prints what
// it has got.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"oneport/mux/tunnel"
	echopb "oneport/proto/echo"
	hellopb "oneport/proto/helloworld"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var creds credentials.TransportCredentials = insecure.NewCredentials()
	if strings.HasPrefix(url, "wss:") {
		creds = tunnel.Credentials()
	}
	cc, err := grpc.NewClient("passthrough:///tunnel", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return tunnel.Dial(ctx, url, nil)
		}))
	if err != nil {
		return err
	}
	defer cc.Close()

	hello, err := hellopb.NewGreeterClient(cc).SayHello(ctx, &hellopb.HelloRequest{Name: "you"})
	if err != nil {
		return err
	}
	fmt.Println(hello.GetMessage())

	client := echopb.NewEchoServiceClient(cc)
	large := strings.Repeat("x", 3<<20)
	echo, err := client.Echo(metadata.AppendToOutgoingContext(ctx, "key-bin", "\x00\xff"), &echopb.EchoRequest{Message: large})
	if err != nil {
		return err
	}
	fmt.Println("echo of 3 MiB:", echo.GetMessage() == large)

	stream, err := client.Converse(ctx)
	if err != nil {
		return err
	}
	for i := range 100 {
		if err := stream.Send(&echopb.ConverseRequest{Message: fmt.Sprint(i)}); err != nil {
			return err
		}
		if res, err := stream.Recv(); err != nil || res.GetMessage() != fmt.Sprint(i) {
			return fmt.Errorf("turn %d: %v, %v", i, res, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("end of the stream: %v", err)
	}
	fmt.Println("100 turns")

	expand, err := client.Expand(ctx, &echopb.ExpandRequest{Interval: durationpb.New(-time.Second)})
	if err != nil {
		return err
	}
	_, err = expand.Recv()
	fmt.Println(status.Code(err), status.Convert(err).Message())
	return nil
}
