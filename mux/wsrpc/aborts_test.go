package wsrpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// Calls and sockets that end at any point leave nothing behind: no call, and nothing that
// waits for one; TestMain looks for goroutines.
func TestAborts(t *testing.T) {
	sockets, calls := 100, 1000
	if testing.Short() {
		sockets = 10
	}
	b := &bench{}
	defer b.close()
	reg := rpc.NewRegistry(rpc.Config{})
	stalls.register(reg)
	muxes := make(chan *multiplexer, 1)
	ended := make(chan struct{})
	server := socket.NewServer(socket.Config{Ended: func(context.Context) { ended <- struct{}{} }})
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shake, err := newHandshake(r)
		if err != nil {
			t.Error(err)
			return
		}
		server.Upgrade(w, r, func(c *socket.Conn) {
			m := newMultiplexer(c, reg, shake, b)
			muxes <- m
			m.read(c)
		}, Subprotocol)
	}))
	defer hs.Close()
	for i := range sockets {
		d := websocket.Dialer{Subprotocols: []string{Subprotocol}}
		ws, _, err := d.Dial("ws"+hs.URL[len("http"):], nil)
		if err != nil {
			t.Fatal(err)
		}
		m := <-muxes
		a := &aborter{t: t, ws: ws, random: rand.New(rand.NewPCG(1, uint64(i))), pongs: make(chan struct{}, 1)}
		read := make(chan struct{})
		go func() { defer close(read); a.read() }()
		a.run(calls)
		left := func(when string) {
			t.Helper()
			m.crew.mu.Lock()
			defer m.crew.mu.Unlock()
			if n, cost := len(m.crew.calls), m.backlog.cost.Load(); n != 0 || m.crew.running != 0 || cost != 0 {
				t.Errorf("socket %d, %s: %d calls are open, %d run, %d bytes wait", i, when, n, m.crew.running, cost)
			}
		}
		if i%2 == 0 { // the calls end before their socket
			a.cancelAll()
			a.send(`{"ping":1}`)
			<-a.pongs
			m.crew.wait()
			left("with all calls cancelled")
		}
		ws.NetConn().Close()
		<-ended
		<-read
		left("at its end")
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// stalls is a service of which only some methods take what they are sent.
var stalls = &script{
	unary: echoes.unary,
	stream: func(ss grpc.ServerStream) error {
		if name, _ := grpc.MethodFromServerStream(ss); name == "/t/Client" {
			return waits.stream(ss)
		}
		return echoes.stream(ss)
	},
}

// aborter makes calls on a socket, several at a time, and cancels each at some point.
type aborter struct {
	t      *testing.T
	ws     *websocket.Conn
	random *rand.Rand
	pongs  chan struct{}
	open   []abortedCall
}

type abortedCall struct{ number, sent int }

// run makes n calls. Some are still open then.
func (a *aborter) run(n int) {
	for made := 0; made < n || len(a.open) > 20; {
		if made < n && (len(a.open) == 0 || len(a.open) < 40 && a.random.IntN(2) == 0) {
			made++
			a.open = append(a.open, abortedCall{number: made})
			method := []string{"Unary", "Server", "Client", "Bidi"}[a.random.IntN(4)]
			a.send(open(made, method, []string{"", `,"message":"a"`}[a.random.IntN(2)]))
			continue
		}
		i := a.random.IntN(len(a.open))
		c := &a.open[i]
		c.sent++
		switch next := a.random.IntN(4); {
		case next == 0 || c.sent == 4:
			a.send(fmt.Sprintf(`{"call":%d,"cancel":true}`, c.number))
			a.open[i] = a.open[len(a.open)-1]
			a.open = a.open[:len(a.open)-1]
		case next == 1:
			a.send(fmt.Sprintf(`{"call":%d,"halfClose":true}`, c.number))
		default:
			a.send(fmt.Sprintf(`{"call":%d,"message":"b"}`, c.number))
		}
	}
}

func (a *aborter) cancelAll() {
	for _, c := range a.open {
		a.send(fmt.Sprintf(`{"call":%d,"cancel":true}`, c.number))
	}
}

func (a *aborter) send(frame string) {
	a.t.Helper()
	if err := a.ws.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		a.t.Fatalf("send %s: %v", frame, err)
	}
}

// read ends with the socket.
func (a *aborter) read() {
	for {
		_, p, err := a.ws.ReadMessage()
		if err != nil {
			return
		}
		if string(p) == `{"pong":1}` {
			a.pongs <- struct{}{}
		}
	}
}
