package sniff

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func TestHeaderLimits(t *testing.T) {
	opening := func(block []byte) []byte {
		return frames(func(fr *http2.Framer) { fr.WriteSettings(); fr.WriteHeaders(headers(block)) })
	}
	base := uint32(0)
	for kv := []string{":method", "POST", ":scheme", "http", ":path", "/helloworld.Greeter/SayHello", ":authority", "localhost",
		"te", "trailers", "content-type", "application/grpc", "user-agent", "test"}; len(kv) > 0; kv = kv[2:] {
		base += uint32(len(kv[0]) + len(kv[1]) + 32)
	}
	// Two more fields fill the list up; zero bytes are longer in Huffman code, so they are sent as they are.
	list := func(total uint32) []byte {
		rest := int(total-base) - 2*33 - 8192
		return append(post("application/grpc"), fields("a", strings.Repeat("\x00", 8192), "b", strings.Repeat("a", rest))...)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want Kind
	}{
		{"value of 8 KiB", opening(append(post("application/grpc"), fields("a", strings.Repeat("\x00", 8192))...)), GRPC},
		{"list of 16 KiB", opening(list(16384)), GRPC},
		{"list of 16 KiB and one", opening(list(16384 + 1)), HTTP2},
		{"frame of 16 KiB", frames(func(fr *http2.Framer) {
			fr.WriteSettings(make([]http2.Setting, 16384/6)...)
			fr.WriteHeaders(headers(post("application/grpc")))
		}), GRPC},
		{"16 frames", frames(func(fr *http2.Framer) {
			fr.WriteSettings()
			for range 14 {
				fr.WriteSettingsAck()
			}
			fr.WriteHeaders(headers(post("application/grpc")))
		}), GRPC},
		{"largest window", frames(func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteWindowUpdate(0, 1<<31-1<<16)
			fr.WriteHeaders(headers(post("application/grpc")))
		}), GRPC},
	} {
		if got := verdict(t, accept(t, &script{pieces: [][]byte{tt.in}}, quiet)); got != tt.want {
			t.Errorf("%s: kind = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// endless is a connection whose client never stops sending the same.
type endless struct {
	script
	again []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.pieces) == 0 {
		e.pieces = [][]byte{e.again}
	}
	return e.script.Read(p)
}

func TestFloods(t *testing.T) {
	frame := func(write func(*http2.Framer)) []byte { return frames(write)[len(http2.ClientPreface):] }
	for _, tt := range []struct {
		name         string
		start, again []byte
		budget       int
		want         Kind
	}{
		{"header", []byte("GET / HTTP/1.1\r\n"), []byte("A: aaaaaaaaaaaaaaaaaaaaaaa\r\n"), 0, HTTP1},
		{"request line", []byte("GET /"), []byte("a"), 0, HTTP1},
		{"method", nil, []byte("A"), 0, Unknown},
		{"SETTINGS", []byte(http2.ClientPreface), frame(func(fr *http2.Framer) { fr.WriteSettings() }), 0, HTTP2},
		{"big SETTINGS", []byte(http2.ClientPreface), frame(func(fr *http2.Framer) {
			fr.WriteSettings(make([]http2.Setting, 1000)...)
		}), 0, HTTP2},
		{"acknowledgements", frames(func(fr *http2.Framer) { fr.WriteSettings() }), frame(func(fr *http2.Framer) { fr.WriteSettingsAck() }), 0, HTTP2},
		{"PING", frames(func(fr *http2.Framer) { fr.WriteSettings() }), frame(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) }), 0, HTTP2},
		{"CONTINUATION", frames(func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post("application/grpc")})
		}), frame(func(fr *http2.Framer) { fr.WriteContinuation(1, false, fields("a", strings.Repeat("b", 4000))) }), 0, HTTP2},
		{"empty CONTINUATION", frames(func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post("application/grpc")})
		}), frame(func(fr *http2.Framer) { fr.WriteContinuation(1, false, nil) }), 0, HTTP2},
		{"frame of 16 MiB", append(frames(func(fr *http2.Framer) { fr.WriteSettings() }), "\xff\xff\xff\x01\x04\x00\x00\x00\x01"...), []byte{0}, 0, HTTP2},
		{"header, small budget", []byte("GET / HTTP/1.1\r\n"), []byte("A: aaaaaaaaaaaaaaaaaaaaaaa\r\n"), 100, HTTP1},
		{"PRIORITY, small budget", frames(func(fr *http2.Framer) { fr.WriteSettings() }), frame(func(fr *http2.Framer) {
			fr.WritePriority(3, http2.PriorityParam{})
		}), 100, HTTP2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &endless{script: script{pieces: [][]byte{tt.start}}, again: tt.again}
			cfg := quiet
			cfg.Budget = tt.budget
			c := accept(t, s, cfg)
			if got := verdict(t, c); got != tt.want {
				t.Errorf("kind = %v, want %v", got, tt.want)
			}
			limit := tt.budget
			if limit == 0 {
				limit = 32 << 10
			}
			if s.given > limit || cap(c.head) > limit {
				t.Errorf("read %d bytes into %d, want at most %d", s.given, cap(c.head), limit)
			}
		})
	}
}

