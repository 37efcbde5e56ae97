package wsrpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// Calls and sockets that end at any point, several at a time, leave nothing behind: no call,
// nothing that waits for one, and no memory; TestMain looks for goroutines.
func TestAborts(t *testing.T) {
	const calls, atOnce = 1000, 10
	rounds := 10 // of so many sockets at once
	if testing.Short() {
		rounds = 2
	}
	b := &bench{}
	defer b.close()
	reg := rpc.NewRegistry(rpc.Config{})
	stalls.register(reg)
	muxes := make(chan *multiplexer, 1)
	ended := make(chan struct{}, atOnce)
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
	var first uint64
	for round := range rounds {
		var sockets sync.WaitGroup
		var all []*aborter
		for i := range atOnce {
			d := websocket.Dialer{Subprotocols: []string{Subprotocol}}
			ws, _, err := d.Dial("ws"+hs.URL[len("http"):], nil)
			if err != nil {
				t.Fatal(err)
			}
			a := &aborter{
				t: t, name: fmt.Sprintf("round %d, socket %d", round, i), ws: ws, mux: <-muxes,
				random: rand.New(rand.NewPCG(1, uint64(round*atOnce+i))), pongs: make(chan struct{}, 1),
			}
			all = append(all, a)
			sockets.Go(a.read)
			sockets.Go(func() {
				defer ws.NetConn().Close()
				a.run(calls)
				if i%2 == 0 { // the calls end before their socket
					a.cancelAll()
					a.send(`{"ping":1}`)
					<-a.pongs
					a.mux.crew.wait()
					a.left("with all calls cancelled")
				}
			})
		}
		sockets.Wait()
		for range all {
			<-ended
		}
		for _, a := range all {
			a.left("at its end")
		}
		if t.Failed() {
			return
		}
		// A few words for each call of the other rounds would be more.
		const room = 1 << 20
		if heap := liveHeap(); round == 0 {
			first = heap
		} else if heap > first+room {
			t.Errorf("%d bytes are held after round %d, and after the first were %d", heap, round, first)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// liveHeap is how many bytes of the heap are in use, those in pools apart.
func liveHeap() uint64 {
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
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
	name   string
	ws     *websocket.Conn
	mux    *multiplexer // of the server
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

// send sends a frame in either encoding.
func (a *aborter) send(frame string) {
	kind, b, err := websocket.TextMessage, []byte(frame), error(nil)
	if a.random.IntN(2) == 0 {
		kind = websocket.BinaryMessage
		b, err = ToBinary(frame, new(text))
	}
	if err == nil {
		err = a.ws.WriteMessage(kind, b)
	}
	if err != nil {
		a.t.Errorf("%s: send %s: %v", a.name, frame, err)
		runtime.Goexit()
	}
}

// left checks that nothing of calls is left at the server.
func (a *aborter) left(when string) {
	m := a.mux
	m.crew.mu.Lock()
	defer m.crew.mu.Unlock()
	if n, cost := len(m.crew.calls), m.backlog.cost.Load(); n != 0 || m.crew.running != 0 || cost != 0 {
		a.t.Errorf("%s, %s: %d calls are open, %d run, %d bytes wait", a.name, when, n, m.crew.running, cost)
	}
}

// read ends with the socket.
func (a *aborter) read() {
	for {
		_, p, err := a.ws.ReadMessage()
		if err != nil {
			return
		}
		if text := string(p); text == `{"pong":1}` || text == "\x58\x01" {
			a.pongs <- struct{}{}
		}
	}
}
