package wsrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	echopb "oneport/proto/echo"
)

// steady is a back-off without chance.
var steady = backoff.Config{BaseDelay: time.Second, Multiplier: 2, MaxDelay: 10 * time.Second}

func cut(p *scriptedPeer) { p.ws.NetConn().Close() }

// How a socket ends tells the status of its calls and when the next is opened; one that
// has not lived for a second is followed after a second at least.
func TestClientSocketEnds(t *testing.T) {
	for _, tt := range []struct {
		code  int // of the server, 0 for a cut
		want  codes.Code
		delay time.Duration
	}{
		{0, codes.Unavailable, 0},
		{1000, codes.Canceled, 0},
		{1001, codes.Unavailable, 0},
		{1002, codes.Internal, time.Second},
		{1003, codes.Internal, time.Second},
		{1007, codes.Internal, time.Second},
		{1008, codes.ResourceExhausted, time.Second},
		{1009, codes.ResourceExhausted, time.Second},
		{1011, codes.Internal, time.Second},
		{1012, codes.Unavailable, 0},
		{1013, codes.Unavailable, 5 * time.Second},
		{1014, codes.Unavailable, 0},
		{3000, codes.Unavailable, 0},
		{4401, codes.Unauthenticated, time.Second},
		{4403, codes.PermissionDenied, time.Second},
		{4408, codes.Unavailable, 0},
		{4999, codes.Unavailable, 0},
	} {
		for _, young := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := newScripted(t)
				c, p := server.connect(DialOptions{Backoff: steady})
				s := inFlight(t, c, p)
				delay := max(tt.delay, time.Second)
				if !young {
					delay = tt.delay
					time.Sleep(time.Second)
				}
				begin, answer, text := time.Now(), tt.code, fmt.Sprintf("with %d: as told", tt.code)
				switch tt.code {
				case 0:
					cut(p)
					answer, text = 1006, "EOF"
				case 1014: // which gorilla, here the server, does not know
					p.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1014, ""), time.Now().Add(time.Second))
					answer, text = 1006, "with 1014"
				default:
					p.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(tt.code, "as told"), time.Now().Add(time.Second))
				}
				if _, err := received(s); status.Code(err) != tt.want || !strings.Contains(err.Error(), text) {
					t.Errorf("%d: the call ended with %v, want %v with %q", tt.code, err, tt.want, text)
				}
				if got := <-p.closed; got != answer {
					t.Errorf("%d: the client answered with %d", tt.code, got)
				}
				if delay > 0 {
					if _, err := echopb.NewEchoServiceClient(c).Echo(t.Context(), &echopb.EchoRequest{}); status.Code(err) != codes.Unavailable {
						t.Errorf("%d: a call before the next attempt = %v", tt.code, err)
					}
				}
				p = <-server.peers
				if got := time.Since(begin); got != delay {
					t.Errorf("%d, young %v: the next socket came after %v, want %v", tt.code, young, got, delay)
				}
				inFlight(t, c, p)
			})
		}
	}
}

// A server that asks for time is given it also when it has not said hello.
func TestClientTryAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		c, p := server.connect(DialOptions{Backoff: steady})
		time.Sleep(time.Second)
		server.close.Store(websocket.CloseTryAgainLater)
		begin := time.Now()
		cut(p)
		time.Sleep(6 * time.Second) // the attempts of 0 s and 5 s
		server.close.Store(0)
		<-server.peers
		if got := time.Since(begin); got != 10*time.Second {
			t.Errorf("connected after %v, want the third attempt, at 10 s", got)
		}
		synctest.Wait()
		if got := c.State(); got != connectivity.Ready {
			t.Errorf("the state is %v", got)
		}
	})
}

// A zero in Backoff is the default's, so that nobody connects in a loop by leaving a
// field out.
func TestClientBackoffDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		_, p := server.connect(DialOptions{Backoff: backoff.Config{BaseDelay: time.Second}})
		var dials atomic.Int32
		server.refuse = func() error { dials.Add(1); return errors.New("refused") }
		cut(p)
		time.Sleep(10 * time.Second)
		if n := dials.Load(); n < 3 || n > 5 { // after 1, 2.6, 5.2 and 9.3 s
			t.Errorf("%d attempts in 10 s", n)
		}
	})
}

