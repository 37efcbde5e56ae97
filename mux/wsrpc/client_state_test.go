package wsrpc

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echopb "oneport/proto/echo"
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

// A call under which its socket ends is not made again by the client, also when it waits for
// a connection: it may have done what it was for.
func TestClientNeverRepeats(t *testing.T) {
	for name, call := range map[string]func(context.Context, echopb.EchoServiceClient, ...grpc.CallOption) error{
		"unary": func(ctx context.Context, c echopb.EchoServiceClient, opts ...grpc.CallOption) error {
			_, err := c.Echo(ctx, &echopb.EchoRequest{}, opts...)
			return err
		},
		"server-streaming": func(ctx context.Context, c echopb.EchoServiceClient, opts ...grpc.CallOption) error {
			s, err := c.Expand(ctx, &echopb.ExpandRequest{}, opts...)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"client-streaming": func(ctx context.Context, c echopb.EchoServiceClient, opts ...grpc.CallOption) error {
			s, err := c.Collect(ctx, opts...)
			if err == nil {
				_, err = s.CloseAndRecv()
			}
			return err
		},
	} {
		for _, wait := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := newScripted(t)
				c, p := server.connect(DialOptions{Backoff: steady})
				time.Sleep(2 * time.Second) // so that the next socket comes at once
				calls := make(chan uint32, 10)
				serve := func(p *scriptedPeer) {
					for f := range p.frames {
						if f.open == nil {
							continue
						}
						if calls <- f.call; len(calls) == 1 {
							cut(p)
							continue
						}
						p.send(&frame{call: f.call, message: []byte{}, end: &endFrame{}})
					}
				}
				go serve(p)
				over := make(chan struct{})
				defer close(over)
				go func() {
					for {
						select {
						case p := <-server.peers:
							go serve(p)
						case <-over:
							return
						}
					}
				}()
				client := echopb.NewEchoServiceClient(c)
				if err := call(t.Context(), client, grpc.WaitForReady(wait)); status.Code(err) != codes.Unavailable {
					t.Errorf("%s: %v, want UNAVAILABLE", name, err)
				}
				time.Sleep(time.Minute)
				if n := len(calls); n != 1 {
					t.Errorf("%s: the server was called %d times, want once", name, n)
				}
				if err := call(t.Context(), client); err != nil || len(calls) != 2 {
					t.Errorf("%s: the next call: %v, the server was called %d times", name, err, len(calls))
				}
			})
		}
	}
}

// Delays grow from one attempt to the next and are spread over all that the jitter allows,
// so that clients of a server that was restarted do not come all at once.
func TestClientBackoffJitter(t *testing.T) {
	const clients = 60
	cfg := backoff.Config{BaseDelay: time.Second, Multiplier: 2, Jitter: 0.2, MaxDelay: 5 * time.Second}
	means := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		delays := make([][]time.Duration, len(means))
		for range clients {
			server := newScripted(t)
			c, p := server.connect(DialOptions{Backoff: cfg})
			attempts := make(chan time.Time, 100)
			server.refuse = func() error { attempts <- time.Now(); return errors.New("refused") }
			last := time.Now()
			cut(p)
			for i := range means {
				next := <-attempts
				delays[i] = append(delays[i], next.Sub(last))
				last = next
			}
			c.Close()
		}
		for i, mean := range means {
			least, most := slices.Min(delays[i]), slices.Max(delays[i])
			spread := func(f float64) time.Duration { return time.Duration(math.Round(float64(mean) * f)) }
			if least < spread(0.8) || most > spread(1.2) {
				t.Errorf("delay %d of %d clients is from %v to %v, want %v and at most a fifth less or more", i+1, clients, least, most, mean)
			}
			// That all of them are on one side has a chance of 1 in 10^10.
			if least > spread(0.93) || most < spread(1.07) {
				t.Errorf("delay %d of %d clients is from %v to %v: they are not spread", i+1, clients, least, most)
			}
		}
	})
}
