package sniff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
)

var errFiles = &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept", syscall.EMFILE)}

// A clockListener fails with err as often as left says, notes when, and then accepts.
type clockListener struct {
	*fakeListener
	start time.Time
	err   error
	left  int
	calls []time.Duration
}

func (l *clockListener) Accept() (net.Conn, error) {
	l.calls = append(l.calls, time.Since(l.start))
	if l.left > 0 {
		l.left--
		return nil, l.err
	}
	return l.fakeListener.Accept()
}

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ln := &clockListener{fakeListener: newFakeListener(), start: time.Now(), err: errFiles, left: 10}
		ln.conns <- new(script)
		l := NewListener(ln, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		defer l.Close()
		if _, err := l.Accept(); err != nil {
			t.Fatalf("Accept: %v", err)
		}
		var want []time.Duration
		at := time.Duration(0)
		for _, ms := range []int{0, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
			at += time.Duration(ms) * time.Millisecond
			want = append(want, at)
		}
		if !reflect.DeepEqual(ln.calls, want) {
			t.Errorf("attempts at %v, want %v", ln.calls, want)
		}

		// A success in between starts the waits, and the log, again.
		ln.start, ln.calls, ln.left = time.Now(), nil, 1
		ln.conns <- new(script)
		if _, err := l.Accept(); err != nil {
			t.Fatalf("Accept: %v", err)
		}
		if want := []time.Duration{0, 5 * time.Millisecond}; !reflect.DeepEqual(ln.calls, want) {
			t.Errorf("attempts at %v, want %v", ln.calls, want)
		}
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d log lines, want 2, one for each time:\n%s", got, &log)
		}
	})
}

func TestAcceptBackOffEnds(t *testing.T) {
	for name, end := range map[string]func(*Listener){
		"Close": func(l *Listener) { l.Close() },
		"Drain": func(l *Listener) { l.Drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := &clockListener{fakeListener: newFakeListener(), err: errFiles, left: 1 << 30}
				l := NewListener(ln, quiet)
				start := time.Now()
				time.AfterFunc(10*time.Second, func() { end(l) })
				if _, err := l.Accept(); err != net.ErrClosed {
					t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
				}
				if got := time.Since(start); got != 10*time.Second {
					t.Errorf("Accept returned after %v, want 10s", got)
				}
			})
		})
	}
}

func TestAcceptFails(t *testing.T) {
	ln := newFakeListener()
	l := NewListener(ln, quiet)
	want := errors.New("broken")
	ln.errs <- want
	if _, err := l.Accept(); err != want {
		t.Errorf("Accept = %v, want %v", err, want)
	}
}

// TestUntaken checks that a connection that no server takes, matched or not, is closed for good.
func TestUntaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := accept(t, server, Config{Timeout: 2 * time.Second})
		start := time.Now()
		go client.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if got := verdict(t, c); got != HTTP1 {
			t.Fatalf("kind = %v, want %v", got, HTTP1)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("client read %v, want %v", err, io.EOF)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("closed after %v, want 3s", got)
		}
		if err := c.ln.Drain(t.Context()); err != nil {
			t.Errorf("Drain = %v, want nil", err)
		}
	})
}

// A front is a Listener and a cmux that splits it.
type front struct {
	ln   *fakeListener
	root *Listener
	web  net.Listener // all that is known
	rest net.Listener
	done chan error // what cmux returned
}

func newFront(t *testing.T) *front {
	t.Helper()
	ln := newFakeListener()
	f := &front{ln: ln, root: NewListener(ln, quiet), done: make(chan error, 1)}
	m := cmux.New(f.root)
	f.web = m.MatchWithWriters(Match(HTTP1, HTTP2, GRPC, Upgrade))
	f.rest = m.Match(cmux.Any())
	go func() { f.done <- m.Serve() }()
	return f
}

// dial connects a client.
func (f *front) dial() net.Conn {
	client, server := net.Pipe()
	f.ln.conns <- server
	return client
}

