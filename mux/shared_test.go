package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"oneport/mux"
	"oneport/mux/muxtest"
	"oneport/services/greeter"
)

// a webCall is a request of one protocol, that says hello or asks for a page, with
// its answer.
type webCall struct {
	name        string
	method      string
	path        string
	accept      string
	contentType string
	body        string
	want        string // the body; of a page, a part of it
	trailer     string // Grpc-Status, where that is an HTTP trailer
}

const sayHello = "/helloworld.Greeter/SayHello"

// webCalls are one of each protocol that comes as an HTTP request; name is who is
// greeted.
func webCalls(name string) []webCall {
	request := field(1, name)
	asJSON := fmt.Sprintf(`{"name":%q}`, name)
	hello := "Hello " + name
	reply := envelope(0, field(1, hello))
	web := reply + envelope(0x80, "grpc-status: 0\r\n")
	replyJSON := fmt.Sprintf(`{"message":%q}`, hello)
	echo := envelope(0, fmt.Sprintf(`{"message":%q}`, name))
	return []webCall{
		{name: "page", method: "GET", path: "/", accept: "text/html", want: "<h1>oneport: one port"},
		{name: "page as text", method: "GET", path: "/", accept: "text/plain", want: "\nservices\n"},
		{name: "REST", method: "POST", path: "/v1/hello", contentType: "application/json", body: asJSON, want: replyJSON},
		{name: "REST GET", method: "GET", path: "/v1/hello/" + url.PathEscape(name), want: replyJSON},
		{name: "Connect", method: "POST", path: sayHello, contentType: "application/json", body: asJSON, want: replyJSON},
		{name: "Connect in protobuf", method: "POST", path: sayHello, contentType: "application/proto", body: request, want: field(1, hello)},
		{name: "Connect GET", method: "GET", path: sayHello + "?encoding=json&message=" + url.QueryEscape(asJSON), want: replyJSON},
		{name: "Connect stream", method: "POST", path: "/echo.v1.EchoService/Expand", contentType: "application/connect+json", body: echo, want: echo + envelope(2, "{}")},
		{name: "gRPC-Web", method: "POST", path: sayHello, contentType: "application/grpc-web+proto", body: envelope(0, request), want: web},
		{name: "gRPC-Web text", method: "POST", path: sayHello, contentType: "application/grpc-web-text",
			body: base64.StdEncoding.EncodeToString([]byte(envelope(0, request))), want: web},
		{name: "gRPC", method: "POST", path: sayHello, contentType: "application/grpc", body: envelope(0, request), want: reply, trailer: "0"},
	}
}

func (c webCall) isPage() bool { return c.path == "/" }

func (c webCall) isREST() bool { return strings.HasPrefix(c.path, "/v1/") }

func protobuf(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c webCall) request(t testing.TB, base string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	if c.accept != "" {
		req.Header.Set("Accept", c.accept)
	}
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	if c.contentType == "application/grpc" {
		req.Header.Set("Te", "trailers")
	}
	return req
}

// check tells what is wrong with an answer whose body has been read.
func (c webCall) check(res *http.Response, body string) error {
	if c.contentType == "application/grpc-web-text" {
		b, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return fmt.Errorf("%s: %q: %v", c.name, body, err)
		}
		body = string(b)
	}
	right := body == c.want || c.isPage() && strings.Contains(body, c.want)
	if res.StatusCode != http.StatusOK || !right || res.Trailer.Get("Grpc-Status") != c.trailer {
		return fmt.Errorf("%s: %s %q, trailer %v; want 200, %q, %q", c.name, res.Status, body, res.Trailer, c.want, c.trailer)
	}
	return nil
}

