package muxtest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// fakeT stands for a *testing.T where there is none, and where one must fail.
type fakeT struct {
	testing.TB // nil: what is not here panics
	cleanups   []func()
	errors     []string
	out        bytes.Buffer
}

func newT() *fakeT { return new(fakeT) }

func (t *fakeT) Helper()           {}
func (t *fakeT) Cleanup(f func())  { t.cleanups = append(t.cleanups, f) }
func (t *fakeT) Output() io.Writer { return &t.out }

func (t *fakeT) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}

func (t *fakeT) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (t *fakeT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// end does what happens at the end of a test.
func (t *fakeT) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// Each client speaks what its documentation says, in a bubble and outside.
func TestHTTPClients(t *testing.T) {
	run := func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) {
			s.Handle("/what", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				under := "cleartext"
				if r.TLS != nil {
					under = fmt.Sprintf("TLS with ALPN %q", r.TLS.NegotiatedProtocol)
				}
				fmt.Fprint(w, r.Proto, " over ", under, " for ", r.Host, " from ", r.RemoteAddr)
			}))
		})
		for _, tt := range []struct {
			client *http.Client
			url    string
			want   string
		}{
			{s.HTTP1(), muxtest.URL, "HTTP/1.1 over cleartext"},
			{s.HTTP1(), muxtest.URLTLS, `HTTP/1.1 over TLS with ALPN ""`},
			{s.HTTP2(), muxtest.URL, "HTTP/2.0 over cleartext"},
			{s.HTTP2(), muxtest.URLTLS, `HTTP/2.0 over TLS with ALPN "h2"`},
		} {
			res, err := tt.client.Get(tt.url + "/what")
			if err != nil {
				t.Errorf("%s: %v", tt.url, err)
				continue
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if want := tt.want + " for oneport.test from 192.0.2.2:50000"; err != nil || string(got) != want {
				t.Errorf("%s answered %q, %v, want %q", tt.url, got, err, want)
			}
		}
	}
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, run) })
	t.Run("clock", run)
}

func TestWebSocketClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, echoService)
		for name, open := range map[string]func(string, http.Header) *websocket.Conn{"ws": s.WebSocket, "wss": s.WebSocketTLS} {
			ws := open("/ws", http.Header{"Origin": {map[string]string{"ws": muxtest.URL, "wss": muxtest.URLTLS}[name]}})
			if err := ws.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, got, err := ws.ReadMessage(); err != nil || string(got) != "hello" {
				t.Errorf("%s: echo of hello = %q, %v", name, got, err)
			}
		}
	})
}

// A handshake that is refused says why.
func TestWebSocketRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ft := newT()
		defer ft.end()
		s := muxtest.New(ft, echoService)
		defer func() {
			if got := fmt.Sprint(recover()); !strings.Contains(got, "ws://oneport.test/ws") || !strings.Contains(got, "403") {
				t.Errorf("WebSocket ended the test with %q, want URL and status", got)
			}
		}()
		s.WebSocket("/ws", http.Header{"Origin": {"https://elsewhere.test"}})
	})
}

