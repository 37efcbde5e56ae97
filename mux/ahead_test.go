package mux_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// scripted is a service whose methods all do what the test says.
type scripted struct {
	pb.UnimplementedEchoServiceServer
	do func(ctx context.Context, stream grpc.ServerStream) error // stream is nil for a unary call
}

func (s scripted) Echo(ctx context.Context, _ *pb.EchoRequest) (*pb.EchoResponse, error) {
	return &pb.EchoResponse{}, s.do(ctx, nil)
}

func (s scripted) Expand(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	return s.do(stream.Context(), stream)
}

func (s scripted) Converse(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
	return s.do(stream.Context(), stream)
}

// http1Call writes what begins a request over HTTP/1 to a new connection to a server
// whose handler does as told.
func http1Call(t *testing.T, do func(ctx context.Context, stream grpc.ServerStream) error, request string) net.Conn {
	t.Helper()
	s := muxtest.New(t, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, scripted{do: do}) })
	c, err := s.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	converseHead = "POST /echo.v1.EchoService/Converse HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\n"
	chunkedHead  = converseHead + "Transfer-Encoding: chunked\r\n\r\n"
)

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// A handler that waits, and neither reads nor writes, learns that its client over HTTP/1
// has gone: at once if all of the body has been read, and else not before nothing has been
// read for a second.
func TestClientGone(t *testing.T) {
	const call = "POST /echo.v1.EchoService/"
	protocols := []struct{ name, head, body string }{
		{"connect unary", call + "Echo HTTP/1.1\r\nContent-Type: application/json\r\n", "{}"},
		{"connect stream", call + "Expand HTTP/1.1\r\nContent-Type: application/connect+json\r\n", envelope(0, "{}")},
		{"connect bidi", call + "Converse HTTP/1.1\r\nContent-Type: application/connect+json\r\n", envelope(0, "{}")},
		{"grpc-web unary", call + "Echo HTTP/1.1\r\nContent-Type: application/grpc-web+json\r\n", envelope(0, "{}")},
		{"grpc-web stream", call + "Expand HTTP/1.1\r\nContent-Type: application/grpc-web+json\r\n", envelope(0, "{}")},
		{"grpc-web bidi", call + "Converse HTTP/1.1\r\nContent-Type: application/grpc-web+json\r\n", envelope(0, "{}")},
		{"grpc-web-text stream", call + "Expand HTTP/1.1\r\nContent-Type: application/grpc-web-text+json\r\n", base64.StdEncoding.EncodeToString([]byte(envelope(0, "{}")))},
		{"grpc-web-text bidi", call + "Converse HTTP/1.1\r\nContent-Type: application/grpc-web-text+json\r\n", base64.StdEncoding.EncodeToString([]byte(envelope(0, "{}")))},
		{"rest unary", "POST /v1/echo HTTP/1.1\r\nContent-Type: application/json\r\n", "{}"},
		{"rest lines", "POST /v1/echo:expand HTTP/1.1\r\nContent-Type: application/json\r\n", "{}"},
		{"rest events", "GET /v1/echo/x:expand HTTP/1.1\r\nAccept: text/event-stream\r\n", "a body that is not asked for"},
		{"rest bidi", "POST /v1/echo:converse HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n", "{}\n"},
	}
	type part struct {
		name, text string
		open       bool // there may be more to come
	}
	for _, p := range protocols {
		parts := []part{
			{"length", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(p.body), p.body), false},
			{"chunked", "Transfer-Encoding: chunked\r\n\r\n" + chunk(p.body) + "0\r\n\r\n", false},
			{"unfinished", "Transfer-Encoding: chunked\r\n\r\n" + chunk(p.body), true},
			{"nothing yet", "Transfer-Encoding: chunked\r\n\r\n", true},
			{"expects 100", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", true},
		}
		bidi := strings.Contains(p.name, "bidi")
		if strings.HasPrefix(p.head, "GET") {
			parts = append(parts, part{"none", "\r\n", false})
		}
		for _, b := range parts {
			if b.open && !bidi && p.name != "rest events" {
				continue // the handler begins after the body
			}
			for _, reads := range []bool{false, true} { // one message
				if reads && (!bidi || !strings.Contains(b.text, p.body)) {
					continue
				}
				atOnce := !bidi && p.name != "rest events" || b.name == "none" || reads && !b.open
				for _, stays := range []time.Duration{500 * time.Millisecond, time.Hour} {
					t.Run(fmt.Sprintf("%s/%s/reads %v/%v", p.name, b.name, reads, stays), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							ended := make(chan error, 1)
							c := http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
								if reads {
									if err := stream.RecvMsg(new(pb.ConverseRequest)); err != nil {
										t.Error(err)
									}
								}
								<-ctx.Done()
								ended <- ctx.Err()
								return ctx.Err()
							}, strings.Replace(p.head, "\r\n", "\r\nHost: localhost\r\n", 1)+b.text)
							synctest.Wait()
							if p.name != "rest events" { // they keep alive
								go io.Copy(io.Discard, c)
							}
							start := time.Now()
							time.Sleep(stays)
							if len(ended) > 0 {
								t.Fatalf("the context has ended while the client is there: %v", <-ended)
							}
							c.Close()
							if err := <-ended; err != context.Canceled {
								t.Errorf("context ended with %v, want context.Canceled", err)
							}
							want := stays
							if !atOnce {
								want = max(stays, time.Second)
							}
							if took := time.Since(start); took != want {
								t.Errorf("noticed after %v, want %v", took, want)
							}
						})
					})
				}
			}
		}
	}
}

