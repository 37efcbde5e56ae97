package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall/js"
	"time"
)

const (
	// maxBuffered is how much JavaScript may hold to be sent before Write waits, and
	// bufferedPoll how often that looks then, since no event tells.
	maxBuffered  = 256 << 10
	bufferedPoll = 10 * time.Millisecond
)

// dial makes the connection with the WebSocket of JavaScript. That has no back-pressure
// towards the server: what comes waits for its reader, as much as the flow control of
// HTTP/2 lets come.
func dial(ctx context.Context, u *url.URL, opts DialOptions) (net.Conn, error) {
	if opts.TLSConfig != nil || opts.Header != nil || opts.NetDialContext != nil {
		return nil, errors.New("options cannot be set here, where JavaScript makes the connection")
	}
	ws, err := newWebSocket(u.String())
	if err != nil {
		return nil, err
	}
	in, out := net.Pipe()
	c := &jsConn{reader: reader{in: in}, ws: ws, remote: jsAddr(u.Host), writing: make(turn, 1),
		opened: make(chan struct{}), came: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{})}
	release := c.listen()
	go c.run(out, release)
	select {
	case <-c.opened:
	case <-c.ended:
		return nil, errors.New("the WebSocket was not opened; why only the console of JavaScript may tell")
	case <-ctx.Done():
		c.Close()
		return nil, ctx.Err()
	}
	if ws.Get("protocol").String() != Subprotocol {
		c.Close()
		return nil, fmt.Errorf("the server does not speak %s", Subprotocol)
	}
	if u.Scheme == "wss" {
		return tlsJSConn{c}, nil
	}
	return c, nil
}

// newWebSocket makes an error of what JavaScript throws.
func newWebSocket(url string) (ws js.Value, err error) {
	defer func() {
		if e, ok := recover().(js.Error); ok {
			err = e
		}
	}()
	ws = js.Global().Get("WebSocket").New(url, Subprotocol)
	ws.Set("binaryType", "arraybuffer")
	return ws, nil
}

// jsConn is a tunnel as its client sees it in JavaScript's world.
type jsConn struct {
	reader
	ws     js.Value
	remote net.Addr
	opened chan struct{} // closed when the handshake is over
	came   chan struct{} // tells run to look at buf
	ended  chan struct{} // closed when the WebSocket has ended, after why is set
	done   chan struct{} // closed when run has returned
	why    error         // what Read returns after the end
	ending sync.Once     // of over

	writing turn     // of Write
	late    deadline // likewise

	mu  sync.Mutex
	buf []byte // has come and waits for run; guarded by mu
}

// tlsJSConn is a jsConn at a wss URL. JavaScript has checked the server, and tells nothing
// of it.
type tlsJSConn struct{ *jsConn }

func (tlsJSConn) ConnectionState() tls.ConnectionState { return tls.ConnectionState{} }

var _ net.Conn = (*jsConn)(nil)

// listen has the events of the WebSocket call c, until release. They are called on
// JavaScript's one thread, and must not wait.
func (c *jsConn) listen() (release func()) {
	var funcs []js.Func
	on := func(event string, f func(js.Value)) {
		fn := js.FuncOf(func(_ js.Value, args []js.Value) any {
			f(args[0])
			return nil
		})
		funcs = append(funcs, fn)
		c.ws.Call("addEventListener", event, fn)
	}
	on("open", func(js.Value) { close(c.opened) })
	on("message", func(event js.Value) {
		data := event.Get("data")
		if data.Type() == js.TypeString {
			c.ws.Call("close", 4003, "text") // JavaScript may not send 1003
			return
		}
		c.received(js.Global().Get("Uint8Array").New(data))
	})
	on("close", func(event js.Value) {
		code := event.Get("code").Int()
		if isEnd(code) {
			c.over(io.EOF)
		} else {
			c.over(fmt.Errorf("tunnel: the WebSocket has ended with %d: %.200s", code, event.Get("reason").String()))
		}
	})
	// After this comes "close", with 1006, but not in Node 20.
	on("error", func(js.Value) { c.over(errors.New("tunnel: the WebSocket has failed")) })
	return func() {
		for _, fn := range funcs {
			fn.Release()
		}
	}
}

func (c *jsConn) over(why error) {
	c.ending.Do(func() {
		c.why = why
		close(c.ended)
	})
}

func (c *jsConn) received(bytes js.Value) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := len(c.buf)
	c.buf = append(c.buf, make([]byte, bytes.Length())...)
	js.CopyBytesToGo(c.buf[have:], bytes)
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// run makes what has come readable. It ends with the WebSocket, when all has been read or
// c has been closed.
func (c *jsConn) run(out net.Conn, release func()) {
	defer close(c.done)
	for ended := false; !ended; {
		select {
		case <-c.came:
		case <-c.ended:
			ended = true
		}
		c.mu.Lock()
		b := c.buf
		c.buf = nil
		c.mu.Unlock()
		if len(b) > 0 {
			// When c is closed nobody reads, and what comes is dropped.
			_, _ = out.Write(b)
		}
	}
	release()
	c.end = c.why
	out.Close()
}

// Write sends p as one message or, if it is long, as several. While JavaScript has much to
// send, it waits.
func (c *jsConn) Write(p []byte) (n int, err error) {
	c.writing.take()
	defer c.writing.give()
	ctx := c.late.context()
	for n < len(p) {
		if err := c.writable(ctx); err != nil {
			return n, err
		}
		part := p[n:min(n+maxWrite, len(p))]
		bytes := js.Global().Get("Uint8Array").New(len(part))
		js.CopyBytesToJS(bytes, part)
		c.ws.Call("send", bytes) // which drops it if the WebSocket has just ended
		n += len(part)
	}
	return n, nil
}

func (c *jsConn) writable(ctx context.Context) error {
	for {
		const open = 1
		switch {
		case ctx.Err() != nil:
			return os.ErrDeadlineExceeded
		case c.ws.Get("readyState").Int() != open:
			return net.ErrClosed
		case c.ws.Get("bufferedAmount").Int() <= maxBuffered:
			return nil
		}
		select {
		case <-time.After(bufferedPoll):
		case <-ctx.Done():
		case <-c.ended:
		}
	}
}

// Close leaves the rest to JavaScript if the server has not answered in its time.
func (c *jsConn) Close() error {
	c.in.Close()
	c.late.set(time.Time{})
	c.ws.Call("close", 1000)
	select {
	case <-c.done:
	case <-time.After(closeTimeout):
	}
	return nil
}

func (c *jsConn) LocalAddr() net.Addr  { return jsAddr("javascript") }
func (c *jsConn) RemoteAddr() net.Addr { return c.remote }

func (c *jsConn) SetWriteDeadline(t time.Time) error {
	c.late.set(t)
	return nil
}

func (c *jsConn) SetDeadline(t time.Time) error {
	c.late.set(t)
	return c.SetReadDeadline(t)
}

// jsAddr is what is known of an end.
type jsAddr string

func (jsAddr) Network() string  { return "websocket" }
func (a jsAddr) String() string { return string(a) }
