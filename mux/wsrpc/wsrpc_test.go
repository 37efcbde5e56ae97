package wsrpc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
	"oneport/mux/wsrpc"
	echopb "oneport/proto/echo"
	"oneport/services/echo"
	"oneport/services/greeter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a Handler on a real port; these tests are about the wire.
type server struct {
	t       testing.TB
	url     string
	sockets *socket.Server
}

func start(t *testing.T, register func(grpc.ServiceRegistrar)) *server {
	return startWith(t, rpc.Config{MaxMessageBytes: 1000}, register)
}

func startWith(t testing.TB, cfg rpc.Config, register func(grpc.ServiceRegistrar)) *server {
	reg := rpc.NewRegistry(cfg)
	register(reg)
	sockets := socket.NewServer(socket.Config{MaxMessageBytes: reg.MaxMessageBytes()})
	ts := httptest.NewServer(wsrpc.NewHandler(reg, sockets))
	t.Cleanup(func() {
		ts.Close()
		sockets.Close()
	})
	return &server{t, "ws" + strings.TrimPrefix(ts.URL, "http"), sockets}
}

func services(r grpc.ServiceRegistrar) {
	echo.Register(r)
	greeter.Register(r)
}

func (s *server) dial(path string, header http.Header) *client {
	s.t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(s.url+path, header)
	if err != nil {
		s.t.Fatalf("dial %s: %v", path, err)
	}
	s.t.Cleanup(func() { c.Close() })
	return &client{s.t, c}
}

type client struct {
	t testing.TB
	*websocket.Conn
}

func (c *client) text(s string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(s)); err != nil {
		c.t.Fatalf("send %q: %v", s, err)
	}
}

func (c *client) binary(m proto.Message) {
	c.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.BinaryMessage, b); err != nil {
		c.t.Fatalf("send %v: %v", m, err)
	}
}

func (c *client) wantText(want string) {
	c.t.Helper()
	kind, got, err := c.ReadMessage()
	if err != nil || kind != websocket.TextMessage || string(got) != want {
		c.t.Fatalf("got kind %d %q, %v; want text %q", kind, got, err, want)
	}
}

func (c *client) wantBinary(want string) {
	c.t.Helper()
	kind, got, err := c.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage {
		c.t.Fatalf("got kind %d %q, %v; want binary", kind, got, err)
	}
	m := new(echopb.EchoResponse) // all answers of the service have its shape
	if err := proto.Unmarshal(got, m); err != nil || m.Message != want {
		c.t.Fatalf("got %v, %v; want message %q", m, err, want)
	}
}

func (c *client) wantClose(code int, reason string) {
	c.t.Helper()
	_, got, err := c.ReadMessage()
	ce, ok := errors.AsType[*websocket.CloseError](err)
	if !ok || ce.Code != code || !strings.Contains(ce.Text, reason) {
		c.t.Fatalf("got %q, %v; want close %d with %q", got, err, code, reason)
	}
}

const (
	echoPath     = "/grpc-ws/echo.v1.EchoService/Echo"
	expandPath   = "/grpc-ws/echo.v1.EchoService/Expand"
	collectPath  = "/grpc-ws/echo.v1.EchoService/Collect"
	conversePath = "/grpc-ws/echo.v1.EchoService/Converse"
)

func TestUnary(t *testing.T) {
	s := start(t, services)
	c := s.dial(echoPath, nil)
	c.text(`{"message":"one"}`)
	c.binary(&echopb.EchoRequest{Message: "two"})
	c.text(`{"message":"three","not_in_the_proto":1}`)
	c.wantText(`{"message":"one"}`)
	c.wantBinary("two")
	c.wantText(`{"message":"three"}`)
	c.binary(&echopb.EchoRequest{}) // empty, yet a request
	c.wantBinary("")
	c.text("")
	c.wantClose(1000, "")
}

