package tunnel

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
	"google.golang.org/grpc/credentials"

	"oneport/mux/internal/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// far is a server of tunnels on a port of the loopback interface.
type far struct {
	t        testing.TB
	sockets  *socket.Server
	url      string
	opts     *DialOptions
	accepted chan net.Conn // in the order of the dials
}

func newFar(t testing.TB, secure bool) *far {
	t.Helper()
	f := &far{t: t, accepted: make(chan net.Conn, 100)}
	f.sockets = socket.NewServer(socket.Config{Log: slog.New(slog.DiscardHandler)})
	hs := httptest.NewUnstartedServer(NewHandler(f.sockets, func(c net.Conn) bool {
		f.accepted <- c
		return true
	}))
	if secure {
		hs.StartTLS()
	} else {
		hs.Start()
	}
	t.Cleanup(func() {
		f.sockets.Close() // does not wait long for handlers that are late
		if err := f.sockets.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown of the sockets = %v", err)
		}
		hs.Close()
	})
	f.url = "ws" + strings.TrimPrefix(hs.URL, "http")
	f.opts = &DialOptions{TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	return f
}

// dial returns both ends of a tunnel.
func (f *far) dial() (client, server net.Conn) {
	f.t.Helper()
	client, err := Dial(f.t.Context(), f.url, f.opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { client.Close() })
	select {
	case server = <-f.accepted:
	case <-time.After(time.Minute):
		f.t.Fatal("no tunnel has come in a minute")
	}
	f.t.Cleanup(func() { server.Close() })
	// Of a test that has gone wrong.
	client.SetDeadline(time.Now().Add(time.Minute))
	server.SetDeadline(time.Now().Add(time.Minute))
	return client, server
}

// The server's end is all that a net.Conn is to be, with deadlines that pass and are set
// anew. The client's is not after a Write that has failed, and so is the other end here.
func TestConn(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "ws", true: "wss"}[secure], func(t *testing.T) {
			f := newFar(t, secure)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, server := f.dial()
				return server, client, func() { server.Close(); client.Close() }, nil
			})
		})
	}
}

// A deadline ends the Read that waits, and not the connection; at the client as well.
func TestClientDeadline(t *testing.T) {
	for _, secure := range []bool{false, true} {
		client, server := newFar(t, secure).dial()
		for range 3 {
			client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if err := second(client.Read(make([]byte, 1))); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("TLS %v: Read = %v, want os.ErrDeadlineExceeded", secure, err)
			}
		}
		client.SetReadDeadline(time.Time{})
		server.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(client, got); string(got) != "hello" || err != nil {
			t.Errorf("TLS %v: after the deadline Read = %q, %v", secure, got, err)
		}
	}
}

// What one end has written before it closed the other reads, then the end of it.
func TestClose(t *testing.T) {
	for _, secure := range []bool{false, true} {
		f := newFar(t, secure)
		for name, swap := range map[string]bool{"client": false, "server": true} {
			a, b := f.dial()
			if swap {
				a, b = b, a
			}
			const size = 1 << 20
			go func() {
				a.Write(make([]byte, size))
				a.Close()
			}()
			if got, err := io.ReadAll(b); len(got) != size || err != nil {
				t.Errorf("TLS %v, closed by the %s: the other end has read %d bytes, %v; want %d", secure, name, len(got), err, size)
			}
			for what, err := range map[string]error{
				"Read": second(a.Read(make([]byte, 1))), "Write": second(a.Write(make([]byte, 1))),
			} {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("TLS %v, %s after Close of the %s = %v, want net.ErrClosed", secure, what, name, err)
				}
			}
			if err := second(b.Write(make([]byte, 1))); err == nil {
				t.Errorf("TLS %v, closed by the %s: the other end still writes", secure, name)
			}
			if err := a.Close(); err != nil {
				t.Errorf("TLS %v, second Close of the %s = %v", secure, name, err)
			}
		}
	}
}

func second(_ int, err error) error { return err }

// A connection that is cut ends with an error, and not as one that was closed.
func TestCut(t *testing.T) {
	f := newFar(t, false)
	var under net.Conn
	f.opts.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		under = c
		return c, err
	}
	client, server := f.dial()
	under.Close()
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		if err := second(c.Read(make([]byte, 1))); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read of the %s = %v, want an error that is not io.EOF", name, err)
		}
		deadline := time.Now().Add(time.Minute)
		for c.SetDeadline(deadline); ; {
			err := second(c.Write(make([]byte, 1)))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write of the %s = %v, want an error of the connection", name, err)
			}
			if err != nil {
				break
			}
		}
	}
}

