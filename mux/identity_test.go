package mux_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"oneport/mux"
	"oneport/mux/muxtest"
	hellopb "oneport/proto/helloworld"
)

// identity is what a handler sees of its client.
type identity struct {
	addr, local string
	secure      bool   // over TLS
	name        string // in the client's certificate
}

func (i *identity) see(state *tls.ConnectionState) {
	if state == nil {
		return
	}
	i.secure = true
	if len(state.PeerCertificates) > 0 {
		i.name = state.PeerCertificates[0].Subject.CommonName
	}
}

func ofPeer(ctx context.Context) (i identity) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return i
	}
	i.addr, i.local = p.Addr.String(), p.LocalAddr.String()
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		i.see(&info.State)
	}
	return i
}

func ofRequest(r *http.Request) (i identity) {
	i.addr = r.RemoteAddr
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		i.local = a.String()
	}
	i.see(r.TLS)
	return i
}

// witness is a service and an HTTP handler that tell whom they have seen.
type witness struct {
	hellopb.UnimplementedGreeterServer
	seen chan identity
}

func (w witness) SayHello(ctx context.Context, _ *hellopb.HelloRequest) (*hellopb.HelloReply, error) {
	w.seen <- ofPeer(ctx)
	return &hellopb.HelloReply{}, nil
}

func (w witness) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	w.seen <- ofRequest(r)
	w.seen <- ofPeer(r.Context())
}

// Whichever way a client comes, handlers see the address it has come from, the one
// it has gone to, and over TLS the certificate it has shown.
func TestIdentity(t *testing.T) {
	dial := func(ctx context.Context, from chan<- string, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			from <- c.LocalAddr().String()
		}
		return c, err
	}
	// A client makes one call and sends the address of its connection to from.
	callGRPC := func(t *testing.T, p *port, cfg *tls.Config, from chan<- string) error {
		cc := p.grpc(cfg, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dial(ctx, from, addr)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := hellopb.NewGreeterClient(cc).SayHello(ctx, &hellopb.HelloRequest{})
		return err
	}
	callHTTP := func(major int) func(*testing.T, *port, *tls.Config, chan<- string) error {
		return func(t *testing.T, p *port, cfg *tls.Config, from chan<- string) error {
			c := p.http(major)
			tr := c.Transport.(*http.Transport)
			tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, from, addr) }
			tr.TLSClientConfig = cfg
			res, err := c.Get(p.url(scheme("http", cfg), "/witness"))
			if err == nil {
				res.Body.Close()
			}
			return err
		}
	}
	callSocket := func(t *testing.T, p *port, cfg *tls.Config, from chan<- string) error {
		d := websocket.Dialer{TLSClientConfig: cfg, NetDialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial(ctx, from, addr)
		}}
		c, _, err := d.DialContext(t.Context(), p.url(scheme("ws", cfg), "/grpc-ws"), nil)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		return c.WriteMessage(websocket.BinaryMessage, nil)
	}
	roads := []struct {
		name string
		opts []mux.Option
		call func(*testing.T, *port, *tls.Config, chan<- string) error
		seen int // how many times the client is looked at
	}{
		{"grpc", nil, callGRPC, 1},
		{"shared grpc", []mux.Option{mux.WithSharedHTTP2()}, callGRPC, 1},
		{"http1", nil, callHTTP(1), 2},
		{"http2", nil, callHTTP(2), 2},
		{"shared http2", []mux.Option{mux.WithSharedHTTP2()}, callHTTP(2), 2},
		{"websocket", nil, callSocket, 1},
	}
	for _, road := range roads {
		for _, how := range []string{"cleartext", "TLS", "TLS with certificate"} {
			t.Run(road.name+"/"+how, func(t *testing.T) {
				w := witness{seen: make(chan identity, 2)}
				s := muxtest.New(t, func(s *mux.Server) {
					hellopb.RegisterGreeterServer(s, w)
					s.Handle("/witness", w)
				}, road.opts...)
				p := onPort(t, s.Server, s.ClientTLS)
				want := identity{local: p.addr}
				cfg := p.clientTLS
				switch want.secure = true; how {
				case "cleartext":
					cfg, want.secure = nil, false
				case "TLS with certificate":
					cfg.Certificates, want.name = []tls.Certificate{s.ClientCertificate}, "client"
				}
				from := make(chan string, 2)
				if err := road.call(t, p, cfg, from); err != nil {
					t.Fatal(err)
				}
				want.addr = receive(t, from, "connection")
				for range road.seen {
					if got := receive(t, w.seen, "handler"); got != want {
						t.Errorf("handler sees %+v, want %+v", got, want)
					}
				}
			})
		}
	}
}

// scheme is that of a URL, with an s where cfg says TLS.
func scheme(s string, cfg *tls.Config) string {
	if cfg != nil {
		return s + "s"
	}
	return s
}
