package muxtest_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"oneport/mux"
	pb "oneport/proto/echo"
	"oneport/services/echo"
)

func echoService(s *mux.Server) { echo.Register(s) }

// texts are sent by each of the four kinds of call, to the real service.
var texts = []string{"first", "", "Δέσποινα \U0001F40B", "\x00\n\"\\", ""}

func TestUnary(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.toAll(t, echoService)
		for _, text := range texts {
			if res, err := c.Echo(t.Context(), &pb.EchoRequest{Message: text}); err != nil || res.GetMessage() != text {
				t.Errorf("Echo(%q) = %q, %v", text, res.GetMessage(), err)
			}
		}
	})
}

func TestServerStreaming(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.toAll(t, echoService)
		for _, text := range texts {
			if got, err := expand(t, c, &pb.ExpandRequest{Message: text, Count: 3}); err != nil || !slices.Equal(got, []string{text, text, text}) {
				t.Errorf("Expand(%q, 3) = %q, %v", text, got, err)
			}
		}
	})
}

func TestClientStreaming(t *testing.T) { manyTexts(t, "Collect", collect) }

func TestBidiStreaming(t *testing.T) { manyTexts(t, "Converse", converse) }

// manyTexts sends from none to all of the texts by a call that gives them back.
func manyTexts(t *testing.T, method string, call func(*testing.T, client, ...string) ([]string, error)) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.toAll(t, echoService)
		for n := range len(texts) + 1 {
			if got, err := call(t, c, texts[:n]...); err != nil || !slices.Equal(got, texts[:n]) {
				t.Errorf("%s(%q) = %q, %v", method, texts[:n], got, err)
			}
		}
	})
}

// expand receives to the end of a server-streaming call.
func expand(t *testing.T, c client, req *pb.ExpandRequest) (got []string, err error) {
	t.Helper()
	stream, err := c.Expand(t.Context(), req)
	if err != nil {
		return nil, err
	}
	for {
		res, err := stream.Recv()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, res.GetMessage())
	}
}

// collect makes a client-streaming call.
func collect(t *testing.T, c client, texts ...string) ([]string, error) {
	t.Helper()
	stream, err := c.Collect(t.Context())
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		if err := stream.Send(&pb.CollectRequest{Message: text}); err == io.EOF {
			break // CloseAndRecv tells why
		} else if err != nil {
			return nil, err
		}
	}
	res, err := stream.CloseAndRecv()
	return res.GetMessages(), err
}

// converse makes a bidi-streaming call in which each text waits for the answer
// to the one before.
func converse(t *testing.T, c client, texts ...string) (got []string, err error) {
	t.Helper()
	stream, err := c.Converse(t.Context())
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		if err := stream.Send(&pb.ConverseRequest{Message: text}); err != nil && err != io.EOF {
			return got, err
		}
		res, err := stream.Recv()
		if err != nil {
			return got, err
		}
		got = append(got, res.GetMessage())
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		return got, fmt.Errorf("after the half-close: %w", err)
	}
	return got, nil
}

// The half-close comes after every message, and only then; answers still flow
// after it.
func TestHalfClose(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		var log []string // written by the handler, read after it
		c := r.to(t, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
			for {
				req, err := stream.Recv()
				if err == io.EOF {
					log = append(log, "EOF")
					break
				}
				if err != nil {
					return err
				}
				log = append(log, req.GetMessage())
			}
			if _, err := stream.Recv(); err != io.EOF {
				return status.Errorf(codes.Internal, "Recv after EOF = %v", err)
			}
			for _, text := range []string{"x", "y"} {
				if err := stream.Send(&pb.ConverseResponse{Message: text}); err != nil {
					return err
				}
			}
			return nil
		}})
		stream, err := c.Converse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"a", "b", "c"} {
			if err := stream.Send(&pb.ConverseRequest{Message: text}); err != nil {
				t.Fatalf("Send(%q) = %v", text, err)
			}
		}
		synctest.Wait()
		if want := []string{"a", "b", "c"}; !slices.Equal(log, want) {
			t.Errorf("before the half-close the handler saw %q, want %q", log, want)
		}
		stream.CloseSend()
		for _, want := range []string{"x", "y"} {
			if res, err := stream.Recv(); err != nil || res.GetMessage() != want {
				t.Errorf("Recv = %q, %v, want %q", res.GetMessage(), err, want)
			}
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("last Recv = %v, want EOF", err)
		}
		if want := []string{"a", "b", "c", "EOF"}; !slices.Equal(log, want) {
			t.Errorf("the handler saw %q, want %q", log, want)
		}
	})
}