// take hands off what the web listener accepts until it fails, and refuses the rest.
func (f *front) take(got chan<- net.Conn) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := f.web.Accept()
			if err != nil {
				return
			}
			c = Handoff(c)
			got <- c
		}
	})
	wg.Go(func() {
		for {
			c, err := f.rest.Accept()
			if err != nil {
				return
			}
			Reject(c, http2.ErrCodeProtocol, "no")
		}
	})
	return wg.Wait
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 400
		f := newFront(t)
		var clients []net.Conn
		for i := range n {
			c := f.dial()
			clients = append(clients, c)
			go fmt.Fprintf(c, "GET /%d HTTP/1.1\r\n\r\n", i)
		}
		synctest.Wait() // all are matched and in the queue of cmux

		start := time.Now()
		drained := make(chan error, 1)
		go func() { drained <- f.root.Drain(t.Context()) }()
		synctest.Wait()
		if len(drained) > 0 || len(f.done) > 0 {
			t.Fatalf("drained with %d connections in the queue", n)
		}

		got := make(chan net.Conn, n+1)
		wait := f.take(got)
		if err := <-drained; err != nil {
			t.Errorf("Drain = %v, want nil", err)
		}
		<-f.done
		wait()
		if len(got) != n || time.Since(start) != 0 {
			t.Errorf("%d connections handed off after %v, want %d at once", len(got), time.Since(start), n)
		}
		for range n {
			c := <-got
			p := make([]byte, 4)
			if _, err := io.ReadFull(c, p); string(p) != "GET " {
				t.Errorf("read %q, %v after handoff", p, err)
			}
			c.Close()
		}
		if _, err := f.root.Accept(); err != net.ErrClosed {
			t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
		}
		for _, c := range clients {
			c.Close()
		}
	})
}

func TestDrainSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		wait := f.take(make(chan net.Conn))
		var clients []net.Conn
		for range 5000 {
			clients = append(clients, f.dial())
		}
		synctest.Wait()
		time.Sleep(time.Second)

		start := time.Now()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		if err := f.root.Drain(ctx); err == nil || err.Error() != "enough" {
			t.Errorf("Drain = %v, want the cause of its context", err)
		}
		if err := f.root.Drain(t.Context()); err != nil {
			t.Errorf("Drain = %v, want nil", err)
		}
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("drained after %v, want 2s: 3s from the accept", got)
		}
		<-f.done
		wait()
		for _, c := range clients {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("a silent client read %v, want %v", err, io.EOF)
			}
		}
	})
}

// TestDrainAcceptUnderWay is a connection that the listener underneath gives out while Drain begins.
func TestDrainAcceptUnderWay(t *testing.T) {
	for name, closing := range map[string]bool{"Drain": false, "Close": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := &lateListener{closed: make(chan struct{}), conn: new(script)}
				l := NewListener(late, quiet)
				accepted := make(chan net.Conn, 1)
				go func() {
					c, _ := l.Accept()
					accepted <- c
				}()
				synctest.Wait()
				if closing {
					l.Close()
					if c := <-accepted; c != nil || !late.conn.closed {
						t.Errorf("after Close, Accept = %v, connection closed: %v; want nil, closed", c, late.conn.closed)
					}
					return
				}
				drained := make(chan error, 1)
				go func() { drained <- l.Drain(t.Context()) }()
				c := <-accepted
				synctest.Wait()
				if c == nil || len(drained) > 0 {
					t.Fatalf("Accept = %v, drained: %v; want a connection that Drain waits for", c, len(drained) > 0)
				}
				c.Close()
				<-drained
			})
		})
	}
}

// A lateListener accepts one connection, just when it is closed.
type lateListener struct {
	fakeListener
	closed chan struct{}
	conn   *script
}

func (l *lateListener) Accept() (net.Conn, error) { <-l.closed; return l.conn, nil }
func (l *lateListener) Close() error              { close(l.closed); return nil }

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		silent, queued, kept := f.dial(), f.dial(), f.dial()
		go kept.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		c, err := f.web.Accept()
		if err != nil {
			t.Fatal(err)
		}
		taken := Handoff(c)
		go queued.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		synctest.Wait()

		start := time.Now()
		for range 2 {
			if err := f.root.Close(); err != nil {
				t.Errorf("Close = %v, want nil", err)
			}
		}
		<-f.done
		for name, c := range map[string]net.Conn{"silent": silent, "queued": queued} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s client read %v, want %v", name, err, io.EOF)
			}
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("closed after %v, want at once", got)
		}
		go taken.Write([]byte("x"))
		if _, err := kept.Read(make([]byte, 1)); err != nil {
			t.Errorf("read from a connection handed off: %v", err)
		}
		if err := f.root.Drain(t.Context()); err != nil {
			t.Errorf("Drain after Close = %v, want nil", err)
		}
		taken.Close()
	})
}
