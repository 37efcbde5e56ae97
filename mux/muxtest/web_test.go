package muxtest_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// webRoad is a road of Connect or gRPC-Web, which opts tell apart. gRPC-Web text is
// by name, since connect does not know it.
func webRoad(name string, version int, secure bool, opts ...connecthttp.Option) road {
	return road{name: name, http: version, secure: secure, json: strings.Contains(name, "json"), grpcTimeout: strings.HasPrefix(name, "grpc"),
		connect: func(s *muxtest.Server) grpc.ClientConnInterface {
			c := s.HTTP1()
			if version == 2 {
				c = s.HTTP2()
			}
			wires := &wires{dial: s.DialContext}
			c.Transport.(*http.Transport).DialContext = wires.DialContext
			if strings.Contains(name, "text") {
				c.Transport = textTransport{c.Transport}
			}
			connect := s.Connect
			if secure {
				connect = s.ConnectTLS
			}
			return webConn{connect(c, opts...), wires}
		}}
}

// webConn is a client that can be cut off.
type webConn struct {
	grpc.ClientConnInterface
	io.Closer
}

// wires are the connections of one client.
type wires struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu   sync.Mutex
	open []net.Conn // guarded by mu
}

func (w *wires) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := w.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, c)
	return c, nil
}

// Close cuts them all.
func (w *wires) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.Close()
	}
	return nil
}

// textTransport makes gRPC-Web text of the binary form. It is written to
// PROTOCOL-WEB.md in the grpc repository.
type textTransport struct{ http.RoundTripper }

const (
	webMedia     = "application/grpc-web"
	webTextMedia = "application/grpc-web-text"
)

func (t textTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Content-Type", strings.Replace(r.Header.Get("Content-Type"), webMedia, webTextMedia, 1))
	r.ContentLength, r.GetBody = -1, nil
	r.Body = &encoder{ReadCloser: r.Body}
	res, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if codec, ok := strings.CutPrefix(res.Header.Get("Content-Type"), webTextMedia); ok {
		res.Header.Set("Content-Type", webMedia+codec)
		res.Body = &decoder{ReadCloser: res.Body}
	}
	return res, nil
}

// encoder makes a padded piece of base64 of each Read.
type encoder struct {
	io.ReadCloser
	text []byte // encoded and not read
}

func (e *encoder) Read(p []byte) (int, error) {
	if len(e.text) == 0 {
		var buf [1000]byte
		n, err := e.ReadCloser.Read(buf[:])
		if e.text = base64.StdEncoding.AppendEncode(nil, buf[:n]); n == 0 {
			return 0, err
		}
	}
	n := copy(p, e.text)
	e.text = e.text[n:]
	return n, nil
}

// decoder decodes four characters by four, of which any may be the end of a piece.
type decoder struct {
	io.ReadCloser
	bytes []byte // decoded and not read
}

func (d *decoder) Read(p []byte) (int, error) {
	if len(d.bytes) == 0 {
		var text [4]byte
		if _, err := io.ReadFull(d.ReadCloser, text[:]); err != nil {
			return 0, err // in the middle of four it is not io.EOF
		}
		var err error
		if d.bytes, err = base64.StdEncoding.AppendDecode(nil, text[:]); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.bytes)
	d.bytes = d.bytes[n:]
	return n, nil
}

