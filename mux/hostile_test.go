package mux_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// Clients of the web's protocols that stall, lie or leave.

// rawHTTP1 sends text to a server in memory, and returns what comes until the
// connection ends, with the times of the first byte and of the end.
func rawHTTP1(t *testing.T, s *muxtest.Server, text string) (answer string, first, end time.Duration) {
	t.Helper()
	c, err := s.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	c.SetDeadline(start.Add(24 * time.Hour))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := c.Read(one); err != nil {
		t.Fatalf("no answer after %v: %v", time.Since(start), err)
	}
	first = time.Since(start)
	rest, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the connection is there after %v: %v", time.Since(start), err)
	}
	return string(one) + string(rest), first, time.Since(start)
}

// A call over HTTP/1 that fails before its request has come is answered at once, and
// holds its connection no longer than a body may stand still.
func TestFailureBeforeEndOfBody(t *testing.T) {
	for _, tt := range []struct{ name, method, contentType, header, body, want string }{
		{"too large", "Expand", "application/connect+json", "", "\x00\x7f\xff\xff\xff", "resource_exhausted"},
		{"bad message", "Expand", "application/connect+json", "", "\x00\x00\x00\x00\x01x", "invalid_argument"},
		{"two messages", "Expand", "application/connect+json", "", "\x00\x00\x00\x00\x02{}\x00\x00\x00\x00\x02{}", "unimplemented"},
		{"bad text", "Expand", "application/grpc-web-text", "", "!!!!", "Grpc-Status: 3"},
		{"too large, client stream", "Collect", "application/connect+json", "", "\x00\x7f\xff\xff\xff", "resource_exhausted"},
		{"unknown method", "Nope", "application/connect+json", "", "\x00", "unimplemented"},
		{"bad timeout", "Expand", "application/connect+json", "Connect-Timeout-Ms: x\r\n", "\x00", "invalid_argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services)
				answer, first, end := rawHTTP1(t, s, "POST /echo.v1.EchoService/"+tt.method+" HTTP/1.1\r\nHost: x\r\nContent-Type: "+
					tt.contentType+"\r\n"+tt.header+"Content-Length: 100000\r\n\r\n"+tt.body)
				// A unary method's answer waits until the connection is given up,
				// and so does one of which nothing could be read.
				if first > 30*time.Second || end > 60*time.Second || !strings.Contains(answer, tt.want) {
					t.Errorf("first byte after %v, end after %v: %.500q; want at most 30s and 60s, %q", first, end, answer, tt.want)
				}
				if read := tt.header == ""; read && first > 0 {
					t.Errorf("first byte after %v, want at once", first)
				}
				if !strings.Contains(answer, "Connection: close") {
					t.Errorf("the connection is kept: %.300q", answer)
				}
			})
		})
	}
}

// A handler that answers with most of a body unread is not held by the client.
func TestAnswerBeforeEndOfBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) {
			s.Handle("POST /p", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body.Read(make([]byte, 1))
				io.WriteString(w, "answer")
				w.(http.Flusher).Flush()
			}))
		})
		answer, _, end := rawHTTP1(t, s, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
		if end > time.Minute || !strings.Contains(answer, "answer") {
			t.Errorf("ended after %v: %q, want the answer within a minute", end, answer)
		}
	})
}

// A client that waits to be told to go on (RFC 9110 §10.1.1) is refused at once.
func TestExpectContinue(t *testing.T) {
	for name, header := range map[string]string{
		"415": "Content-Type: text/plain\r\n",
		"403": "Content-Type: application/json\r\nOrigin: http://evil.example\r\n",
		"400": "Content-Type: application/json\r\nConnect-Timeout-Ms: x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services)
				answer, first, _ := rawHTTP1(t, s, "POST "+echoPath+" HTTP/1.1\r\nHost: x\r\n"+header+"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
				if first > 0 || !strings.HasPrefix(answer, "HTTP/1.1 "+name) {
					t.Errorf("after %v: %.100q, want %s at once", first, answer, name)
				}
			})
		})
	}
}

// A deadline that passes while a stream is being sent ends it with its status, to a
// client that reads.
func TestDeadlineWhileSending(t *testing.T) {
	p := start(t, cleartextOnly, services, mux.WithSharedHTTP2())
	for _, tt := range []struct {
		major       int
		contentType string
	}{
		{1, "application/connect+json"}, {2, "application/connect+json"},
		{1, "application/grpc-web"}, {2, "application/grpc-web"}, {2, "application/grpc"},
	} {
		for _, size := range []int{10, 50000} {
			text := strings.Repeat("a", size)
			message := fmt.Appendf(nil, `{"message":%q,"count":4000000000}`, text)
			if tt.contentType != "application/connect+json" {
				message = protobuf(t, &pb.ExpandRequest{Message: text, Count: 4000000000})
			}
			for range 5 {
				req, err := http.NewRequestWithContext(t.Context(), "POST", p.url("http", "/echo.v1.EchoService/Expand"), strings.NewReader(envelope(0, string(message))))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", tt.contentType)
				req.Header.Set("Connect-Timeout-Ms", "50")
				req.Header.Set("Grpc-Timeout", "50m")
				res, err := p.http(tt.major).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				tail := string(body[max(0, len(body)-200):])
				early := res.Header.Get("Grpc-Status") == "4" // before the first message, on a slow machine
				if err != nil || !early && !strings.Contains(tail, "deadline_exceeded") && !strings.Contains(tail, "grpc-status: 4") && res.Trailer.Get("Grpc-Status") != "4" {
					t.Errorf("HTTP/%d, %s, %d bytes each: %v, ends with %q, trailer %v; want DEADLINE_EXCEEDED", tt.major, tt.contentType, size, err, tail, res.Trailer)
				}
			}
		}
	}
}

