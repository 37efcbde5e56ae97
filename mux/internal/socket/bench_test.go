package socket

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// BenchmarkEcho counts client and server together.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{32, 4 << 10} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("size=%d/depth=%d", size, depth), func(b *testing.B) {
				s := NewServer(Config{Log: quiet})
				c := newClient(b, serve(b, s, false, echo)())
				c.conn.SetDeadline(time.Time{})
				c.open()
				out := bytes.Repeat(binaryF(long(size)), depth)
				in := make([]byte, depth*(len(appendHeader(nil, 0, size))+size))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%depth != 0 {
						continue
					}
					c.send(out)
					if _, err := io.ReadFull(c.r, in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkPush(b *testing.B) {
	for _, size := range []int{32, 4 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := NewServer(Config{Log: quiet})
			conns := make(chan *Conn)
			c := newClient(b, serve(b, s, false, func(c *Conn) { conns <- c; lives(make(chan error, 1))(c) })())
			c.conn.SetDeadline(time.Time{})
			c.open()
			go io.Copy(io.Discard, c.r)
			conn, p := <-conns, make([]byte, size)
			b.ReportAllocs()
			for b.Loop() {
				if err := conn.Write(conn.Context(), Binary, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdle reports what a socket keeps while nothing happens, after one
// echo.
func BenchmarkIdle(b *testing.B) {
	const sockets = 2000
	s := NewServer(Config{Log: quiet})
	dial := serve(b, s, false, echo)
	clients := make([]net.Conn, 0, sockets)
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	request, reply := append([]byte(handshake()), text("hello")...), make([]byte, 1000)
	before := inUse()
	for b.Loop() {
		for len(clients) < sockets {
			conn := dial()
			conn.SetDeadline(time.Time{})
			conn.Write(request)
			for n := 0; !bytes.HasSuffix(reply[:n], []byte("hello")); {
				m, err := conn.Read(reply[n:])
				if n += m; err != nil {
					b.Fatal(err)
				}
			}
			clients = append(clients, conn)
		}
	}
	after := inUse()
	b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/sockets, "heap-B/socket")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/sockets, "stack-B/socket")
}

// inUse is measured once what is garbage has been collected.
func inUse() (m runtime.MemStats) {
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m
}
