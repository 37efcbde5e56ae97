package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/services/echo"
)

// A service is what registers one.
type service func(grpc.ServiceRegistrar)

// A variant is a way to serve the echo service. Each runs in a process of its own.
type variant struct {
	name  string
	serve func(net.Listener, service) error // until ln is closed
	dial  func(addr string, c *call) (client, error)
	rest  bool // it has other workloads than the rest
}

var variants = []variant{
	{name: "plain", serve: servePlain, dial: dialGRPC},
	{name: "native", serve: serveMux, dial: dialGRPC},
	{name: "grpc-ws.v1", serve: serveMux, dial: dialSocket},
	{name: "dialling", serve: serveDialling, dial: dialSocket},
	{name: "rest", serve: serveMux, dial: dialREST, rest: true},
	{name: "grpc-gateway", serve: serveGateway, dial: dialREST, rest: true},
}

func findVariant(name string) (variant, error) {
	for _, v := range variants {
		if v.name == name {
			return v, nil
		}
	}
	return variant{}, fmt.Errorf("no variant is called %q", name)
}

// servePlain is grpc-go by itself, with the limits that mux gives it.
func servePlain(ln net.Listener, register service) error {
	s := newGRPCServer()
	register(s)
	return s.Serve(ln)
}

func newGRPCServer() *grpc.Server {
	return grpc.NewServer(
		grpc.MaxConcurrentStreams(100),
		grpc.MaxHeaderListSize(16<<10+10*32),
		grpc.StaticStreamWindowSize(256<<10),
		grpc.StaticConnWindowSize(1<<20),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 15 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(4<<20),
		grpc.UnaryInterceptor(interceptUnary),
		grpc.StreamInterceptor(interceptStream))
}

// serveMux is oneport: all wires on one port.
func serveMux(ln net.Listener, register service) error {
	s := mux.NewServer(mux.WithUnaryInterceptor(interceptUnary), mux.WithStreamInterceptor(interceptStream))
	register(s)
	return s.Serve(ln)
}

// calls is what the interceptors count, as one for metrics would.
var calls atomic.Int64

// authorize is what the interceptors do with metadata.
func authorize(ctx context.Context) error {
	calls.Add(1)
	if v := metadata.ValueFromIncomingContext(ctx, "authorization"); len(v) != 1 || v[0] != token {
		return status.Error(codes.Unauthenticated, "bench: no or another token")
	}
	return nil
}

func interceptUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx); err != nil {
		return nil, err
	}
	return h(ctx, req)
}

func interceptStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if err := authorize(ss.Context()); err != nil {
		return err
	}
	return h(srv, ss)
}

// usage is what a server process has used since it began.
type usage struct {
	CPU     time.Duration `json:"cpu"`     // user and system
	Mallocs uint64        `json:"mallocs"` // heap objects ever allocated
}

// memory is what it holds when garbage has been collected and given back.
type memory struct {
	Resident uint64 `json:"resident"`
	Heap     uint64 `json:"heap"`
	Stack    uint64 `json:"stack"`
}

// answer is one line to the load process.
type answer struct {
	Addr   string `json:"addr,omitempty"` // the first line
	Usage  usage  `json:"usage"`
	Memory memory `json:"memory"`
	Error  string `json:"error,omitempty"`
}

// runServer is the server process: it serves v and obeys lines from the load process,
// answering each with one line of JSON, until their end.
func runServer(v variant, in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- v.serve(ln, echo.Register) }()
	answers := json.NewEncoder(out)
	if err := answers.Encode(answer{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	var c control
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			a, err := c.obey(line)
			if err != nil {
				a.Error = err.Error()
			}
			if err := answers.Encode(a); err != nil {
				return err
			}
		}
	}
}

// control is what the load process has of a server process.
type control struct {
	profile *os.File // of CPU, while it goes on
}

// obey does what one line says.
func (c *control) obey(line string) (a answer, err error) {
	verb, file, _ := strings.Cut(line, " ")
	switch verb {
	case "usage":
		a.Usage, err = readUsage()
	case "memory":
		a.Memory, err = readMemory()
	case "profile":
		if c.profile, err = os.Create(file); err == nil {
			err = pprof.StartCPUProfile(c.profile)
		}
	case "profiled":
		pprof.StopCPUProfile()
		err = errors.Join(c.profile.Close(), writeProfile("allocs", file))
	case "heap":
		err = writeProfile("heap", file)
	default:
		err = fmt.Errorf("unknown command %q", verb)
	}
	return a, err
}

func writeProfile(kind, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close())
}

func readUsage() (usage, error) {
	cpu, err := cpuTime()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{CPU: cpu, Mallocs: m.Mallocs}, err
}

// cpuTime is what this process has used, user and system.
func cpuTime() (time.Duration, error) {
	var ru syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), err
}

func readMemory() (memory, error) {
	runtime.GC() // the first one drops what is in pools from use to reserve
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return memory{}, err
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return memory{}, fmt.Errorf("/proc/self/statm: %w", err)
	}
	return memory{Resident: resident * uint64(os.Getpagesize()), Heap: m.HeapAlloc, Stack: m.StackInuse}, nil
}
