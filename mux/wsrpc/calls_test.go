package wsrpc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
)

// calls dials a socket of grpc-ws.v1.
func (s *server) calls() *client {
	s.t.Helper()
	return s.dial("/grpc-ws", http.Header{"Sec-Websocket-Protocol": {"chat, grpc-ws.v1"}})
}

const hello = `{"hello":{"window":65536,"maxMessage":1000,"maxCalls":256}}`

// exchange sends and wants texts: those that begin with > and <.
func (c *client) exchange(lines ...string) {
	c.t.Helper()
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "> "); ok {
			c.text(text)
		} else {
			c.wantText(strings.TrimPrefix(line, "< "))
		}
	}
}

// shop is the service of the examples that no other package has.
func shop(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.v1.Shop",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Buy", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := dec(new(emptypb.Empty)); err != nil {
				return nil, err
			}
			md, _ := metadata.FromIncomingContext(ctx)
			if _, ok := ctx.Deadline(); !ok || md["trace-bin"][0] != "\x00\x01" {
				return nil, status.Errorf(codes.Internal, "deadline: %t, metadata %q", ok, md)
			}
			grpc.SetHeader(ctx, metadata.Pairs("served-by", "a"))
			grpc.SetTrailer(ctx, metadata.Pairs("cost", "3"))
			st, err := status.New(codes.FailedPrecondition, "sold out").WithDetails(&errdetails.ErrorInfo{Reason: "STOCKOUT"})
			if err != nil {
				return nil, err
			}
			return nil, st.Err()
		}}},
	}, struct{}{})
}

// examples are the code blocks of section 8 of PROTOCOL.md.
func examples(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "## 8. Examples")
	parts := strings.Split(section, "```")
	if !ok || len(parts) != 11 {
		t.Fatalf("section 8 of PROTOCOL.md has %d parts, want 5 examples between 6 texts", len(parts))
	}
	return []string{parts[1], parts[3], parts[5], parts[7], parts[9]}
}

// The examples happen as they are printed; only the answers of calls that run at the
// same time may come in another order.
func TestExamples(t *testing.T) {
	s := startWith(t, rpc.Config{}, func(r grpc.ServiceRegistrar) { services(r); shop(r) })
	c := s.calls()
	for i, example := range examples(t) {
		if i == 1 {
			continue // in protobuf, below
		}
		var want []string
		flush := func() {
			t.Helper()
			var got []string
			for range want {
				kind, b, err := c.ReadMessage()
				if err != nil || kind != websocket.TextMessage {
					t.Fatalf("example %d: kind %d, %v, want %q", i+1, kind, err, want)
				}
				got = append(got, string(b))
			}
			if i == 3 {
				slices.Sort(got)
				slices.Sort(want)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("example %d: got %q, want %q", i+1, got, want)
			}
			want = nil
		}
		for line := range strings.Lines(strings.TrimSpace(example)) {
			line = strings.TrimSpace(line)
			if text, ok := strings.CutPrefix(line, "> "); ok {
				flush()
				c.text(text)
			} else {
				want = append(want, strings.TrimPrefix(line, "< "))
			}
		}
		flush()
	}
}

func TestBinaryExample(t *testing.T) {
	c := startWith(t, rpc.Config{}, services).calls()
	var messages [][]byte // with > or < in front
	for line := range strings.Lines(strings.TrimSpace(examples(t)[1])) {
		if line[0] == '>' || line[0] == '<' {
			messages = append(messages, []byte{line[0]})
		}
		last := len(messages) - 1
		for word := range strings.FieldsSeq(line[1:]) {
			b, err := hex.DecodeString(word)
			if err != nil || len(b) != 1 {
				break
			}
			messages[last] = append(messages[last], b...)
		}
	}
	if len(messages) != 3 {
		t.Fatalf("%d messages in the example, want 3", len(messages))
	}
	if err := c.WriteMessage(websocket.BinaryMessage, messages[0][1:]); err != nil {
		t.Fatal(err)
	}
	for _, want := range messages[1:] {
		kind, got, err := c.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, want[1:]) {
			t.Fatalf("got kind %d %x, %v, want binary %x", kind, got, err, want[1:])
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	b, err := os.ReadFile("testdata/vectors/malformed.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name         string
		Text, Binary *string
		Close        int
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	s := start(t, services)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			c := s.calls()
			c.t = t
			if v.Text != nil {
				c.text(*v.Text)
			} else {
				b, err := hex.DecodeString(*v.Binary)
				if err != nil {
					t.Fatal(err)
				}
				c.WriteMessage(websocket.BinaryMessage, b)
			}
			c.wantClose(v.Close, "")
		})
	}
}