// After a goAway the calls that have begun go on, the others fail at once and are told
// that they may be made again, and new ones go to a new socket, without failing. The
// old socket ends with its last call.
func TestClientGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		c, p := server.connect(DialOptions{})
		time.Sleep(2 * time.Second)
		first, second := inFlight(t, c, p), inFlight(t, c, p)
		p.send(&frame{goAway: &goAwayFrame{lastCall: 1, reason: "restart"}})
		if _, err := received(second); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "has not begun the call, which may be made again: restart") {
			t.Errorf("the second call = %v", err)
		}
		third, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse")
		if err != nil {
			t.Fatalf("a call after goAway: %v", err)
		}
		other := <-server.peers
		if f := other.next(); f.call != 1 || f.open == nil {
			t.Errorf("the new socket got %+v", f)
		}
		for peer, s := range map[*scriptedPeer]grpc.ClientStream{p: first, other: third} {
			peer.respond(1, "on")
			if m, err := received(s); m != "on" || err != nil {
				t.Errorf("a call got %q, %v", m, err)
			}
		}
		if len(p.closed) > 0 {
			t.Error("the old socket has ended before its last call")
		}
		p.end(1, 0)
		if code := <-p.closed; code != 1000 {
			t.Errorf("the old socket ended with %d", code)
		}
		if _, err := received(first); err != io.EOF {
			t.Errorf("the first call ended with %v", err)
		}
		other.end(1, 0)
		if _, err := received(third); err != io.EOF {
			t.Errorf("the third call ended with %v", err)
		}
	})
}

// A server that only ever says goAway makes the client keep no sockets.
func TestClientGoAwayWithoutCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		c, p := server.connect(DialOptions{})
		for range 10 {
			time.Sleep(2 * time.Second)
			p.send(&frame{goAway: &goAwayFrame{}})
			if code := <-p.closed; code != 1000 {
				t.Errorf("the socket ended with %d", code)
			}
			p = <-server.peers
		}
		synctest.Wait()
		if len(c.sockets) != 1 {
			t.Errorf("%d sockets", len(c.sockets))
		}
	})
}

// The number of a call is never used again: after the last one there is a new socket.
func TestClientNumbersExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		c, p := server.connect(DialOptions{})
		time.Sleep(2 * time.Second)
		c.current.mu.Lock()
		c.current.last = math.MaxUint32 - 1
		c.current.mu.Unlock()
		s, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse")
		if err != nil {
			t.Fatal(err)
		}
		if f := p.next(); f.call != math.MaxUint32 {
			t.Errorf("call %d", f.call)
		}
		if _, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse"); err != nil {
			t.Fatal(err)
		}
		if f := (<-server.peers).next(); f.call != 1 {
			t.Errorf("call %d on the next socket", f.call)
		}
		p.end(math.MaxUint32, 0)
		if _, err := received(s); err != io.EOF {
			t.Errorf("the last call ended with %v", err)
		}
		if code := <-p.closed; code != 1000 {
			t.Errorf("the socket ended with %d", code)
		}
	})
}

// A call that waits for its turn tells the server of the time that is left then.
func TestClientMaxCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		server.hello.maxCalls = 1
		c, p := server.connect(DialOptions{})
		inFlight(t, c, p)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		opened := make(chan error, 1)
		go func() {
			_, err := c.NewStream(ctx, bidi, "/echo.v1.EchoService/Converse")
			opened <- err
		}()
		time.Sleep(4 * time.Second)
		if len(opened) > 0 {
			t.Error("a call did not wait")
		}
		p.end(1, 0)
		if f := p.next(); f.call != 2 || f.open.timeoutMS != 6000 {
			t.Errorf("opened %+v, timeout %d", f, f.open.timeoutMS)
		}
		if err := <-opened; err != nil {
			t.Error(err)
		}
		_, err := c.NewStream(ctx, bidi, "/echo.v1.EchoService/Converse")
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a call beyond the limit = %v", err)
		}
	})
}

