//go:build linux

package socket

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"oneport/mux/internal/socket/sockettest"
)

// restingEcho is echo on a socket that rests whenever nothing comes. It tells of that on
// rests, with when the peer is given up, and of the end on ended, unless they are nil. A
// socket may rest oftener than the peer is silent, if the goroutine that reads is late:
// what finds rests full is dropped.
func restingEcho(rests chan<- time.Time, ended chan<- error) func(*Conn) {
	var handler func(*Conn)
	handler = func(c *Conn) {
		for {
			m, err := c.ReadSoon()
			if err == ErrQuiet {
				c.Rest(handler)
				select {
				case rests <- c.wire.until:
				default:
				}
				return
			}
			if err == nil {
				err = c.Write(c.Context(), m.Kind, m.Data)
				m.Release()
			}
			if err != nil {
				if ended != nil {
					ended <- err
				}
				return
			}
		}
	}
	return handler
}

// await is a receive that fails the test where it would never come.
func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatal("nothing has happened")
	}
	return v
}

func restingServer(cfg Config) *Server {
	cfg.Log, cfg.Patience = quiet, time.Millisecond
	return NewServer(cfg)
}

// The cases of the other endpoints, with rests wherever nothing has come for a moment.
func TestConformanceResting(t *testing.T) {
	s := restingServer(Config{MaxMessageBytes: testLimit, MaxFrames: testFrames})
	sockettest.Run(t, sockettest.Echo("/", opText, testLimit, testFrames), serve(t, s, false, restingEcho(nil, nil)))
}

// A socket that rests is woken by all that comes, but by pings and pongs only for as long
// as they take; and its end ends it.
func TestRest(t *testing.T) {
	rests, ended := make(chan time.Time, 1), make(chan error, 1)
	c := newClient(t, serve(t, restingServer(Config{}), false, restingEcho(rests, ended))())
	c.open()
	await(t, rests)
	for range 3 {
		m := text("hello")
		c.send(m[:1])
		<-time.After(5 * time.Millisecond) // longer than the patience, which is for what begins
		c.send(m[1:])
		c.want(`text "hello"`)
		await(t, rests)
		c.send(pong(""))
		await(t, rests)
		c.send(append(ping("a"), ping("b")...))
		c.want(`pong "a"`, `pong "b"`)
		await(t, rests)
	}
	c.conn.Close()
	if err := await(t, ended); !strings.Contains(err.Error(), "EOF") {
		t.Errorf("ended with %v, want an unexpected EOF", err)
	}
}

// A peer that is silent has as much time as one whose socket does not rest, and octets of a
// message give it no more.
func TestSilentPeerResting(t *testing.T) {
	const interval = 50 * time.Millisecond // and as much again for the pong
	for name, octets := range map[string][]byte{"silent": nil, "octets": text("a")[:3]} {
		t.Run(name, func(t *testing.T) {
			rests, ended := make(chan time.Time, 1), make(chan error, 1)
			s := restingServer(Config{PingInterval: interval, PongTimeout: interval})
			var conn *Conn
			start := time.Now()
			c := newClient(t, serve(t, s, false, func(c *Conn) {
				conn = c
				restingEcho(rests, ended)(c)
			})())
			c.open()
			var until time.Time // unknown if the goroutine that reads was late
			var err error
			select {
			case until = <-rests:
				c.conn.Write(octets) // likewise in vain
				err = await(t, ended)
			case err = <-ended:
				until = conn.wire.until
			}
			if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took < 2*interval {
				t.Errorf("ended after %v with %v, want %v and a timeout", took, err, 2*interval)
			}
			if late := conn.wire.until.Sub(until); late != 0 {
				t.Errorf("the peer was given %v more", late)
			}
		})
	}
}

// A pong gives the peer of a socket that rests its full time.
func TestPongResting(t *testing.T) {
	rests := make(chan time.Time, 1)
	c := newClient(t, serve(t, restingServer(Config{}), false, restingEcho(rests, nil))())
	c.open()
	until := await(t, rests)
	c.send(pong(""))
	for !await(t, rests).After(until) {
	}
}

func TestShutdownResting(t *testing.T) {
	rests, ended := make(chan time.Time, 1), make(chan error, 1)
	s := restingServer(Config{})
	told := make(chan struct{}, 1)
	c := newClient(t, serve(t, s, false, func(c *Conn) {
		c.OnDrain(func() {
			told <- struct{}{}
			c.CloseWith(CloseGoingAway, "")
		})
		restingEcho(rests, ended)(c)
	})())
	c.open()
	await(t, rests)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	await(t, told)
	c.want("close 1001")
	if len(done) > 0 {
		t.Error("Shutdown returned before the socket had ended")
	}
	c.send(closing(1001, ""))
	c.want("EOF")
	await(t, ended)
	if err := await(t, done); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// A handler that says so after the shutdown has begun is told at once.
func TestOnDrainLate(t *testing.T) {
	s := restingServer(Config{})
	told := make(chan struct{}, 1)
	c := newClient(t, serve(t, s, false, func(c *Conn) {
		<-c.Draining().Done()
		c.OnDrain(func() { told <- struct{}{} })
	})())
	c.open()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if len(told) != 1 {
		t.Error("the handler was not told of the shutdown")
	}
}

// Sockets that rest share one goroutine, which ends with the last of them.
func TestRestsWithoutGoroutine(t *testing.T) {
	const sockets = 100
	rests := make(chan time.Time, sockets)
	dial := serve(t, restingServer(Config{}), false, restingEcho(rests, nil))
	var clients []*client
	for range sockets {
		c := newClient(t, dial())
		c.open()
		clients = append(clients, c)
	}
	for range sockets {
		await(t, rests)
	}
	stacks := make([]byte, 1<<20)
	settles := func(runs, watches int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); runtime.Gosched() {
			text := string(stacks[:runtime.Stack(stacks[:cap(stacks)], true)])
			if strings.Count(text, "socket.(*Server).run(") == runs && strings.Count(text, "ready.(*Lot).watch(") == watches {
				return
			}
		}
		t.Fatalf("want %d goroutines of sockets and %d of those that rest:\n%s", runs, watches, stacks)
	}
	settles(0, 1)
	for _, c := range clients {
		c.send(text("hello"))
		c.want(`text "hello"`)
		await(t, rests)
	}
	settles(0, 1)
	for _, c := range clients {
		c.conn.Close()
	}
	settles(0, 0)
}