// What ends the socket with 1002, and what looks like it and does not.
func TestBreaches(t *testing.T) {
	s := start(t, services)
	const open, ok = `{"call":5,"open":{"method":"echo.v1.EchoService/Converse"}}`, 0
	for _, tt := range []struct {
		frames []string
		code   int
	}{
		{[]string{`{"open":{"method":"a/b"}}`}, 1002},
		{[]string{`{"message":{}}`}, 1002},
		{[]string{`{"halfClose":true}`}, 1002},
		{[]string{`{"cancel":true}`}, 1002},
		{[]string{`{"credit":1}`}, 1002},
		{[]string{`{}`, `{"future":1}`, `{"pong":1}`}, ok},
		{[]string{open, open}, 1002},
		{[]string{open, `{"call":4,"open":{"method":"a/b"}}`}, 1002},
		{[]string{open, `{"call":6,"message":{}}`}, 1002},
		{[]string{open, `{"call":6}`}, 1002},
		{[]string{open, `{"call":4,"message":{}}`, `{"call":1,"cancel":true}`}, ok}, // over, for all that is known
		{[]string{open, `{"call":5,"cancel":true}`, open}, 1002},
		{[]string{open, `{"call":5,"cancel":true}`, `{"call":5,"message":{}}`, `{"call":5,"halfClose":true}`}, ok},
		{[]string{open, `{"call":5,"header":{}}`}, 1002},
		{[]string{open, `{"call":5,"end":{}}`}, 1002},
		{[]string{`{"goAway":{}}`}, 1002},
	} {
		t.Run(strings.Join(tt.frames, " "), func(t *testing.T) {
			c := s.calls()
			c.t = t
			for _, f := range tt.frames {
				c.text(f)
			}
			c.wantText(hello)
			if tt.code == ok {
				c.exchange(`> {"ping":7}`, `< {"pong":7}`)
				return
			}
			c.wantClose(tt.code, "")
		})
	}
}

// What ends a call and nothing else.
func TestCallErrors(t *testing.T) {
	s := start(t, services)
	large := func(n int) string { return fmt.Sprintf(`{"message":%q}`, strings.Repeat("x", n-len(`{"message":""}`))) }
	for _, tt := range []struct {
		name   string
		frames []string // of call 1
		end    string   // the beginning of the end
	}{
		{"no such method", []string{`"open":{"method":"echo.v1.EchoService/None"}`}, `{"code":12,"message":"unknown method None`},
		{"no such service", []string{`"open":{"method":"/a.B/C"}`}, `{"code":12,"message":"unknown service a.B"`},
		{"no method", []string{`"open":{}`}, `{"code":12,`},
		{"upper case in a key", []string{`"open":{"method":"echo.v1.EchoService/Echo","metadata":{"A":["b"]}},"message":{}`}, `{"code":3,"message":"metadata key \"A\"`},
		{"bytes in a value", []string{`"open":{"method":"echo.v1.EchoService/Echo","metadata":{"a":["\u0007"]}},"message":{}`}, `{"code":3,"message":"metadata key \"a\"`},
		{"not the JSON of the message", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"message":{"message":1}`}, `{"code":3,"message":"bad request message`},
		{"no object", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"message":null`}, `{"code":3,"message":"bad request message`},
		{"second message", []string{`"open":{"method":"echo.v1.EchoService/Expand"},"message":{"count":2,"interval":"100s"}`, `"message":{}`}, `{"code":12,"message":"message after the half-close`},
		{"message after the half-close", []string{`"open":{"method":"echo.v1.EchoService/Converse"},"halfClose":true`, `"message":{}`}, ``},
		{"message and half-close", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"message":{},"halfClose":true`, `"halfClose":true`}, `{}`},
		{"no message", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"halfClose":true`}, `{"code":12,"message":"/echo.v1.EchoService/Echo takes one`},
		{"message at the limit", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"message": ` + large(1000) + " "}, `{}`},
		{"message above the limit", []string{`"open":{"method":"echo.v1.EchoService/Echo"},"message":` + large(1001)}, `{"code":8,"message":"grpc: received message larger than max (1001 vs. 1000)"`},
		{"credit at the limit", []string{`"open":{"method":"echo.v1.EchoService/Converse"},"credit":2147418111`, `"halfClose":true`}, `{}`},
		{"credit above the limit", []string{`"open":{"method":"echo.v1.EchoService/Converse"},"credit":2147418112`}, `{"code":8,"message":"credit above 2147483647"`},
		{"status of the handler", []string{`"open":{"method":"echo.v1.EchoService/Expand"},"message":{"interval":"-1s"}`}, `{"code":3,"message":"echo: interval`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.calls()
			c.t = t
			c.exchange(`> {"ping":0}`, "< "+hello, `< {"pong":0}`)
			for _, f := range tt.frames {
				c.text(`{"call":1,` + f + `}`)
			}
			if tt.end != "" {
				c.wantEnd(1, tt.end)
			}
			// Others go on, and the call itself is over.
			c.exchange(`> {"call":2,"open":{"method":"echo.v1.EchoService/Echo"},"message":{"message":"x"}}`, `> {"call":1,"message":{}}`)
			c.wantEnd(2, `{}`)
		})
	}
}

// wantEnd reads up to the end of a call.
func (c *client) wantEnd(call int, prefix string) {
	c.t.Helper()
	for {
		_, b, err := c.ReadMessage()
		if err != nil {
			c.t.Fatalf("%v, want end of call %d with %s", err, call, prefix)
		}
		var f struct {
			Call int
			End  json.RawMessage
		}
		if err := json.Unmarshal(b, &f); err != nil {
			c.t.Fatalf("%s: %v", b, err)
		}
		if f.Call != call || f.End == nil {
			continue
		}
		if !strings.HasPrefix(string(f.End), prefix) {
			c.t.Errorf("end of call %d = %s, want %s", call, f.End, prefix)
		}
		return
	}
}

// The largest limit there is means what it says.
func TestMaxMessageBytesUnlimited(t *testing.T) {
	c := startWith(t, rpc.Config{MaxMessageBytes: math.MaxInt}, services).calls()
	c.text(`{}`)
	c.wantText(`{"hello":{"window":65536,"maxMessage":4294967295,"maxCalls":256}}`)
	text := strings.Repeat("x", 100_000)
	c.text(`{"call":1,"open":{"method":"echo.v1.EchoService/Echo"},"message":{"message":"` + text + `"}}`)
	c.wantText(`{"call":1,"message":{"message":"` + text + `"},"end":{}}`)
}
