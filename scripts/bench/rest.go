package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	pb "oneport/proto/echo"
	gateway "oneport/scripts/gateway/echo"
)

// restGet sends a text of size bytes in the path and wants it back.
func restGet(size int) (*call, error) {
	return &call{method: "GET /v1/echo/" + url.PathEscape(text(size)), reply: restReply(size), replies: 1}, nil
}

// restPost sends it in a body.
func restPost(size int) (*call, error) {
	return &call{method: "POST /v1/echo", request: restReply(size), reply: restReply(size), replies: 1}, nil
}

// restReply is the JSON of the answer, and of the request as well. With one field it has
// no place where protojson might write a space.
func restReply(size int) []byte { return fmt.Appendf(nil, `{"message":%q}`, text(size)) }

// serveGateway is grpc-gateway with the service in the same process, which is the way of
// it that costs least. It has no interceptors, so a handler around it does their work.
func serveGateway(ln net.Listener, register service) error {
	var r registrar
	register(&r)
	m := runtime.NewServeMux(runtime.WithWriteContentLength()) // else it is chunks above 2 KiB
	if err := gateway.RegisterEchoServiceHandlerServer(context.Background(), m, r.impl); err != nil {
		return err
	}
	s := http.Server{
		// The limits that mux has.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			if r.Header.Get("Authorization") != token {
				http.Error(w, "bench: no or another token", http.StatusUnauthorized)
				return
			}
			m.ServeHTTP(w, r)
		}),
	}
	return s.Serve(ln)
}

// registrar keeps what is registered.
type registrar struct{ impl pb.EchoServiceServer }

func (r *registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	r.impl = impl.(pb.EchoServiceServer)
}

// restClient calls by HTTP/1.1, one call after the other.
type restClient struct {
	conn
	request []byte
	reply   []byte
}

func dialREST(addr string, c *call) (client, error) {
	raw, err := dial(addr)
	if err != nil {
		return nil, err
	}
	r := &restClient{conn: raw, reply: c.reply}
	r.request = fmt.Appendf(nil, "%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: rest-bench/1\r\nAccept: application/json\r\n", c.method, addr)
	for _, f := range requestMetadata {
		r.request = fmt.Appendf(r.request, "%s: %s\r\n", f[0], f[1])
	}
	if c.request != nil {
		r.request = fmt.Appendf(r.request, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(c.request))
	}
	r.request = append(append(r.request, "\r\n"...), c.request...)
	return r, nil
}

func (r *restClient) start() { r.out = append(r.out, r.request...) }

func (r *restClient) finish() error { return r.Close() }

func (r *restClient) exchange() (messages, ended int, err error) {
	if err := r.flush(); err != nil {
		return 0, 0, err
	}
	if err := r.fill(); err != nil {
		return 0, 0, err
	}
	for {
		header, rest, ok := bytes.Cut(r.in, []byte("\r\n\r\n"))
		if !ok {
			return messages, ended, nil
		}
		n, err := contentLength(header)
		if err != nil {
			return messages, ended, err
		}
		if len(rest) < n {
			return messages, ended, nil
		}
		if !bytes.HasPrefix(header, []byte("HTTP/1.1 200 ")) {
			return messages, ended, fmt.Errorf("%.100s: %.200s", header, rest[:n])
		}
		if !bytes.Equal(rest[:n], r.reply) {
			return messages, ended, errors.New("another message")
		}
		r.in = rest[n:]
		messages++
		ended++
	}
}

// contentLength reads that field of the header of an answer.
func contentLength(header []byte) (int, error) {
	const name = "\r\nContent-Length: "
	_, value, ok := bytes.Cut(header, []byte(name))
	if !ok {
		return 0, fmt.Errorf("no length: %.200s", header)
	}
	value, _, _ = bytes.Cut(value, []byte("\r\n"))
	return strconv.Atoi(string(value))
}
