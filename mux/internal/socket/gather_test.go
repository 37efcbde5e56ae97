package socket

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A write gives way as long as more is to come and something does, but not for ever: then
// all that has come goes out at once. Without Gather it does not.
func TestWritesGiveWay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		gather bool
		more   bool  // is to come
		adds   int   // messages, one each time that is asked
		writes []int // messages in each
	}{
		{"not asked", false, true, 3, []int{1}},
		{"no more to come", true, false, 0, []int{1}},
		{"nothing comes", true, true, 0, []int{1}},
		{"some come", true, true, 3, []int{1 + 3}},
		{"one comes and no more", true, false, 1, []int{1 + 1}},
		{"as many come as are waited for", true, true, maxGiveWay + 1, []int{1 + maxGiveWay + 1}},
		{"one more comes", true, true, maxGiveWay + 2, []int{1 + maxGiveWay + 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done := make(chan struct{})
				c, g := gated(t, Config{}, func(c *Conn) {
					added := 0
					if tt.gather {
						c.Gather(func() bool {
							select {
							case <-done:
								return false
							default:
							}
							if added < tt.adds {
								added++
								c.WriteNow(Text, []byte("m"))
							}
							return tt.more
						})
					}
					c.Write(c.Context(), Text, []byte("m"))
					<-done
					c.CloseWith(CloseNormal, "")
				})
				close(g.pass)
				n := 0
				for _, messages := range tt.writes {
					n += messages
				}
				for range n {
					c.want(`text "m"`)
				}
				synctest.Wait()
				var writes []int
				for _, length := range g.lengths() {
					writes = append(writes, length/3)
				}
				if !slices.Equal(writes, tt.writes) {
					t.Errorf("messages left in writes of %v, want %v", writes, tt.writes)
				}
				close(done)
				c.want("close 1000")
				c.send(closing(1000, ""))
				c.want("EOF")
			})
		})
	}
}

// A flush that has written as much as may wait dozes while few bytes wait, unless others are
// about to add to them. It ends with the time, or when there is more or other to write.
func TestFlushDozes(t *testing.T) {
	const limit = 16 << 10
	alone := func() bool { return false }
	write := func(frame int) func(*Conn) {
		return func(c *Conn) { c.Write(c.Context(), Binary, make([]byte, frame-4)) }
	}
	for _, tt := range []struct {
		name   string
		gather func() bool
		sent   int           // bytes, by the flush
		wait   int           // bytes, after that
		early  func(*Conn)   // before the flush is done
		then   func(*Conn)   // after
		want   time.Duration // until those are written
	}{
		{"as much is written", alone, limit, 200, nil, nil, dozeTime},
		{"less is written", alone, limit - 1, 200, nil, nil, 0},
		{"few wait", alone, limit, few - 1, nil, nil, dozeTime},
		{"not few wait", alone, limit, few, nil, nil, 0},
		{"others add", func() bool { return true }, limit, 200, nil, nil, 0},
		{"not asked", nil, limit, 200, nil, nil, 0},
		{"half as much waits as may", alone, limit, 200, nil, write(limit/2 - 200), dozeTime},
		{"more waits", alone, limit, 200, nil, write(limit/2 - 200 + 1), 0},
		{"one waits for room", alone, limit, 200, nil, func(c *Conn) { go write(limit - 200)(c) }, 0},
		{"WriteHere", alone, limit, 200, nil, func(c *Conn) { c.WriteHere(c.Context(), Binary, nil) }, 0},
		{"TryWrite", alone, limit, 200, nil, func(c *Conn) { c.TryWrite(Binary, nil) }, 0},
		{"WriteNow", alone, limit, 200, nil, func(c *Conn) { c.WriteNow(Binary, nil) }, 0},
		{"CloseWith", alone, limit, 200, nil, func(c *Conn) { go c.CloseWith(CloseNormal, "") }, 0},
		{"WriteHere before", alone, limit, 200, func(c *Conn) { c.WriteHere(c.Context(), Binary, nil) }, nil, 0},
		{"TryWrite before", alone, limit, 200, func(c *Conn) { c.TryWrite(Binary, nil) }, nil, 0},
		{"WriteNow before", alone, limit, 200, func(c *Conn) { c.WriteNow(Binary, nil) }, nil, 0},
		{"one waits for room before", alone, limit, 200, func(c *Conn) { go write(limit - 200)(c) }, nil, 0},
		{"CloseWith before", alone, limit, 200, func(c *Conn) { go c.CloseWith(CloseNormal, "") }, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := make(chan *Conn)
				c, g := gated(t, Config{QueueBytes: limit}, func(c *Conn) {
					conns <- c
					lives(make(chan error, 1))(c)
				})
				c.collect()
				conn := <-conns
				conn.Gather(tt.gather)
				for i, frame := range []int{limit / 2, tt.sent - limit/2, tt.wait} {
					write(frame)(conn) // while the one before is being written
					synctest.Wait()
					if i == 2 && tt.early != nil {
						tt.early(conn)
						synctest.Wait()
					}
					if i > 0 {
						g.pass <- struct{}{}
						synctest.Wait()
					}
				}
				close(g.pass)
				if tt.then != nil {
					tt.then(conn)
				}
				start := time.Now()
				for synctest.Wait(); len(g.lengths()) == 2 && time.Since(start) < time.Second; synctest.Wait() {
					time.Sleep(time.Microsecond)
				}
				if got := time.Since(start); got != tt.want {
					t.Errorf("it took %v, want %v", got, tt.want)
				}
				c.conn.Close()
			})
		})
	}
}

