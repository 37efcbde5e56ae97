package xconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"oneport/mux/internal/xconnect"
	"oneport/mux/internal/xconnect/xconnecttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// once is a listener with one connection.
type once struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func (l once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l once) Close() error   { l.close(); return nil }
func (l once) Addr() net.Addr { return &net.TCPAddr{} }

// serve runs test in a bubble, with a client of a server of h.
func serve(t *testing.T, h http.HandlerFunc, test func(t *testing.T, open func() *stream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		closed := make(chan struct{})
		ln := once{make(chan net.Conn, 1), closed, sync.OnceFunc(func() { close(closed) })}
		ln.conns <- theirs
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		// The timeouts are for requests, not for sockets.
		hs := &http.Server{Protocols: &p, ReadTimeout: time.Second, WriteTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !xconnect.Is(r) {
				t.Errorf("%s %s has no :protocol", r.Method, r.URL)
			}
			xconnect.Serve(w, r, h)
		})}
		served := make(chan error, 1)
		go func() { served <- hs.Serve(ln) }()
		c, err := xconnecttest.New(ours, nil)
		if err != nil {
			t.Fatal(err)
		}
		test(t, func() *stream {
			body, out := io.Pipe()
			res, err := c.RoundTrip(c.Connect(t.Context(), "x", "/", nil, body))
			return &stream{res, err, out}
		})
		c.Close()
		hs.Close()
		<-served
	})
}

// stream is one as its client has it.
type stream struct {
	*http.Response
	err error // or why there is no answer
	out *io.PipeWriter
}

func (s *stream) want(t *testing.T, status int) {
	t.Helper()
	if s.err != nil {
		t.Fatalf("%v, want status %d", s.err, status)
	}
	if s.StatusCode != status {
		t.Fatalf("status %s, want %d", s.Status, status)
	}
}

func (s *stream) wantRead(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.Body, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// switched answers an upgrade.
const switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Own: a\r\n\r\n"

// hijack returns the connection of r, answered unless answer is empty.
func hijack(t *testing.T, w http.ResponseWriter, answer string) net.Conn {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
	if answer != "" {
		if _, err := io.WriteString(c, answer); err != nil {
			t.Errorf("write of the answer: %v", err)
		}
	}
	return c
}

func TestBytes(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Lost", "not sent over HTTP/1 either")
		c := hijack(t, w, "")
		for _, b := range switched {
			fmt.Fprint(c, string(b))
		}
		go func() { // after the handler has returned
			defer c.Close()
			<-r.Context().Done()
			io.Copy(c, c)
		}()
	}, func(t *testing.T, open func() *stream) {
		s := open()
		s.want(t, 200)
		if s.Header.Get("X-Own") != "a" || len(s.Header) != 2 { // and Date
			t.Errorf("header %v, want that of the answer alone", s.Header)
		}
		io.WriteString(s.out, "hello")
		s.wantRead(t, "hello")
		large := strings.Repeat("x", 1<<20)
		go io.WriteString(s.out, large)
		s.wantRead(t, large)
		s.out.Close()
		if rest, err := io.ReadAll(s.Body); len(rest) > 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}

// What a handler says right after its answer comes after it.
func TestEarlyBytes(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		hijack(t, w, switched+"early").Close()
	}, func(t *testing.T, open func() *stream) {
		s := open()
		s.want(t, 200)
		s.wantRead(t, "early")
		if rest, err := io.ReadAll(s.Body); len(rest) > 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}

func TestAnswers(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	for _, tt := range []struct {
		name   string
		h      http.HandlerFunc
		status int // 0 is a reset
		body   string
	}{
		{"nothing", func(http.ResponseWriter, *http.Request) {}, 404, "no WebSocket"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "page")
		}, 404, "no WebSocket"},
		{"a flushed page", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "page")
		}, 404, "no WebSocket"},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 404, "no WebSocket"},
		{"101 without a connection", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }, 404, "no WebSocket"},
		{"a hint, and no", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(103)
			w.WriteHeader(403)
			w.WriteHeader(200)
			io.WriteString(w, "no")
		}, 403, "no"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/else", http.StatusFound) }, 302, "/else"},
		{"too late", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
				t.Error("Hijack after the header was written succeeds")
			}
		}, 403, ""},
		{"refused on the connection", func(w http.ResponseWriter, _ *http.Request) {
			hijack(t, w, "HTTP/1.1 418 no\r\nContent-Length: 2\r\n\r\nno").Close()
		}, 418, ""},
		{"200 on the connection", func(w http.ResponseWriter, _ *http.Request) {
			hijack(t, w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").Close()
		}, 404, "no WebSocket"},
		{"no answer", func(w http.ResponseWriter, _ *http.Request) { hijack(t, w, "").Close() }, 0, ""},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) { hijack(t, w, switched[:20]).Close() }, 0, ""},
		{"no HTTP", func(w http.ResponseWriter, _ *http.Request) {
			c := hijack(t, w, "")
			defer c.Close()
			if _, err := io.WriteString(c, "hello\r\n\r\n"); err == nil {
				t.Error("an answer that is no HTTP is taken")
			}
		}, 0, ""},
		{"an answer without end", func(w http.ResponseWriter, _ *http.Request) {
			c := hijack(t, w, "")
			defer c.Close()
			line := "X: " + strings.Repeat("x", 1<<10) + "\r\n"
			n := 0
			for ; n < 1000; n++ {
				if _, err := io.WriteString(c, line); err != nil {
					break
				}
			}
			if n != 15 {
				t.Errorf("%d lines of 1 KiB are taken of an answer, want 15", n)
			}
		}, 0, ""},
		{"a panic", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, tt.h, func(t *testing.T, open func() *stream) {
				s := open()
				if tt.status == 0 {
					if s.err == nil {
						t.Errorf("status %s, want a reset", s.Status)
					}
					return
				}
				s.want(t, tt.status)
				body, err := io.ReadAll(s.Body)
				if err != nil || !strings.Contains(string(body), tt.body) {
					t.Errorf("body %q, %v, want one with %q", body, err, tt.body)
				}
			})
		})
	}
}

