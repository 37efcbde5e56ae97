package mux_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"oneport/mux"
	"oneport/proto/helloworld"
)

// stubborn is a Greeter that ignores the end of its calls.
type stubborn struct {
	helloworld.UnimplementedGreeterServer
	begun, release chan struct{}
}

func (s *stubborn) SayHello(context.Context, *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	s.begun <- struct{}{}
	<-s.release
	return new(helloworld.HelloReply), nil
}

// Shutdown returns soon after its context ends, and when somebody calls Close,
// whatever handlers do.
func TestShutdownWithStubbornHandler(t *testing.T) {
	roads := []struct {
		name string
		opts []mux.Option
		call func(t *testing.T, s *mux.Server, addr string) (hangUp func())
	}{
		{"grpc", nil, callGRPC},
		{"shared HTTP/2", []mux.Option{mux.WithSharedHTTP2()}, callGRPC},
		{"websocket", nil, func(t *testing.T, _ *mux.Server, addr string) func() {
			c, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/grpc-ws", nil)
			if err == nil {
				err = c.WriteMessage(websocket.BinaryMessage, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { c.Close() }
		}},
		{"in process", nil, func(t *testing.T, s *mux.Server, _ string) func() {
			stream, err := s.Conn().NewStream(t.Context(), &grpc.StreamDesc{}, helloworld.Greeter_SayHello_FullMethodName)
			if err == nil {
				err = stream.SendMsg(new(helloworld.HelloRequest))
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() {}
		}},
	}
	ways := []struct {
		name string
		end  func(s *mux.Server, addr string) error // returns what Shutdown has returned
		want error
	}{
		{"context ends", func(s *mux.Server, addr string) error {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			return s.Shutdown(ctx)
		}, context.DeadlineExceeded},
		{"Close", func(s *mux.Server, addr string) error {
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(context.Background()) }()
			for { // until Shutdown has closed the port
				c, err := net.Dial("tcp", addr)
				if err != nil {
					break
				}
				c.Close()
			}
			s.Close()
			return <-down
		}, mux.ErrServerClosed},
	}
	for _, road := range roads {
		for _, way := range ways {
			t.Run(road.name+"/"+way.name, func(t *testing.T) {
				greeter := &stubborn{begun: make(chan struct{}, 1), release: make(chan struct{})}
				s := mux.NewServer(append(road.opts, mux.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))...)
				helloworld.RegisterGreeterServer(s, greeter)
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- s.Serve(ln) }()
				hangUp := road.call(t, s, ln.Addr().String())
				defer hangUp()
				defer close(greeter.release)
				<-greeter.begun

				ended := make(chan error, 1)
				go func() { ended <- way.end(s, ln.Addr().String()) }()
				select {
				case err := <-ended:
					if !errors.Is(err, way.want) {
						t.Errorf("Shutdown = %v, want %v", err, way.want)
					}
				case <-time.After(patience):
					t.Fatal("Shutdown waits for the handler")
				}
				if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
					t.Errorf("Serve = %v", err)
				}
			})
		}
	}
}

func callGRPC(t *testing.T, _ *mux.Server, addr string) func() {
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		helloworld.NewGreeterClient(cc).SayHello(context.Background(), new(helloworld.HelloRequest))
	}()
	return func() {
		cc.Close()
		<-done
	}
}
