package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gate lets writes pass only when told to, and counts them.
type gate struct {
	net.Conn
	pass   chan struct{} // one value, one write; closed, all
	mu     sync.Mutex
	writes []int // lengths
}

func (g *gate) Write(p []byte) (int, error) {
	if string(p[:4]) == "HTTP" {
		return g.Conn.Write(p)
	}
	<-g.pass
	g.mu.Lock()
	g.writes = append(g.writes, len(p))
	g.mu.Unlock()
	return g.Conn.Write(p)
}

func (g *gate) lengths() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.writes)
}

// gated starts a handler behind a gate.
func gated(t *testing.T, cfg Config, handler func(*Conn)) (*client, *gate) {
	t.Helper()
	near, far := net.Pipe()
	g := &gate{Conn: near, pass: make(chan struct{}, 10)}
	cfg.Log = quiet
	return upgrade(t, NewServer(cfg), g, far, handler), g
}

func TestWritesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := gated(t, Config{}, func(c *Conn) {
			for i := range 100 {
				if err := c.Write(c.Context(), Text, fmt.Append(nil, i%10)); err != nil {
					t.Errorf("Write %d = %v", i, err)
				}
				if i == 0 {
					time.Sleep(time.Nanosecond) // it is on its way
				}
			}
			c.CloseWith(CloseNormal, "")
		})
		time.Sleep(time.Second)
		close(g.pass)
		for i := range 100 {
			c.want(fmt.Sprintf("text %q", fmt.Sprint(i%10)))
		}
		c.want("close 1000")
		c.send(closing(1000, ""))
		c.want("EOF")
		if got, want := g.lengths(), []int{3, 99*3 + 4}; !slices.Equal(got, want) {
			t.Errorf("frames left in writes of %v bytes, want %v", got, want)
		}
	})
}

func TestBackPressure(t *testing.T) {
	const limit = 1000
	for _, tc := range []struct {
		name   string
		fill   int // bytes of the message that waits
		size   int // of the next message
		blocks bool
	}{
		// A message counts with the longest header, 10 bytes, while it asks
		// for room, and with its real one, 4 bytes, while it waits.
		{"full", 500, limit - 504 - 10, false},
		{"one byte above", 500, limit - 504 - 10 + 1, true},
		{"large beside waiting", 500, limit, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var accepted []string
				var mu sync.Mutex
				note := func(s string) {
					mu.Lock()
					defer mu.Unlock()
					accepted = append(accepted, s)
				}
				write := func(c *Conn, what string, n int) {
					if err := c.Write(c.Context(), Binary, make([]byte, n)); err != nil {
						t.Errorf("Write %s = %v", what, err)
					}
					note(what)
				}
				c, g := gated(t, Config{QueueBytes: limit}, func(c *Conn) {
					write(c, "under way", 1)
					time.Sleep(time.Nanosecond)
					write(c, "waiting", tc.fill)
					write(c, "next", tc.size)
					write(c, "later", 1)
				})
				time.Sleep(time.Second)
				mu.Lock()
				if blocks := !slices.Contains(accepted, "next"); blocks != tc.blocks {
					t.Errorf("accepted %q, want the next of %d bytes to block: %t", accepted, tc.size, tc.blocks)
				}
				mu.Unlock()
				close(g.pass)
				for _, n := range []int{1, tc.fill, tc.size, 1} {
					c.want(describe(fin|opBinary, string(make([]byte, n))))
				}
				c.want("close 1000")
			})
		})
	}
}

// There is room as soon as what waited is on its way, not when it has arrived.
func TestRoomWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var accepted atomic.Int32
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			for c.Write(c.Context(), Binary, []byte(long(900))) == nil {
				accepted.Add(1)
			}
		})
		for i := range 3 {
			time.Sleep(time.Second)
			if got, want := int(accepted.Load()), 2+i; got != want {
				t.Errorf("%d messages accepted after %d writes, want %d", got, i, want)
			}
			g.pass <- struct{}{}
			c.want(describe(fin|opBinary, long(900)))
		}
		c.conn.Close()
		close(g.pass)
	})
}

// A message waits its turn even if it would fit and an earlier one does not.
func TestNoOvertaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			var wg sync.WaitGroup
			for i, n := range []int{1, 500, 2000, 10, 600, 700, 5000, 11} {
				wg.Go(func() {
					if err := c.Write(c.Context(), Binary, []byte(long(n))); err != nil {
						t.Errorf("Write %d = %v", i, err)
					}
				})
				time.Sleep(time.Nanosecond)
			}
			wg.Wait()
			c.CloseWith(CloseNormal, "")
		})
		time.Sleep(time.Second)
		close(g.pass)
		for _, n := range []int{1, 500, 2000, 10, 600, 700, 5000, 11} {
			c.want(describe(fin|opBinary, long(n)))
		}
		c.want("close 1000")
	})
}

// WriteNow neither waits for room nor for those who do.
func TestWriteNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			c.Write(c.Context(), Binary, []byte(long(1)))
			time.Sleep(time.Nanosecond)
			c.Write(c.Context(), Binary, []byte(long(900)))
			var wg sync.WaitGroup
			wg.Go(func() { c.Write(c.Context(), Binary, []byte(long(800))) })
			time.Sleep(time.Nanosecond)
			c.WriteNow(Text, []byte("now"))
			wg.Wait()
			c.CloseWith(CloseNormal, "")
			c.WriteNow(Text, []byte("late"))
		})
		time.Sleep(time.Second)
		close(g.pass)
		c.want(describe(fin|opBinary, long(1)), describe(fin|opBinary, long(900)), `text "now"`, describe(fin|opBinary, long(800)), "close 1000")
	})
}

