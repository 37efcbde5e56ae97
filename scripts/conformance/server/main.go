// Command server is the server under test of connectrpc.com/conformance: a
// mux.Server with the suite's ConformanceService. The suite's runner starts one
// process for each configuration, tells it on standard input what to serve, reads
// from standard output where, and ends it with SIGTERM.
//
// Usage:
//
//	server -protos DIR [-shared]
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oneport/mux"
)

func main() {
	protos := flag.String("protos", "", "`DIR` of the suite's .proto files")
	shared := flag.Bool("shared", false, "serve with mux.WithSharedHTTP2")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *protos, *shared); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// run serves what the runner asks for until ctx ends.
func run(ctx context.Context, protos string, shared bool) error {
	if err := loadSchema(ctx, protos); err != nil {
		return err
	}
	req, err := newNamed("ServerCompatRequest")
	if err != nil {
		return err
	}
	if err := read(os.Stdin, req); err != nil {
		return err
	}
	opts, err := options(req)
	if err != nil {
		return err
	}
	if shared {
		opts = append(opts, mux.WithSharedHTTP2())
	}
	service, err := findService("ConformanceService")
	if err != nil {
		return err
	}
	s := mux.NewServer(opts...)
	registerService(s, service)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { s.Close() })
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()

	addr := ln.Addr().(*net.TCPAddr)
	res, err := newNamed("ServerCompatResponse")
	if err != nil {
		return err
	}
	res.set("host", addr.IP.String())
	res.set("port", uint32(addr.Port))
	res.set("pem_cert", req.sub("server_creds").get("cert").Bytes())
	if err := write(os.Stdout, res); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
		return err
	}
	return nil
}

// options turns a ServerCompatRequest into what mux knows it by. Every mux.Server
// has all protocols and HTTP versions, so that what is asked of these says nothing.
func options(req message) ([]mux.Option, error) {
	opts := []mux.Option{mux.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, nil)))}
	if limit := req.get("message_receive_limit").Uint(); limit > 0 {
		opts = append(opts, mux.WithMaxMessageBytes(int(limit)))
	}
	if !req.get("use_tls").Bool() {
		return opts, nil
	}
	creds := req.sub("server_creds")
	cert, err := tls.X509KeyPair(creds.get("cert").Bytes(), creds.get("key").Bytes())
	if err != nil {
		return nil, fmt.Errorf("server_creds: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	if pem := req.get("client_tls_cert").Bytes(); len(pem) > 0 {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("client_tls_cert: no certificate in it")
		}
		opts = append(opts, withClientCertificate()...)
	}
	return append(opts, mux.WithTLSConfig(cfg)), nil
}

// withClientCertificate has handlers see the certificate of the client, or no call
// succeeds. The suite's own cases are content with a server that asks for none.
func withClientCertificate() []mux.Option {
	check := func(ctx context.Context) error {
		if p, ok := peer.FromContext(ctx); ok {
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
				return nil
			}
		}
		return status.Error(codes.Unauthenticated, "the peer has no verified certificate")
	}
	return []mux.Option{
		mux.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := check(ctx); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}),
		mux.WithStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := check(ss.Context()); err != nil {
				return err
			}
			return h(srv, ss)
		}),
	}
}

// read reads m from r, where its length in four bytes comes first.
func read(r io.Reader, m message) error {
	var size uint32
	err := binary.Read(r, binary.BigEndian, &size)
	if err == nil {
		b := make([]byte, size)
		if _, err = io.ReadFull(r, b); err == nil {
			err = proto.Unmarshal(b, m.Interface())
		}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Descriptor().Name(), err)
	}
	return nil
}

// write writes m to w, with its length in four bytes before it.
func write(w io.Writer, m message) error {
	b, err := proto.Marshal(m.Interface())
	if err == nil {
		_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", m.Descriptor().Name(), err)
	}
	return nil
}
