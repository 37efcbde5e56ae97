package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/internal/xconnect"
	"oneport/mux/muxtest"
	echopb "oneport/proto/echo"
	"oneport/services/echo"
)

// staying is a service and a page that stay until their client or server goes.
type staying struct {
	echopb.UnimplementedEchoServiceServer
	running atomic.Int32
	cause   chan error // what ended the context, one each
}

func (s *staying) stay(ctx context.Context) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	<-ctx.Done()
	s.cause <- ctx.Err()
	return ctx.Err()
}

func (s *staying) Echo(ctx context.Context, _ *echopb.EchoRequest) (*echopb.EchoResponse, error) {
	return nil, s.stay(ctx)
}

func (s *staying) Converse(stream grpc.BidiStreamingServer[echopb.ConverseRequest, echopb.ConverseResponse]) error {
	return s.stay(stream.Context())
}

func (s *staying) ServeHTTP(_ http.ResponseWriter, r *http.Request) { s.stay(r.Context()) }

// stayEverywhere has a call on every road, and returns what ends each at its client.
func stayEverywhere(t *testing.T, opts ...mux.Option) (*muxtest.Server, *staying, map[string]chan error) {
	t.Helper()
	h := &staying{cause: make(chan error, 20)}
	s := muxtest.New(t, func(s *mux.Server) {
		echopb.RegisterEchoServiceServer(s, h)
		s.Handle("/stay", h)
	}, opts...)
	ends := make(map[string]chan error)
	call := func(name string, f func() error) {
		end := make(chan error, 1)
		ends[name] = end
		go func() { end <- f() }()
		synctest.Wait()
	}
	for name, cc := range map[string]grpc.ClientConnInterface{
		"grpc": s.GRPC(), "grpc-tls": s.GRPCTLS(), "tunnel": s.Tunnel(), "tunnel-tls": s.TunnelTLS(), "in-process": s.Conn(),
	} {
		if name != "in-process" { // where a unary call is on its caller's goroutine, and the caller's to end
			call(name, func() error {
				_, err := echopb.NewEchoServiceClient(cc).Echo(context.Background(), &echopb.EchoRequest{})
				return err
			})
		}
		call(name+" stream", func() error {
			stream, err := echopb.NewEchoServiceClient(cc).Converse(context.Background())
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		})
	}
	for name, c := range map[string]*http.Client{"http1": s.HTTP1(), "http2": s.HTTP2()} {
		call(name, func() error {
			res, err := c.Get(muxtest.URL + "/stay")
			if err == nil {
				res.Body.Close()
				err = errors.New(res.Status)
			}
			return err
		})
	}
	dials := map[string]func(context.Context, string, string) (net.Conn, error){"ws": s.DialContext}
	if xconnect.Enabled {
		dials["ws over http2"] = streamsOf(t, s, false).DialContext
	}
	for road, dial := range dials {
		for name, method := range map[string]string{"": "Echo", " stream": "Converse"} {
			d := websocket.Dialer{NetDialContext: dial}
			ws, _, err := d.Dial("ws://oneport.test/grpc-ws/echo.v1.EchoService/"+method, nil)
			if err != nil {
				t.Fatal(err)
			}
			call(road+name, func() error {
				defer ws.Close()
				ws.WriteMessage(websocket.BinaryMessage, nil)
				_, _, err := ws.ReadMessage()
				return err
			})
		}
	}
	if n := int(h.running.Load()); n != len(ends) {
		t.Fatalf("%d handlers run, want %d", n, len(ends))
	}
	return s, h, ends
}

// checkCut fails unless every call has ended, the WebSockets with 1001.
func checkCut(t *testing.T, h *staying, ends map[string]chan error) {
	t.Helper()
	synctest.Wait()
	if n := h.running.Load(); n != 0 {
		t.Errorf("%d handlers still run", n)
	}
	for name, end := range ends {
		select {
		case err := <-end:
			if strings.HasPrefix(name, "ws") && !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Errorf("%s: the client sees %v, want close 1001", name, err)
			}
			if err == nil {
				t.Errorf("%s: the client sees success", name)
			}
		default:
			t.Errorf("%s: the client still waits", name)
		}
	}
}

// cutTime is the most that a Close takes where handlers heed the end of their contexts: a
// millisecond or two to see that, and ten for net/http to send what it has.
const cutTime = 12 * time.Millisecond

