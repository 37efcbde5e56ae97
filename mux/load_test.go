package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"oneport/mux"
	"oneport/mux/tunnel"
	"oneport/mux/wsrpc"
	echopb "oneport/proto/echo"
	"oneport/services/echo"
)

// road is one kind of client, with the books of both ends.
type road struct {
	// run makes calls, and tells of each that was answered in full, until one is
	// not. It returns why, as errRefused where that means that the call was not
	// accepted.
	run func(ctx context.Context, p *port, cfg *tls.Config, answered func()) error

	fast     bool         // handlers return at once, so that most of the time is between the calls
	begun    atomic.Int64 // by handlers
	answered atomic.Int64
}

// A server that is shut down in the middle of its work answers every call that it
// has begun, whatever the road, and begins none that it does not.
func TestShutdownUnderLoad(t *testing.T) {
	for name, opts := range map[string][]mux.Option{"default": nil, "shared HTTP/2": {mux.WithSharedHTTP2()}} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			roads := map[string]*road{
				"grpc":         {run: calls((*port).channel)},
				"grpc-many":    {run: streams((*port).channel)},
				"grpc-ws":      {run: calls((*port).rpcSocket)},
				"grpc-ws-many": {run: streams((*port).rpcSocket)},
				"tunnel":       {run: calls((*port).tunnel)},
				"tunnel-many":  {run: streams((*port).tunnel)},
				"http1":        {run: pages(1)},
				"http1-fast":   {run: pages(1), fast: true},
				"http2":        {run: pages(2)},
				"http2-fast":   {run: pages(2), fast: true},
				"ws-calls":     {run: socketCalls},
				"ws-streams":   {run: socketStreams},
				"ws-web":       {run: webSocketCalls},
			}
			p := start(t, both, func(s *mux.Server) {
				echo.Register(s)
				s.Handle("/work", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					work(t, roads, r.Header.Get("Road"))
					fmt.Fprint(w, "done")
				}))
			}, append(opts,
				mux.WithSniffTimeout(patience), // a handshake takes long when all else runs
				mux.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					work(t, roads, roadOf(ctx))
					return h(ctx, req)
				}),
				mux.WithStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
					work(t, roads, roadOf(s.Context()))
					return h(srv, s)
				}))...)

			const clientsEach, warmCalls = 2, 5
			var clients sync.WaitGroup
			var ending atomic.Bool
			connected, warm, everyone := make(chan struct{}, 100), make(chan struct{}, 100), make(chan struct{})
			for name, r := range roads {
				for i := range clientsEach {
					cfg := []*tls.Config{nil, p.clientTLS}[i%2]
					clients.Go(func() {
						ctx := metadata.AppendToOutgoingContext(t.Context(), "road", name)
						n := 0
						err := r.run(ctx, p, cfg, func() {
							r.answered.Add(1)
							switch n++; n {
							case 1:
								connected <- struct{}{}
								select {
								case <-everyone:
								case <-ctx.Done():
								}
							case warmCalls:
								warm <- struct{}{}
							}
						})
						if !errors.Is(err, errRefused) || !ending.Load() {
							t.Errorf("%s, TLS %v, ended with %v, shutting down %v", name, cfg != nil, err, ending.Load())
							connected <- struct{}{}
							warm <- struct{}{}
						}
					})
				}
			}
			for range clientsEach * len(roads) {
				receive(t, connected, "a call of each client")
			}
			close(everyone)
			for range clientsEach * len(roads) {
				receive(t, warm, "more calls of each client")
			}
			ending.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := p.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown = %v", err)
			}
			clients.Wait()
			for name, r := range roads {
				if b, a := r.begun.Load(), r.answered.Load(); b != a {
					t.Errorf("%s: %d calls begun, %d answered", name, b, a)
				} else {
					t.Logf("%s: %d calls", name, b)
				}
			}
		})
	}
}

// work is what each handler does.
func work(t *testing.T, roads map[string]*road, name string) {
	r, ok := roads[name]
	if !ok {
		t.Errorf("a call on the road %q", name)
		return
	}
	r.begun.Add(1)
	if !r.fast {
		<-time.After(time.Millisecond)
	}
}

func roadOf(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, "road"); len(v) == 1 {
		return v[0]
	}
	return ""
}

// roadHeader says the same in a request.
func roadHeader(ctx context.Context) http.Header {
	md, _ := metadata.FromOutgoingContext(ctx)
	return http.Header{"Road": md["road"]}
}

// clientConn is a client of gRPC stubs.
type clientConn interface {
	grpc.ClientConnInterface
	io.Closer
}

// A dialer makes one; without cfg in cleartext.
type dialer func(*port, *tls.Config) (clientConn, error)

func (p *port) channel(cfg *tls.Config) (clientConn, error) { return p.grpc(cfg), nil }

func (p *port) rpcSocket(cfg *tls.Config) (clientConn, error) {
	return wsrpc.Dial(p.t.Context(), p.url(scheme("ws", cfg), ""), &wsrpc.DialOptions{TLSConfig: cfg})
}