func TestRun(t *testing.T) {
	var roads []string
	registered := 0
	muxtest.Run(t, func(s *mux.Server) {
		registered++
		echoService(s)
	}, func(t *testing.T, cc grpc.ClientConnInterface) {
		roads = append(roads, strings.TrimPrefix(t.Name(), "TestRun/"))
		start := time.Now()
		time.Sleep(time.Hour)
		if got := time.Since(start); got != time.Hour {
			t.Errorf("an hour took %v, want a bubble, where it is exact", got)
		}
		var header metadata.MD
		if _, err := pb.NewEchoServiceClient(cc).Echo(t.Context(), &pb.EchoRequest{}, grpc.Header(&header)); err != nil {
			t.Error(err)
		}
		// net/http gives the date, grpc-go's own transport does not.
		native := strings.HasPrefix(t.Name(), "TestRun/grpc") && !strings.Contains(t.Name(), "web")
		if http := len(header["date"]) > 0; http != (!native && !strings.HasSuffix(t.Name(), "in-process")) {
			t.Errorf("answered by net/http: %v", http)
		}
		large := &pb.EchoRequest{Message: strings.Repeat("x", 100)}
		if _, err := pb.NewEchoServiceClient(cc).Echo(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a message above the limit = %v, want ResourceExhausted: the option is lost", err)
		}
	}, mux.WithMaxMessageBytes(50))
	want := []string{"grpc", "grpc-tls", "shared-http2", "shared-http2-tls",
		"connect-http1", "connect", "connect-tls", "connect-json", "grpc-web-http1", "grpc-web", "grpc-web-tls",
		"grpc-ws", "grpc-ws-tls", "grpc-ws-tunnel", "grpc-ws-tunnel-tls", "in-process"}
	if !slices.Equal(roads, want) || registered != len(want) {
		t.Errorf("Run took the roads %q with %d servers, want %q and one each", roads, registered, want)
	}
}

// On each road a handler that only waits is told when its client gives up.
func TestRunCancel(t *testing.T) {
	var gone chan error // of the bubble
	muxtest.Run(t, func(s *mux.Server) {
		gone = make(chan error, 1)
		pb.RegisterEchoServiceServer(s, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			if err := stream.SendHeader(nil); err != nil {
				return err
			}
			<-stream.Context().Done()
			gone <- stream.Context().Err()
			return nil
		}})
	}, func(t *testing.T, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := pb.NewEchoServiceClient(cc).Converse(ctx)
		if err == nil {
			_, err = stream.Header() // the handler runs
		}
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-gone; err != context.Canceled {
			t.Errorf("context of the handler ended with %v, want canceled", err)
		}
	})
}

// At the end of a test everything it has left open ends: a call on each road, and
// connections with nothing on them.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ft := newT()
		var running atomic.Int32
		s := muxtest.New(ft, func(s *mux.Server) {
			pb.RegisterEchoServiceServer(s, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				running.Add(1)
				<-stream.Context().Done()
				running.Add(-1)
				return nil
			}})
		})
		native := s.GRPC()
		inProcess, cancel := context.WithCancel(t.Context())
		for cc, ctx := range map[grpc.ClientConnInterface]context.Context{
			native: context.Background(), s.GRPCTLS(): context.Background(), s.Conn(): inProcess,
			s.Connect(s.HTTP2()): context.Background(), s.ConnectTLS(s.HTTP2(), connecthttp.WithGRPCWeb()): context.Background(),
		} {
			if _, err := pb.NewEchoServiceClient(cc).Converse(ctx); err != nil {
				t.Fatal(err)
			}
		}
		s.WebSocket("/grpc-ws/echo.v1.EchoService/Converse", nil)
		s.WebSocketTLS("/grpc-ws/echo.v1.EchoService/Converse", nil)
		for _, c := range []*http.Client{s.HTTP1(), s.HTTP2()} {
			for _, url := range []string{muxtest.URL, muxtest.URLTLS} {
				res, err := c.Get(url + "/healthz")
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close() // of a connection that is kept
			}
		}
		if _, err := s.DialContext(t.Context(), "tcp", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := running.Load(); n != 7 {
			t.Errorf("%d handlers run, want 7", n)
		}
		cancel()
		start := time.Now()
		ft.end()
		if n := running.Load(); n != 0 || len(ft.errors) > 0 || time.Since(start) > time.Second {
			t.Errorf("after the end: %d handlers run, errors %q, took %v; want none and no time", n, ft.errors, time.Since(start))
		}
		if got := native.GetState(); got != connectivity.Shutdown {
			t.Errorf("after the end the client is %v, want Shutdown", got)
		}
		if _, err := s.DialContext(t.Context(), "tcp", ""); err == nil {
			t.Error("after the end DialContext still connects")
		}
	})
}

