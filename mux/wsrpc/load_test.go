package wsrpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
	"oneport/mux/wsrpc"
	echopb "oneport/proto/echo"
)

// kinds are calls of all four kinds: what to send of call n, and its end.
var kinds = []struct {
	send            []string
	want            []string // messages
	request, answer proto.Message
}{
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Echo"},"message":{"message":"a"}}`}, []string{`{"message":"a"}`},
		&echopb.EchoRequest{}, &echopb.EchoResponse{}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Expand"},"message":{"message":"b","count":3}}`}, []string{`{"message":"b"}`, `{"message":"b"}`, `{"message":"b"}`},
		&echopb.ExpandRequest{}, &echopb.ExpandResponse{}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Collect"}}`, `{"call":%d,"message":{"message":"c"}}`, `{"call":%d,"message":{"message":"d"},"halfClose":true}`}, []string{`{"messages":["c","d"]}`},
		&echopb.CollectRequest{}, &echopb.CollectResponse{}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Converse"}}`, `{"call":%d,"message":{"message":"e"}}`, `{"call":%d,"message":{"message":"f"}}`, `{"call":%d,"halfClose":true}`}, []string{`{"message":"e"}`, `{"message":"f"}`},
		&echopb.ConverseRequest{}, &echopb.ConverseResponse{}},
}

// sendAs sends a frame in an encoding, with a message of the type of m.
func (c *client) sendAs(kind int, text string, m proto.Message) {
	c.t.Helper()
	if kind == websocket.TextMessage {
		c.text(text)
		return
	}
	b, err := wsrpc.ToBinary(text, m)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.WriteMessage(kind, b); err != nil {
		c.t.Fatalf("send %s: %v", text, err)
	}
}

// allKinds makes n calls at once, the frames of all mixed, and checks what comes of them.
// It returns what has come of other calls meanwhile.
func (c *client) allKinds(kind, first, n int) (others map[int][]string) {
	c.t.Helper()
	for step := range 4 {
		for i := range n {
			if k := kinds[i%4]; step < len(k.send) {
				c.sendAs(kind, fmt.Sprintf(k.send[step], first+i), k.request)
			}
		}
	}
	got := make(map[int][]string)
	for ended := 0; ended < n; {
		gotKind, b, err := c.ReadMessage()
		if err != nil {
			c.t.Fatalf("after %d of %d calls: %v", ended, n, err)
		}
		if gotKind == websocket.BinaryMessage {
			b, err = wsrpc.ToText(b, func(call int) proto.Message { return kinds[(call-first)%4].answer })
			if err != nil {
				c.t.Fatal(err)
			}
		}
		var f struct {
			Call    int
			Message json.RawMessage
			End     *struct{ Code int }
		}
		if err := json.Unmarshal(b, &f); err != nil {
			c.t.Fatalf("%s: %v", b, err)
		}
		ours := f.Call >= first && f.Call < first+n
		if ours && gotKind != kind {
			c.t.Errorf("%s came as kind %d, want %d", b, gotKind, kind)
		}
		if f.Message != nil {
			got[f.Call] = append(got[f.Call], string(f.Message))
		}
		if f.End != nil {
			got[f.Call] = append(got[f.Call], fmt.Sprint("end ", f.End.Code))
			if ours {
				ended++
			}
		}
	}
	for i := range n {
		want := append(append([]string(nil), kinds[i%4].want...), "end 0")
		if have := got[first+i]; !slices.Equal(have, want) {
			c.t.Errorf("call %d: %q, want %q", first+i, have, want)
		}
		delete(got, first+i)
	}
	return got
}

// meeting is a server where no handler begins before n have been called.
func meeting(t *testing.T, n int) *server {
	var mu sync.Mutex
	called, all := 0, make(chan struct{})
	meet := func(ctx context.Context) {
		mu.Lock()
		now := all
		if called++; called == n {
			called, all = 0, make(chan struct{})
			close(now)
		}
		mu.Unlock()
		select {
		case <-now:
		case <-ctx.Done():
		}
	}
	return startWith(t, rpc.Config{
		UnaryInterceptors: []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			meet(ctx)
			return handler(ctx, req)
		}},
		StreamInterceptors: []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			meet(ss.Context())
			return handler(srv, ss)
		}},
	}, services)
}

const atOnce = 200

// All kinds at once on one socket, several times over: no handler begins before all have
// been called.
func TestAllKindsAtOnce(t *testing.T) {
	c := meeting(t, atOnce).calls()
	for round, kind := range []int{websocket.TextMessage, websocket.BinaryMessage, websocket.TextMessage, websocket.BinaryMessage} {
		c.allKinds(kind, 1+atOnce*round, atOnce)
	}
}

