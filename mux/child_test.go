package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"oneport/certs"
	"oneport/mux"
	hellopb "oneport/proto/helloworld"
	"oneport/services/echo"
)

// Some tests measure a process, so the server must have one of its own: this test
// binary, run again with childEnv set to the directory of the certificates.
const childEnv = "MUX_TEST_CHILD"

// child is the program of that process. It prints its address and ends with its
// input.
func child() int {
	cfg, err := certs.Dev(os.Getenv(childEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := mux.NewServer(mux.WithTLSConfig(cfg), mux.WithCleartext(), mux.WithLogger(slog.New(slog.DiscardHandler)))
	hellopb.RegisterGreeterServer(s, socketCounter{})
	echo.Register(s)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(ln.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Close()
	}()
	if err := s.Serve(ln); !errors.Is(err, mux.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// howManySockets is who must greet to hear how many sockets the process has open
// while the handler runs.
const howManySockets = "how many sockets?"

// socketCounter is a greeter that can be asked so.
type socketCounter struct {
	hellopb.UnimplementedGreeterServer
}

func (socketCounter) SayHello(_ context.Context, req *hellopb.HelloRequest) (*hellopb.HelloReply, error) {
	if req.Name != howManySockets {
		return &hellopb.HelloReply{Message: "Hello " + req.Name}, nil
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	n := 0
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return &hellopb.HelloReply{Message: strconv.Itoa(n)}, nil
}

// startChild starts that process; it ends with t.
func startChild(t testing.TB) (p *port, pid int) {
	t.Helper()
	dir := t.TempDir()
	_, client := devTLS(t, dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("server process: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("server process said %q: %v", line, err)
	}
	return &port{t: t, addr: strings.TrimSpace(line), clientTLS: client}, cmd.Process.Pid
}