// The deadline of a call, whenever it passes, is nothing to the next call on its
// connection.
func TestDeadlineOfEarlierCall(t *testing.T) {
	p := start(t, cleartextOnly, services)
	kept, tries := 0, 1500
	if testing.Short() {
		tries = 100
	}
	for range tries {
		c := p.dial()
		br := bufio.NewReader(c)
		begun := time.Now()
		io.WriteString(c, "POST /echo.v1.EchoService/Collect HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nConnect-Timeout-Ms: 1\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n7\r\n\x00\x00\x00\x00\x02{}\r\n")
		// The body ends at about the deadline: to wait for the moment takes a CPU.
		for wait := 900*time.Microsecond + time.Duration(rand.IntN(400))*time.Microsecond; time.Since(begun) < wait; {
		}
		io.WriteString(c, "0\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("first call: %v", err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatalf("first call: %v", err)
		}
		if !res.Close {
			kept++
			io.WriteString(c, "POST "+echoPath+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("next call on the connection: %v, %v", res, err)
			}
		}
		c.Close()
	}
	if kept == 0 {
		t.Error("no connection was kept, so that there was no next call")
	}
}

// A client that grants no window, and so never gets the end of its call, does not
// hold it for ever.
func TestEndNobodyTakes(t *testing.T) {
	for _, tt := range []struct{ path, contentType, body string }{
		{"/echo.v1.EchoService/Converse", "application/connect+json", ""}, // ends by its deadline
		{"/echo.v1.EchoService/Expand", "application/connect+json", "\x00\x00\x00\x00\x01x"},
		{echoPath, "application/json", "x"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services, mux.WithSharedHTTP2())
				nc, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				c := newHTTP2Conn(t, nc)
				c.send(append([]byte(http2.ClientPreface), frames(func(fr *http2.Framer) {
					fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
					h := headers(1, "POST", tt.path, "content-type", tt.contentType, "connect-timeout-ms", "500")
					h.EndStream = false
					fr.WriteHeaders(h)
					fr.WriteData(1, tt.body != "", []byte(tt.body))
				})...))
				began := time.Now()
				for {
					f := c.next()
					if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
						c.WriteSettingsAck()
					}
					if _, reset := f.(*http2.RSTStreamFrame); reset {
						break
					}
				}
				if took := time.Since(began); took > 31*time.Second {
					t.Errorf("the stream ended after %v, want about 30s", took)
				}
			})
		})
	}
}

// What a client asks for beside its call, an upgrade to HTTP/2 say, does not keep the
// call from being answered.
func TestCallThatOffersUpgrade(t *testing.T) {
	p := start(t, cleartextOnly, services)
	c := p.dial()
	io.WriteString(c, "POST "+echoPath+" HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"+
		"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("answer is %v, %v, want 200", res, err)
	}
}

// A program may serve Connect and gRPC-Web by handlers of its own, for services that
// are not registered. A handler for everything gets no calls.
func TestOwnConnectHandler(t *testing.T) {
	s := mux.NewServer()
	services(s)
	for _, pattern := range []string{"/acme.v1.Other/", "/"} {
		s.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "own "+pattern) }))
	}
	t.Cleanup(func() { s.Close() })
	for _, tt := range []struct{ path, contentType, version, want string }{
		{"/acme.v1.Other/Do", "application/json", "", "own /acme"},
		{"/acme.v1.Other/Do", "application/json", "1", "own /acme"},
		{"/acme.v1.Other/Do", "application/grpc-web", "", "own /acme"},
		{"/acme.v1.Other/Do", "application/connect+json", "", "own /acme"},
		{"/nobodys.Service/Do", "application/json", "1", `"unimplemented"`},
		{"/nobodys.Service/Do", "application/connect+json", "", `"unimplemented"`},
		{"/nobodys.Service/Do", "application/json", "", "own /"},
		{echoPath, "application/json", "", `{}`},
	} {
		header := map[string]string{"Content-Type": tt.contentType}
		if tt.version != "" {
			header["Connect-Protocol-Version"] = tt.version
		}
		body, err := io.ReadAll(serve(s, "POST", tt.path, "{}", header).Body)
		if err != nil || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s, %s, version %q: %q, %v; want %q", tt.path, tt.contentType, tt.version, body, err, tt.want)
		}
	}
}

// Calls that their clients abandon leave nothing behind, on any protocol.
func TestAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		count := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			running.Add(1)
			defer running.Add(-1)
			return next(srv, ss)
		}
		s := muxtest.New(t, services, mux.WithSharedHTTP2(), mux.WithStreamInterceptor(count))
		for _, contentType := range []string{"application/connect+json", "application/grpc-web", "application/grpc-web-text", "application/grpc"} {
			for _, method := range []string{"Collect", "Converse"} {
				for major, client := range []*http.Client{s.HTTP1(), s.HTTP2()} {
					if contentType == "application/grpc" && major == 0 {
						continue
					}
					for i := range 20 {
						body, send := io.Pipe()
						req, err := http.NewRequestWithContext(t.Context(), "POST", muxtest.URL+"/echo.v1.EchoService/"+method, body)
						if err != nil {
							t.Fatal(err)
						}
						req.Header.Set("Content-Type", contentType)
						go send.Write([]byte("\x00\x00\x00")[:i%4])
						go func() {
							if res, err := client.Do(req); err == nil {
								res.Body.Close()
							}
						}()
						synctest.Wait()
						send.CloseWithError(io.ErrUnexpectedEOF)
					}
				}
			}
		}
		synctest.Wait()
		if n := running.Load(); n > 0 {
			t.Errorf("%d handlers run after their clients have gone", n)
		}
	})
}
