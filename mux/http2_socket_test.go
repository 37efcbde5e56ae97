package mux_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"oneport/mux"
	"oneport/mux/internal/socket/sockettest"
	"oneport/mux/internal/xconnect"
	"oneport/mux/internal/xconnect/xconnecttest"
	"oneport/mux/muxtest"
	"oneport/mux/tunnel"
)

// byStream is bySocket with WebSockets that are streams of one connection.
func byStream(t *testing.T, test func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn), opts ...mux.Option) {
	for scheme, secure := range schemes {
		for _, e := range oneAPath {
			t.Run(e.Path+" "+scheme, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := muxtest.New(t, services, append(opts, mux.WithMaxMessageBytes(conformanceLimit))...)
					test(t, e, s, streamDialer(t, streamsOf(t, s, secure)))
				})
			})
		}
	}
}

// streamsOf returns a client whose WebSockets are streams of one connection to s.
func streamsOf(t *testing.T, s *muxtest.Server, secure bool) *xconnecttest.Client {
	t.Helper()
	conn, err := s.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	var cfg *tls.Config
	if secure {
		cfg = s.ClientTLS
	}
	c, err := xconnecttest.New(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Time passes on a stream as it does on a connection, and others do not mind.
func TestHTTP2SocketSilence(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	byStream(t, func(t *testing.T, e sockettest.Endpoint, s *muxtest.Server, dial func() net.Conn) {
		silence(t, e, s, dial)
		other := dial()
		e.Exchange(t, other, e.Open(t, other), 0)
	})
}

func TestHTTP2SocketCloseUnanswered(t *testing.T) {
	if xconnecttest.Enabled(t) {
		byStream(t, closeUnanswered)
	}
}

// A client that does not read one of its sockets loses that one.
func TestHTTP2SocketStalledReader(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	for scheme, secure := range schemes {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := sockettest.Echo("/ws", sockettest.Binary, conformanceLimit, maxFrames)
				c := streamsOf(t, muxtest.New(t, services), secure)
				dial := streamDialer(t, c)
				good, stalled := dial(), dial()
				reply := e.Open(t, good)
				e.Open(t, stalled)
				start := time.Now()
				go func() {
					for range 1000 { // more than there is room for in the windows of both
						if _, err := stalled.Write(sockettest.Frame(sockettest.Fin|sockettest.Binary, sockettest.Long(10_000))); err != nil {
							return
						}
					}
				}()
				synctest.Wait()
				e.Exchange(t, good, reply, 0)
				if got := time.Since(start); got != 0 {
					t.Errorf("the other socket has its answer after %v, want at once", got)
				}
				const limit = 10 * time.Second
				time.Sleep(limit - time.Nanosecond)
				synctest.Wait()
				if n := c.State().StreamsActive; n != 2 {
					t.Errorf("%d streams just before %v, want 2", n, limit)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if n := c.State().StreamsActive; n != 1 {
					t.Errorf("%d streams after %v, want 1", n, limit)
				}
				e.Exchange(t, good, reply, 1)
			})
		})
	}
}

// A socket that says nothing but pong stays, and its connection, for longer than any limit.
func TestHTTP2SocketIdle(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		c := streamsOf(t, muxtest.New(t, services), true)
		conn := streamDialer(t, c)()
		e := sockettest.Echo("/ws", sockettest.Text, conformanceLimit, maxFrames)
		reply := e.Open(t, conn)
		for start := time.Now(); time.Since(start) < 2*time.Hour; {
			if got := reply(); got != `ping ""` {
				t.Fatalf("after %v: %s, want a ping", time.Since(start), got)
			}
			conn.Write(sockettest.Frame(sockettest.Fin|sockettest.Pong, ""))
		}
		e.Exchange(t, conn, reply, 0)
	})
}

// Every socket of a connection ends with it, or by itself when its client resets it.
func TestHTTP2SocketCut(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan string, 10)
		s := muxtest.New(t, func(s *mux.Server) {
			s.Handle("/user/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.ReadMessage()
				ended <- r.PathValue("name")
			}))
		})
		c := streamsOf(t, s, false)
		open := func(name string) (reset func() error) {
			body, _ := io.Pipe()
			res, err := c.RoundTrip(c.Connect(context.Background(), "x", "/user/"+name, http.Header{"Sec-Websocket-Version": {"13"}}, body))
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v, %v; want 200", res, err)
			}
			return res.Body.Close
		}
		reset := open("a")
		open("b")
		open("c")
		synctest.Wait() // until Upgrade has returned, which may answer before
		reset()
		synctest.Wait()
		if got := drained(ended); !slices.Equal(got, []string{"a"}) {
			t.Errorf("after the reset of a, %q have ended", got)
		}
		c.Close()
		synctest.Wait()
		if got := drained(ended); !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("after the end of the connection, %q have ended, want b and c", got)
		}
	})
}

