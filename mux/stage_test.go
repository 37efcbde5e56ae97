package mux_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/stats"

	"oneport/mux"
	"oneport/mux/muxtest"
)

// A server that no client has asked for takes no goroutine, and one that has been asked
// for takes one, however many connections it has.
func TestServersWaitForClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, services)
		for requests, want := range []int{0, 1, 1} {
			synctest.Wait()
			if got := strings.Count(stacks(), "net/http.(*Server).Serve("); got != want {
				t.Errorf("%d HTTP servers accept after %d requests, want %d", got, requests, want)
			}
			if got := strings.Count(stacks(), "grpc.(*Server).Serve("); got != 0 {
				t.Errorf("%d gRPC servers accept after %d requests over HTTP/1, want none", got, requests)
			}
			resp, err := s.HTTP1().Get(muxtest.URL + "/healthz") // on a new connection
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("GET /healthz: %s", resp.Status)
			}
		}
	})
}

// A server that is slow to accept, as a stats handler takes its time for each connection,
// holds up no connection to another, nor one that is refused.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, services, mux.WithStatsHandler(slowTag{}))
		dial := func(opening string) net.Conn {
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			go io.WriteString(c, opening)
			return c
		}
		for range 10 {
			dial("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		synctest.Wait()
		get := func(c *http.Client, url string) error {
			resp, err := c.Get(url)
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		for _, road := range []struct {
			name string
			use  func() error
			want time.Duration
		}{
			{"refused", func() error { _, err := dial("?????").Read(make([]byte, 100)); return err }, 0},
			{"HTTP/2", func() error { return get(s.HTTP2(), muxtest.URL+"/healthz") }, time.Second},
			{"HTTP/1 over TLS", func() error { return get(s.HTTP1(), muxtest.URLTLS+"/healthz") }, time.Second},
		} {
			start := time.Now()
			if err := road.use(); err != nil {
				t.Errorf("%s: %v after %v", road.name, err, time.Since(start))
			} else if got := time.Since(start); got > road.want {
				t.Errorf("%s: took %v, want %v", road.name, got, road.want)
			}
		}
	})
}

// slowTag takes a second for each connection.
type slowTag struct{}

func (slowTag) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	time.Sleep(time.Second)
	return ctx
}
func (slowTag) HandleConn(context.Context, stats.ConnStats)                     {}
func (slowTag) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (slowTag) HandleRPC(context.Context, stats.RPCStats)                       {}

// stacks are those of the goroutines in the bubble of the caller.
func stacks() string {
	b := make([]byte, 1<<20)
	all := strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n")
	bubble := inBubble.FindString(all[0]) // the caller comes first
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return inBubble.FindString(s) != bubble }), "\n\n")
}

// inBubble finds what the first line of a stack has to say of a bubble.
var inBubble = regexp.MustCompile(`synctest bubble \d+`)
