package wsrpc

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
)

// echoes is a service that gives back what it is sent.
var echoes = &script{
	unary: func(_ context.Context, in *text) (*text, error) { return in, nil },
	stream: func(ss grpc.ServerStream) error {
		m := new(text)
		for {
			if err := ss.RecvMsg(m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := ss.SendMsg(m); err != nil {
				return err
			}
		}
	},
}

// Whatever a client sends, its socket goes on or ends with a code that PROTOCOL.md
// names, and leaves no call behind.
func FuzzFrames(f *testing.F) {
	for _, v := range append(vectors(f, "frames.json"), vectors(f, "malformed.json")...) {
		if v.Text != nil {
			f.Add([]byte(open(1, "Bidi", "")), []byte(*v.Text), []byte(open(5, "Unary", `,"message":"x"`)), byte(0))
		}
		if v.Binary != nil {
			f.Add([]byte(open(1, "Server", "")), []byte(open(2, "Bidi", "")), v.bytes(f), byte(4))
		}
	}
	f.Fuzz(func(t *testing.T, first, second, third []byte, binary byte) {
		p := connect(t, echoes, nil)
		for i, frame := range [][]byte{first, second, third, []byte(`{"ping":77}`)} {
			kind := websocket.TextMessage
			if i < 3 && binary>>i&1 == 1 {
				kind = websocket.BinaryMessage
			}
			if p.ws.WriteMessage(kind, frame) != nil {
				break // it has ended before
			}
		}
		for got := range p.got {
			if got == `{"pong":77}` {
				break
			}
			if strings.HasPrefix(got, "websocket: close") && !slices.ContainsFunc([]string{"1002", "1007", "1008", "1009"}, func(code string) bool {
				return strings.HasPrefix(got, "websocket: close "+code)
			}) {
				t.Errorf("%q %q %q: %s", first, second, third, got)
			}
		}
		p.close()
		w := &p.mux.crew
		w.mu.Lock() // since a worker may come when no call waits any more
		defer w.mu.Unlock()
		if len(w.calls) != 0 || w.running != 0 || w.resting != nil {
			t.Errorf("%q %q %q: %d calls are open and %d run", first, second, third, len(w.calls), w.running)
		}
	})
}
