package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestCloseReason(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{long(123), long(123)},
		{long(124), long(123)},
		{long(122) + "é", long(122)},
		{long(121) + "é", long(121) + "é"},
		{long(120) + "😀", long(120)},
		{"a\xffb", "a\uFFFDb"},
		{long(122) + "\xff", long(122)},
		{strings.Repeat("\xff", 1<<20), "\uFFFD"},
		{strings.Repeat("é", 1<<20), strings.Repeat("é", 61)},
	} {
		got := cleanReason(tc.in)
		if got != tc.want {
			t.Errorf("cleanReason(%.130q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}

func FuzzCloseReason(f *testing.F) {
	f.Add("\xff" + long(121) + "é")
	f.Fuzz(func(t *testing.T, s string) {
		if got := cleanReason(s); len(got) > 123 || !utf8.ValidString(got) || utf8.ValidString(s) && !strings.HasPrefix(s, got) {
			t.Errorf("cleanReason(%q) = %q", s, got)
		}
	})
}

func TestHandlerEnds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		handler func(*Conn)
		want    string
	}{
		{"returns", func(c *Conn) {}, "close 1000"},
		{"closes", func(c *Conn) { c.CloseWith(4016, "no"); c.CloseWith(4000, "late") }, "close 4016"},
		{"closes after a message", func(c *Conn) { c.CloseAfter([]byte("x"), 4016, "no"); c.CloseAfter([]byte("y"), 4000, "late") }, `binary "x", close 4016`},
		{"closes with a code that may not be sent", func(c *Conn) { c.CloseWith(1006, "") }, "close 1011"},
		{"panics", func(c *Conn) { panic("oops") }, "close 1011"},
		{"exits", func(c *Conn) { runtime.Goexit() }, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			s := NewServer(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
			var ctx context.Context
			c := pipe(t, s, func(c *Conn) {
				ctx = c.Context()
				tc.handler(c)
			})
			for want := range strings.SplitSeq(tc.want, ", ") {
				c.want(want)
			}
			c.conn.Close()
			s.Close()
			if ctx.Err() == nil {
				t.Error("the context goes on")
			}
			if got := log.String(); strings.Contains(got, "oops") != (tc.name == "panics") || strings.Contains(got, "close_test.go") != (tc.name == "panics") {
				t.Errorf("logged %q", got)
			}
		})
	}
}

// The first reason is what everybody gets to know.
func TestCause(t *testing.T) {
	closeError := func(code int, reason string, byPeer bool) func(error) bool {
		return func(err error) bool {
			ce, ok := errors.AsType[*CloseError](err)
			return ok && *ce == CloseError{code, reason, byPeer}
		}
	}
	for _, tc := range []struct {
		name string
		do   func(*client)
		want func(error) bool
	}{
		{"closed by the peer", func(c *client) { c.send(closing(4321, "bye")) }, closeError(4321, "bye", true)},
		{"closed by the peer without a code", func(c *client) { c.send(closing(0, "")) }, closeError(1005, "", true)},
		{"protocol error", func(c *client) { c.send(frame(fin|opText|0x40, "")) }, closeError(1002, "RSV1 set", false)},
		{"flood", func(c *client) { c.send(bytes.Repeat(pong(""), 1000)) }, closeError(1008, "too many pings or pongs", false)},
		{"too big", func(c *client) { c.send(text(long(101))) }, closeError(1009, "message larger than 100 bytes", false)},
		{"bad text", func(c *client) { c.send(text("\xff")) }, closeError(1007, "text is not valid UTF-8", false)},
		{"gone", func(c *client) { c.conn.Close() }, func(err error) bool {
			return err.Error() == "socket: read: unexpected EOF"
		}},
		{"gone inside a frame", func(c *client) { c.send(text("hello")[:8]); c.conn.Close() }, func(err error) bool {
			return err.Error() == "socket: read: unexpected EOF"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := NewServer(Config{MaxMessageBytes: 100, Log: quiet})
			errs := make(chan error, 4)
			c := newClient(t, serve(t, s, false, func(c *Conn) {
				for range 2 {
					_, err := c.Read()
					errs <- err
				}
				errs <- c.Write(context.Background(), Text, []byte("late"))
				errs <- context.Cause(c.Context())
			})())
			c.open()
			tc.do(c)
			first := <-errs
			if !tc.want(first) {
				t.Errorf("Read = %v", first)
			}
			for _, what := range []string{"second Read", "Write", "Cause"} {
				if err := <-errs; err != first {
					t.Errorf("%s = %v, want %v again", what, err, first)
				}
			}
		})
	}
}

// crypto/tls returns the last bytes together with the end.
func TestLastBytesWithEOF(t *testing.T) {
	for _, tc := range []struct {
		send  []byte
		want  string // the cause
		reply string
	}{
		{slices.Concat(text("a"), closing(4000, "bye")), `socket: closed by client: 4000 "bye"`, "close 4000"},
		{text("a"), "socket: read: unexpected EOF", "EOF"},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			end := make(chan error, 1)
			c := upgrade(t, NewServer(Config{Log: quiet}), lastWords{near, iotest.DataErrReader(bytes.NewReader(tc.send))}, far, lives(end))
			c.want(tc.reply)
			if got := <-end; fmt.Sprint(got) != tc.want {
				t.Errorf("%s: Read = %v, want %s", tc.reply, got, tc.want)
			}
		})
	}
}

