package wsrpc

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A server that is silent is pinged, and given up if it stays so. The status tells how long
// the round trip of the last ping took, whatever other pongs come.
func TestClientKeepalive(t *testing.T) {
	for _, json := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, p := newScripted(t).connect(DialOptions{JSON: json})
			heard := time.Now()
			s := inFlight(t, c, p)
			var clocks []uint64
			for _, took := range []time.Duration{3 * time.Second, 300 * time.Millisecond} {
				f := p.next()
				if got := time.Since(heard); f.ping == nil || got != 30*time.Second {
					t.Fatalf("sent %+v after %v of silence, want a ping after 30 s", f, got)
				}
				clocks = append(clocks, *f.ping)
				other := *f.ping + 1
				p.send(&frame{pong: &other})
				time.Sleep(took)
				p.send(&frame{pong: f.ping})
				time.Sleep(time.Second)
				p.send(&frame{pong: &clocks[0]})
				p.send(&frame{pong: f.ping})
				synctest.Wait()
				heard = time.Now()
			}
			const want = "wsrpc: the server has not answered a ping for 20s; the last round trip took 300ms"
			_, err := received(s)
			if got := time.Since(heard); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != want || got != 50*time.Second {
				t.Errorf("the call ended after %v of silence with %v, want after 50 s UNAVAILABLE, %s", got, err, want)
			}
		})
	}
}

// A server that has never answered a ping has no round trip.
func TestClientKeepaliveUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newScripted(t).connect(DialOptions{})
		const want = "wsrpc: the server has not answered a ping for 20s"
		if _, err := received(inFlight(t, c, p)); status.Convert(err).Message() != want {
			t.Errorf("the call ended with %v, want %s", err, want)
		}
	})
}