// A handler may answer and leave requests unread that come by HTTP/1.1, whether
// they are there already, still come, or never do. What the client says next is
// then not taken for anything else, nor does it end in a panic.
func TestUnreadRequests(t *testing.T) {
	const head = "POST /echo.v1.EchoService/Converse HTTP/1.1\r\nHost: oneport.test\r\n" +
		"Content-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n"
	const message, end = "7\r\n\x00\x00\x00\x00\x02{}\r\n", "0\r\n\r\n"
	for name, tt := range map[string]struct {
		before, after string // the answer
		keep          bool   // the connection
	}{
		"read":          {before: head + message + end, keep: true},
		"there":         {before: head + message + message + end},
		"late":          {before: head + message, after: message + end},
		"much":          {before: head + message, after: strings.Repeat(message, 100<<10)},
		"never":         {before: head + message},
		"a minute late": {before: head + message, after: "wait GET /healthz HTTP/1.1\r\nHost: oneport.test\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := muxtest.New(t, func(s *mux.Server) {
					pb.RegisterEchoServiceServer(s, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
						if _, err := stream.Recv(); err != nil {
							return err
						}
						if name == "read" {
							if _, err := stream.Recv(); err != io.EOF {
								return status.Errorf(codes.Internal, "the end is %v", err)
							}
						}
						return stream.Send(&pb.ConverseResponse{Message: "answer"})
					}})
				}, mux.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, tt.before)
				r := bufio.NewReader(c)
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil || !strings.Contains(string(body), "answer") || res.Close == tt.keep {
					t.Errorf("the response is %q, %v, and ends the connection: %v; want answer and %v", body, err, res.Close, !tt.keep)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					after, wait := strings.CutPrefix(tt.after, "wait ")
					if wait {
						time.Sleep(time.Minute)
					}
					io.WriteString(c, after)
					if tt.keep {
						io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n")
					}
				})
				rest, err := io.ReadAll(r)
				wg.Wait()
				if strings.HasSuffix(string(rest), "ok\n") != tt.keep || !tt.keep && len(rest) > 0 {
					t.Errorf("after the response comes %q, %v, want another one: %v", rest, err, tt.keep)
				}
				if logged := log.take(); logged != "" {
					t.Errorf("the log has %s", logged)
				}
			})
		})
	}
}

// The web's clients keep to the rules of grpc.ClientStream and of call options, as
// far as these mean something there.
func TestClientRules(t *testing.T) {
	on(t, append([]road{native, inside}, web...), func(t *testing.T, r road) {
		ended := 0
		c := r.to(t, service{
			echo: func(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
				return &pb.EchoResponse{}, status.Error(codes.Code(len(req.GetMessage())), "")
			},
			converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				defer func() { ended++ }()
				_, err := stream.Recv()
				return err
			},
		})
		var finished []codes.Code
		note := grpc.OnFinish(func(err error) { finished = append(finished, status.Code(err)) })
		for _, want := range []codes.Code{codes.OK, codes.NotFound} {
			reply := &pb.EchoResponse{Message: "of another call"}
			_, err := c.Echo(t.Context(), &pb.EchoRequest{Message: strings.Repeat("x", int(want))}, note)
			if err := c.cc.Invoke(t.Context(), pb.EchoService_Echo_FullMethodName, &pb.EchoRequest{}, reply); err != nil || reply.GetMessage() != "" {
				t.Errorf("an empty answer is %q, %v, want nothing of the old one", reply.GetMessage(), err)
			}
			if status.Code(err) != want {
				t.Errorf("Echo = %v, want %v", err, want)
			}
		}

		stream, err := c.Converse(t.Context(), note)
		if err != nil {
			t.Fatal(err)
		}
		stream.CloseSend()
		if err := stream.Send(&pb.ConverseRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("Send after CloseSend = %v, want Internal", err)
		}
		for range 2 {
			if _, err := stream.Recv(); err == nil || err == io.EOF {
				t.Errorf("Recv after that = %v, want an error", err)
			}
		}

		if stream, err = c.Converse(t.Context(), note); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ended = 0
		if err := stream.Send(&pb.ConverseRequest{Message: "\xff"}); status.Code(err) != codes.Internal {
			t.Errorf("Send of a string that is not UTF-8 = %v, want Internal", err)
		}
		stream.Recv()
		synctest.Wait()
		if ended != 1 {
			t.Error("the call goes on after a Send that has failed")
		}
		if len(finished) != 4 || finished[0] != codes.OK || finished[1] != codes.NotFound || finished[2] == codes.OK || finished[3] == codes.OK {
			t.Errorf("OnFinish was called with %v, want once for each call", finished)
		}
	})
}