// However calls end, the server never has more of them than it allows.
func TestClientNeverAboveMaxCalls(t *testing.T) {
	server := newScripted(t)
	server.hello.maxCalls = 2
	c, p := server.connect(DialOptions{})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if _, err := c.NewStream(ctx, bidi, "/echo.v1.EchoService/Converse"); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	calls.Wait()
	c.Close()
	open := map[uint32]bool{}
	for f := range p.frames {
		switch {
		case f.open != nil:
			open[f.call] = true
		case f.cancel:
			delete(open, f.call)
		}
		if len(open) > 2 {
			t.Fatalf("%d calls at once", len(open))
		}
	}
}

// While the queue is full callers wait, until their context ends; nothing of a call that
// did not begin is sent.
func TestClientQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		server.stall = make(chan struct{})
		server.hello.window = 1 << 30
		c, p := server.connect(DialOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		s, err := c.NewStream(ctx, bidi, "/echo.v1.EchoService/Converse")
		if err != nil {
			t.Fatal(err)
		}
		sent, ended := 0, make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				err = s.SendMsg(&echopb.EchoRequest{Message: strings.Repeat("x", 1000)})
				sent++
			}
			ended <- err
		}()
		synctest.Wait()
		if n := len(c.current.out.buf); n < clientQueueBytes || n > clientQueueBytes+1100 || len(ended) > 0 {
			t.Errorf("%d bytes wait after %d messages", n, sent)
		}
		late, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if _, err := echopb.NewEchoServiceClient(c).Echo(late, &echopb.EchoRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a call beside = %v", err)
		}
		cancel()
		if err := <-ended; err != io.EOF {
			t.Errorf("SendMsg = %v, want io.EOF", err)
		}
		if _, err := received(s); status.Code(err) != codes.Canceled {
			t.Errorf("RecvMsg = %v", err)
		}
		close(server.stall)
		for f := p.next(); !f.cancel; f = p.next() {
			if f.call != 1 {
				t.Errorf("sent %+v", f)
			}
		}
		inFlight(t, c, p)
	})
}

// heldConn keeps writes from a moment on until they are let go, and notes their lengths.
type heldConn struct {
	net.Conn
	mu     sync.Mutex
	held   chan struct{} // closed when writes may pass; nil before they are held; guarded by mu
	writes []int         // guarded by mu
}

func (c *heldConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	held := c.held
	if held != nil {
		c.writes = append(c.writes, len(p))
	}
	c.mu.Unlock()
	if held != nil {
		<-held
	}
	return c.Conn.Write(p)
}

