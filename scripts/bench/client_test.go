package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "oneport/proto/echo"
	"oneport/services/echo"
)

// faulty answers as its fields say, whatever is asked.
type faulty struct {
	pb.UnimplementedEchoServiceServer
	texts []string
	err   error
}

func (f *faulty) register(r grpc.ServiceRegistrar) { pb.RegisterEchoServiceServer(r, f) }

func (f *faulty) Echo(context.Context, *pb.EchoRequest) (*pb.EchoResponse, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &pb.EchoResponse{Message: f.texts[0]}, nil
}

func (f *faulty) Expand(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	for _, s := range f.texts {
		if err := stream.Send(&pb.ExpandResponse{Message: s}); err != nil {
			return err
		}
	}
	return f.err
}

// callVariant makes c once, by v.
func callVariant(t *testing.T, v variant, register service, c *call) error {
	t.Helper()
	conn := dialVariant(t, v, register, c)
	defer conn.Close()
	return callOnce(conn)
}

// dialVariant connects to a server of v that lasts as long as the test.
func dialVariant(t *testing.T, v variant, register service, c *call) client {
	t.Helper()
	conn, err := v.dial(serveVariant(t, v, register), c)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// serveVariant returns the address of such a server.
func serveVariant(t *testing.T, v variant, register service) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- v.serve(ln, register) }()
	t.Cleanup(func() {
		ln.Close()
		<-served
	})
	return ln.Addr().String()
}

func must(t *testing.T, f func() (*call, error)) *call {
	t.Helper()
	c, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rpcVariants are those that call by methods.
func rpcVariants() []variant { return kind(false) }

func kind(rest bool) (of []variant) {
	for _, v := range variants {
		if v.rest == rest {
			of = append(of, v)
		}
	}
	return of
}

func pushOf(size, count int) func() (*call, error) {
	return func() (*call, error) { return pushCall(size, count) }
}

func TestRightAnswer(t *testing.T) {
	for _, v := range rpcVariants() {
		t.Run(v.name, func(t *testing.T) {
			for name, f := range map[string]func() (*call, error){
				"empty": unary(0), "unary": unary(32), "large": unary(16_000), "push": pushOf(32, 20_000), "large push": pushOf(16_000, 100),
			} {
				if err := callVariant(t, v, echo.Register, must(t, f)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// The requests at once are more than the window of HTTP/2 has room for at first, and
// in all more than it has later.
func TestManyCalls(t *testing.T) {
	const inFlight, exchanges = 64, 100
	for _, v := range rpcVariants() {
		conn := dialVariant(t, v, echo.Register, must(t, unary(4<<10)))
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
			t.Fatal(err)
		}
		n := 0
		got, err := drive(conn, inFlight, func() bool { n++; return n > exchanges })
		if err != nil {
			t.Errorf("%s: after %d messages: %v", v.name, got, err)
		}
		if got < inFlight {
			t.Errorf("%s: %d messages, want at least one for each of %d calls", v.name, got, inFlight)
		}
	}
}

func TestMaxRequest(t *testing.T) {
	for size, ok := range map[int]bool{maxRequest - 3: true, maxRequest - 2: false} { // 3 for tag and length
		conn, err := dialGRPC(listening(t), must(t, unary(size)))
		if (err == nil) != ok {
			t.Errorf("text of %d bytes: %v, want accepted to be %v", size, err, ok)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// listening is the address of a server that never answers.
func listening(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

func TestWrongAnswer(t *testing.T) {
	right, wrong := text(32), strings.Replace(text(32), "c", "C", 1)
	for _, v := range rpcVariants() {
		t.Run(v.name, func(t *testing.T) {
			for _, tt := range []struct {
				name  string
				call  func() (*call, error)
				serve faulty
				want  string
			}{
				{"another text", unary(32), faulty{texts: []string{wrong}}, "another message"},
				{"a shorter text", unary(32), faulty{texts: []string{right[:31]}}, "another message"},
				{"an error", unary(32), faulty{err: status.Error(codes.Internal, "oops")}, "13"},
				{"another text, pushed", pushOf(32, 3), faulty{texts: []string{right, right, wrong}}, "another message"},
				{"one too few", pushOf(32, 3), faulty{texts: []string{right, right}}, "ended after 2 messages"},
				{"one too many", pushOf(32, 3), faulty{texts: []string{right, right, right, right}}, "ended after 4 messages"},
				{"an error after all", pushOf(32, 1), faulty{texts: []string{right}, err: status.Error(codes.Internal, "oops")}, "13"},
			} {
				err := callVariant(t, v, tt.serve.register, must(t, tt.call))
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
				}
			}
		})
	}
}

// Metadata reaches the interceptors of each variant, and those decide.
func TestToken(t *testing.T) {
	old := requestMetadata[0]
	defer func() { requestMetadata[0] = old }()
	requestMetadata[0][1] = "Bearer wrong"
	for _, v := range rpcVariants() {
		for _, f := range []func() (*call, error){unary(32), pushOf(32, 2)} {
			c := must(t, f)
			if err := callVariant(t, v, echo.Register, c); err == nil || !strings.Contains(err.Error(), "16") {
				t.Errorf("%s: %s with a wrong token: %v, want an error with 16 (UNAUTHENTICATED)", v.name, c.method, err)
			}
		}
	}
}