func (p *port) tunnel(cfg *tls.Config) (clientConn, error) {
	creds := insecure.NewCredentials()
	if cfg != nil {
		creds = tunnel.Credentials()
	}
	return grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return tunnel.Dial(ctx, p.url(scheme("ws", cfg), ""), &tunnel.DialOptions{TLSConfig: cfg})
		}))
}

func calls(dial dialer) func(context.Context, *port, *tls.Config, func()) error {
	return func(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
		cc, err := dial(p, cfg)
		if err != nil {
			return err
		}
		defer cc.Close()
		client := echopb.NewEchoServiceClient(cc)
		for {
			res, err := client.Echo(ctx, &echopb.EchoRequest{Message: "x"})
			if err != nil {
				return refused(err)
			}
			if res.Message != "x" {
				return fmt.Errorf("answer %q", res.Message)
			}
			answered()
		}
	}
}

func streams(dial dialer) func(context.Context, *port, *tls.Config, func()) error {
	return func(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
		cc, err := dial(p, cfg)
		if err != nil {
			return err
		}
		defer cc.Close()
		client := echopb.NewEchoServiceClient(cc)
		for {
			stream, err := client.Expand(ctx, &echopb.ExpandRequest{Message: "x", Count: 3, Interval: durationpb.New(time.Millisecond)})
			if err != nil {
				return refused(err)
			}
			n := 0
			for err == nil {
				if _, err = stream.Recv(); err == nil {
					n++
				}
			}
			switch {
			case err == io.EOF && n == 3:
				answered()
			case n == 0:
				return refused(err)
			default:
				return fmt.Errorf("after %d messages of 3: %w", n, err)
			}
		}
	}
}

var errRefused = errors.New("refused")

// refused is err as an errRefused where a client says by it that it could not place a
// call.
func refused(err error) error {
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

func pages(major int) func(context.Context, *port, *tls.Config, func()) error {
	return func(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
		c := p.http(major)
		defer c.CloseIdleConnections()
		for {
			req, err := http.NewRequestWithContext(ctx, "GET", p.url(scheme("http", cfg), "/work"), nil)
			if err != nil {
				return err
			}
			req.Header = roadHeader(ctx)
			res, err := c.Do(req)
			if err != nil {
				return fmt.Errorf("%w: %w", errRefused, err) // or the books will show it
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != "done" {
				return fmt.Errorf("%s %q, %w", res.Status, body, err)
			}
			answered()
		}
	}
}

// open opens a WebSocket. The error is that there is no one to open it with.
func open(ctx context.Context, p *port, cfg *tls.Config, path string, subprotocols ...string) (*websocket.Conn, error) {
	d := websocket.Dialer{TLSClientConfig: cfg, HandshakeTimeout: patience, Subprotocols: subprotocols}
	c, _, err := d.DialContext(ctx, p.url(scheme("ws", cfg), path), roadHeader(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	return c, nil
}

func socketCalls(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
	c, err := open(ctx, p, cfg, "/grpc-ws/echo.v1.EchoService/Echo")
	if err != nil {
		return err
	}
	defer c.Close()
	// Two are under way at a time.
	ask := func() { c.WriteMessage(websocket.TextMessage, []byte(`{"message":"x"}`)) }
	ask()
	for {
		ask()
		_, got, err := c.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseGoingAway) {
			return errRefused
		}
		if err != nil || string(got) != `{"message":"x"}` {
			return fmt.Errorf("answer %q, %w", got, err)
		}
		answered()
	}
}

func socketStreams(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
	for {
		c, err := open(ctx, p, cfg, "/grpc-ws/echo.v1.EchoService/Expand")
		if err != nil {
			return err
		}
		c.WriteMessage(websocket.TextMessage, []byte(`{"message":"x","count":3,"interval":"0.001s"}`))
		n := 0
		for err == nil {
			if _, _, err = c.ReadMessage(); err == nil {
				n++
			}
		}
		c.Close()
		switch {
		case n == 0 && websocket.IsCloseError(err, websocket.CloseGoingAway):
			return errRefused
		case n != 3 || !websocket.IsCloseError(err, websocket.CloseNormalClosure):
			return fmt.Errorf("after %d messages of 3: %w", n, err)
		}
		answered()
	}
}

func webSocketCalls(ctx context.Context, p *port, cfg *tls.Config, answered func()) error {
	for {
		c, err := open(ctx, p, cfg, "/echo.v1.EchoService/Expand", "grpc-websockets")
		if err != nil {
			return err
		}
		c.WriteMessage(websocket.BinaryMessage, nil)
		c.WriteMessage(websocket.BinaryMessage, []byte("\x00"+envelope(0, field(1, "x")+number(2, 3))))
		var got []string
		for err == nil {
			var b []byte
			if _, b, err = c.ReadMessage(); err == nil {
				got = append(got, string(b))
			}
		}
		c.Close()
		message := envelope(0, field(1, "x"))
		switch {
		case len(got) == 0 && websocket.IsCloseError(err, websocket.CloseGoingAway):
			return errRefused
		case !slices.Equal(got, []string{bodyHeader, message, message, message, envelope(0x80, "grpc-status: 0\r\n")}) ||
			!websocket.IsCloseError(err, websocket.CloseNormalClosure):
			return fmt.Errorf("answer %q, %w", got, err)
		}
		answered()
	}
}
