package mux

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/stats"
)

// connCounter is a stats handler that counts connections and tags them.
type connCounter struct {
	mu     sync.Mutex
	events []string
	ended  chan struct{}
}

type tagKey struct{}

func (c *connCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, tagKey{}, "tagged")
}

func (c *connCounter) HandleConn(ctx context.Context, s stats.ConnStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		c.events = append(c.events, "begin "+ctx.Value(tagKey{}).(string))
	case *stats.ConnEnd:
		c.events = append(c.events, "end "+ctx.Value(tagKey{}).(string))
		c.ended <- struct{}{}
	}
}

func (c *connCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c *connCounter) HandleRPC(context.Context, stats.RPCStats)                       {}

// Every connection begins once and ends once, whatever becomes of it, and not
// before it does.
func TestConnStats(t *testing.T) {
	counter := &connCounter{ended: make(chan struct{}, 10)}
	s := NewServer(WithStatsHandler(counter))
	s.Handle("/hijack", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	url := "://" + ln.Addr().String()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	steps := []struct {
		name string
		run  func(t *testing.T) (end func())
	}{
		{"page", func(t *testing.T) func() {
			resp, err := client.Get("http" + url + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			return func() { resp.Body.Close() }
		}},
		{"websocket", func(t *testing.T) func() {
			c, _, err := websocket.DefaultDialer.Dial("ws"+url+"/ws", http.Header{"X-Md": {"1"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.ReadMessage(); err != nil {
				t.Fatal(err)
			}
			if got := counter.take(); !slices.Equal(got, []string{"begin tagged"}) {
				t.Errorf("while open: %q, want only the begin", got)
			}
			return func() { c.Close() }
		}},
		{"upgrade refused", func(t *testing.T) func() {
			resp, err := client.Get("http" + url + "/ws")
			if err != nil {
				t.Fatal(err)
			}
			return func() { resp.Body.Close() }
		}},
		{"hijacked by the program", func(t *testing.T) func() {
			_, err := client.Get("http" + url + "/hijack")
			if err == nil || !strings.Contains(err.Error(), "EOF") {
				t.Errorf("got %v, want EOF", err)
			}
			return func() {}
		}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			counter.mu.Lock()
			counter.events = nil
			counter.mu.Unlock()
			step.run(t)()
			<-counter.ended
			if got, want := counter.take(), []string{"begin tagged", "end tagged"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	s.Close()
	<-served
	if n := len(counter.ended); n != 0 {
		t.Errorf("%d connections ended twice", n)
	}
}

func (c *connCounter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}