func TestDefaultMethod(t *testing.T) {
	s := start(t, services)
	for _, path := range []string{"/grpc-ws", "/grpc-ws/"} {
		c := s.dial(path, nil)
		c.text(`{"name":"you"}`)
		c.wantText(`{"message":"Hello you"}`)
	}
}

// Who has forgotten the subprotocol of the frames it sends is told, not answered as if it had
// sent an empty request.
func TestFrameWithoutSubprotocol(t *testing.T) {
	const frame = `{"call":1,"open":{"method":"helloworld.Greeter/SayHello"},"message":{"name":"you"}}`
	s := start(t, services)
	for _, tt := range []struct {
		path, first string
		refused     bool
	}{
		{"/grpc-ws", frame, true},
		{"/grpc-ws/", frame, true},
		{"/grpc-ws/helloworld.Greeter/SayHello", frame, false}, // unknown fields
		{"/grpc-ws", `{"call":1,"name":"you"}`, false},
		{"/grpc-ws", `{"open":{},"name":"you"}`, false},
	} {
		c := s.dial(tt.path, nil)
		c.text(tt.first)
		if tt.refused {
			c.wantClose(4003, "offer that subprotocol")
			continue
		}
		if _, got, err := c.ReadMessage(); err != nil || !strings.Contains(string(got), "Hello ") {
			t.Errorf("%s at %s: %q, %v; want an answer", tt.first, tt.path, got, err)
		}
		c.text(frame)
		c.wantText(`{"message":"Hello "}`)
	}
}

func TestServerStreaming(t *testing.T) {
	s := start(t, services)
	c := s.dial(expandPath, nil)
	c.text(`{"message":"x","count":2}`) // needs no half-close
	c.wantText(`{"message":"x"}`)
	c.wantText(`{"message":"x"}`)
	c.wantClose(1000, "")
}

func TestClientStreaming(t *testing.T) {
	s := start(t, services)
	c := s.dial(collectPath, nil)
	c.text(`{"message":"a"}`)
	c.text(`{"message":"b"}`)
	c.text("")
	c.wantText(`{"messages":["a","b"]}`)
	c.wantClose(1000, "")
}

func TestBidi(t *testing.T) {
	s := start(t, services)
	c := s.dial(conversePath, nil)
	c.text(`{"message":"a"}`)
	c.wantText(`{"message":"a"}`)
	c.binary(&echopb.ConverseRequest{Message: "b"})
	c.wantBinary("b")
	c.text("")
	c.wantClose(1000, "")
}

// A client that only half-closes has said by that text message that it wants
// text.
func TestHalfCloseFirstTurnsToText(t *testing.T) {
	s := start(t, services)
	c := s.dial(collectPath, nil)
	c.text("")
	c.wantText(`{}`)
	c.wantClose(1000, "")
}

func TestErrors(t *testing.T) {
	s := start(t, services)
	tests := []struct {
		name, path string
		send       []string
		code       int
		reason     string
	}{
		{"status", expandPath, []string{`{"interval":"-1s"}`}, 4003, "interval"},
		{"bad JSON", echoPath, []string{`{"message":`}, 4003, "bad request message"},
		{"wrong type", echoPath, []string{`{"message":1}`}, 4003, "bad request message"},
		{"no request", expandPath, []string{""}, 4012, "takes one request message"},
		{"after half-close", collectPath, []string{"", `{"message":"late"}`}, 1002, "after the half-close"},
		{"too large", echoPath, []string{strings.Repeat("x", 1001)}, 1009, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dial(tt.path, nil)
			c.t = t
			for _, m := range tt.send {
				c.text(m)
			}
			for {
				_, _, err := c.ReadMessage()
				if err == nil {
					continue // what was answered before
				}
				ce, ok := errors.AsType[*websocket.CloseError](err)
				// The answer to the half-close and the violation may race.
				if raced := tt.name == "after half-close" && ok && ce.Code == 1000; raced {
					return
				}
				if !ok || ce.Code != tt.code || !strings.Contains(ce.Text, tt.reason) {
					t.Fatalf("sent %.50q: got %v, want close %d with %q", tt.send, err, tt.code, tt.reason)
				}
				return
			}
		})
	}
}