// partsConn tells which part of a message each write is, or how many other bytes.
type partsConn struct {
	net.Conn
	message []byte
	mu      sync.Mutex
	writes  []string // guarded by mu
}

func (c *partsConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	part := fmt.Sprint(len(p), " bytes")
	for i := range c.message {
		if &c.message[i] == &p[0] {
			part = fmt.Sprintf("[%d:%d]", i, i+len(p))
		}
	}
	c.writes = append(c.writes, part)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// A message too large for the queue is written from the memory of its sender, with no copy
// made: the header and the first part by one writev, where the connection has that.
func TestLargeMessageIsNotCopied(t *testing.T) {
	const limit = 1000
	for _, tt := range []struct {
		size int
		want []string // after the handshake
	}{
		{limit - maxHeader, []string{fmt.Sprint(4+limit-maxHeader, " bytes")}}, // which waits in the queue
		{limit - maxHeader + 1, []string{"4 bytes", "[0:991]"}},
		{limit, []string{"4 bytes", "[0:1000]"}},
		{limit + 1, []string{"4 bytes", "[0:1000]", "[1000:1001]"}},
		{2*limit + 500, []string{"4 bytes", "[0:1000]", "[1000:2000]", "[2000:2500]"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			conn := &partsConn{Conn: near, message: bytes.Repeat([]byte("x"), tt.size)}
			c := upgrade(t, NewServer(Config{QueueBytes: limit, Log: quiet}), conn, far, func(c *Conn) {
				if err := c.Write(c.Context(), Binary, conn.message); err != nil {
					t.Errorf("Write = %v", err)
				}
				time.Sleep(time.Second)
				c.CloseWith(CloseNormal, "")
			})
			c.want(describe(fin|opBinary, strings.Repeat("x", tt.size)))
			synctest.Wait()
			conn.mu.Lock()
			if got := conn.writes[1:]; !slices.Equal(got, tt.want) {
				t.Errorf("a message of %d bytes is written as %q, want %q", tt.size, got, tt.want)
			}
			conn.mu.Unlock()
			c.want("close 1000")
			c.send(closing(1000, ""))
			c.want("EOF")
		})
	}
}
