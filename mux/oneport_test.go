package mux_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"

	"oneport/mux"
	hellopb "oneport/proto/helloworld"
)

// One port of a real network answers every client, in cleartext and TLS.
func TestOnePort(t *testing.T) {
	p := start(t, both, services)
	for _, secure := range []bool{false, true} {
		name, cfg, s := "cleartext", (*tls.Config)(nil), ""
		if secure {
			name, cfg, s = "TLS", p.clientTLS, "s"
		}
		t.Run(name+"/gRPC", func(t *testing.T) { checkGRPC(t, p.grpc(cfg)) })
		for major := 1; major <= 2; major++ {
			t.Run(fmt.Sprintf("%s/HTTP%d", name, major), func(t *testing.T) {
				checkHTTP(t, p.http(major), p.url("http"+s, ""), major)
			})
		}
		t.Run(name+"/WebSocket", func(t *testing.T) { checkEcho(t, p, "ws"+s) })
		t.Run(name+"/gRPC over WebSocket", func(t *testing.T) { checkCalls(t, p, "ws"+s) })
	}
}

func checkGRPC(t *testing.T, cc grpc.ClientConnInterface) {
	if err := hello(t, cc); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(list); err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range res.GetListServicesResponse().GetService() {
		got = append(got, s.Name)
	}
	want := []string{"echo.v1.EchoService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
		"grpc.reflection.v1alpha.ServerReflection", "helloworld.Greeter"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("reflection lists %q, want %q", got, want)
	}
}

func checkHTTP(t *testing.T, c *http.Client, base string, major int) {
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		res, body := get(t, c, base+path)
		if res.StatusCode != 200 || body != want || res.ProtoMajor != major {
			t.Errorf("GET %s = %s %s %q, want HTTP/%d 200 %q", path, res.Proto, res.Status, body, major, want)
		}
	}
}

func checkEcho(t *testing.T, p *port, scheme string) {
	ws := p.socket(scheme, "/ws")
	for _, data := range []string{"hello", "", "grüße", strings.Repeat("x", 100_000)} {
		ws.send(websocket.TextMessage, data)
		ws.want(websocket.TextMessage, data)
		ws.send(websocket.BinaryMessage, data+"\xff")
		ws.want(websocket.BinaryMessage, data+"\xff")
	}
}

func checkCalls(t *testing.T, p *port, scheme string) {
	request, err := proto.Marshal(&hellopb.HelloRequest{Name: "you"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := proto.Marshal(&hellopb.HelloReply{Message: "Hello you"})
	if err != nil {
		t.Fatal(err)
	}
	const text, binary = websocket.TextMessage, websocket.BinaryMessage
	tests := []struct {
		name, path string
		kind       int
		send, want []string
		code       int
		reason     string
	}{
		{"binary", "", binary, []string{string(request)}, []string{string(answer)}, 0, ""},
		{"unary", "/echo.v1.EchoService/Echo", text,
			[]string{`{"message":"a"}`, `{"message":"b"}`, ""}, []string{`{"message":"a"}`, `{"message":"b"}`}, 1000, ""},
		{"server-streaming", "/echo.v1.EchoService/Expand", text,
			[]string{`{"message":"a","count":3}`}, []string{`{"message":"a"}`, `{"message":"a"}`, `{"message":"a"}`}, 1000, ""},
		{"client-streaming", "/echo.v1.EchoService/Collect", text,
			[]string{`{"message":"a"}`, `{"message":"b"}`, ""}, []string{`{"messages":["a","b"]}`}, 1000, ""},
		{"bidi-streaming", "/echo.v1.EchoService/Converse", text,
			[]string{`{"message":"a"}`, `{"message":"b"}`, ""}, []string{`{"message":"a"}`, `{"message":"b"}`}, 1000, ""},
		{"error", "/echo.v1.EchoService/Expand", text,
			[]string{`{"interval":"-1s"}`}, nil, 4003, "echo: interval: -1s is negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ws := p.socket(scheme, "/grpc-ws"+tt.path)
			ws.t = t
			for _, m := range tt.send {
				ws.send(tt.kind, m)
			}
			for _, m := range tt.want {
				ws.want(tt.kind, m)
			}
			if tt.code != 0 {
				ws.wantClose(tt.code, tt.reason)
			}
		})
	}
}

// Requests in turn on one connection all arrive, slow as their handler may be: a
// splitter that says a word too much to an HTTP/2 client is punished after the
// first, which an instant answer hides.
func TestOneConnection(t *testing.T) {
	const requests = 6
	for name, opts := range map[string][]mux.Option{"default": nil, "shared": {mux.WithSharedHTTP2()}} {
		for _, scheme := range []string{"http", "https"} {
			for major := 1; major <= 2; major++ {
				t.Run(fmt.Sprintf("%s/%s/HTTP%d", name, scheme, major), func(t *testing.T) {
					p := start(t, both, func(s *mux.Server) {
						s.Handle("/slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							<-time.After(20 * time.Millisecond)
							fmt.Fprint(w, r.Proto)
						}))
					}, opts...)
					c := p.http(major)
					for i := range requests {
						if res, body := get(t, c, p.url(scheme, "/slow")); res.StatusCode != 200 || res.ProtoMajor != major {
							t.Fatalf("request %d = %s %q, want 200 over HTTP/%d", i+1, res.Status, body, major)
						}
					}
					if n := p.accepted.Load(); n != 1 {
						t.Errorf("%d requests took %d connections, want 1", requests, n)
					}
				})
			}
		}
	}
}