// The end of the context of Shutdown cuts what is left, on every road.
func TestShutdownCuts(t *testing.T) {
	for _, opts := range [][]mux.Option{nil, {mux.WithSharedHTTP2()}} {
		synctest.Test(t, func(t *testing.T) {
			s, h, ends := stayEverywhere(t, opts...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			start := time.Now()
			err := s.Shutdown(ctx)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took < 20*time.Second || took > 20*time.Second+cutTime {
				t.Errorf("Shutdown = %v after %v, want DeadlineExceeded after 20s", err, took)
			}
			checkCut(t, h, ends)
		})
	}
}

func TestCloseCuts(t *testing.T) {
	for _, opts := range [][]mux.Option{nil, {mux.WithSharedHTTP2()}} {
		synctest.Test(t, func(t *testing.T) {
			s, h, ends := stayEverywhere(t, opts...)
			start := time.Now()
			if err := s.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if took := time.Since(start); took > cutTime {
				t.Errorf("Close took %v, want %v at most", took, cutTime)
			}
			checkCut(t, h, ends)
			if err := s.Close(); err != nil {
				t.Errorf("second Close = %v", err)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown after Close = %v", err)
			}
		})
	}
}

// Serve reports the end of the server, or of its listener, and nothing else.
func TestServe(t *testing.T) {
	t.Run("after the end", func(t *testing.T) {
		for name, end := range map[string]func(*mux.Server) error{
			"Shutdown": func(s *mux.Server) error { return s.Shutdown(t.Context()) },
			"Close":    (*mux.Server).Close,
		} {
			s := mux.NewServer()
			if err := end(s); err != nil {
				t.Errorf("%s of an unused server = %v", name, err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Serve(ln); err != mux.ErrServerClosed {
				t.Errorf("Serve after %s = %v, want ErrServerClosed", name, err)
			}
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Serve after %s has left the listener open: %v", name, err)
			}
		}
	})
	t.Run("several listeners", func(t *testing.T) {
		p := start(t, both, services)
		q := onPort(t, p.Server, p.clientTLS)
		for _, port := range []*port{p, q} {
			port.alive(true)
		}
	})
	t.Run("a listener fails", func(t *testing.T) {
		cause := errors.New("cable cut")
		p := start(t, both, services)
		err := p.Serve(&failingListener{err: cause})
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "mux: accept: ") {
			t.Errorf("Serve = %v, want mux: accept: %v", err, cause)
		}
		p.alive(true) // on the other one
	})
	t.Run("no certificate", func(t *testing.T) {
		for _, tt := range []struct {
			name string
			cfg  *tls.Config
			ok   bool
		}{
			{"nothing", &tls.Config{}, false},
			{"Certificates", &tls.Config{Certificates: make([]tls.Certificate, 1)}, true},
			{"GetCertificate", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}, true},
			{"GetConfigForClient", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}, true},
		} {
			ln := &failingListener{err: errors.New("cable cut")}
			err := mux.NewServer(mux.WithTLSConfig(tt.cfg)).Serve(ln)
			if ok := errors.Is(err, ln.err); ok != tt.ok || !ok && !strings.Contains(err.Error(), "WithTLSConfig") {
				t.Errorf("%s: Serve = %v; accepts: %v, want %v", tt.name, err, ok, tt.ok)
			}
			if !ln.closed {
				t.Errorf("%s: Serve has left the listener open", tt.name)
			}
		}
	})
}

type failingListener struct {
	err    error
	closed bool
}

func (l *failingListener) Accept() (net.Conn, error) { return nil, l.err }
func (l *failingListener) Close() error              { l.closed = true; return nil }
func (l *failingListener) Addr() net.Addr            { return &net.TCPAddr{} }

// Clients without a call are told to go: by GOAWAY, a close frame, or the end of
// the connection in HTTP/1, which has no more to say.
func TestShutdownTellsIdleClients(t *testing.T) {
	for name, opts := range map[string][]mux.Option{"default": nil, "shared HTTP/2": {mux.WithSharedHTTP2()}} {
		t.Run(name, func(t *testing.T) {
			shutdownTellsIdleClients(t, false, opts...)
		})
		if xconnect.Enabled {
			t.Run(name+", sockets on streams", func(t *testing.T) {
				shutdownTellsIdleClients(t, true, opts...)
			})
		}
	}
}