// A writer of its own is not touched by what becomes of the handler.
func TestHijackedWriter(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	serve(t, func(w http.ResponseWriter, _ *http.Request) {
		defer hijack(t, w, switched).Close()
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("second Hijack = %v, want ErrHijacked", err)
		}
		if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("Write = %v, want ErrHijacked", err)
		}
		w.WriteHeader(500)
		w.(http.Flusher).Flush()
	}, func(t *testing.T, open func() *stream) {
		s := open()
		s.want(t, 200)
		if rest, err := io.ReadAll(s.Body); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v, want nothing", rest, err)
		}
	})
}

// A deadline cuts what is under way when it passes, and nothing else.
func TestDeadlines(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	read := func(c net.Conn) error { _, err := c.Read(make([]byte, 10)); return err }
	write := func(c net.Conn) error { // more than the client's window
		_, err := c.Write(make([]byte, 8<<20))
		return err
	}
	for name, direction := range map[string]struct {
		do  func(net.Conn) error
		set func(net.Conn, time.Time) error
	}{
		"read":  {read, net.Conn.SetReadDeadline},
		"write": {write, net.Conn.SetWriteDeadline},
		"both":  {read, net.Conn.SetDeadline},
	} {
		do, set := direction.do, direction.set
		for _, tt := range []struct {
			name string
			act  func(t *testing.T, c net.Conn) error
			want error
			took time.Duration
		}{
			{"set before", func(t *testing.T, c net.Conn) error {
				set(c, time.Now().Add(time.Minute))
				return do(c)
			}, os.ErrDeadlineExceeded, time.Minute},
			{"set meanwhile", func(t *testing.T, c net.Conn) error {
				time.AfterFunc(time.Second, func() { set(c, time.Now().Add(time.Minute)) })
				return do(c)
			}, os.ErrDeadlineExceeded, 61 * time.Second},
			{"moved on meanwhile", func(t *testing.T, c net.Conn) error {
				set(c, time.Now().Add(time.Minute))
				time.AfterFunc(time.Second, func() { set(c, time.Now().Add(time.Hour)) })
				return do(c)
			}, os.ErrDeadlineExceeded, time.Hour + time.Second},
			{"moved to the past meanwhile", func(t *testing.T, c net.Conn) error {
				time.AfterFunc(time.Second, func() { set(c, time.Unix(1, 0)) })
				return do(c)
			}, os.ErrDeadlineExceeded, time.Second},
			{"in the past", func(t *testing.T, c net.Conn) error {
				set(c, time.Unix(1, 0))
				return do(c)
			}, os.ErrDeadlineExceeded, 0},
			{"passed before, then none", func(t *testing.T, c net.Conn) error {
				set(c, time.Now().Add(time.Minute))
				time.Sleep(time.Hour)
				set(c, time.Time{})
				time.AfterFunc(time.Hour, func() { c.Close() })
				return do(c)
			}, net.ErrClosed, 2 * time.Hour},
			{"taken back meanwhile", func(t *testing.T, c net.Conn) error {
				set(c, time.Now().Add(time.Minute))
				time.AfterFunc(time.Second, func() { set(c, time.Time{}) })
				time.AfterFunc(time.Hour, func() { c.Close() })
				return do(c)
			}, net.ErrClosed, time.Hour},
			{"after another", func(t *testing.T, c net.Conn) error {
				set(c, time.Now().Add(time.Minute))
				do(c)
				set(c, time.Now().Add(time.Hour))
				return do(c)
			}, os.ErrDeadlineExceeded, time.Minute},
			{"closed", func(t *testing.T, c net.Conn) error {
				c.Close()
				if err := c.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("second Close = %v", err)
				}
				if err := set(c, time.Now()); !errors.Is(err, net.ErrClosed) {
					t.Errorf("deadline of a closed connection = %v", err)
				}
				return do(c)
			}, net.ErrClosed, 0},
			{"closed meanwhile", func(t *testing.T, c net.Conn) error {
				time.AfterFunc(time.Second, func() { c.Close() })
				return do(c)
			}, net.ErrClosed, time.Second},
		} {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				var got chan error // of the bubble
				serve(t, func(w http.ResponseWriter, _ *http.Request) {
					c := hijack(t, w, switched)
					defer c.Close()
					start := time.Now()
					err := tt.act(t, c)
					if took := time.Since(start); took != tt.took {
						t.Errorf("took %v, want %v", took, tt.took)
					}
					got <- err
				}, func(t *testing.T, open func() *stream) {
					got = make(chan error, 1)
					open().want(t, 200)
					if err := <-got; !errors.Is(err, tt.want) {
						t.Errorf("%v, want %v", err, tt.want)
					}
				})
			})
		}
	}
}