// blocking is an EchoService whose methods wait for the test.
type blocking struct {
	echopb.UnimplementedEchoServiceServer
	began   chan context.Context
	release chan struct{}
}

func newBlocking() *blocking {
	return &blocking{began: make(chan context.Context, 100), release: make(chan struct{})}
}

func (b *blocking) register(r grpc.ServiceRegistrar) { echopb.RegisterEchoServiceServer(r, b) }

func (b *blocking) Echo(ctx context.Context, req *echopb.EchoRequest) (*echopb.EchoResponse, error) {
	b.began <- ctx
	select {
	case <-b.release:
		return &echopb.EchoResponse{Message: req.Message}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *blocking) Collect(s grpc.ClientStreamingServer[echopb.CollectRequest, echopb.CollectResponse]) error {
	b.began <- s.Context()
	for {
		if _, err := s.Recv(); err != nil {
			if err == io.EOF {
				<-b.release
				return status.Error(codes.Aborted, strings.Repeat("ü", 100))
			}
			return err
		}
	}
}

// A message after the half-close is a breach of the protocol, also while the
// call still runs.
func TestMessageAfterHalfClose(t *testing.T) {
	b := newBlocking()
	defer close(b.release)
	c := start(t, b.register).dial(collectPath, nil)
	c.text("")
	c.text(`{"message":"late"}`)
	c.wantClose(1002, "after the half-close")
}

// A reason has room for 123 bytes and is cut between characters.
func TestLongReason(t *testing.T) {
	b := newBlocking()
	close(b.release)
	c := start(t, b.register).dial(collectPath, nil)
	c.text("")
	_, _, err := c.ReadMessage()
	ce, ok := errors.AsType[*websocket.CloseError](err)
	if !ok || ce.Code != 4010 || ce.Text != strings.Repeat("ü", 61) {
		t.Fatalf("got %v, want 4010 with 61 times ü", err)
	}
}

func TestHandshakeBecomesMetadata(t *testing.T) {
	b := newBlocking()
	defer close(b.release)
	s := start(t, b.register)
	header := http.Header{"X-Token": {"a", "b"}, "X-Raw-Bin": {"AAE"}, "Grpc-Timeout": {"1H"}, "Cookie": {"k=v"}}
	c := s.dial(echoPath, header)
	c.text(`{}`)
	ctx := <-b.began
	md, _ := metadata.FromIncomingContext(ctx)
	for key, want := range map[string]string{
		"x-token": "a,b", "x-raw-bin": "\x00\x01", "cookie": "k=v", ":authority": strings.TrimPrefix(s.url, "ws://"),
		"grpc-timeout": "", "connection": "", "upgrade": "", "sec-websocket-key": "", "sec-websocket-version": "",
	} {
		if got := strings.Join(md[key], ","); got != want {
			t.Errorf("metadata %s = %q, want %q", key, got, want)
		}
	}
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > time.Hour || time.Until(d) < 59*time.Minute {
		t.Errorf("deadline = %v, %v; want one in an hour", d, ok)
	}
}

func TestCallEndsWithSocket(t *testing.T) {
	b := newBlocking()
	defer close(b.release)
	c := start(t, b.register).dial(echoPath, nil)
	c.text(`{}`)
	ctx := <-b.began
	c.NetConn().Close()
	<-ctx.Done()
}

// However many small messages wait for a busy handler, it hears of the client's
// close frame at once.
func TestCallEndsWithCloseBehindManyMessages(t *testing.T) {
	b := newBlocking()
	defer close(b.release)
	c := start(t, b.register).dial(echoPath, nil)
	for range 500 {
		c.text(`{"message":"x"}`)
	}
	ctx := <-b.began
	if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Time{}); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}