// The same by generated stubs on a ClientConn.
func TestAllKindsAtOnceByClient(t *testing.T) {
	want := [][]string{{"a"}, {"b", "b", "b"}, {"c d"}, {"e", "f"}}
	for _, json := range []bool{false, true} {
		cc, err := wsrpc.Dial(t.Context(), meeting(t, atOnce).url, &wsrpc.DialOptions{JSON: json})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			var calls sync.WaitGroup
			for i := range atOnce {
				calls.Go(func() {
					got, err := callKind(t.Context(), echopb.NewEchoServiceClient(cc), i%4)
					if err != nil || !slices.Equal(got, want[i%4]) {
						t.Errorf("JSON %v, round %d, call %d: %q, %v, want %q", json, round, i, got, err, want[i%4])
					}
				})
			}
			calls.Wait()
		}
		cc.Close()
	}
}

// callKind makes the call of one of kinds, and returns the texts of its answers.
func callKind(ctx context.Context, c echopb.EchoServiceClient, kind int) (texts []string, err error) {
	switch kind {
	case 0:
		res, err := c.Echo(ctx, &echopb.EchoRequest{Message: "a"})
		return []string{res.GetMessage()}, err
	case 1:
		s, err := c.Expand(ctx, &echopb.ExpandRequest{Message: "b", Count: 3})
		for err == nil {
			var res *echopb.ExpandResponse
			if res, err = s.Recv(); err == nil {
				texts = append(texts, res.Message)
			}
		}
		return texts, notEOF(err)
	case 2:
		s, err := c.Collect(ctx)
		if err != nil {
			return nil, err
		}
		for _, text := range []string{"c", "d"} {
			if err := s.Send(&echopb.CollectRequest{Message: text}); err != nil {
				return nil, err
			}
		}
		res, err := s.CloseAndRecv()
		return []string{strings.Join(res.GetMessages(), " ")}, err
	default:
		s, err := c.Converse(ctx)
		if err != nil {
			return nil, err
		}
		for _, text := range []string{"e", "f"} {
			if err := s.Send(&echopb.ConverseRequest{Message: text}); err != nil {
				return nil, err
			}
		}
		err = s.CloseSend()
		for err == nil {
			var res *echopb.ConverseResponse
			if res, err = s.Recv(); err == nil {
				texts = append(texts, res.Message)
			}
		}
		return texts, notEOF(err)
	}
}

func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// A call whose client gives no credit, and one whose handler receives nothing, do not
// stop the others. The client gets of them what its credit is for, and no more.
func TestStalledCalls(t *testing.T) {
	const others = 100
	c := startWith(t, rpc.Config{}, services).calls()
	c.text(`{"call":1,"open":{"method":"echo.v1.EchoService/Expand"},"message":{"message":"` + strings.Repeat("x", 1000) + `","count":1000}}`)
	// Its handler waits for credit to answer, so that it receives no more.
	c.text(`{"hello":{"window":1}}`)
	c.text(`{"call":2,"open":{"method":"echo.v1.EchoService/Converse"}}`)
	for range 60 {
		c.text(`{"call":2,"message":{"message":"` + strings.Repeat("y", 1000) + `"}}`)
	}
	c.text(`{"hello":{"window":65536}}`)
	const cost = len(`{"message":""}`) + 1000 + 16
	answers := map[int]int{} // by call
	until := func(call, n int) {
		t.Helper()
		for answers[call] < n {
			_, b, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			for call := range 3 {
				if strings.HasPrefix(string(b), fmt.Sprintf(`{"call":%d,"message":`, call)) {
					answers[call]++
				}
			}
		}
	}
	until(1, (65536+cost-1)/cost)
	until(2, 1)
	for round := range 2 {
		stalled := c.allKinds(websocket.TextMessage, 10+round*others, others)
		if len(stalled[1]) != 0 || len(stalled[2]) != 0 {
			t.Errorf("round %d: without credit %d answers of call 1 have come, and %d of call 2", round, len(stalled[1]), len(stalled[2]))
		}
		if round == 0 { // as much as makes the credit of each positive once
			c.text(fmt.Sprintf(`{"call":1,"credit":%d}`, cost))
			c.text(fmt.Sprintf(`{"call":2,"credit":%d}`, cost))
			until(1, answers[1]+1)
			until(2, 2)
		}
	}
	c.text(`{"call":1,"cancel":true}`)
	c.text(`{"call":2,"cancel":true}`)
	c.allKinds(websocket.TextMessage, 10+2*others, others)
}
