package mux_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/mux/wsrpc"
	echopb "oneport/proto/echo"
)

// Expand stays after an answer, unless it is to be silent.
func (s *staying) Expand(req *echopb.ExpandRequest, stream grpc.ServerStreamingServer[echopb.ExpandResponse]) error {
	if req.Message != "silent" {
		if err := stream.Send(&echopb.ExpandResponse{Message: req.Message}); err != nil {
			return err
		}
	}
	return s.stay(stream.Context())
}

// cuts are the ways in which a server cuts calls.
var cuts = map[string]func(*testing.T, *muxtest.Server){
	"Close": func(t *testing.T, s *muxtest.Server) {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	},
	"Shutdown": func(t *testing.T, s *muxtest.Server) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown = %v, want DeadlineExceeded", err)
		}
	},
}

// cutCall has a server cut a call when f waits for its end, and returns what f does.
func cutCall[T any](t *testing.T, cut func(*testing.T, *muxtest.Server), f func(s *muxtest.Server) T, opts ...mux.Option) (got T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &staying{cause: make(chan error, 1)}
		s := muxtest.New(t, func(s *mux.Server) { echopb.RegisterEchoServiceServer(s, h) }, opts...)
		end := make(chan T, 1)
		go func() { end <- f(s) }()
		synctest.Wait()
		if n := h.running.Load(); n != 1 {
			t.Fatalf("%d handlers run, want 1", n)
		}
		cut(t, s)
		got = <-end
		time.Sleep(time.Second) // net/http lets go of a connection half a second after its last answer
	})
	return got
}

