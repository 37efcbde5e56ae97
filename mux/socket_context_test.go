package mux_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"

	"oneport/mux"
	hellopb "oneport/proto/helloworld"
)

type programKey struct{}

// values is a service that tells what the contexts of its calls have.
type values struct {
	hellopb.UnimplementedGreeterServer
	seen chan [3]string
}

func (v values) SayHello(ctx context.Context, _ *hellopb.HelloRequest) (*hellopb.HelloReply, error) {
	var got [3]string
	got[0], _ = ctx.Value(programKey{}).(string)
	if a, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); ok {
		got[1] = a.String()
	}
	if _, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok {
		got[2] = "server"
	}
	v.seen <- got
	return &hellopb.HelloReply{}, nil
}

// A call on a WebSocket has the values of the request that became it: those of net/http,
// and of a handler of the program that hands the request on.
func TestSocketContext(t *testing.T) {
	v := values{seen: make(chan [3]string, 1)}
	p := start(t, cleartextOnly, func(s *mux.Server) {
		hellopb.RegisterGreeterServer(s, v)
		s.Handle("/mine/", http.StripPrefix("/mine", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), programKey{}, "mine")))
		})))
	})
	for path, want := range map[string][3]string{
		"/grpc-ws/helloworld.Greeter/SayHello":      {"", p.addr, "server"},
		"/mine/grpc-ws/helloworld.Greeter/SayHello": {"mine", p.addr, "server"},
	} {
		c, _, err := websocket.DefaultDialer.Dial("ws://"+p.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteMessage(websocket.TextMessage, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, v.seen, "call"); got != want {
			t.Errorf("%s: the context has %q, want %q", path, got, want)
		}
		c.Close()
	}
}
