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
		{"as many come as are waited for", true, true, maxGiveWay, []int{1 + maxGiveWay}},
		{"one more comes", true, true, maxGiveWay + 1, []int{1 + maxGiveWay, 1}},
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
