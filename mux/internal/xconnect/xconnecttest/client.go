// Package xconnecttest lets WebSocket clients made for HTTP/1.1 use streams of HTTP/2
// (RFC 8441): package xconnect the other way round, for tests.
package xconnecttest

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"oneport/mux/internal/xconnect"
)

// Enabled tells whether servers of this process announce extended CONNECT. If they do not, it
// runs the test t again in a process where they do, and t fails if that does.
func Enabled(t *testing.T) bool {
	t.Helper()
	if !xconnect.Enabled {
		name := "^" + t.Name() + "$"
		Again(t, name, map[string]int{name: 1})
	}
	return xconnect.Enabled
}

// Again runs this test binary in a process where servers announce extended CONNECT, with
// the tests that fit run, and more flags. For each pattern in pass at least so many tests must
// have passed whose names match it, subtests included.
func Again(t *testing.T, run string, pass map[string]int, more ...string) {
	t.Helper()
	args := append(more, "-test.v", "-test.timeout=2m", "-test.run="+run)
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GODEBUG="+strings.TrimPrefix(os.Getenv("GODEBUG")+",http2xconnect=1", ","))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", cmd, err, out)
	}
	passed := regexp.MustCompile(`(?m)^ *--- PASS: (\S+)`).FindAllSubmatch(out, -1)
	for pattern, least := range pass {
		n, re := 0, regexp.MustCompile(pattern)
		for _, name := range passed {
			if re.Match(name[1]) {
				n++
			}
		}
		if n < least {
			t.Errorf("%s: %d tests named %s passed, want %d at least\n%s", cmd, n, pattern, least, out)
		}
	}
}

// Client is one HTTP/2 connection. What it gives out may be used concurrently.
type Client struct {
	*http2.ClientConn
	scheme string
}

// New makes a Client of conn, over TLS if cfg is not nil. To close the Client closes conn,
// and the other way round.
func New(conn net.Conn, cfg *tls.Config) (*Client, error) {
	c := &Client{scheme: "http"}
	if cfg != nil {
		c.scheme = "https"
		cfg = cfg.Clone()
		cfg.NextProtos = []string{"h2"}
		conn = tls.Client(conn, cfg)
	}
	var err error
	//lint:ignore SA1019 deprecated, but http.Transport takes no field of the name :protocol
	c.ClientConn, err = (&http2.Transport{StrictMaxConcurrentStreams: true}).NewClientConn(conn)
	return c, err
}

// DialContext returns a connection for one handshake of HTTP/1.1 and the WebSocket after it.
// The address is that of the request.
func (c *Client) DialContext(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go c.serve(theirs)
	return ours, nil
}

// serve makes an extended CONNECT of the request that comes by conn. It ends with conn or the
// stream.
func (c *Client) serve(conn net.Conn) {
	defer conn.Close()
	from := bufio.NewReader(conn)
	req, err := http.ReadRequest(from)
	if err != nil {
		return
	}
	key := req.Header.Get("Sec-Websocket-Key")
	for _, name := range []string{"Connection", "Te", "Upgrade", "Sec-Websocket-Key"} {
		req.Header.Del(name)
	}
	body, out := io.Pipe()
	defer body.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answered := make(chan struct{})
	go func() {
		_, err := io.Copy(out, from)
		out.CloseWithError(err) // with nil it is io.EOF: END_STREAM
		select {
		case <-answered:
		default:
			cancel()
		}
	}()
	res, err := c.RoundTrip(c.Connect(ctx, req.Host, req.URL.RequestURI(), req.Header, body))
	close(answered)
	if err != nil {
		io.WriteString(conn, "HTTP/1.1 502 "+err.Error()+"\r\nConnection: close\r\n\r\n")
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		res.Proto, res.ProtoMajor, res.ProtoMinor = "HTTP/1.1", 1, 1
		res.Write(conn)
		return
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	res.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return
	}
	if res.Header.Write(conn) != nil {
		return
	}
	if _, err := io.WriteString(conn, "\r\n"); err != nil {
		return
	}
	io.Copy(conn, res.Body)
}

// Connect is an extended CONNECT for a WebSocket; its body is what the client sends.
func (c *Client) Connect(ctx context.Context, host, path string, header http.Header, body io.ReadCloser) *http.Request {
	u, err := url.Parse(c.scheme + "://" + host + path)
	if err != nil {
		panic(err)
	}
	req := &http.Request{Method: http.MethodConnect, URL: u, Header: http.Header{}, Body: body, ContentLength: -1}
	maps.Copy(req.Header, header)
	req.Header[":protocol"] = []string{"websocket"}
	return req.WithContext(ctx)
}
