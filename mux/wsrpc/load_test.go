package wsrpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"oneport/mux/internal/rpc"
)

// kinds are calls of all four kinds: what to send of call n, and its end.
var kinds = []struct {
	send []string
	want []string // messages
}{
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Echo"},"message":{"message":"a"}}`}, []string{`{"message":"a"}`}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Expand"},"message":{"message":"b","count":3}}`}, []string{`{"message":"b"}`, `{"message":"b"}`, `{"message":"b"}`}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Collect"}}`, `{"call":%d,"message":{"message":"c"}}`, `{"call":%d,"message":{"message":"d"},"halfClose":true}`}, []string{`{"messages":["c","d"]}`}},
	{[]string{`{"call":%d,"open":{"method":"echo.v1.EchoService/Converse"}}`, `{"call":%d,"message":{"message":"e"}}`, `{"call":%d,"message":{"message":"f"}}`, `{"call":%d,"halfClose":true}`}, []string{`{"message":"e"}`, `{"message":"f"}`}},
}

// outcomes reads frames until n calls have ended and tells what came of each call that
// is not in skip.
func (c *client) outcomes(n int, skip int) map[int][]string {
	c.t.Helper()
	got := make(map[int][]string)
	for ended := 0; ended < n; {
		_, b, err := c.ReadMessage()
		if err != nil {
			c.t.Fatalf("after %d of %d calls: %v", ended, n, err)
		}
		var f struct {
			Call    int
			Message json.RawMessage
			End     *struct{ Code int }
		}
		if err := json.Unmarshal(b, &f); err != nil {
			c.t.Fatalf("%s: %v", b, err)
		}
		if f.Call == 0 || f.Call == skip {
			continue
		}
		if f.Message != nil {
			got[f.Call] = append(got[f.Call], string(f.Message))
		}
		if f.End != nil {
			ended++
			got[f.Call] = append(got[f.Call], fmt.Sprint("end ", f.End.Code))
		}
	}
	return got
}

// allKinds makes n calls at once, the frames of all mixed, and checks what comes of them.
func (c *client) allKinds(first, n, skip int) {
	c.t.Helper()
	for step := range 4 {
		for i := range n {
			if k := kinds[i%4]; step < len(k.send) {
				c.text(fmt.Sprintf(k.send[step], first+i))
			}
		}
	}
	got := c.outcomes(n, skip)
	for i := range n {
		want := append(append([]string(nil), kinds[i%4].want...), "end 0")
		if have := got[first+i]; strings.Join(have, " ") != strings.Join(want, " ") {
			c.t.Errorf("call %d: %q, want %q", first+i, have, want)
		}
	}
}

// All kinds at once on one socket, several times over: no handler begins before all have
// been called.
func TestAllKindsAtOnce(t *testing.T) {
	const n = 200
	var called sync.WaitGroup
	meet := func() { called.Done(); called.Wait() }
	c := startWith(t, rpc.Config{
		UnaryInterceptors: []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			meet()
			return handler(ctx, req)
		}},
		StreamInterceptors: []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			meet()
			return handler(srv, ss)
		}},
	}, services).calls()
	for round := range 4 {
		called.Add(n)
		c.allKinds(1+n*round, n, 0)
	}
}

// A call whose client gives no credit, and one whose handler receives nothing, do not
// stop the others.
func TestStalledCalls(t *testing.T) {
	s := startWith(t, rpc.Config{}, services)
	c := s.calls()
	c.text(`{"call":1,"open":{"method":"echo.v1.EchoService/Expand"},"message":{"message":"` + strings.Repeat("x", 1000) + `","count":1000000}}`)
	// Its handler waits for credit to answer, so that it receives no more.
	c.text(`{"hello":{"window":1}}`)
	c.text(`{"call":2,"open":{"method":"echo.v1.EchoService/Converse"}}`)
	for range 60 {
		c.text(`{"call":2,"message":{"message":"` + strings.Repeat("y", 1000) + `"}}`)
	}
	c.text(`{"hello":{"window":65536}}`)
	sent := 0
	for sent < 64 { // 65 536 / (1 014 + 16), rounded up
		_, b, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(b), `{"call":1,`) {
			sent++
		}
	}
	c.allKinds(10, 96, 2)
	c.text(`{"call":1,"cancel":true}`)
	c.text(`{"call":2,"cancel":true}`)
	c.allKinds(200, 96, 2)
}
