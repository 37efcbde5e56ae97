// Command server serves the echo service to the page of scripts/browser, and that page
// as well, until it gets SIGTERM. What the service does not do itself, to fail, to hang
// and to send metadata, it does to calls that ask for it (see [test]); /calls tells how
// many calls there are, and /connections how many connections.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"oneport/certs"
	"oneport/mux"
	"oneport/services/echo"
)

// failure needs escapes wherever it is sent.
const failure = "größer als 100 %,\n\"so\" 😀"

func main() {
	addrFile := flag.String("addr-file", "", "write the address to `FILE`")
	certDir := flag.String("cert-dir", "", "keep the development certificate in `DIR`")
	app := flag.String("app", "", "serve the files of `DIR` at /app/")
	origins := flag.String("origins", "", "allow the pages of these `ORIGINS`, separated by commas")
	flag.Parse()
	if err := run(*addrFile, *certDir, *app, *origins); err != nil {
		log.Fatal(err)
	}
}

func run(addrFile, certDir, app, origins string) error {
	cfg, err := certs.Dev(certDir)
	if err != nil {
		return err
	}
	var calls counter
	var conns connections
	opts := []mux.Option{
		mux.WithTLSConfig(cfg), mux.WithCleartext(),
		mux.WithUnaryInterceptor(calls.unary), mux.WithStreamInterceptor(calls.stream),
		mux.WithStatsHandler(&conns),
	}
	if origins != "" {
		opts = append(opts, mux.WithAllowedOrigins(strings.Split(origins, ",")...))
	}
	s := mux.NewServer(opts...)
	echo.Register(s)
	s.Handle("/app/", http.StripPrefix("/app/", http.FileServer(http.Dir(app))))
	s.Handle("/calls", &calls)
	s.Handle("/connections", &conns)
	s.Handle("/chat", http.HandlerFunc(chat))

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(addrFile, []byte(ln.Addr().String()), 0o644); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-signals:
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return s.Shutdown(ctx)
	}
}

// counter counts calls, and does to them what [test] says.
type counter struct {
	started, running atomic.Int64
}

// ServeHTTP tells the numbers as JSON.
func (c *counter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]int64{"started": c.started.Load(), "running": c.running.Load()})
}

func (c *counter) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c.started.Add(1)
	c.running.Add(1)
	defer c.running.Add(-1)
	if err := test(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *counter) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c.started.Add(1)
	c.running.Add(1)
	defer c.running.Add(-1)
	if err := test(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// test answers metadata "test-send: x" with header "test-header: x" and trailer
// "test-trailer: x", and the same for keys that end in "-bin". "test-do: hang"
// keeps the call until its end, "test-do: fail" ends it with an error, "test-do: detail"
// with one that has a detail.
func test(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, suffix := range []string{"", "-bin"} {
		for _, value := range md.Get("test-send" + suffix) {
			err := errors.Join(
				grpc.SetHeader(ctx, metadata.Pairs("test-header"+suffix, value)),
				grpc.SetTrailer(ctx, metadata.Pairs("test-trailer"+suffix, value)))
			if err != nil {
				return err
			}
		}
	}
	do := md.Get("test-do")
	switch {
	case slices.Equal(do, []string{"hang"}):
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case slices.Equal(do, []string{"fail"}):
		return status.Error(codes.FailedPrecondition, failure)
	case slices.Equal(do, []string{"detail"}):
		st, err := status.New(codes.FailedPrecondition, "detailed").WithDetails(durationpb.New(5 * time.Second))
		if err != nil {
			return err
		}
		return st.Err()
	}
	return nil
}