// A client that half-closes its connection has gone as well, as for net/http.
func TestClientHalfClosed(t *testing.T) {
	began, ended := make(chan bool, 1), make(chan error, 1)
	p := start(t, cleartextOnly, func(s *mux.Server) {
		pb.RegisterEchoServiceServer(s, scripted{do: func(ctx context.Context, _ grpc.ServerStream) error {
			began <- true
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		}})
	})
	c := p.dial()
	defer c.Close()
	io.WriteString(c, "GET /v1/echo/x:expand HTTP/1.1\r\nHost: localhost\r\n\r\n")
	receive(t, began, "call")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, ended, "end of the context"); err != context.Canceled {
		t.Errorf("context ended with %v", err)
	}
}

// What a client sends while its handler does something else is read up to a limit. Below
// it the end of the client is noticed, and at it no more; nothing of it is lost.
func TestReadAheadLimit(t *testing.T) {
	const limit = 64 << 10
	for _, size := range []int{limit - 1, limit} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var want, got []string
				body := new(strings.Builder)
				for body.Len() < size {
					m := fmt.Sprint(body.Len())
					e := envelope(0, `{"message":"`+m+`"}`)
					if body.Len()+len(e) <= size {
						want = append(want, m)
					}
					body.WriteString(e)
				}
				ended := make(chan error, 1)
				c := http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
					select {
					case <-ctx.Done():
						ended <- ctx.Err()
						return ctx.Err()
					case <-time.After(time.Hour):
					}
					for {
						m := new(pb.ConverseRequest)
						if err := stream.RecvMsg(m); err != nil {
							ended <- ctx.Err()
							return err
						}
						got = append(got, m.Message)
					}
				}, chunkedHead+chunk(body.String()[:size]))
				time.Sleep(time.Minute)
				start := time.Now()
				c.Close()
				if err := <-ended; err != context.Canceled {
					t.Errorf("context ended with %v, want context.Canceled", err)
				}
				took := time.Since(start)
				if size < limit && took != 0 {
					t.Errorf("noticed after %v, want at once", took)
				}
				if size == limit && (took != 59*time.Minute || !slices.Equal(got, want)) {
					t.Errorf("noticed after %v with %d messages, want 59m when the handler has read %d", took, len(got), len(want))
				}
			})
		})
	}
}

// A handler that does something else between two messages has each at once that has come
// meanwhile, whether the client goes on sending or waits for an answer.
func TestReadAheadAtOnce(t *testing.T) {
	for _, busy := range []time.Duration{500 * time.Millisecond, time.Minute} {
		t.Run(busy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := make(chan error, 1)
				c := http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
					got <- func() error {
						for i := range 3 {
							time.Sleep(busy)
							start := time.Now()
							if err := stream.RecvMsg(new(pb.ConverseRequest)); err != nil {
								return fmt.Errorf("message %d: %w", i, err)
							}
							if took := time.Since(start); took != 0 {
								return fmt.Errorf("waited %v for message %d, which had come", took, i)
							}
							if err := stream.SendMsg(&pb.ConverseResponse{}); err != nil {
								return err
							}
						}
						return nil
					}()
					return nil
				}, chunkedHead)
				answers := bufio.NewReader(c)
				for i := range 3 {
					time.Sleep(busy - time.Millisecond)
					io.WriteString(c, chunk(envelope(0, "{}")))
					time.Sleep(time.Millisecond)
					if i == 0 {
						if _, err := http.ReadResponse(answers, nil); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := <-got; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A handler that has done something else for long finds the messages of its client as
// they were sent, those that were read ahead and those that were not.
func TestReadAheadOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 5000 // more than are read ahead
		got := make(chan error, 1)
		c := http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
			got <- func() error {
				for i := range messages {
					if i%1000 == 0 {
						time.Sleep(time.Hour)
					}
					m := new(pb.ConverseRequest)
					if err := stream.RecvMsg(m); err != nil || m.Message != fmt.Sprint(i) {
						return fmt.Errorf("message %d is %q, %w", i, m.Message, err)
					}
				}
				time.Sleep(time.Hour)
				if err := stream.RecvMsg(new(pb.ConverseRequest)); err != io.EOF {
					return fmt.Errorf("after the last message: %w", err)
				}
				return nil
			}()
			return nil
		}, chunkedHead)
		w := bufio.NewWriterSize(c, 100)
		for i := range messages {
			io.WriteString(w, chunk(envelope(0, fmt.Sprintf(`{"message":"%d"}`, i))))
		}
		io.WriteString(w, "0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		w.Flush()
		if err := <-got; err != nil {
			t.Error(err)
		}
		// The body has ended before the answer began, so the connection goes on.
		r := bufio.NewReader(c)
		for _, want := range []string{envelope(2, "{}"), "ok\n"} {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(res.Body); err != nil || string(b) != want || res.Close {
				t.Errorf("answer %q, %v, close: %v; want %q on a connection that goes on", b, err, res.Close, want)
			}
		}
	})
}