// TestTime checks when a verdict falls on a client that stops in the middle.
func TestTime(t *testing.T) {
	const timeout = 3 * time.Second
	for _, tt := range []struct {
		name  string
		write string
		want  Kind
		at    time.Duration
	}{
		{"silent", "", Unknown, timeout},
		{"part of a method", "GE", Unknown, timeout},
		{"part of a header", "GET / HTTP/1.1\r\nHost", Unknown, timeout},
		{"part of a preface", http2.ClientPreface[:23], Unknown, timeout},
		{"preface", http2.ClientPreface, HTTP2, timeout},
		{"preface and SETTINGS", string(frames(func(fr *http2.Framer) { fr.WriteSettings() })), HTTP2, timeout},
		{"part of HEADERS", string(request("application/grpc")[:60]), HTTP2, timeout},
		{"preface and wrong SETTINGS", string(frames(func(fr *http2.Framer) {
			fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2})
		})), HTTP2, 0},
		{"preface and no SETTINGS", string(frames(func(fr *http2.Framer) { fr.WriteSettingsAck() })), HTTP2, 0},
		{"garbage", "\x00", Unknown, 0},
		{"TLS", "\x16", TLS, 0},
		{"request", "GET / HTTP/1.1\r\n\r\n", HTTP1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				c := accept(t, server, quiet)
				start := time.Now()
				go client.Write([]byte(tt.write))
				go io.Copy(io.Discard, client)
				if got := verdict(t, c); got != tt.want {
					t.Errorf("kind = %v, want %v", got, tt.want)
				}
				if got := time.Since(start); got != tt.at {
					t.Errorf("verdict after %v, want %v", got, tt.at)
				}

				// The time is over only until the connection is handed off.
				after := Handoff(c)
				after.Write(greeting(nil))
				go func() {
					time.Sleep(time.Minute)
					client.Write([]byte("more"))
					client.Close()
				}()
				got, err := io.ReadAll(after)
				if want := tt.write + "more"; string(got) != want || err != nil {
					t.Errorf("after handoff read %q, %v; want %q", got, err, want)
				}
				after.Close()
			})
		})
	}
}

func TestDribble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := accept(t, server, quiet)
		start := time.Now()
		var dribble sync.WaitGroup
		dribble.Go(func() {
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") {
				if _, err := client.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
		defer dribble.Wait()
		defer c.Close()
		if got := verdict(t, c); got != Unknown {
			t.Errorf("kind = %v, want %v", got, Unknown)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("verdict after %v, want 3s: the time must not start again with each byte", got)
		}
		if !errors.Is(c.reason, os.ErrDeadlineExceeded) {
			t.Errorf("reason = %v, want %v", c.reason, os.ErrDeadlineExceeded)
		}
	})
}

// TestGreetingBlocked is a client that sends SETTINGS and takes nothing.
func TestGreetingBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := accept(t, server, quiet)
		start := time.Now()
		go client.Write(frames(func(fr *http2.Framer) { fr.WriteSettings() }))
		if got := verdict(t, c); got != Unknown {
			t.Errorf("kind = %v, want %v: nobody knows what the client got", got, Unknown)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("verdict after %v, want 3s", got)
		}
		Reject(c, http2.ErrCodeProtocol, "no")
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("closed after %v, want 3s", got)
		}
		client.Close()
	})
}

type panicking struct{ *script }

func (panicking) Read([]byte) (int, error) { panic("boom") }

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	c := accept(t, panicking{new(script)}, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := verdict(t, c); got != Unknown {
		t.Errorf("kind = %v, want %v", got, Unknown)
	}
	verdict(t, c)
	if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "boom") {
		t.Errorf("log = %q, want one line with the panic", &log)
	}
}
