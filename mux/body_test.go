package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"oneport/mux"
	"oneport/mux/muxtest"
)

// A request body may stand still for 30 s at a time, however long it takes in
// all; and once it has been read the handler has all the time it wants.
func TestBodyStall(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pauses []time.Duration // between the bytes of the body
		want   time.Duration   // until the handler has the body or an error
		fails  bool
	}{
		{"steady", []time.Duration{29 * time.Second, 29 * time.Second, 29 * time.Second}, 87 * time.Second, false},
		{"stalls", []time.Duration{time.Second, 31 * time.Second}, 31 * time.Second, true},
	} {
		for _, road := range []struct {
			name   string
			client func(*muxtest.Server) *http.Client
		}{
			{"http1", (*muxtest.Server).HTTP1},
			{"http2", (*muxtest.Server).HTTP2},
		} {
			t.Run(tt.name+"/"+road.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					type result struct {
						took time.Duration
						err  error
						late error // of the request's context, long after the body
					}
					results := make(chan result, 1)
					s := muxtest.New(t, func(s *mux.Server) {
						s.Handle("POST /upload", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							start := time.Now()
							_, err := io.Copy(io.Discard, r.Body)
							took := time.Since(start)
							if err == nil {
								time.Sleep(5 * time.Minute)
							}
							results <- result{took, err, context.Cause(r.Context())}
						}))
					})
					body, send := io.Pipe()
					var sender sync.WaitGroup
					defer sender.Wait()
					sender.Go(func() {
						fmt.Fprint(send, "x")
						for _, d := range tt.pauses {
							time.Sleep(d)
							if _, err := fmt.Fprint(send, "x"); err != nil {
								return
							}
						}
						send.Close()
					})
					resp, err := road.client(s).Post(muxtest.URL+"/upload", "text/plain", body)
					if err == nil {
						resp.Body.Close()
					}
					body.Close()
					got := <-results
					if got.took != tt.want || (got.err != nil) != tt.fails {
						t.Errorf("body ended after %v with %v, want %v, failure %v", got.took, got.err, tt.want, tt.fails)
					}
					if tt.fails && !errors.Is(got.err, os.ErrDeadlineExceeded) {
						t.Errorf("error = %v, want a deadline", got.err)
					}
					if !tt.fails && got.late != nil {
						t.Errorf("context ended while the handler was at work: %v", got.late)
					}
				})
			})
		}
	}
}

// A deadline that a handler has set itself holds.
func TestBodyOwnDeadline(t *testing.T) {
	for _, road := range []struct {
		name   string
		client func(*muxtest.Server) *http.Client
	}{
		{"http1", (*muxtest.Server).HTTP1},
		{"http2", (*muxtest.Server).HTTP2},
	} {
		t.Run(road.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took := make(chan time.Duration, 1)
				s := muxtest.New(t, func(s *mux.Server) {
					s.Handle("POST /upload", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						start := time.Now()
						if err := http.NewResponseController(w).SetReadDeadline(start.Add(time.Second)); err != nil {
							t.Error(err)
						}
						if _, err := io.Copy(io.Discard, r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("error = %v, want a deadline", err)
						}
						took <- time.Since(start)
					}))
				})
				body, send := io.Pipe()
				defer send.Close()
				resp, err := road.client(s).Post(muxtest.URL+"/upload", "text/plain", body)
				if err == nil {
					resp.Body.Close()
				}
				if got := <-took; got != time.Second {
					t.Errorf("body ended after %v, want 1 s", got)
				}
			})
		})
	}
}

// A handler that hijacks the connection without having read all of the body keeps
// it for as long as it likes.
func TestBodyHijacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan error, 1)
		s := muxtest.New(t, func(s *mux.Server) {
			s.Handle("POST /attach", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					got <- err
					return
				}
				go func() {
					defer c.Close()
					_, err := io.ReadFull(rw, make([]byte, 6)) // the body and one more
					got <- err
				}()
			}))
		})
		c, err := s.DialContext(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
		time.Sleep(time.Minute)
		io.WriteString(c, "!")
		if err := <-got; err != nil {
			t.Errorf("read of the hijacked connection after a minute: %v", err)
		}
	})
}