// A pooled HTTP/2 connection mixes protocols; each request gets its own answer.
func TestMixedRequests(t *testing.T) {
	const requests = 1000
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			p := start(t, both, services, mux.WithSharedHTTP2())
			c := p.http(2)
			c.Transport.(*http.Transport).MaxConnsPerHost = 1
			var wg sync.WaitGroup
			slots := make(chan struct{}, 50)
			errs := make(chan error, requests)
			for i := range requests {
				calls := webCalls(fmt.Sprintf("caller %03d", i))
				// The first is gRPC, which would take the connection over if the
				// split let it.
				call := calls[(i+len(calls)-1)%len(calls)]
				req := call.request(t, p.url(scheme, ""))
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					res, err := c.Do(req)
					if err != nil {
						errs <- fmt.Errorf("%s: %v", call.name, err)
						return
					}
					defer res.Body.Close()
					body, err := io.ReadAll(res.Body)
					if err == nil {
						err = call.check(res, string(body))
					}
					if err == nil && res.ProtoMajor != 2 {
						err = fmt.Errorf("%s: answered over %s", call.name, res.Proto)
					}
					errs <- err
				})
				if i == 0 {
					wg.Wait()
				}
			}
			wg.Wait()
			for range requests {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if n := p.accepted.Load(); n != 1 {
				t.Errorf("%d requests took %d connections, want 1", requests, n)
			}
		})
	}
}

// A kept HTTP/1.1 connection mixes protocols as well, and may become a WebSocket in
// the end. Only gRPC, which is HTTP/2, is told to come by that.
func TestMixedRequestsHTTP1(t *testing.T) {
	p := start(t, both, services)
	for name, c := range map[string]net.Conn{"cleartext": p.dial(), "TLS": p.secure()} {
		if tc, ok := c.(*tls.Conn); ok {
			tc.NetConn().SetDeadline(time.Now().Add(patience))
		}
		br := bufio.NewReader(c)
		for round := range 3 {
			for _, call := range webCalls(fmt.Sprintf("round %d", round)) {
				req := call.request(t, "http://localhost")
				if err := req.Write(c); err != nil {
					t.Fatalf("%s: %s: %v", name, call.name, err)
				}
				res, err := http.ReadResponse(br, req)
				if err != nil {
					t.Fatalf("%s: %s: %v", name, call.name, err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatalf("%s: %s: %v", name, call.name, err)
				}
				if call.contentType == "application/grpc" {
					if res.StatusCode != http.StatusHTTPVersionNotSupported || !strings.Contains(string(body), "HTTP/2") {
						t.Errorf("%s: gRPC: %s %q, want 505 and why", name, res.Status, body)
					}
					continue
				}
				if err := call.check(res, string(body)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if br.Buffered() > 0 {
			t.Fatalf("%s: %d bytes after the last answer", name, br.Buffered())
		}
		// Not wss, or gorilla would shake hands for TLS once more.
		dialer := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		conn, _, err := dialer.DialContext(t.Context(), "ws://localhost/grpc-ws", nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ws := &socket{t, conn}
		ws.send(websocket.TextMessage, `{"name":"you"}`)
		ws.want(websocket.TextMessage, `{"message":"Hello you"}`)
		conn.Close()
	}
}

// A connection that begins with gRPC is grpc-go's own, with its keepalive and its
// GOAWAY; with WithSharedHTTP2 it is net/http's, which knows neither.
func TestNativeTransport(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%v", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []mux.Option{mux.WithGRPCServerOptions(grpc.KeepaliveParams(keepalive.ServerParameters{
					Time: 20 * time.Second, MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: time.Second}))}
				if shared {
					opts = append(opts, mux.WithSharedHTTP2())
				}
				s := muxtest.New(t, func(s *mux.Server) { greeter.Register(s) }, opts...)
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(gRPCOpening()); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var pings, goaways []time.Duration
				fr := http2.NewFramer(c, c)
				c.SetReadDeadline(began.Add(90 * time.Second))
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
							if err != io.EOF {
								t.Errorf("ReadFrame = %v", err)
							}
						}
						break
					}
					switch f := f.(type) {
					case *http2.PingFrame:
						pings = append(pings, time.Since(began))
						fr.WritePing(true, f.Data)
					case *http2.GoAwayFrame:
						goaways = append(goaways, time.Since(began))
					}
				}
				if native := len(goaways) > 0 && goaways[0] < 70*time.Second; native == shared {
					t.Errorf("GOAWAY at %v, want at MaxConnectionAge: %v", goaways, !shared)
				}
				if native := len(pings) > 0 && pings[0] == 20*time.Second; native == shared {
					t.Errorf("pings at %v, want the first at 20 s: %v", pings, !shared)
				}
			})
		})
	}
}

