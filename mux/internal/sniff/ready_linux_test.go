package sniff

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A poolSpy tells how many of its buffers are out.
type poolSpy struct {
	out chan int // the number, after each change
	n   int
}

func newPoolSpy() *poolSpy { return &poolSpy{out: make(chan int, 64)} }

func (p *poolSpy) Get(size int) *[]byte {
	p.n++
	p.out <- p.n
	b := make([]byte, size)
	return &b
}

func (p *poolSpy) Put(*[]byte) {
	p.n--
	p.out <- p.n
}

var (
	_ readOnReady = (*tcpConn)(nil)
	_ readOnReady = (*tcpGreetedConn)(nil)
)

func TestReadOnReady(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		cut  int
		own  []byte // SETTINGS of the server
		want []byte
	}{
		{"whole", request("application/grpc"), 0, settingsFrame(1), request("application/grpc")},
		{"with early SETTINGS", settingsThenRequest, settingsEnd, settingsFrame(0), settingsThenRequest},
		{"with other SETTINGS", settingsThenRequest, settingsEnd, settingsFrame(1),
			withoutAck(settingsThenRequest, len(http2.ClientPreface))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server, _ := handedTCP(t, tt.in, tt.cut)
			if _, err := server.Write(append(tt.own, greeting(nil)[9:]...)); err != nil {
				t.Fatal(err)
			}
			r := server.(readOnReady)
			pool := newPoolSpy()
			want := tt.want
			var got []byte
			for len(got) < len(want) {
				buf, n, err := r.ReadOnReady(100, pool)
				if err != nil || len(*buf) != 100 {
					t.Fatalf("ReadOnReady: %d, %v", n, err)
				}
				got = append(got, (*buf)[:n]...)
				pool.Put(buf)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("read %x, want %x", got, want)
			}

			// Waiting, it holds no buffer: it has put back the one it found it could not fill.
			pool = newPoolSpy()
			type result struct {
				buf *[]byte
				n   int
				err error
			}
			done := make(chan result)
			go func() {
				buf, n, err := r.ReadOnReady(100, pool)
				done <- result{buf, n, err}
			}()
			if a, b := <-pool.out, <-pool.out; a != 1 || b != 0 {
				t.Errorf("buffers out while waiting: %d, then %d, want 1, then 0", a, b)
			}
			client.Write([]byte("more"))
			if res := <-done; res.err != nil || string((*res.buf)[:res.n]) != "more" || pool.n != 1 {
				t.Errorf("ReadOnReady = %d, %v with %d buffers out, want more with 1", res.n, res.err, pool.n)
			}

			for _, end := range []struct {
				name string
				do   func()
				want error
			}{
				{"deadline", func() { server.SetReadDeadline(time.Now().Add(-time.Second)) }, os.ErrDeadlineExceeded},
				{"end", func() { server.SetReadDeadline(time.Time{}); client.CloseWrite() }, io.EOF},
				{"close", func() { server.Close() }, net.ErrClosed},
			} {
				pool = newPoolSpy()
				end.do()
				buf, n, err := r.ReadOnReady(100, pool)
				if buf != nil || n != 0 || !errors.Is(err, end.want) || pool.n != 0 {
					t.Errorf("after %s: ReadOnReady = %v, %d, %v with %d buffers out, want nil, 0, %v with none", end.name, buf, n, err, pool.n, end.want)
				}
			}
		})
	}
}

// TestReadOnReadyAckLate has the acknowledgement come after the request.
func TestReadOnReadyAckLate(t *testing.T) {
	in := request("application/grpc")
	client, server, _ := handedTCP(t, in, len(in)-1)
	if _, err := server.Write(append(settingsFrame(1), greeting(nil)[9:]...)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(append(greeting(nil)[9:], "more"...)); err != nil {
		t.Fatal(err)
	}
	pool := newPoolSpy()
	want := string(in) + "more"
	var got string
	for len(got) < len(want) {
		buf, n, err := server.(readOnReady).ReadOnReady(100, pool)
		if err != nil {
			t.Fatalf("ReadOnReady: %v after %q", err, got)
		}
		got += string((*buf)[:n])
		pool.Put(buf)
	}
	if got != want || pool.n != 0 {
		t.Errorf("read %q with %d buffers out, want %q with none", got, pool.n, want)
	}
}

func TestReadOnReadyReset(t *testing.T) {
	in := request("application/grpc")
	client, server, _ := handedTCP(t, in, 0)
	pool := newPoolSpy()
	if _, _, err := server.(readOnReady).ReadOnReady(1000, pool); err != nil {
		t.Fatal(err)
	}
	pool = newPoolSpy()
	client.SetLinger(0)
	client.Close()
	if buf, n, err := server.(readOnReady).ReadOnReady(100, pool); buf != nil || n != 0 || err == nil || pool.n != 0 {
		t.Errorf("ReadOnReady = %v, %d, %v with %d buffers out, want an error and none", buf, n, err, pool.n)
	}
}

// A onePool has one buffer, in use by one at a time.
type onePool []byte

func (p *onePool) Get(int) *[]byte { return (*[]byte)(p) }
func (p *onePool) Put(*[]byte)     {}

func TestReadOnReadyAllocates(t *testing.T) {
	client, server, _ := handedTCP(t, request("application/grpc"), 0)
	r := server.(readOnReady)
	pool := onePool(make([]byte, 4096)) // one of sync would forget buffers under the race detector
	buf, _, err := r.ReadOnReady(4096, &pool)
	if err != nil {
		t.Fatal(err)
	}
	pool.Put(buf)
	x := []byte("x")
	allocs := testing.AllocsPerRun(100, func() {
		client.Write(x)
		buf, _, err := r.ReadOnReady(4096, &pool)
		if err != nil {
			t.Fatal(err)
		}
		pool.Put(buf)
	})
	if allocs > 0 {
		t.Errorf("%v allocations a read, want none", allocs)
	}
}