// A client that has not ended its body has the answer of a handler that has returned
// without it, then the end of the connection; so has one that sends on.
func TestReadAheadAnswer(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
				time.Sleep(time.Minute)
				return stream.SendMsg(&pb.ConverseResponse{Message: "done"})
			}, chunkedHead)
			r := bufio.NewReader(c)
			start := time.Now()
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if late {
				if _, err := io.WriteString(c, chunk(envelope(0, "{}"))); err != nil {
					t.Errorf("a message after the answer has begun: %v", err)
				}
			}
			b, err := io.ReadAll(res.Body)
			if want := envelope(0, `{"message":"done"}`) + envelope(2, "{}"); err != nil || string(b) != want || !res.Close {
				t.Errorf("answer %q, %v, close: %v; want %q and a connection that ends", b, err, res.Close, want)
			}
			if took := time.Since(start); took != time.Minute {
				t.Errorf("answered after %v, want 1m", took)
			}
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("after the answer: %v, want the end", err)
			}
			if took := time.Since(start) - time.Minute; took != 500*time.Millisecond { // net/http's
				t.Errorf("the connection ended %v after the answer, want 500ms", took)
			}
		})
	}
}

// A client that keeps its body open after the answer of a handler that has returned before
// anything was read ahead is waited for no longer than 5 s.
func TestReadAheadNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := http1Call(t, func(context.Context, grpc.ServerStream) error { return nil }, chunkedHead)
		start := time.Now()
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || string(b) != envelope(2, "{}") || !res.Close || time.Since(start) != 0 {
			t.Errorf("answer %q, %v, close: %v, after %v; want all of it at once and a connection that ends", b, err, res.Close, time.Since(start))
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the answer: %v, want the end", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the connection ended %v after the answer, want 5s", took)
		}
	})
}

// Read ahead or not, a handler waits for a message no longer than for any part of a body,
// and no longer than its call may take.
func TestReadAheadStall(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		want         time.Duration // after the handler has begun to read
	}{
		{"stalls", "", 30 * time.Second},
		{"deadline", "Connect-Timeout-Ms: 3610000\r\n", 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := make(chan error, 1)
				var took time.Duration
				http1Call(t, func(ctx context.Context, stream grpc.ServerStream) error {
					time.Sleep(time.Hour)
					start := time.Now()
					err := stream.RecvMsg(new(pb.ConverseRequest))
					took = time.Since(start)
					got <- err
					return err
				}, strings.Replace(chunkedHead, "\r\n", "\r\n"+tt.header, 1))
				if err := <-got; status.Code(err) != codes.DeadlineExceeded || took != tt.want {
					t.Errorf("read ended after %v with %v, want DEADLINE_EXCEEDED after %v", took, err, tt.want)
				}
			})
		})
	}
}

// A request that a handler of the program passes on to the server is watched once, with
// whatever is around its body, and however late.
func TestReadAheadMounted(t *testing.T) {
	tests := []struct {
		name string
		wrap func(http.ResponseWriter, *http.Request)
		late time.Duration
	}{
		{"as it is", func(http.ResponseWriter, *http.Request) {}, 0},
		{"limited", func(w http.ResponseWriter, r *http.Request) { r.Body = http.MaxBytesReader(w, r.Body, 1<<20) }, 0},
		{"wrapped twice", func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, http.MaxBytesReader(w, r.Body, 1<<20), 1<<20)
		}, 0},
		{"late", func(http.ResponseWriter, *http.Request) {}, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				received, ended := make(chan error, 1), make(chan error, 1)
				s := muxtest.New(t, func(s *mux.Server) {
					pb.RegisterEchoServiceServer(s, scripted{do: func(ctx context.Context, stream grpc.ServerStream) error {
						select {
						case <-time.After(time.Hour):
						case <-ctx.Done():
						}
						received <- stream.RecvMsg(new(pb.ConverseRequest))
						<-ctx.Done()
						ended <- ctx.Err()
						return ctx.Err()
					}})
					s.Handle("/mine/", http.StripPrefix("/mine", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(tt.late)
						tt.wrap(w, r)
						s.ServeHTTP(w, r)
					})))
				})
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, "POST /mine/v1/echo:converse HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
				time.Sleep(30 * time.Minute)
				io.WriteString(c, chunk("{}\n"))
				if err := <-received; err != nil {
					t.Errorf("a message after half an hour: %v", err)
				}
				time.Sleep(time.Hour)
				if len(ended) > 0 {
					t.Fatalf("the context has ended while the client is there: %v", <-ended)
				}
				start := time.Now()
				c.Close()
				if err, took := <-ended, time.Since(start); err != context.Canceled || took != 0 {
					t.Errorf("context ended with %v %v after the client, want context.Canceled at once", err, took)
				}
			})
		})
	}
}
