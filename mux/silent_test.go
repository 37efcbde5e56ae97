package mux_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"oneport/mux"
)

// Clients that connect and go no further are gone when their time is over, with all
// they cost, and meanwhile trouble no one. How long that is other tests tell, where time
// is not that of a busy machine.
func TestSilentConnections(t *testing.T) {
	const connections = 5000
	p := start(t, both, services, mux.WithSniffTimeout(2*time.Second))
	canary := p.grpc(p.clientTLS)
	page := p.http(1)
	check := func() {
		if err := hello(t, canary); err != nil {
			t.Errorf("a good call meanwhile: %v", err)
		}
		if _, body := get(t, page, p.url("http", "/healthz")); body != "ok\n" {
			t.Errorf("a good request meanwhile: %q", body)
		}
	}
	check()
	before := runtime.NumGoroutine()

	conns := make([]net.Conn, connections)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < connections; i += 8 {
				c, err := net.Dial("tcp", p.addr)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				io.WriteString(c, []string{"", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n"}[i%4])
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	opened := time.Now()
	check()
	for i, c := range conns {
		c.SetReadDeadline(opened.Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is open after %v", i, time.Since(opened))
		}
		c.Close()
	}
	check()
	for runtime.NumGoroutine() > before {
		if time.Since(opened) > patience {
			t.Fatalf("%d goroutines, %d before the connections", runtime.NumGoroutine(), before)
		}
		<-time.After(10 * time.Millisecond)
	}
	if n := p.accepted.Load(); n < connections {
		t.Errorf("%d connections accepted, want %d and some", n, connections)
	}
	p.alive(true)
}
