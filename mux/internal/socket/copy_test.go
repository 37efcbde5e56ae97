package socket

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oneport/mux/internal/socket/sockettest"
)

// copying is a handler that copies to a pipe, of which it returns the other end, and the
// outcome of Copy.
func copying(limit int) (handler func(*Conn), r *io.PipeReader, outcome chan error) {
	r, w := io.Pipe()
	outcome = make(chan error, 1)
	return func(c *Conn) {
		if limit > 0 {
			c.SetLimit(limit)
		}
		outcome <- c.Copy(w)
		w.Close()
	}, r, outcome
}

// The bounds of messages and frames mean nothing, and pings between them are answered.
func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, r, outcome := copying(0)
		c := pipe(t, NewServer(Config{Log: quiet}), handler)
		large := strings.Repeat("0123456789", 10000)
		go func() {
			c.send(binaryF("a"))
			c.send(binaryF(""))
			c.send(sockettest.Fragments(opBinary, "b", "", "c"))
			c.send(frame(opBinary, "d"))
			c.send(ping("life"))
			c.send(frame(fin, large))
			c.send(closing(1000, ""))
		}()
		replies := make(chan []string, 1)
		go func() { replies <- []string{c.reply(), c.reply(), c.reply()} }()
		got, err := io.ReadAll(r)
		if want := "abcd" + large; string(got) != want || err != nil {
			t.Errorf("copied %d bytes, %.10q…, %v, want %d", len(got), got, err, len(want))
		}
		if ce, ok := errors.AsType[*CloseError](<-outcome); !ok || ce.Code != 1000 || !ce.ByPeer {
			t.Errorf("Copy = %v, want the client's close", ce)
		}
		if got, want := <-replies, []string{`pong "life"`, "close 1000", "EOF"}; !slices.Equal(got, want) {
			t.Errorf("replies %q, want %q", got, want)
		}
	})
}

// What has come of a message is there before the rest of it has.
func TestCopyIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, r, _ := copying(0)
		c := pipe(t, NewServer(Config{Log: quiet}), handler)
		whole := binaryF("hello, world")
		c.send(whole[:len(whole)-5])
		got := make([]byte, 100)
		if n, err := r.Read(got); string(got[:n]) != "hello, " || err != nil {
			t.Errorf("Read = %q, %v, want what has come of the message", got[:n], err)
		}
		c.send(whole[len(whole)-5:])
		if n, err := r.Read(got); string(got[:n]) != "world" || err != nil {
			t.Errorf("Read = %q, %v, want the rest", got[:n], err)
		}
	})
}

func TestCopyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		send  [][]byte
		bytes int
		close string
	}{
		{"a message of the limit", [][]byte{binaryF("12345678"), closing(1000, "")}, 8, "close 1000"},
		{"one above", [][]byte{binaryF("123456789")}, 0, "close 1009"},
		{"one above, in frames", [][]byte{sockettest.Fragments(opBinary, "12345678", "9")}, 8, "close 1009"},
		{"many of the limit", [][]byte{binaryF("12345678"), binaryF("12345678"), closing(1000, "")}, 16, "close 1000"},
		{"text", [][]byte{binaryF("1"), text("2"), binaryF("3")}, 1, "close 1003"},
		{"not WebSocket", [][]byte{binaryF("1"), []byte("\xf1\x80\x00\x00\x00\x00")}, 1, "close 1002"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler, r, _ := copying(8)
				c := pipe(t, NewServer(Config{Log: quiet}), handler)
				go func() {
					for _, b := range tt.send {
						c.conn.Write(b) // the last may not be read any more
					}
				}()
				reply := make(chan string, 1)
				go func() {
					reply <- c.reply()
					c.conn.Close()
				}()
				if got, err := io.ReadAll(r); len(got) != tt.bytes || err != nil {
					t.Errorf("copied %q, %v, want %d bytes", got, err, tt.bytes)
				}
				if got := <-reply; got != tt.close {
					t.Errorf("reply = %s, want %s", got, tt.close)
				}
			})
		})
	}
}

// When nobody takes what comes the rest of a message is passed over, and the socket ends
// in order.
func TestCopyNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, r, outcome := copying(0)
		c := pipe(t, NewServer(Config{Log: quiet}), handler)
		r.CloseWithError(errors.New("full"))
		go func() {
			c.send(frame(opBinary, "hello"))
			c.send(frame(fin, "world"))
			c.send(closing(1000, ""))
		}()
		c.want("close 1000", "EOF")
		if err := <-outcome; err == nil || err.Error() != "full" {
			t.Errorf("Copy = %v, want the error of the writer", err)
		}
	})
}

// Every byte is a sign of life, and silence is none.
func TestCopySilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, r, outcome := copying(0)
		c := pipe(t, NewServer(Config{Log: quiet}), handler)
		go io.Copy(io.Discard, r)
		go io.Copy(io.Discard, c.conn)
		start := time.Now()
		whole, header := binaryF("hello"), 6
		c.send(whole[:header])
		for _, b := range whole[header:] {
			time.Sleep(34 * time.Second)
			c.send([]byte{b})
		}
		err := <-outcome
		if err == nil || !strings.Contains(err.Error(), "nothing heard for 35s") {
			t.Errorf("Copy = %v, want that nothing was heard", err)
		}
		if got, want := time.Since(start), 5*34*time.Second+35*time.Second; got != want {
			t.Errorf("Copy returned after %v, want %v", got, want)
		}
	})
}
