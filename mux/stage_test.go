package mux_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/stats"

	"oneport/mux"
	"oneport/mux/muxtest"
)

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