// While the server does not take the bytes of a client, or the other way round, Write
// waits, and the deadline ends that.
func TestNoReader(t *testing.T) {
	f := newFar(t, false)
	for name, swap := range map[string]bool{"client": false, "server": true} {
		a, b := f.dial()
		if swap {
			a, b = b, a
		}
		a.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		sent := 0
		var err error
		for err == nil && sent < 100<<20 {
			var n int
			n, err = a.Write(make([]byte, 256<<10))
			sent += n
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write of the %s = %v after %d bytes, want os.ErrDeadlineExceeded", name, err, sent)
		}
		b.Close()
	}
}

// Close of the client waits a second for a server that does not answer, also if it takes
// nothing, and with it a Write under way.
func TestCloseSilent(t *testing.T) {
	for _, takes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go func() {
				br := bufio.NewReader(far)
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 §1.3
				fmt.Fprintf(far, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
					"Sec-WebSocket-Protocol: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n", Subprotocol, base64.StdEncoding.EncodeToString(accept[:]))
				if takes {
					io.Copy(io.Discard, br)
				}
			}()
			c, err := Dial(t.Context(), "ws://far", &DialOptions{
				NetDialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }})
			if err != nil {
				t.Fatal(err)
			}
			wrote := make(chan error, 1)
			go func() { wrote <- second(c.Write([]byte("x"))) }()
			synctest.Wait()
			start := time.Now()
			if err := c.Close(); err != nil || time.Since(start) != closeTimeout {
				t.Errorf("takes %v: Close = %v after %v, want nil after %v", takes, err, time.Since(start), closeTimeout)
			}
			if err := <-wrote; (err == nil) != takes {
				t.Errorf("takes %v: Write = %v", takes, err)
			}
		})
	}
}

// A client that does not see its server knows so at the end of its context.
func TestDialContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, "ws://"+ln.Addr().String(), nil); err == nil {
		t.Error("Dial of a server that is silent = nil")
	}
}

// What is no server of tunnels is not taken for one.
func TestDialRefuses(t *testing.T) {
	sockets := socket.NewServer(socket.Config{Log: slog.New(slog.DiscardHandler)})
	echo := httptest.NewServer(http.HandlerFunc(sockets.Echo))
	defer echo.Close()
	defer sockets.Close()
	pages := httptest.NewServer(http.NotFoundHandler())
	defer pages.Close()
	for url, want := range map[string]string{
		"http://localhost":                               "tunnel: dial: the scheme is http: use ws",
		"ws" + strings.TrimPrefix(echo.URL, "http"):      "tunnel: dial: the server does not speak grpc-ws-tunnel.v1",
		"ws" + strings.TrimPrefix(pages.URL, "http"):     `tunnel: dial: the server answered "404 Not Found": "404 page not found\n"`,
		"ws://" + strings.Repeat("x", 1000) + ".invalid": "tunnel: dial: ",
	} {
		c, err := Dial(t.Context(), url, nil)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Dial(%.60q) = %v, want %q", url, err, want)
		}
	}
}

// The credentials vouch for TLS, and only where there is some.
func TestCredentials(t *testing.T) {
	creds := Credentials().Clone()
	client, _ := newFar(t, true).dial()
	_, info, err := creds.ClientHandshake(t.Context(), "", client)
	if err != nil {
		t.Fatal(err)
	}
	if err := credentials.CheckSecurityLevel(info, credentials.PrivacyAndIntegrity); err != nil {
		t.Errorf("over wss: %v", err)
	}
	state := info.(credentials.TLSInfo).State
	if len(state.PeerCertificates) == 0 || state.NegotiatedProtocol != "" {
		t.Errorf("over wss: %d certificates of the server, protocol %q; want some and none", len(state.PeerCertificates), state.NegotiatedProtocol)
	}
	client, server := newFar(t, false).dial()
	if _, _, err := creds.ClientHandshake(t.Context(), "", client); err == nil {
		t.Error("over ws the handshake succeeds")
	}
	if _, _, err := creds.ServerHandshake(server); err == nil {
		t.Error("a server's handshake succeeds")
	}
}