// The client of a call that the server cuts is not told that it has cancelled, but that
// another server may do.
func TestCutCall(t *testing.T) {
	const told = "the server is shutting down"
	type client func(s *muxtest.Server) grpc.ClientConnInterface
	web := func(c func(*muxtest.Server) *http.Client, opts ...connecthttp.Option) client {
		return func(s *muxtest.Server) grpc.ClientConnInterface { return s.Connect(c(s), opts...) }
	}
	http1, http2 := (*muxtest.Server).HTTP1, (*muxtest.Server).HTTP2
	native := func(s *muxtest.Server) grpc.ClientConnInterface { return s.GRPC() }
	roads := []struct {
		name string
		dial client
		text string // of the status, "" for whatever the client says of a connection that has ended
		opts []mux.Option
	}{
		{"connect-http1", web(http1), told, nil},
		{"connect-http2", web(http2), told, nil},
		{"connect-json-http1", web(http1, connecthttp.WithProtoJSON()), told, nil},
		{"grpc-web-http1", web(http1, connecthttp.WithGRPCWeb()), told, nil},
		{"grpc-web-http2", web(http2, connecthttp.WithGRPCWeb()), told, nil},
		{"grpc-http2-shared", web(http2, connecthttp.WithGRPC()), told, []mux.Option{mux.WithSharedHTTP2()}},
		{"grpc", native, "", nil},
		{"grpc-shared", native, told, []mux.Option{mux.WithSharedHTTP2()}},
		{"tunnel", func(s *muxtest.Server) grpc.ClientConnInterface { return s.Tunnel() }, "", nil},
		{"grpc-ws", func(s *muxtest.Server) grpc.ClientConnInterface { return s.Socket(wsrpc.DialOptions{}) }, "", nil},
	}
	calls := map[string]func(context.Context, echopb.EchoServiceClient) error{
		"unary": func(ctx context.Context, c echopb.EchoServiceClient) error {
			_, err := c.Echo(ctx, &echopb.EchoRequest{})
			return err
		},
		"stream": func(ctx context.Context, c echopb.EchoServiceClient) error {
			stream, err := c.Converse(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&echopb.ConverseRequest{}); err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"stream with an answer": func(ctx context.Context, c echopb.EchoServiceClient) error {
			stream, err := c.Expand(ctx, &echopb.ExpandRequest{})
			if err != nil {
				return err
			}
			if _, err := stream.Recv(); err != nil {
				return errors.New("no answer: " + err.Error())
			}
			_, err = stream.Recv()
			return err
		},
	}
	for way, cut := range cuts {
		for _, road := range roads {
			for kind, call := range calls {
				t.Run(way+"/"+road.name+"/"+kind, func(t *testing.T) {
					err := cutCall(t, cut, func(s *muxtest.Server) error {
						return call(context.Background(), echopb.NewEchoServiceClient(road.dial(s)))
					}, road.opts...)
					if st := status.Convert(err); st.Code() != codes.Unavailable || road.text != "" && st.Message() != road.text {
						t.Errorf("the client gets %v, want UNAVAILABLE %q", err, road.text)
					}
				})
			}
		}
	}
}

// By REST that is 503, or the last line of a stream. Events are cut without a word, since
// an EventSource asks again after that alone.
func TestCutREST(t *testing.T) {
	const unavailable = `{"code":14,"message":"the server is shutting down","details":[]}`
	for way, cut := range cuts {
		for version, client := range map[string]func(*muxtest.Server) *http.Client{
			"http1": (*muxtest.Server).HTTP1, "http2": (*muxtest.Server).HTTP2,
		} {
			for _, tt := range []struct {
				name, path, accept string
				answer             string // status and body, "" for none
				whole              bool   // the answer has its end
			}{
				{"unary", "/v1/echo/hi", "", "503 " + unavailable, true},
				{"lines", "/v1/echo/hi:expand", "", `200 {"result":{"message":"hi"}}` + "\n" + `{"error":` + unavailable + "}\n", true},
				{"array", "/v1/echo/hi:expand", "application/json", `200 [{"message":"hi"},` + "\n" + `{"error":` + unavailable + "}\n", true},
				{"no line", "/v1/echo/silent:expand", "", "503 " + unavailable, true},
				{"events", "/v1/echo/hi:expand", "text/event-stream", "200 id: 1\ndata: {\"message\":\"hi\"}\n\n", false},
				{"no event", "/v1/echo/silent:expand", "text/event-stream", "", false},
			} {
				t.Run(way+"/"+version+"/"+tt.name, func(t *testing.T) {
					type result struct {
						answer string
						err    error
					}
					got := cutCall(t, cut, func(s *muxtest.Server) result {
						r, err := http.NewRequest("GET", muxtest.URL+tt.path, nil)
						if err != nil {
							return result{"", err}
						}
						if tt.accept != "" {
							r.Header.Set("Accept", tt.accept)
						}
						res, err := client(s).Do(r)
						if err != nil {
							return result{"", err}
						}
						defer res.Body.Close()
						b, err := io.ReadAll(res.Body)
						return result{strings.Fields(res.Status)[0] + " " + string(b), err}
					})
					if got.answer != tt.answer || (got.err == nil) != tt.whole {
						t.Errorf("the client gets %q, %v, want %q, whole %v", got.answer, got.err, tt.answer, tt.whole)
					}
				})
			}
		}
	}
}

// A handler that does not notice holds Close no longer than 250 ms.
func TestCutCallStubborn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(slow)
		s := muxtest.New(t, func(s *mux.Server) { echopb.RegisterEchoServiceServer(s, h) })
		end := make(chan error, 1)
		go func() {
			res, err := s.HTTP1().Get(muxtest.URL + "/v1/echo/hi")
			if err == nil {
				res.Body.Close()
			}
			end <- err
		}()
		synctest.Wait()
		start := time.Now()
		s.Close()
		if took := time.Since(start); took < 250*time.Millisecond || took > 265*time.Millisecond {
			t.Errorf("Close took %v, want 250ms and 10ms", took)
		}
		if err := <-end; err == nil {
			t.Error("the client has an answer of a handler that has not returned")
		}
		time.Sleep(time.Second) // for the handler
	})
}