// The stream of a connection that somebody still uses ends with the handler's panic; who
// uses it then is told, by no panic.
func TestLateWriter(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	for name, h := range map[string]func(net.Conn){
		"panic": func(net.Conn) { panic(http.ErrAbortHandler) },
		"close": func(c net.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var errs chan error // of the bubble
			serve(t, func(w http.ResponseWriter, r *http.Request) {
				c := hijack(t, w, switched)
				for _, f := range []func([]byte) (int, error){c.Read, c.Write} {
					context.AfterFunc(r.Context(), func() {
						time.Sleep(time.Second)
						_, err := f([]byte("x"))
						errs <- err
					})
				}
				h(c)
			}, func(t *testing.T, open func() *stream) {
				errs = make(chan error, 2)
				open()
				for range 2 {
					if err := <-errs; !errors.Is(err, net.ErrClosed) {
						t.Errorf("a late one = %v, want ErrClosed", err)
					}
				}
			})
		})
	}
}

// Who is about to write when the connection is closed has done so before the handler of the
// stream is over, after which nobody may. The race detector sees it otherwise.
func TestCloseWhileWriting(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		c := hijack(t, w, "")
		go func() {
			for _, b := range switched + strings.Repeat("x", 10_000) {
				if _, err := fmt.Fprint(c, string(b)); err != nil {
					return
				}
			}
		}()
		go c.Close()
	}, func(t *testing.T, open func() *stream) {
		for range 200 {
			if s := open(); s.err == nil {
				s.Body.Close()
			}
		}
	})
}