// drained returns what is in c, sorted.
func drained(c <-chan string) (got []string) {
	for len(c) > 0 {
		got = append(got, <-c)
	}
	slices.Sort(got)
	return got
}

// As many sockets as a connection may have streams, and the next one when one has ended.
func TestHTTP2SocketMany(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	const most = 100
	p := start(t, both, services)
	c := p.streams(true)
	dial := streamDialer(t, c)
	e := manyCallsText
	conns, replies := make([]net.Conn, most), make([]func() string, most)
	for i := range conns {
		conns[i] = dial()
		e.MaxContent = 0
		replies[i] = e.Open(t, conns[i])
	}
	last := make(chan string, 1)
	go func() {
		res, err := c.RoundTrip(c.Connect(t.Context(), "localhost", "/ws", http.Header{"Sec-Websocket-Version": {"13"}}, http.NoBody))
		if err != nil {
			last <- err.Error()
			return
		}
		res.Body.Close()
		last <- res.Status
	}()
	for i, conn := range conns {
		conn.Write(sockettest.Frame(sockettest.Fin|sockettest.Text, fmt.Sprintf(`{"call":1,"open":{"method":"%s"},"message":{"message":"%d"}}`, echoPath, i)))
	}
	for i, reply := range replies {
		reply() // hello
		want := sockettest.Describe(sockettest.Fin|sockettest.Text, fmt.Sprintf(`{"call":1,"message":{"message":"%d"},"end":{}}`, i))
		if got := reply(); got != want {
			t.Errorf("socket %d: %s, want %s", i, got, want)
		}
	}
	if s := c.State(); s.StreamsActive != most || s.MaxConcurrentStreams != most || len(last) > 0 {
		t.Errorf("%d streams, of %d, and %d more, want %d of them and no more", s.StreamsActive, s.MaxConcurrentStreams, len(last), most)
	}
	conns[0].Write(sockettest.Closing(1000, ""))
	if got := replies[0](); got != "close 1000" {
		t.Errorf("%s, want close 1000", got)
	}
	if got := receive(t, last, "the stream after those"); !strings.HasPrefix(got, "400") { // it has ended with its header
		t.Errorf("the stream after those: %s, want 400", got)
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A program's handlers, made for HTTP/1.1, find what they look for.
func TestHTTP2SocketOfProgram(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	p := start(t, both, func(s *mux.Server) {
		s.Handle("GET /chat/{room}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{Subprotocols: []string{"chat"}, EnableCompression: true}
			c, err := up.Upgrade(w, r, http.Header{"Set-Cookie": {"a=b"}})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			// Only what comes late counts.
			c.SetReadDeadline(time.Now().Add(time.Minute))
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			_, remote, _ := net.SplitHostPort(c.RemoteAddr().String())
			c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%s %s in %s by port %s, TLS %v", r.Method, r.Proto, r.PathValue("room"), remote, r.TLS != nil))
			for {
				kind, m, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, m) != nil {
					return
				}
			}
		}))
	})
	for _, secure := range schemes {
		raw, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		var cfg *tls.Config
		if secure {
			cfg = p.clientTLS.Clone()
			cfg.ServerName = "localhost"
		}
		c, err := xconnecttest.New(raw, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		d := websocket.Dialer{NetDialContext: c.DialContext, Subprotocols: []string{"chat"}, EnableCompression: true}
		ws, res, err := d.Dial("ws://localhost/chat/red", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &socket{t, ws}
		if ws.Subprotocol() != "chat" || res.Header.Get("Set-Cookie") != "a=b" || !strings.Contains(res.Header.Get("Sec-WebSocket-Extensions"), "deflate") {
			t.Errorf("answer %v, want subprotocol, cookie and compression", res.Header)
		}
		_, port, _ := net.SplitHostPort(raw.LocalAddr().String())
		s.want(websocket.TextMessage, fmt.Sprintf("GET HTTP/1.1 in red by port %s, TLS %v", port, secure))
		for _, m := range []string{"", "hello", sockettest.Long(1 << 20)} {
			s.send(websocket.BinaryMessage, m)
			s.want(websocket.BinaryMessage, m)
		}
		ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(3000, "bye"))
		s.wantClose(3000, "")
	}
}