// TryWrite takes a message where Write would not wait, and no other.
func TestTryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1000
		c, g := gated(t, Config{QueueBytes: limit}, func(c *Conn) {
			try := func(n int, want bool) {
				t.Helper()
				if got := c.TryWrite(Binary, []byte(long(n))); got != want {
					t.Errorf("TryWrite of %d bytes = %t, want %t", n, got, want)
				}
			}
			try(limit, false) // with its header more than may wait at all
			try(1, true)
			time.Sleep(time.Nanosecond) // it is on its way
			try(800, true)
			const left = limit - (4 + 800) - maxHeader
			try(left+1, false)
			var wg sync.WaitGroup
			wg.Go(func() { c.Write(c.Context(), Binary, []byte(long(900))) })
			time.Sleep(time.Nanosecond)
			try(left, false) // it would overtake
			wg.Wait()
			c.CloseWith(CloseNormal, "")
			try(limit, true)
		})
		time.Sleep(time.Second)
		close(g.pass)
		c.want(describe(fin|opBinary, long(1)), describe(fin|opBinary, long(800)), describe(fin|opBinary, long(900)), "close 1000")
	})
	synctest.Test(t, func(t *testing.T) {
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			c.TryWrite(Binary, []byte(long(1)))
			time.Sleep(time.Nanosecond)
			if !c.TryWrite(Binary, []byte(long(1000-maxHeader))) {
				t.Error("TryWrite of all that may wait = false")
			}
			c.CloseWith(CloseNormal, "")
		})
		time.Sleep(time.Second)
		close(g.pass)
		c.want(describe(fin|opBinary, long(1)), describe(fin|opBinary, long(1000-maxHeader)), "close 1000")
	})
}

func TestWriteContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("changed my mind")
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			c.Write(c.Context(), Binary, []byte(long(1)))
			time.Sleep(time.Nanosecond)
			c.Write(c.Context(), Binary, []byte(long(900)))
			ctx, cancel := context.WithCancelCause(c.Context())
			var wg sync.WaitGroup
			for range 3 { // one waits for room, two for their turn
				wg.Go(func() {
					if err := c.Write(ctx, Binary, []byte(long(800))); err != context.Canceled {
						t.Errorf("Write = %v, want %v", err, context.Canceled)
					}
				})
			}
			time.Sleep(time.Nanosecond)
			cancel(cause)
			wg.Wait()
			if err := c.Write(c.Context(), Binary, []byte(long(10))); err != nil {
				t.Errorf("Write after that = %v", err)
			}
			c.CloseWith(CloseNormal, "")
		})
		time.Sleep(time.Second)
		close(g.pass)
		c.want(describe(fin|opBinary, long(1)), describe(fin|opBinary, long(900)), describe(fin|opBinary, long(10)), "close 1000")
	})
}

// Writers that wait when the socket is closed learn of it, and what was accepted
// before is sent.
func TestCloseReleasesWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := gated(t, Config{QueueBytes: 1000}, func(c *Conn) {
			c.Write(c.Context(), Binary, []byte(long(1)))
			time.Sleep(time.Nanosecond)
			c.Write(c.Context(), Binary, []byte(long(900)))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					err := c.Write(t.Context(), Binary, []byte(long(800)))
					if ce, ok := errors.AsType[*CloseError](err); !ok || ce.Code != 4000 || ce.ByPeer {
						t.Errorf("Write = %v, want our CloseError 4000", err)
					}
				})
			}
			time.Sleep(time.Nanosecond)
			start := time.Now()
			c.CloseWith(4000, "stop")
			wg.Wait()
			if got := time.Since(start); got != 0 {
				t.Errorf("Write returned %v after CloseWith, want at once", got)
			}
		})
		time.Sleep(time.Second)
		close(g.pass)
		c.want(describe(fin|opBinary, long(1)), describe(fin|opBinary, long(900)), "close 4000")
	})
}

func TestConcurrentWriters(t *testing.T) {
	const writers, each = 20, 200
	s := NewServer(Config{QueueBytes: 2000, Log: quiet})
	dial := serve(t, s, false, func(c *Conn) {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					// Some above the limit of the queue.
					p := fmt.Sprintf("%d %d %s", w, i, strings.Repeat("x", i*20))
					if err := c.Write(c.Context(), Text, []byte(p)); err != nil {
						t.Errorf("Write = %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
	c := newClient(t, dial())
	c.open()
	var next [writers]int
	for range writers * each {
		opcode, p, err := c.next()
		var w, i int
		if n, _ := fmt.Sscan(p, &w, &i); err != nil || opcode != fin|opText || n != 2 || i != next[w] || strings.Count(p, "x") != i*20 {
			t.Fatalf("got %s (%v), want message %d of writer %d", describe(opcode, p), err, next[w], w)
		}
		next[w]++
	}
	c.want("close 1000")
}

// Nothing is allocated for a length that has only been announced.
func TestAnnouncedLength(t *testing.T) {
	const limit = 1 << 30
	s := NewServer(Config{MaxMessageBytes: limit, Log: quiet})
	c := pipe(t, s, echo) // in which nothing is buffered, so that what is sent has been read
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send(mask([]byte{fin | opBinary, 127, 0, 0, 0, 0, 64, 0, 0, 0}, "hello"))
	c.send([]byte("x"))
	runtime.ReadMemStats(&after)
	c.conn.Close()
	s.Close()
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated for 6 bytes of a message of 1 GiB", got)
	}
}