// Pings are answered while a handler is busy and more messages wait than there
// is room for.
func TestPongWhileBusy(t *testing.T) {
	b := newBlocking()
	c := start(t, b.register).dial(echoPath, nil)
	const calls = 10
	for range calls {
		c.text(`{"message":"x"}`)
	}
	<-b.began
	pong := make(chan string, 1)
	c.SetPongHandler(func(data string) error { pong <- data; return nil })
	if err := c.WriteControl(websocket.PingMessage, []byte("hi"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { // ends with the last answer
		for range calls {
			if _, _, err := c.ReadMessage(); err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	if got := <-pong; got != "hi" {
		t.Errorf("pong = %q, want hi", got)
	}
	close(b.release)
	if err := <-read; err != nil {
		t.Errorf("answers: %v", err)
	}
}

// What has been received when the server drains is answered before the close.
func TestDrain(t *testing.T) {
	b := newBlocking()
	s := start(t, b.register)
	c := s.dial(echoPath, nil)
	c.text(`{"message":"first"}`)
	c.text(`{"message":"second"}`)
	if err := c.WriteControl(websocket.PingMessage, nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	pong := make(chan struct{})
	c.SetPongHandler(func(string) error { close(pong); return nil })
	<-b.began
	down := make(chan error, 1)
	go func() {
		<-pong // both messages have been read
		go func() { down <- s.sockets.Shutdown(context.Background()) }()
		close(b.release)
	}()
	c.wantText(`{"message":"first"}`)
	c.wantText(`{"message":"second"}`)
	c.wantClose(1001, "")
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, services)
	upgrade := func(h http.Header) http.Header {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Version", "13")
		h.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		return h
	}
	tests := []struct {
		path   string
		header http.Header
		code   int
		text   string
	}{
		{echoPath, http.Header{}, http.StatusUpgradeRequired, "WebSocket"},
		{"/grpc-ws/echo.v1.EchoService/None", upgrade(http.Header{}), http.StatusNotFound, "unknown method None"},
		{"/grpc-ws/none.Service/M", upgrade(http.Header{}), http.StatusNotFound, "echo.v1.EchoService, helloworld.Greeter"},
		{"/grpc-ws/none", upgrade(http.Header{}), http.StatusNotFound, "no method is named here; use /grpc-ws/{service}/{method}"},
		{"/grpc-ws//echo.v1.EchoService/Echo", upgrade(http.Header{}), http.StatusNotFound, ""},
		{echoPath, upgrade(http.Header{"Grpc-Timeout": {"1"}}), http.StatusBadRequest, "grpc-timeout"},
		{echoPath, upgrade(http.Header{"X-Bin": {"!"}}), http.StatusBadRequest, "x-bin"},
		{echoPath, upgrade(http.Header{"Sec-Websocket-Protocol": {"chat"}}), http.StatusBadRequest, "to /grpc-ws with grpc-ws.v1"},
		{echoPath, upgrade(http.Header{"Sec-Websocket-Protocol": {"grpc-ws.v1"}}), http.StatusBadRequest, "to /grpc-ws with grpc-ws.v1"},
		{"/grpc-ws", upgrade(http.Header{"Sec-Websocket-Protocol": {"chat, graphql-ws"}}), http.StatusBadRequest, "known: grpc-ws.v1"},
		{"/grpc-ws/", upgrade(http.Header{"Sec-Websocket-Protocol": {"grpc-ws.v1"}, "X-Bin": {"!"}}), http.StatusBadRequest, "x-bin"},
		{"/grpc-ws", http.Header{"Sec-Websocket-Protocol": {"grpc-ws.v1"}}, http.StatusUpgradeRequired, "WebSocket"},
	}
	for _, tt := range tests {
		req, err := http.NewRequest("GET", "http"+strings.TrimPrefix(s.url, "ws")+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = tt.header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.code || !strings.Contains(string(body), tt.text) {
			t.Errorf("%s %v: got %d %q, want %d with %q", tt.path, tt.header, resp.StatusCode, body, tt.code, tt.text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
