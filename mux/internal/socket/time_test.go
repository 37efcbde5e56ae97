package socket

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lives is a handler that reads until the socket ends and reports the cause.
func lives(end chan<- error) func(*Conn) {
	return func(c *Conn) {
		for {
			m, err := c.Read()
			if err != nil {
				end <- err
				return
			}
			m.Release()
		}
	}
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		end := make(chan error, 1)
		c := pipe(t, s, lives(end))
		start := time.Now()
		for i := 1; i <= 20; i++ {
			c.want(`ping ""`)
			if got, want := time.Since(start), time.Duration(i)*25*time.Second; got != want {
				t.Fatalf("ping %d came after %v, want %v", i, got, want)
			}
			c.send(pong(""))
		}
		c.conn.Close()
		if err := <-end; !strings.Contains(err.Error(), "EOF") {
			t.Errorf("Read = %v, want an unexpected EOF", err)
		}
	})
}

// A peer that is gone without a word.
func TestSilentPeer(t *testing.T) {
	for _, tc := range []struct {
		name  string
		alive func(c *client) // what the peer does 20 s after the handshake
		want  time.Duration
	}{
		{"silent", func(c *client) {}, 35 * time.Second},
		{"pong", func(c *client) { c.send(pong("")) }, 55 * time.Second},
		{"message", func(c *client) { c.send(text("a")) }, 55 * time.Second},
		// A ping is no answer, but costs nothing to count either way; it
		// does not count.
		{"ping", func(c *client) { c.send(ping("")) }, 35 * time.Second},
		{"16 KiB of a message", func(c *client) { c.send(frame(opBinary, long(16<<10))) }, 55 * time.Second},
		{"1 byte of a message", func(c *client) { c.send(frame(opBinary, "x")) }, 35 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Config{Log: quiet})
				end := make(chan error, 1)
				c := pipe(t, s, lives(end))
				c.collect() // takes the pings
				start := time.Now()
				time.Sleep(20 * time.Second)
				tc.alive(c)
				err := <-end
				if got := time.Since(start); got != tc.want || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("ended after %v with %v, want %v and a timeout", got, err, tc.want)
				}
			})
		})
	}
}

// The same over TCP, which is waited for in another way than a net.Pipe, and over TLS.
func TestSilentPeerOverTCP(t *testing.T) {
	for name, secure := range map[string]bool{"TCP": false, "TLS": true} {
		for alive, drip := range map[string][]byte{"silent": nil, "octets of a message": text(long(10000))} {
			t.Run(name+" "+alive, func(t *testing.T) {
				end := make(chan error, 1)
				var messages atomic.Int32
				s := NewServer(Config{PingInterval: 50 * time.Millisecond, PongTimeout: 50 * time.Millisecond, Log: quiet})
				c := newClient(t, serve(t, s, secure, func(c *Conn) {
					for {
						m, err := c.Read()
						if err != nil {
							end <- err
							return
						}
						messages.Add(1)
						m.Release()
					}
				})())
				start := time.Now()
				c.open(text("a")...)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for len(drip) > 0 && len(end) == 0 {
					<-tick.C
					c.conn.Write(drip[:1]) // in vain once the server has hung up
					drip = drip[1:]
				}
				err := <-end
				if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took < 100*time.Millisecond {
					t.Errorf("ended after %v with %v, want 100ms and a timeout", took, err)
				}
				if n := messages.Load(); n != 1 {
					t.Errorf("%d messages came, want 1: the octets have kept the socket", n)
				}
			})
		}
	}
}

// A handler that does not come to read for long must not find its peer dead.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		end := make(chan error, 1)
		c := pipe(t, s, func(c *Conn) {
			time.Sleep(time.Hour)
			m, err := c.Read()
			if err == nil && string(m.Data) != "hello" {
				err = errors.New(string(m.Data))
			}
			end <- err
		})
		c.collect()
		go c.conn.Write(text("hello"))
		if err := <-end; err != nil {
			t.Errorf("Read = %v", err)
		}
		s.Close()
	})
}