// A body that a page does not read is read by net/http before the answer. It does
// not hold the connection for longer than any other.
func TestUnreadBodyStall(t *testing.T) {
	for _, request := range []string{
		"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
		"POST /none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx",
		"POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n",
	} {
		t.Run(strings.Fields(request)[1], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, func(*mux.Server) {})
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				io.Copy(io.Discard, c)
				// net/http waits for half a second before it closes.
				if took := time.Since(start); took < 30*time.Second || took > 31*time.Second {
					t.Errorf("%q: connection ended after %v, want 30 s", request, took)
				}
			})
		})
	}
}

// A client over HTTP/1 that sends too much has time to read the answer before its
// connection ends, also if it has asked whether to send: with bytes unread the end is a
// reset, which takes the answer away.
func TestTooLargeAnswered(t *testing.T) {
	for _, path := range []string{"/helloworld.Greeter/SayHello", "/v1/hello"} {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			t.Run(path+" "+expect, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := muxtest.New(t, services, mux.WithMaxMessageBytes(1000))
					c, err := s.DialContext(t.Context(), "tcp", "")
					if err != nil {
						t.Fatal(err)
					}
					answers := bufio.NewReader(c)
					fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n%s\r\n", path, expect)
					if expect != "" {
						resp, err := http.ReadResponse(answers, &http.Request{Method: "POST"})
						if err != nil || resp.StatusCode != http.StatusContinue {
							t.Fatalf("first answer = %v, %v, want 100", resp, err)
						}
					}
					go c.Write(bytes.Repeat([]byte("x"), 999_999))
					resp, err := http.ReadResponse(answers, &http.Request{Method: "POST"})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusTooManyRequests {
						t.Errorf("answer = %s, %v, want 429", resp.Status, err)
					}
					answered := time.Now()
					if _, err := answers.ReadByte(); err != io.EOF {
						t.Errorf("after the answer: %v, want the end of the connection", err)
					}
					if got := time.Since(answered); got != 500*time.Millisecond { // of net/http
						t.Errorf("the connection ended %v after the answer, want 500 ms", got)
					}
				})
			})
		}
	}
}

// Over HTTP/2 a body that nobody has read does not cost the client its answer: the
// stream is not reset, up to the limit, and a client that does not go on sending is
// not waited for any longer than a while.
func TestBodyLeft(t *testing.T) {
	const limit = 256 << 10
	for _, tt := range []struct {
		name  string
		size  int  // of the body
		ends  bool // it is sent to its end
		reset bool
		took  time.Duration
	}{
		{"none", 0, true, false, 0},
		{"limit", limit, true, false, 0},
		{"more", limit, false, true, 0},
		{"stalls", limit - 1, false, true, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services)
				nc, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				c := newHTTP2Conn(t, nc)
				c.greet()
				began := time.Now()
				h := headers(1, "POST", "/echo.v1.EchoService/Echo", "content-type", "text/plain")
				h.EndStream = tt.size == 0 && tt.ends
				c.WriteHeaders(h)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for left := tt.size; left > 0; { // no more than the window
						n := min(left, 16<<10)
						left -= n
						c.WriteData(1, left == 0 && tt.ends, make([]byte, n))
					}
				}()
				var answered, reset bool
				for !answered {
					switch f := c.next().(type) {
					case *http2.MetaHeadersFrame:
						if f.PseudoValue("status") != "415" {
							t.Errorf("status is %s, want 415", f.PseudoValue("status"))
						}
					case *http2.DataFrame:
						answered = f.StreamEnded()
					case *http2.RSTStreamFrame:
						t.Fatalf("the stream was reset before its answer: %v", f.ErrCode)
					}
				}
				took := time.Since(began)
				<-sent
				c.WritePing(false, [8]byte{1})
				for pong := false; !pong; {
					switch f := c.next().(type) {
					case *http2.RSTStreamFrame:
						reset = true
					case *http2.PingFrame:
						pong = f.IsAck()
					}
				}
				if reset != tt.reset || took != tt.took {
					t.Errorf("reset: %v, after %v; want %v, %v", reset, took, tt.reset, tt.took)
				}
			})
		})
	}
}