func shutdownTellsIdleClients(t *testing.T, streams bool, opts ...mux.Option) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, services, opts...)
		dial := func() net.Conn {
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		told := map[string]chan error{}
		client := func(name string, f func() error) {
			c := make(chan error, 1)
			told[name] = c
			go func() { c <- f() }()
			synctest.Wait()
		}
		for name, opening := range map[string][]byte{
			"http2": opening(func(fr *http2.Framer) { fr.WriteHeaders(headers(1, "GET", "/healthz")) }),
			"grpc":  gRPCOpening(),
		} {
			c := dial()
			c.Write(opening)
			client(name, func() error { return goAway(c) })
		}
		c := dial()
		client("http1", func() error {
			fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			io.Copy(io.Discard, res.Body)
			if _, err := r.ReadByte(); err != io.EOF {
				return fmt.Errorf("%v, want EOF", err)
			}
			return nil
		})
		d := websocket.Dialer{NetDialContext: s.DialContext}
		if streams {
			d.NetDialContext = streamsOf(t, s, false).DialContext
		}
		for _, path := range []string{"/ws", "/grpc-ws"} {
			ws, _, err := d.Dial("ws://oneport.test"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			client(path, func() error {
				if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
					return err
				}
				return nil
			})
		}
		for name, c := range told {
			if len(c) > 0 {
				t.Errorf("%s: ended before the server: %v", name, <-c)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		synctest.Wait()
		for name, c := range told {
			select {
			case err := <-c:
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			default:
				t.Errorf("%s: not told", name)
			}
		}
	})
}

// goAway reads frames up to a GOAWAY without an error code.
func goAway(c io.ReadWriter) error {
	fr := http2.NewFramer(c, c)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return fmt.Errorf("no GOAWAY before %w", err)
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			if !f.IsAck() {
				fr.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return fmt.Errorf("GOAWAY with %v %q", f.ErrCode, f.DebugData())
			}
			return nil
		}
	}
}

// A client of HTTP/2 that the split still looks at when the server begins to go is told
// as well, by the server that gets it. net/http forgets one that has just come, hence
// the many.
func TestShutdownTellsNewClients(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			s := muxtest.New(t, services)
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			c.Write(opening())
			told := make(chan error, 1)
			go func() { told <- goAway(c) }()
			synctest.Wait()
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil || time.Since(start) > 10*time.Second {
				t.Errorf("Shutdown = %v after %v, want nil in 10s", err, time.Since(start))
			}
			if err := <-told; err != nil {
				t.Error(err)
			}
		})
	}
}

// The request of a new connection of HTTP/1 is answered, though the server begins to go
// meanwhile. net/http drops one that it has just read, hence the many.
func TestShutdownAnswersNewClients(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			s := muxtest.New(t, services)
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(t.Context()) }()
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Errorf("no answer: %v", err)
			}
			if err := <-down; err != nil {
				t.Errorf("Shutdown = %v", err)
			}
		})
	}
}

// While a call goes on, no connection is accepted; afterwards none is needed to be
// told that the server is gone.
func TestShutdownRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) { echo.Register(s) })
		stream, err := echopb.NewEchoServiceClient(s.GRPC()).Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatalf("Shutdown = %v with a call under way", <-done)
		}
		if _, err := s.DialContext(t.Context(), "tcp", ""); err == nil {
			t.Error("a new connection is accepted")
		}
		if err := stream.Send(&echopb.ConverseRequest{Message: "x"}); err != nil {
			t.Error(err)
		}
		if res, err := stream.Recv(); err != nil || res.Message != "x" {
			t.Errorf("the call under way answers %v, %v", res, err)
		}
		stream.CloseSend()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if _, err := echopb.NewEchoServiceClient(s.Conn()).Echo(t.Context(), &echopb.EchoRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("a call in process afterwards = %v, want Unavailable", err)
		}
	})
}

// slow answers a call after a second.
type slow struct {
	echopb.UnimplementedEchoServiceServer
	begun atomic.Int32
}

func (s *slow) Echo(_ context.Context, req *echopb.EchoRequest) (*echopb.EchoResponse, error) {
	s.begun.Add(1)
	time.Sleep(time.Second)
	return &echopb.EchoResponse{}, nil
}

// A client that has a message under way at all times does not hold the server: of
// its calls those that had been received are answered, and no others begun.
func TestShutdownEndsBusySocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(slow)
		s := muxtest.New(t, func(s *mux.Server) { echopb.RegisterEchoServiceServer(s, h) })
		ws := s.WebSocket("/grpc-ws/echo.v1.EchoService/Echo", nil)
		const ahead = 3
		answers := make(chan int32, 1)
		go func() {
			for range ahead {
				ws.WriteMessage(websocket.BinaryMessage, nil)
			}
			for n := int32(0); ; n++ {
				if _, _, err := ws.ReadMessage(); err != nil {
					if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
						t.Errorf("the client sees %v, want close 1001", err)
					}
					answers <- n
					return
				}
				ws.WriteMessage(websocket.BinaryMessage, nil)
			}
		}()
		time.Sleep(10*time.Second + 500*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if took := time.Since(start); took > (ahead+1)*time.Second {
			t.Errorf("Shutdown took %v with %d calls of a second received", took, ahead)
		}
		if got := <-answers; got != h.begun.Load() {
			t.Errorf("%d calls begun, %d answered", h.begun.Load(), got)
		}
	})
}