// A stream ends at its deadline also where its handler waits for a request that
// does not come: a read of an HTTP body knows no context.
func TestDeadlineWhileReading(t *testing.T) {
	for _, road := range []struct {
		name        string
		contentType string
		timeout     [2]string
		client      func(*muxtest.Server) *http.Client
		want        string
	}{
		{"Connect over HTTP/1.1", "application/connect+json", [2]string{"Connect-Timeout-Ms", "7000"}, (*muxtest.Server).HTTP1, "deadline_exceeded"},
		{"Connect over HTTP/2", "application/connect+json", [2]string{"Connect-Timeout-Ms", "7000"}, (*muxtest.Server).HTTP2, "deadline_exceeded"},
		{"gRPC-Web over HTTP/1.1", "application/grpc-web", [2]string{"Grpc-Timeout", "7S"}, (*muxtest.Server).HTTP1, "grpc-status: 4"},
		{"gRPC-Web over HTTP/2", "application/grpc-web", [2]string{"Grpc-Timeout", "7S"}, (*muxtest.Server).HTTP2, "grpc-status: 4"},
	} {
		t.Run(road.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, services)
				body, send := io.Pipe()
				defer send.Close()
				req, err := http.NewRequestWithContext(t.Context(), "POST", muxtest.URL+"/echo.v1.EchoService/Converse", body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", road.contentType)
				req.Header.Set(road.timeout[0], road.timeout[1])
				// A message first, so that headers come: the end is then in the body.
				message := map[string]string{"application/connect+json": "\x00\x00\x00\x00\x02{}", "application/grpc-web": "\x00\x00\x00\x00\x00"}
				began := time.Now()
				go send.Write([]byte(message[road.contentType]))
				res, err := road.client(s).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				// net/http's client waits a moment for the rest of its request.
				if took := time.Since(began); err != nil || took < 7*time.Second || took > 7*time.Second+100*time.Millisecond || !bytes.Contains(got, []byte(road.want)) {
					t.Errorf("after %v: %q, %v; want %q after 7s", took, got, err, road.want)
				}
			})
		})
	}
}

// Over HTTP/1.1 too, answers may come between the requests of a bidi-streaming
// call.
func TestConverseOverHTTP1(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		p := start(t, both, services)
		body, send := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "POST", p.url(scheme, "/echo.v1.EchoService/Converse"), body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/connect+json")
		say := func(text string) {
			m := `{"message":"` + text + `"}`
			fmt.Fprintf(send, "\x00\x00\x00\x00%c%s", len(m), m)
		}
		go say("one")
		res, err := p.http(1).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		hear := func() string {
			var prefix [5]byte
			if _, err := io.ReadFull(res.Body, prefix[:]); err != nil {
				t.Fatal(err)
			}
			m := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
			if _, err := io.ReadFull(res.Body, m); err != nil {
				t.Fatal(err)
			}
			return string(m)
		}
		for _, next := range []string{"two", "three", ""} {
			got := hear()
			if next == "" {
				if got != `{"message":"three"}` {
					t.Errorf("%s: last answer %s", scheme, got)
				}
				break
			}
			say(next)
		}
		send.Close()
		if got := hear(); got != "{}" || res.ProtoMajor != 1 {
			t.Errorf("%s: the end is %s over %s, want {} over HTTP/1.1", scheme, got, res.Proto)
		}
	}
}