// A call that outlives its test makes that fail, after 5 seconds.
func TestEndWithCallLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ft := newT()
		s := muxtest.New(ft, func(s *mux.Server) {
			pb.RegisterEchoServiceServer(s, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				<-stream.Context().Done()
				return nil
			}})
		})
		if _, err := pb.NewEchoServiceClient(s.Conn()).Converse(context.Background()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ft.end()
		if len(ft.errors) != 1 || !strings.Contains(ft.errors[0], "calls still run") || time.Since(start) != 5*time.Second {
			t.Errorf("the end took %v with errors %q, want 5s and one about calls", time.Since(start), ft.errors)
		}
	})
}

// A test may shut its server down by itself.
func TestEndAfterShutdown(t *testing.T) {
	for name, stop := range map[string]func(*muxtest.Server) error{
		"Shutdown": func(s *muxtest.Server) error { return s.Shutdown(context.Background()) },
		"Close":    func(s *muxtest.Server) error { return s.Close() },
		"neither":  func(*muxtest.Server) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ft := newT()
				if err := stop(muxtest.New(ft, echoService)); err != nil {
					t.Error(err)
				}
				ft.end()
				if len(ft.errors) > 0 {
					t.Errorf("the end reports %q, want nothing", ft.errors)
				}
			})
		})
	}
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ft := newT()
		s := muxtest.New(ft, func(s *mux.Server) {
			pb.RegisterEchoServiceServer(s, service{echo: func(context.Context, *pb.EchoRequest) (*pb.EchoResponse, error) {
				panic("for the log")
			}})
		})
		if _, err := pb.NewEchoServiceClient(s.GRPC()).Echo(t.Context(), &pb.EchoRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("Echo = %v, want Internal", err)
		}
		ft.end()
		if !strings.Contains(ft.out.String(), "for the log") {
			t.Errorf("output of the test is %q, want the panic in it", &ft.out)
		}
	})
}

// Nobody else's server is trusted, nor is anybody else's client.
func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxtest.New(t, echoService), muxtest.New(t, echoService)
		dial := func(s *muxtest.Server, cfg *tls.Config) error {
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			tc := tls.Client(c, cfg)
			defer tc.Close()
			tc.SetDeadline(time.Now().Add(time.Second))
			if err := tc.Handshake(); err != nil {
				return err
			}
			// In TLS 1.3 the server judges the client after its own handshake.
			if _, err = tc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return err
		}
		with := func(cfg *tls.Config, cert tls.Certificate) *tls.Config {
			cfg = cfg.Clone()
			cfg.Certificates = []tls.Certificate{cert}
			return cfg
		}
		if err := dial(a, a.ClientTLS); err != nil {
			t.Errorf("own server: %v", err)
		}
		if err := dial(a, with(a.ClientTLS, a.ClientCertificate)); err != nil {
			t.Errorf("own server, own client: %v", err)
		}
		if err := dial(b, a.ClientTLS); err == nil {
			t.Error("another server is trusted")
		}
		if err := dial(a, with(a.ClientTLS, b.ClientCertificate)); err == nil {
			t.Error("the client of another server is trusted")
		}
	})
}

// A connection goes on after a deadline has passed, in TLS as well.
func TestDeadlineOfConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, echoService)
		for _, secure := range []bool{false, true} {
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			if secure {
				c = tls.Client(c, s.ClientTLS)
			}
			c.SetReadDeadline(time.Now().Add(time.Second))
			_, err = c.Read(make([]byte, 1))
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("TLS %v: Read = %v, want os.ErrDeadlineExceeded", secure, err)
			}
			c.SetReadDeadline(time.Time{})
			fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if b, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(b, []byte("ok\n")) {
				t.Errorf("TLS %v: after the deadline: %q, %v", secure, b, err)
			}
		}
	})
}
