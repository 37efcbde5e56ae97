//go:build linux

package wsrpc

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/metadata"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// A socket on which nothing comes rests, keeps nothing of earlier calls, and goes on as
// before when something comes: with calls that have run all the while, and with metadata
// of the call before that it no longer remembers.
func TestRest(t *testing.T) {
	release := make(chan struct{})
	s := &script{unary: func(ctx context.Context, in *text) (*text, error) {
		if in.Value == "wait" {
			<-release
		}
		md, _ := metadata.FromIncomingContext(ctx)
		in.Value += strings.Join(md["k"], "")
		return in, nil
	}}
	var b bench
	defer b.close()
	reg := rpc.NewRegistry(rpc.Config{})
	s.register(reg)
	sockets := socket.NewServer(socket.Config{Patience: time.Millisecond})
	defer sockets.Close()
	muxes := make(chan *multiplexer, 1)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shake, err := newHandshake(r)
		if err != nil {
			t.Error(err)
			return
		}
		sockets.Upgrade(w, r, func(c *socket.Conn) {
			m := newMultiplexer(c, reg, shake, &b)
			muxes <- m
			m.read(c)
		}, Subprotocol)
	}))
	defer hs.Close()
	d := websocket.Dialer{Subprotocols: []string{Subprotocol}}
	ws, _, err := d.Dial("ws"+hs.URL[len("http"):], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetReadDeadline(time.Now().Add(time.Minute)) // of a test that has gone wrong
	m := <-muxes
	call := func(number int, message string) {
		t.Helper()
		f := &frame{call: uint32(number), open: &openFrame{method: "/t/Unary", metadata: metadata.MD{"k": {"1"}}}}
		f.message, err = rpc.Proto.Append(nil, &text{Value: message})
		if err == nil {
			err = ws.WriteMessage(websocket.BinaryMessage, f.appendBinary(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(number int, message string) {
		t.Helper()
		for {
			_, p, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			var f frame
			var got text
			if err := f.parseBinary(p); err != nil {
				t.Fatal(err)
			}
			if f.hello != nil {
				continue
			}
			if err := rpc.Proto.Unmarshal(f.message, &got); err != nil || f.call != uint32(number) || got.Value != message {
				t.Fatalf("call %d: %q, %v, want call %d: %q", f.call, got.Value, err, number, message)
			}
			return
		}
	}
	rest := func() { t.Helper(); awaitRest(t, "wsrpc.(*multiplexer)") }
	rest() // before its first frame
	call(1, "wait")
	for n := 2; n < 5; n++ {
		call(n, fmt.Sprint(n))
		want(n, fmt.Sprint(n)+"1")
		rest()
		m.crew.mu.Lock() // which rest has held after all it did
		if m.lastOpen != nil || m.metadata != nil || len(m.crew.calls) != 1 {
			t.Errorf("the last open %+v, metadata %v and %d calls are kept", m.lastOpen, m.metadata, len(m.crew.calls))
		}
		m.crew.mu.Unlock()
	}
	close(release)
	want(1, "wait1")
	call(5, "5")
	want(5, "51")
	rest()
	m.crew.wait() // a call has been answered before its worker is done with it
	m.crew.mu.Lock()
	defer m.crew.mu.Unlock()
	if c := &m.crew; c.calls != nil || c.first != nil || c.final != nil || c.resting != nil {
		t.Errorf("calls %v, %v, %v and workers %v are kept where there is no call", c.calls, c.first, c.final, c.resting)
	}
}

// awaitRest waits until a socket rests, of which no goroutine has this on its stack any
// more.
func awaitRest(t *testing.T, function string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); runtime.Gosched() {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if text := string(stacks); strings.Contains(text, "ready.(*Lot).watch(") && !strings.Contains(text, function) {
			return
		}
	}
	t.Fatal("the socket does not rest")
}

// So does a socket of one method, which keeps no goroutine at all: before its first message
// and after each call.
func TestRestMethod(t *testing.T) {
	reg := rpc.NewRegistry(rpc.Config{})
	speaks.register(reg)
	sockets := socket.NewServer(socket.Config{Patience: time.Millisecond})
	defer sockets.Close()
	hs := httptest.NewServer(NewHandler(reg, sockets))
	defer hs.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws"+hs.URL[len("http"):]+Path+"/t/Unary", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetReadDeadline(time.Now().Add(2 * time.Minute)) // of a test that has gone wrong
	for n := range 2 {
		awaitRest(t, "wsrpc.(*session)")
		message := fmt.Sprintf("%q", fmt.Sprint(n))
		if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.ReadMessage(); err != nil || string(got) != message {
			t.Fatalf("got %s, %v, want %s", got, err, message)
		}
	}
	awaitRest(t, "wsrpc.(*session)")
	if err := ws.WriteMessage(websocket.TextMessage, nil); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after the half-close %q, %v", got, err)
	}
}