// A handler may end a call that its client still feeds.
func TestServerEndsFirst(t *testing.T) {
	for _, want := range []codes.Code{codes.OK, codes.FailedPrecondition} {
		t.Run(want.String(), func(t *testing.T) {
			on(t, everywhere, func(t *testing.T, r road) {
				c := r.to(t, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
					if _, err := stream.Recv(); err != nil {
						return err
					}
					return status.Error(want, "enough")
				}})
				stream, err := c.Converse(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Send(&pb.ConverseRequest{Message: "a"}); err != nil {
					t.Fatal(err)
				}
				_, err = stream.Recv()
				if want == codes.OK && err != io.EOF || want != codes.OK && status.Code(err) != want {
					t.Errorf("Recv = %v, want the end with %v", err, want)
				}
				if err := stream.Send(&pb.ConverseRequest{Message: "b"}); err != io.EOF {
					t.Errorf("Send after the end = %v, want EOF", err)
				}
			})
		})
	}
}

// A handler may answer before it looks at a request that has come: in the kind of
// that, on a socket.
func TestAnswerFirst(t *testing.T) {
	on(t, everywhere, func(t *testing.T, r road) {
		c := r.to(t, service{
			collect: func(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
				time.Sleep(time.Second)
				return stream.SendAndClose(&pb.CollectResponse{Messages: []string{"answer"}})
			},
			converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				time.Sleep(time.Second)
				return stream.Send(&pb.ConverseResponse{Message: "answer"})
			},
		})
		if got, err := collect(t, c, "a", "b"); err != nil || !slices.Equal(got, []string{"answer"}) {
			t.Errorf("Collect = %q, %v, want answer", got, err)
		}
		if got, err := converse(t, c, "a"); err != nil || !slices.Equal(got, []string{"answer"}) {
			t.Errorf("Converse = %q, %v, want answer", got, err)
		}
	})
}

// Fifty unary calls and fifty streams on one client are all under way at once.
func TestConcurrentCalls(t *testing.T) {
	const calls = 50
	on(t, everywhere, func(t *testing.T, r road) {
		var here sync.WaitGroup // handlers that have begun
		here.Add(2 * calls)
		meet := func() {
			here.Done()
			here.Wait()
		}
		c := r.to(t, service{
			echo: func(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
				meet()
				return &pb.EchoResponse{Message: req.GetMessage()}, nil
			},
			converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
				meet()
				for {
					req, err := stream.Recv()
					if err == io.EOF {
						return nil
					}
					if err != nil {
						return err
					}
					if err := stream.Send(&pb.ConverseResponse{Message: req.GetMessage()}); err != nil {
						return err
					}
				}
			},
		})
		var clients sync.WaitGroup
		for i := range calls {
			clients.Go(func() {
				want := fmt.Sprint("unary ", i)
				if res, err := c.Echo(t.Context(), &pb.EchoRequest{Message: want}); err != nil || res.GetMessage() != want {
					t.Errorf("Echo(%q) = %q, %v", want, res.GetMessage(), err)
				}
			})
			clients.Go(func() {
				want := []string{fmt.Sprint("stream ", i), fmt.Sprint("again ", i)}
				if got, err := converse(t, c, want...); err != nil || !slices.Equal(got, want) {
					t.Errorf("Converse(%q) = %q, %v", want, got, err)
				}
			})
		}
		clients.Wait()
	})
}

// On the socket of a unary method each message is a call, in turn; answers come in
// the order and the kind of the requests, however long each takes.
func TestUnarySocketCarriesCalls(t *testing.T) {
	on(t, sockets, func(t *testing.T, r road) {
		running := 0
		s := r.to(t, service{echo: func(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
			running++
			defer func() { running-- }()
			if req.GetMessage() == "slow" {
				time.Sleep(time.Second)
			}
			return &pb.EchoResponse{Message: fmt.Sprint(req.GetMessage(), running)}, nil
		}}).server
		open := s.WebSocket
		if r.secure {
			open = s.WebSocketTLS
		}
		ws := open("/grpc-ws/echo.v1.EchoService/Echo", nil)
		const text, binary = websocket.TextMessage, websocket.BinaryMessage
		kinds := []int{r.message, text, binary, r.message}
		for i, message := range []string{"slow", "a", "slow", "b"} {
			b, err := proto.Marshal(&pb.EchoRequest{Message: message})
			if kinds[i] == text {
				b, err = marshalJSON(&pb.EchoRequest{Message: message})
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.WriteMessage(kinds[i], b); err != nil {
				t.Fatal(err)
			}
		}
		ws.WriteMessage(text, nil)
		for i, want := range []string{"slow1", "a1", "slow1", "b1"} {
			kind, b, err := ws.ReadMessage()
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			var res pb.EchoResponse
			err = proto.Unmarshal(b, &res)
			if kind == text {
				err = protojson.Unmarshal(b, &res)
			}
			if err != nil || kind != kinds[i] || res.GetMessage() != want {
				t.Errorf("answer %d = %q of kind %d, %v, want %q of kind %d", i, res.GetMessage(), kind, err, want, kinds[i])
			}
		}
		if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("after the half-close: %v, want close 1000", err)
		}
	})
}