// What comes while a write is under way goes out by the next one, whatever calls it is of.
func TestClientWritesGather(t *testing.T) {
	for _, json := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := newScripted(t)
			conn := new(heldConn)
			c, err := Dial(t.Context(), "ws://server.test", &DialOptions{JSON: json,
				NetDialContext: func(ctx context.Context, network, addr string) (nc net.Conn, err error) {
					conn.Conn, err = server.dial(ctx, network, addr)
					return conn, err
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p := <-server.peers
			var calls []grpc.ClientStream
			for range 3 {
				calls = append(calls, inFlight(t, c, p))
			}
			synctest.Wait()
			conn.mu.Lock()
			conn.held = make(chan struct{})
			conn.mu.Unlock()
			const messages = 99
			for i := range messages {
				if err := calls[i%3].SendMsg(&echopb.EchoRequest{Message: "x"}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the first is on its way
			}
			close(conn.held)
			for i := range messages {
				if f := p.next(); f.call != uint32(i%3+1) || p.echoText(f) != "x" {
					t.Errorf("message %d is %+v", i, f)
				}
			}
			synctest.Wait()
			conn.mu.Lock()
			defer conn.mu.Unlock()
			first := conn.writes[0]
			if want := []int{first, (messages - 1) * first}; !slices.Equal(conn.writes, want) {
				t.Errorf("JSON %v: %d messages left in writes of %v bytes, want %v", json, messages, conn.writes, want)
			}
		})
	}
}

// slowConn takes its time for each write, and reads a little at a time.
type slowConn struct {
	net.Conn
	delay time.Duration
	slow  atomic.Bool
}

func (c *slowConn) Write(p []byte) (int, error) {
	if c.slow.Load() {
		time.Sleep(c.delay)
	}
	return c.Conn.Write(p)
}

func (c *slowConn) Read(p []byte) (int, error) {
	if c.slow.Load() {
		time.Sleep(c.delay)
		p = p[:min(len(p), 16<<10)]
	}
	return c.Conn.Read(p)
}

// A server that takes and sends bytes lives, however slowly a large message goes.
func TestClientSlowMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newScripted(t)
		conn := &slowConn{delay: 15 * time.Second}
		opts := DialOptions{NetDialContext: func(ctx context.Context, network, addr string) (nc net.Conn, err error) {
			conn.Conn, err = server.dial(ctx, network, addr)
			return conn, err
		}}
		c, err := Dial(t.Context(), "ws://server.test", &opts)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p := <-server.peers
		go func() {
			f := p.next()
			p.send(&frame{call: 1, message: f.message, end: &endFrame{}})
			for range p.frames { // pings
			}
		}()
		conn.slow.Store(true)
		begin := time.Now()
		m := &echopb.EchoRequest{Message: strings.Repeat("x", 1<<20)}
		if res, err := echopb.NewEchoServiceClient(c).Echo(t.Context(), m); err != nil || res.Message != m.Message {
			t.Errorf("Echo = %d bytes, %v, after %v", len(res.GetMessage()), err, time.Since(begin))
		}
		if took := time.Since(begin); took < 5*time.Minute {
			t.Errorf("took %v only", took)
		}
	})
}

// A server that takes nothing is given up, and does not keep Close.
func TestClientDeafServer(t *testing.T) {
	serverTLS, clientTLS := exampleTLS()
	for _, secure := range []bool{false, true} {
		for _, closed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := newScripted(t)
				server.stall = make(chan struct{})
				server.hello.window = 1 << 30
				opts := DialOptions{}
				if secure {
					server.tls, opts.TLSConfig = serverTLS, clientTLS
				}
				c, _ := server.connect(opts)
				s, err := c.NewStream(t.Context(), bidi, "/echo.v1.EchoService/Converse")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					for s.SendMsg(&echopb.EchoRequest{Message: strings.Repeat("x", 10000)}) == nil {
					}
				}()
				synctest.Wait()
				begin, want := time.Now(), codes.Unavailable
				if closed {
					want = codes.Canceled
					c.Close()
					if took := time.Since(begin); took != clientCloseTimeout {
						t.Errorf("TLS %v: Close took %v", secure, took)
					}
				}
				if _, err := received(s); status.Code(err) != want {
					t.Errorf("TLS %v: the call = %v, want %v", secure, err, want)
				}
				if took := time.Since(begin); !closed && took != clientWriteTimeout {
					t.Errorf("TLS %v: the call ended after %v", secure, took)
				}
				close(server.stall)
			})
		}
	}
}

// Metadata that would end the socket of all calls is refused.
func TestClientTooMuchMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newScripted(t).connect(DialOptions{})
		s := inFlight(t, c, p)
		for n, want := range map[int]codes.Code{frameRoom - 100: codes.OK, frameRoom: codes.ResourceExhausted} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "k", strings.Repeat("v", n))
			if _, err := c.NewStream(ctx, bidi, "/echo.v1.EchoService/Converse"); status.Code(err) != want {
				t.Errorf("%d bytes: %v, want %v", n, err, want)
			}
		}
		p.respond(1, "on")
		if m, err := received(s); m != "on" || err != nil {
			t.Errorf("the other call got %q, %v", m, err)
		}
	})
}