type lastWords struct {
	net.Conn
	r io.Reader
}

func (l lastWords) Read(p []byte) (int, error) { return l.r.Read(p) }

// The peer gets to send what it has begun, and to read why it is not wanted.
func TestCloseWhilePeerSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, NewServer(Config{MaxMessageBytes: 1000, Log: quiet}), echo)
		replies := c.collect()
		c.send(binaryF(long(1 << 20)))
		if got, want := <-replies, []string{"close 1009"}; !slices.Equal(got, want) {
			t.Errorf("replies = %q, want %q", got, want)
		}
	})
}

// gorilla would give a write under way one second more, no matter how long it may
// take.
func TestProtocolErrorBesideStalledWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, NewServer(Config{Log: quiet}), func(c *Conn) {
			c.Write(c.Context(), Text, []byte("hello"))
			c.Read()
		})
		time.Sleep(time.Second)
		c.send(frame(fin|0x40|opText, ""))
		time.Sleep(8 * time.Second)
		c.want(`text "hello"`, "close 1002")
	})
}

func TestReadAfterFailureDoesNotPanic(t *testing.T) {
	s := NewServer(Config{Log: quiet})
	end := make(chan error, 1)
	c := newClient(t, serve(t, s, false, func(c *Conn) {
		var err error
		for range 2000 { // gorilla panics at 1000
			_, err = c.Read()
		}
		end <- err
	})())
	c.open()
	c.conn.Close()
	if err := <-end; err == nil {
		t.Error("Read = nil, want an error")
	}
}

// A socket that another goroutine is just ending, by a close frame that the peer
// has answered already, has no cause yet when the reader fails. Read must not
// return without one.
func TestReadWaitsForCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := &CloseError{Code: CloseNormal}
		got := make(chan error, 1)
		c := pipe(t, NewServer(Config{}), func(c *Conn) {
			if !c.out.last(nil, []byte{0x03, 0xe8}, want) {
				t.Error("the socket has ended")
			}
			go func() { got <- c.readFailed(io.EOF) }()
			synctest.Wait()
			select {
			case err := <-got:
				t.Errorf("returned %v before there was a cause", err)
				got <- err
			default:
			}
			c.cancel(want)
		})
		c.conn.Close()
		if err := <-got; err != want {
			t.Errorf("Read = %v, want %v", err, want)
		}
	})
}

// A handler may take larger messages than the others.
func TestSetLimit(t *testing.T) {
	for _, n := range []int{100, 101} {
		end := make(chan error, 1)
		c := pipe(t, NewServer(Config{MaxMessageBytes: 10, Log: quiet}), func(c *Conn) {
			c.SetLimit(100)
			lives(end)(c)
		})
		c.send(text(long(n)))
		if n == 100 {
			c.send(closing(1000, ""))
			c.want("close 1000")
		} else {
			c.want("close 1009")
			c.conn.Close()
		}
		if err := <-end; (err.Error() == `socket: closed by server: 1009 "message larger than 100 bytes"`) != (n > 100) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// A farewell goes before the close frame that tells of a message above the limit, and no
// other. Nothing comes between the two.
func TestFarewell(t *testing.T) {
	for _, n := range []int{10, 11} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Config{MaxMessageBytes: 10, Log: quiet})
			c := pipe(t, s, func(c *Conn) {
				c.SetFarewell([]byte("farewell"))
				var busy sync.WaitGroup
				busy.Go(func() {
					for c.Write(c.Context(), Binary, []byte("busy")) == nil {
					}
				})
				lives(make(chan error, 1))(c)
				busy.Wait()
			})
			sent := text(long(n))
			if n == 10 {
				sent = append(sent, closing(1000, "")...)
			}
			go c.conn.Write(sent) // which fails once the socket is closed
			last := ""
			for got := c.reply(); !strings.HasPrefix(got, "close"); got = c.reply() {
				last = got
			}
			if (last == `binary "farewell"`) != (n > 10) {
				t.Errorf("a message of %d bytes: the last of ours is %s", n, last)
			}
			c.conn.Close()
			s.Close()
		})
	}
}
