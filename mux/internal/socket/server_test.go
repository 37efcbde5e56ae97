package socket

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		idle := pipe(t, s, echo)
		busy := pipe(t, s, func(c *Conn) { // has a call that takes a minute more
			<-c.Draining().Done()
			time.Sleep(time.Minute)
			c.Write(c.Context(), Text, []byte("done"))
		})
		start := time.Now()
		done := make(chan error, 2)
		go func() { done <- s.Shutdown(t.Context()) }()
		go func() { done <- s.Shutdown(t.Context()) }()
		idle.want("close 1001")
		idle.send(closing(1001, ""))
		idle.want("EOF")
		synctest.Wait()
		if len(done) > 0 {
			t.Error("Shutdown returned while a handler was running")
		}
		busy.want(`ping ""`, `ping ""`, `text "done"`, "close 1001")
		busy.send(closing(1001, ""))
		busy.want("EOF")
		for range 2 {
			if err := <-done; err != nil || time.Since(start) != time.Minute {
				t.Errorf("Shutdown = %v after %v, want nil after 1m", err, time.Since(start))
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close after Shutdown = %v", err)
		}
	})
}

func TestShutdownCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		var ended time.Time
		c := pipe(t, s, func(c *Conn) {
			<-c.Context().Done()
			ended = time.Now()
		})
		stalled := pipe(t, s, func(c *Conn) { // its peer reads nothing
			for c.Write(c.Context(), Text, []byte("x")) == nil {
			}
		})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(ctx) }()
		c.want("close 1001", "EOF")
		if err := <-done; err != context.DeadlineExceeded {
			t.Errorf("Shutdown = %v, want %v", err, context.DeadlineExceeded)
		}
		if got := ended.Sub(start); got != 5*time.Second {
			t.Errorf("context ended after %v, want 5s", got)
		}
		if got, want := time.Since(start), 5*time.Second+cutWait; got != want {
			t.Errorf("Shutdown took %v, want %v", got, want)
		}
		stalled.conn.Close()
	})
}

// Close does not wait for the answer of a peer either.
func TestCloseWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		c := pipe(t, s, func(c *Conn) {})
		c.want("close 1000")
		synctest.Wait()
		start := time.Now()
		if err := s.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close = %v after %v, want nil at once", err, time.Since(start))
		}
		c.want("EOF")
	})
}

func TestCloseWithStrayHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		c := pipe(t, s, func(c *Conn) { time.Sleep(time.Minute) })
		go c.want("close 1001", "EOF")
		start := time.Now()
		err := s.Close()
		if got := time.Since(start); got != closeWait || err == nil || !strings.Contains(err.Error(), "1 handler") {
			t.Errorf("Close = %v after %v, want an error that counts one handler after %v", err, got, closeWait)
		}
		time.Sleep(time.Hour)
		if err := s.Close(); err != nil {
			t.Errorf("Close once it has returned = %v", err)
		}
	})
}

// A handshake under way when the server closes becomes a socket that is cut.
func TestCloseDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Log: quiet})
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() {
			time.Sleep(time.Second) // the answer to the handshake is not read yet
			done <- s.Close()
		}()
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
		if err != nil {
			t.Fatal(err)
		}
		go s.Upgrade(hijackable{httptest.NewRecorder(), near, ""}, r, func(c *Conn) { c.Read() })
		time.Sleep(1500 * time.Millisecond)
		c := newClient(t, far)
		if _, err := http.ReadResponse(c.r, nil); err != nil {
			t.Fatal(err)
		}
		c.want("close 1001", "EOF")
		if err := <-done; err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}

func TestDrainingRefuses(t *testing.T) {
	s := NewServer(Config{Log: quiet})
	dial := serve(t, s, false, echo)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, dial())
	c.send([]byte(handshake()))
	line, err := c.r.ReadString('\n')
	if err != nil || !strings.Contains(line, " 503 ") {
		t.Errorf("upgrade after Shutdown: %q, %v, want 503", line, err)
	}
	for ; err == nil && line != "\r\n"; line, err = c.r.ReadString('\n') {
		if strings.HasPrefix(line, "Retry-After:") {
			return
		}
	}
	t.Error("no Retry-After")
}

func TestConfigRefusesNegative(t *testing.T) {
	for _, cfg := range []Config{{MaxMessageBytes: -1}, {MaxFrames: -1}, {QueueBytes: -1}, {PingInterval: -1}, {PongTimeout: -1}, {WriteTimeout: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewServer(%+v) did not panic", cfg)
				}
			}()
			NewServer(cfg)
		}()
	}
}

func ExampleServer_Upgrade() {
	s := NewServer(Config{})
	handler := func(c *Conn) {
		for {
			m, err := c.Read()
			if err != nil {
				return // the socket has ended
			}
			greeting := fmt.Appendf(nil, "hello %s", m.Data)
			m.Release()
			if err := c.Write(c.Context(), Text, greeting); err != nil {
				return
			}
		}
	}
	_ = func(w http.ResponseWriter, r *http.Request) {
		s.Upgrade(w, r, handler, "greeting.v1")
	}
}