// A peer that does not read.
func TestWriteStall(t *testing.T) {
	for _, n := range []int{1, 64 << 10, 200 << 10} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Config{Log: quiet})
			type result struct {
				after time.Duration
				err   error
			}
			results := make(chan result, 2)
			pipe(t, s, func(c *Conn) { // the client reads nothing after the handshake
				start := time.Now()
				for {
					if err := c.Write(c.Context(), Binary, make([]byte, n)); err != nil {
						results <- result{time.Since(start), err}
						results <- result{0, c.Write(c.Context(), Binary, nil)}
						return
					}
				}
			})
			first, later := <-results, <-results
			if first.after != 10*time.Second || !errors.Is(first.err, os.ErrDeadlineExceeded) {
				t.Errorf("messages of %d bytes: Write failed after %v with %v, want 10s and a timeout", n, first.after, first.err)
			}
			if later.err != first.err {
				t.Errorf("messages of %d bytes: later Write = %v, want the first error again", n, later.err)
			}
		})
	}
}

// A large message to a slow peer takes longer than the timeout of one write.
func TestWriteSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		const size = 1 << 20
		end := make(chan error, 1)
		c := pipe(t, s, func(c *Conn) { end <- c.Write(c.Context(), Binary, make([]byte, size)) })
		start, p, n := time.Now(), make([]byte, 8<<10), 0
		for n < size {
			time.Sleep(time.Second)
			m, err := c.conn.Read(p)
			if err != nil {
				t.Fatalf("after %d bytes and %v: %v", n, time.Since(start), err)
			}
			n += m
		}
		if err := <-end; err != nil {
			t.Errorf("Write = %v after %v", err, time.Since(start))
		}
		c.conn.Close()
	})
}

// A ping is answered while another goroutine is stuck in Write.
func TestPongBesideBlockedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet, QueueBytes: 1000})
		end := make(chan error, 1)
		c := pipe(t, s, func(c *Conn) {
			ctx, cancel := context.WithCancel(c.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for c.Write(ctx, Binary, make([]byte, 400)) == nil {
				}
			}()
			lives(end)(c)
			cancel()
			<-done
		})
		synctest.Wait()
		go c.conn.Write(ping("p")) // the server reads it although it cannot write
		synctest.Wait()
		for i := 0; ; i++ {
			if got := c.reply(); got == `pong "p"` {
				break
			} else if i == 10 {
				t.Fatalf("%s, and no pong among 10 frames", got)
			}
		}
		c.conn.Close()
		<-end
	})
}

// A peer that does not answer our close frame.
func TestCloseUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		c := pipe(t, s, func(c *Conn) { c.CloseWith(4001, "enough") })
		c.want("close 4001")
		start := time.Now()
		go c.conn.Write(slices.Concat(text("a"), ping(""), text("b"))) // but no close
		c.want("EOF")
		if got := time.Since(start); got != time.Second {
			t.Errorf("closed after %v, want 1s", got)
		}
	})
}

// The handler has gone astray, and CloseWith is called elsewhere.
func TestCloseBesideHandler(t *testing.T) {
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Config{Log: quiet})
			c := pipe(t, s, func(c *Conn) {
				time.AfterFunc(20*time.Second, func() { c.CloseWith(4001, "enough") })
				if reads {
					lives(make(chan error, 1))(c)
				}
				time.Sleep(time.Hour)
			})
			c.want("close 4001")
			start, want := time.Now(), time.Second
			if reads {
				c.send(closing(4001, ""))
				want = 0
			}
			c.want("EOF")
			if got := time.Since(start); got != want {
				t.Errorf("handler reads %t: closed after %v, want %v", reads, got, want)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

func TestFloods(t *testing.T) {
	for _, tc := range []struct {
		name  string
		frame []byte
		pongs int // the answers at the limit
	}{{"ping", ping(""), 70}, {"pong", pong(""), 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Config{Log: quiet})
				near, far := net.Pipe()
				c := upgrade(t, s, near, far, echo)
				replies := c.collect()
				// 20 at once and 10 a second are allowed, 21 are not.
				c.send(bytes.Repeat(tc.frame, 20))
				for range 50 {
					time.Sleep(100 * time.Millisecond)
					c.send(tc.frame)
				}
				synctest.Wait()
				c.send(tc.frame)
				synctest.Wait()
				far.Close()
				want := append(slices.Repeat([]string{`pong ""`}, tc.pongs), "close 1008")
				if got := <-replies; !slices.Equal(got, want) {
					t.Errorf("replies = %q, want %q", got, want)
				}
			})
		})
	}
}

// collect reads until the connection ends and then sends what has come.
func (c *client) collect() <-chan []string {
	all := make(chan []string, 1)
	go func() {
		var replies []string
		for {
			opcode, payload, err := c.next()
			if err != nil {
				all <- replies
				return
			}
			replies = append(replies, describe(opcode, payload))
		}
	}()
	return all
}
