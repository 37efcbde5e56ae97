package wsrpc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// text is the message of the scripted service, a string in JSON.
type text = wrapperspb.StringValue

// script is a service whose handlers a test writes itself: /t/Unary runs unary, /t/Server,
// /t/Client and /t/Bidi run stream.
type script struct {
	unary  func(context.Context, *text) (*text, error)
	stream func(grpc.ServerStream) error
}

func (s *script) register(r grpc.ServiceRegistrar) {
	stream := func(_ any, ss grpc.ServerStream) error { return s.stream(ss) }
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: "t",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(text)
			if err := dec(in); err != nil {
				return nil, err
			}
			return s.unary(ctx, in)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Server", Handler: stream, ServerStreams: true},
			{StreamName: "Client", Handler: stream, ClientStreams: true},
			{StreamName: "Bidi", Handler: stream, ServerStreams: true, ClientStreams: true},
		},
	}, s)
}

// pipeClient is a client of one socket over a net.Pipe, for use in synctest bubbles. What the
// server sends waits in got; the close frame comes as an error's text.
type pipeClient struct {
	t       testing.TB
	ws      *websocket.Conn
	got     chan string
	stalled chan struct{} // holds a token while nothing more is to be read
	mux     *multiplexer
	bench   bench
	sockets *socket.Server
}

// hijackable is what net/http gives a handler, as far as Upgrade is concerned.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
	brw  *bufio.ReadWriter
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.brw, nil }

// connect opens a socket of grpc-ws.v1 to the services of s.
func connect(t testing.TB, s *script, header http.Header) *pipeClient {
	t.Helper()
	return connectWith(t, rpc.Config{}, s, header)
}

func connectWith(t testing.TB, cfg rpc.Config, s *script, header http.Header) *pipeClient {
	t.Helper()
	reg := rpc.NewRegistry(cfg)
	s.register(reg)
	p := newPipeClient(t, socket.Config{})
	began := make(chan *multiplexer, 1)
	p.open(Path, Subprotocol, header, func(w http.ResponseWriter, r *http.Request) {
		shake, err := newHandshake(r)
		if err != nil {
			t.Error(err)
			return
		}
		p.sockets.Upgrade(w, r, func(c *socket.Conn) {
			m := newMultiplexer(c, reg, shake, &p.bench)
			began <- m
			m.read(c)
		}, Subprotocol)
	})
	p.mux = <-began
	return p
}

func newPipeClient(t testing.TB, cfg socket.Config) *pipeClient {
	return &pipeClient{t: t, got: make(chan string, 10000), stalled: make(chan struct{}, 1), sockets: socket.NewServer(cfg)}
}

// open opens the socket that serve makes of the request.
func (p *pipeClient) open(path, subprotocol string, header http.Header, serve http.HandlerFunc) {
	p.t.Helper()
	near, far := net.Pipe()
	go func() {
		brw := bufio.NewReadWriter(bufio.NewReader(near), bufio.NewWriter(near))
		r, err := http.ReadRequest(brw.Reader)
		if err != nil {
			p.t.Error(err)
			return
		}
		serve(hijackable{httptest.NewRecorder(), near, brw}, r)
	}()
	d := websocket.Dialer{
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return far, nil },
		// gorilla makes a frame of what the buffer holds.
		WriteBufferSize: 64 << 10,
	}
	if subprotocol != "" {
		d.Subprotocols = []string{subprotocol}
	}
	ws, res, err := d.Dial("ws://x"+path, header)
	if err != nil {
		p.t.Fatal(err)
	}
	if got := res.Header.Get("Sec-Websocket-Protocol"); got != subprotocol {
		p.t.Errorf("subprotocol %q, want %q", got, subprotocol)
	}
	p.ws = ws
	go p.read()
}

// read ends with the socket.
func (p *pipeClient) read() {
	defer close(p.got)
	for {
		_, b, err := p.ws.ReadMessage()
		if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
			p.got <- ce.Error()
		}
		if err != nil {
			p.ws.Close()
			return
		}
		p.got <- string(b)
		p.stalled <- struct{}{}
		<-p.stalled
	}
}

// stall has the client read nothing, after the next message, until the function that is
// returned is called.
func (p *pipeClient) stall() (resume func()) {
	p.stalled <- struct{}{}
	return func() { <-p.stalled }
}

// close ends the socket and its server.
func (p *pipeClient) close() {
	p.t.Helper()
	p.ws.Close()
	p.sockets.Close() // does not wait long for handlers that are late
	if err := p.sockets.Shutdown(context.Background()); err != nil {
		p.t.Errorf("Shutdown = %v", err)
	}
	for range p.got {
	}
	p.bench.close()
}

func (p *pipeClient) send(frames ...string) {
	p.t.Helper()
	for _, f := range frames {
		if err := p.ws.WriteMessage(websocket.TextMessage, []byte(f)); err != nil {
			p.t.Fatalf("send %.200s: %v", f, err)
		}
	}
}

// want checks the next frames.
func (p *pipeClient) want(frames ...string) {
	p.t.Helper()
	for _, want := range frames {
		if got := <-p.got; got != want {
			p.t.Fatalf("got %.300s, want %.300s", got, want)
		}
	}
}

// wantEnd checks that the next frame is an end of call with this code.
func (p *pipeClient) wantEnd(call, code int) {
	p.t.Helper()
	got := <-p.got
	var f struct {
		Call int
		End  *struct{ Code int }
	}
	if err := json.Unmarshal([]byte(got), &f); err != nil || f.End == nil || f.Call != call || f.End.Code != code {
		p.t.Fatalf("got %.300s, %v, want the end of call %d with code %d", got, err, call, code)
	}
}

// quiet checks that nothing has come.
func (p *pipeClient) quiet() {
	p.t.Helper()
	select {
	case got := <-p.got:
		p.t.Fatalf("got %.300s, want nothing", got)
	default:
	}
}

const helloText = `{"hello":{"window":65536,"maxMessage":4194304,"maxCalls":256}}`