// Of a connection there is one begin and one end, whatever becomes of its sockets.
func TestHTTP2SocketStats(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		var conns openConns
		c := streamsOf(t, muxtest.New(t, services, mux.WithStatsHandler(&conns), mux.WithMaxMessageBytes(conformanceLimit)), true)
		dial := streamDialer(t, c)
		for _, e := range []sockettest.Endpoint{endpoints["echo text"], oneMethodText, manyCallsBinary} {
			for range 3 {
				conn := dial()
				e.Exchange(t, conn, e.Open(t, conn), 0)
				conn.Close()
				synctest.Wait()
				if n := conns.n.Load(); n != 1 {
					t.Fatalf("%s: %d connections are open after a socket, want 1", e.Path, n)
				}
			}
		}
		c.Close()
		synctest.Wait()
		if n := conns.n.Load(); n != 0 {
			t.Errorf("%d connections are open after all, want none", n)
		}
	})
}

// Shutdown and Close do to sockets on streams what they do to others.
func TestHTTP2SocketShutdown(t *testing.T) {
	if !xconnect.Enabled {
		cuts, idle := "^Test(Shutdown|Close)Cuts$", "^TestShutdownTellsIdleClients"
		xconnecttest.Again(t, cuts+"|"+idle+"$", map[string]int{
			cuts:                            2,
			idle + "/.*sockets_on_streams$": 2, // without and with shared HTTP/2
		})
	}
}

// A tunnel is for calls, also where it could be for a WebSocket.
func TestHTTP2SocketInTunnel(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) {
			services(s)
			s.Handle("/", text("for those who connect directly"))
		})
		conn, err := tunnel.Dial(t.Context(), "ws://oneport.test", &tunnel.DialOptions{NetDialContext: s.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		c, err := xconnecttest.New(conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, path := range []string{"/ws", "/grpc-ws", "/grpc-ws-tunnel", echoPath} {
			body, end := io.Pipe()
			res, err := c.RoundTrip(c.Connect(t.Context(), "x", path, http.Header{"Sec-Websocket-Version": {"13"}}, body))
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s in a tunnel: %s, want 403", path, res.Status)
			}
			end.Close()
			res.Body.Close()
		}
	})
}

// A handler that does not read stops what comes on its stream, and on no other; four stop
// the connection, until they end.
func TestHTTP2SocketUnread(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		s := muxtest.New(t, func(s *mux.Server) {
			services(s)
			s.Handle("/busy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				<-done
			}))
		})
		dial := streamDialer(t, streamsOf(t, s, false))
		const frame, window = 1 << 10, 256 << 10
		flood := func() (sent int) {
			busy := dial()
			sockettest.Echo("/busy", sockettest.Binary, 1, 1).Open(t, busy)
			go func() {
				for {
					n, err := busy.Write(make([]byte, frame))
					if err != nil {
						return
					}
					sent += n
				}
			}()
			synctest.Wait()
			return sent
		}
		e := sockettest.Echo("/ws", sockettest.Binary, 1<<20, maxFrames)
		other := dial()
		reply := e.Open(t, other)
		for i := range 3 {
			// Some wait on the way.
			if sent := flood(); sent < window || sent > window+3*frame {
				t.Errorf("%d bytes were taken of which none is read, want %d and a few", sent, window)
			}
			p, replies := e.Message(i, sockettest.Long(1<<20), "")
			go other.Write(sockettest.Frame(sockettest.Fin|e.Kind, p))
			if got := reply(); got != replies[0] {
				t.Errorf("message on another stream: %s, want %s", got, replies[0])
			}
		}
		flood()
		p, replies := e.Message(3, "late", "")
		go other.Write(sockettest.Frame(sockettest.Fin|e.Kind, p))
		got := make(chan string, 1)
		go func() { got <- reply() }()
		synctest.Wait()
		if len(got) > 0 {
			t.Errorf("with four streams unread, another has its answer: %s", <-got)
		}
		close(done)
		if got := <-got; got != replies[0] {
			t.Errorf("after their end: %s, want %s", got, replies[0])
		}
	})
}

// A server that is mounted in another takes them as well.
func TestHTTP2SocketMounted(t *testing.T) {
	if !xconnecttest.Enabled(t) {
		return
	}
	s := mux.NewServer(mux.WithMaxMessageBytes(conformanceLimit))
	services(s)
	outer := httptest.NewUnstartedServer(s)
	outer.EnableHTTP2 = true
	outer.StartTLS()
	defer outer.Close()
	defer s.Close()
	conn, err := net.Dial("tcp", outer.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := xconnecttest.New(conn, &tls.Config{RootCAs: outer.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, e := range oneAPath {
		conn := streamDialer(t, c)()
		e.Exchange(t, conn, e.Open(t, conn), 0)
		conn.Close()
	}
}
