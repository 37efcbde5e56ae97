package mux_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	pb "oneport/proto/echo"
)

// A body that HTTP/1 cannot take apart is the client's fault on every road, and nothing of
// it is taken for another request. One that ends too early is that of a request which its
// client has cancelled (RFC 9112 §8), even if it still reads.
func TestMalformedBody(t *testing.T) {
	p := start(t, cleartextOnly, services)
	const smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	const malformed = "the request is cut short or malformed: "
	for _, road := range []struct {
		path, contentType, message string
		malformed                  int
		says                       string // in header or body
		cancelled                  int
		cancelledSays              string
	}{
		{"/v1/echo", "application/json", "{}", 400, `{"code":3,"message":"` + malformed, 499, `{"code":1,`},
		{"/v1/echo:collect", "application/x-ndjson", "{}", 400, `{"code":3,"message":"` + malformed, 499, `{"code":1,`},
		{"/echo.v1.EchoService/Echo", "application/json", "{}", 400, `{"code":"invalid_argument","message":"` + malformed, 499, `{"code":"canceled"`},
		{"/echo.v1.EchoService/Echo", "application/proto", "\x0a\x01a", 400, `{"code":"invalid_argument","message":"` + malformed, 499, `{"code":"canceled"`},
		{"/echo.v1.EchoService/Collect", "application/connect+json", "\x00\x00\x00\x00\x02{}", 200, `{"error":{"code":"invalid_argument","message":"` + malformed, 200, `{"error":{"code":"canceled"`},
		{"/echo.v1.EchoService/Collect", "application/grpc-web+proto", "\x00\x00\x00\x00\x00", 200, "Grpc-Status:[3]", 200, "Grpc-Status:[1]"},
		{"/echo.v1.EchoService/Collect", "application/grpc-web-text+proto", "AAAAAAA=", 200, "Grpc-Status:[3]", 200, "Grpc-Status:[1]"},
	} {
		size := len(road.message)
		for _, tt := range []struct {
			name, body string
			cancelled  bool
		}{
			{"no size", fmt.Sprintf("%x\r\n%s\r\nxyz\r\n%s", size, road.message, smuggled), false},
			{"no size at all", "\r\n" + smuggled, false},
			{"size too low", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n%s", size-1, road.message, smuggled), false},
			{"size too large", fmt.Sprintf("%x\r\n%s\r\n11111111111111111\r\n%s", size, road.message, smuggled), false},
			{"cut", fmt.Sprintf("ff\r\n%s", road.message), true},
			{"no end", fmt.Sprintf("%x\r\n%s\r\n", size, road.message), true},
			{"short", road.message, true},
		} {
			t.Run(road.path+" "+road.contentType+" "+tt.name, func(t *testing.T) {
				framing := "Transfer-Encoding: chunked"
				if tt.name == "short" {
					framing = fmt.Sprintf("Content-Length: %d", size+1)
				}
				c := p.dial()
				if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s\r\n\r\n%s", road.path, road.contentType, framing, tt.body); err != nil {
					t.Fatal(err)
				}
				code, says := road.malformed, road.says
				if tt.cancelled {
					c.CloseWrite()
					code, says = road.cancelled, road.cancelledSays
				}
				br := bufio.NewReader(c)
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprint(res.Header, string(body)); res.StatusCode != code || !strings.Contains(got, says) {
					t.Errorf("answer is %s %q, want %d and %q", res.Status, got, code, says)
				}
				if more, err := io.ReadAll(br); len(more) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("then comes %q, %v; want the end of the connection", more, err)
				}
			})
		}
	}
}

// A client that resets its connection within a request has cancelled the call.
func TestResetWithinBody(t *testing.T) {
	for _, road := range []struct{ path, contentType, message string }{
		{"/v1/echo:collect", "application/x-ndjson", "{}\n"},
		{"/echo.v1.EchoService/Collect", "application/connect+json", "\x00\x00\x00\x00\x02{}"},
		{"/echo.v1.EchoService/Collect", "application/grpc-web+proto", "\x00\x00\x00\x00\x00"},
	} {
		t.Run(road.contentType, func(t *testing.T) {
			began, ended := make(chan bool, 1), make(chan error, 1)
			p := start(t, cleartextOnly, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, collector{began: began, ended: ended}) })
			c := p.dial()
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n%s", road.path, road.contentType, road.message)
			receive(t, began, "the first message")
			c.SetLinger(0)
			c.Close()
			if err := receive(t, ended, "the end of the request"); status.Code(err) != codes.Canceled {
				t.Errorf("the handler gets %v, want CANCELLED", err)
			}
		})
	}
}

// collector tells when it has the first message, and why there are no more.
type collector struct {
	pb.UnimplementedEchoServiceServer
	began chan<- bool
	ended chan<- error
}

func (c collector) Collect(s grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
	_, err := s.Recv()
	c.began <- err == nil
	if err == nil {
		_, err = s.Recv()
	}
	c.ended <- err
	return err
}

// Over HTTP/2 the length that a request declares is all of a body that can be wrong.
func TestCutBodyHTTP2(t *testing.T) {
	for _, road := range []struct{ path, contentType, message, status string }{
		{"/v1/echo", "application/json", "{}", "400"},
		{"/v1/echo:collect", "application/x-ndjson", "{}\n", "400"},
		{"/echo.v1.EchoService/Echo", "application/json", "{}", "400"},
	} {
		p := start(t, cleartextOnly, services)
		c := newHTTP2Conn(t, p.dial())
		c.greet()
		h := headers(1, "POST", road.path, "content-type", road.contentType, "content-length", "100")
		h.EndStream = false
		c.WriteHeaders(h)
		c.WriteData(1, true, []byte(road.message))
		c.wantStatus(1, road.status)
	}
	for _, end := range []struct {
		name string
		how  func(*http2Conn)
	}{
		{"reset", func(c *http2Conn) { c.WriteRSTStream(1, http2.ErrCodeCancel) }},
		{"close", func(c *http2Conn) { c.Close() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			began, ended := make(chan bool, 1), make(chan error, 1)
			p := start(t, cleartextOnly, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, collector{began: began, ended: ended}) })
			c := newHTTP2Conn(t, p.dial())
			c.greet()
			h := headers(1, "POST", "/v1/echo:collect", "content-type", "application/x-ndjson")
			h.EndStream = false
			c.WriteHeaders(h)
			c.WriteData(1, false, []byte("{}\n"))
			receive(t, began, "the first message")
			end.how(c)
			if err := receive(t, ended, "the end of the request"); status.Code(err) != codes.Canceled {
				t.Errorf("the handler gets %v, want CANCELLED", err)
			}
		})
	}
}
