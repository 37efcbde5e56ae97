package wsrpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
)

// scripted makes connections in memory to a server that does what a test says.
type scripted struct {
	t      *testing.T
	hello  helloFrame         // of the server
	silent bool               // says no hello
	tls    *tls.Config        // for wss
	refuse func() error       // if not nil, the outcome of attempts to connect
	answer string             // if not empty, instead of a WebSocket's
	extra  string             // further lines of the answer to the handshake
	close  atomic.Int32       // if not 0, the close code instead of a hello
	stall  chan struct{}      // if not nil, nothing is read after the client's hello until it is closed
	peers  chan *scriptedPeer // those that have shaken hands and said hello
	header chan http.Header   // of handshakes
}

func newScripted(t *testing.T) *scripted {
	return &scripted{t: t, peers: make(chan *scriptedPeer, 100), header: make(chan http.Header, 100)}
}

func (s *scripted) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.refuse != nil {
		if err := s.refuse(); err != nil {
			return nil, err
		}
	}
	client, server := net.Pipe()
	s.t.Cleanup(func() { server.Close() })
	go s.serve(server)
	return client, nil
}

// connect dials with opts, whose NetDialContext it sets. The client is closed, after
// the peers, with the test.
func (s *scripted) connect(opts DialOptions) (*ClientConn, *scriptedPeer) {
	s.t.Helper()
	opts.NetDialContext = s.dial
	url := "ws://server.test"
	if s.tls != nil {
		url = "wss://server.test"
	}
	c, err := Dial(s.t.Context(), url, &opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c, <-s.peers
}

// hijacker is the http.ResponseWriter that gorilla wants of a connection.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
	br   *bufio.Reader
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(h.br, bufio.NewWriter(h.conn)), nil
}

// serve reads all that the client sends until the connection ends.
func (s *scripted) serve(conn net.Conn) {
	if s.tls != nil {
		conn = tls.Server(conn, s.tls)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	r, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	s.header <- r.Header
	if s.answer != "" {
		io.WriteString(conn, strings.ReplaceAll(s.answer, "\n", "\r\n"))
		return
	}
	conn = &extraConn{conn, s.extra}
	up := websocket.Upgrader{Subprotocols: []string{Subprotocol}, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(hijacker{conn: conn, br: br}, r, nil)
	if err != nil {
		return
	}
	p := &scriptedPeer{t: s.t, ws: ws, frames: make(chan *frame, 10000), closed: make(chan int, 1)}
	defer close(p.frames)
	first := true
	for {
		if !first && s.stall != nil {
			<-s.stall
		}
		kind, b, err := ws.ReadMessage()
		if err != nil {
			code := websocket.CloseAbnormalClosure
			if ce, ok := err.(*websocket.CloseError); ok {
				code = ce.Code
			}
			p.closed <- code
			return
		}
		f := new(frame)
		text := kind == websocket.TextMessage
		if first {
			p.text = text
		}
		if text {
			err = f.parseJSON(b)
		} else {
			err = f.parseBinary(b)
		}
		if err != nil {
			s.t.Errorf("the client sent %q: %v", b, err)
			return
		}
		p.frames <- f
		if code := s.close.Load(); code != 0 {
			ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(int(code), ""), time.Now().Add(time.Second))
			continue
		}
		if first && !s.silent {
			p.send(&frame{hello: &s.hello})
			s.peers <- p
		}
		first = false
	}
}

// extraConn puts lines into the first header that is written.
type extraConn struct {
	net.Conn
	lines string
}

func (c *extraConn) Write(p []byte) (int, error) {
	if c.lines == "" {
		return c.Conn.Write(p)
	}
	head, body, _ := strings.Cut(string(p), "\r\n\r\n")
	head += "\r\n" + c.lines
	c.lines = ""
	_, err := io.WriteString(c.Conn, head+"\r\n\r\n"+body)
	return len(p), err
}

// scriptedPeer is the server's end of one socket.
type scriptedPeer struct {
	t      *testing.T
	ws     *websocket.Conn
	text   bool        // encoding of the client; set before the first frame
	frames chan *frame // of the client, closed at the end
	closed chan int    // gets the close code of the client, 1006 without one
}

// send is for one goroutine. It fails no test: the client may have gone.
func (p *scriptedPeer) send(f *frame) {
	if p.text {
		b, err := f.appendJSON(nil)
		if err != nil {
			p.t.Error(err)
		}
		p.ws.WriteMessage(websocket.TextMessage, b)
		return
	}
	p.ws.WriteMessage(websocket.BinaryMessage, f.appendBinary(nil))
}

// next returns the client's next frame, its hello apart.
func (p *scriptedPeer) next() *frame {
	p.t.Helper()
	for f := range p.frames {
		if f.hello == nil {
			return f
		}
	}
	p.t.Fatal("the client has ended the socket")
	return nil
}

func (p *scriptedPeer) codec() rpc.Codec {
	if p.text {
		return rpc.JSON
	}
	return rpc.Proto
}

// message encodes m as the client does.
func (p *scriptedPeer) message(m proto.Message) []byte {
	p.t.Helper()
	b, err := p.codec().Append([]byte{}, m)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *scriptedPeer) echoText(f *frame) string {
	p.t.Helper()
	m := new(echopb.EchoRequest)
	if err := p.codec().Unmarshal(f.message, m); err != nil {
		p.t.Errorf("message %q: %v", f.message, err)
	}
	return m.Message
}

// respond sends a message of the echo service, whose messages all have the text first.
func (p *scriptedPeer) respond(call uint32, text string) {
	p.send(&frame{call: call, message: p.message(&echopb.EchoResponse{Message: text})})
}

func (p *scriptedPeer) end(call, code uint32, trailer ...string) {
	p.send(&frame{call: call, end: &endFrame{code: code, message: "as told", trailer: metadata.Pairs(trailer...)}})
}

// exampleTLS is a server's and a client's side of TLS with example.com. It is called
// outside of a bubble.
func exampleTLS() (server, client *tls.Config) {
	ts := httptest.NewTLSServer(nil) // for its certificate
	ts.Close()
	return &tls.Config{Certificates: ts.TLS.Certificates},
		&tls.Config{RootCAs: ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
}
