package mux_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"oneport/mux"
)

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that hold all of parts.
func (l *logBuffer) with(parts ...string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
line:
	for line := range strings.Lines(l.b.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue line
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// foreignFrames are requests as a proxy may send them between calls.
var foreignFrames = []struct {
	name    string
	request func(stream uint32) []byte
	native  string // what grpc-go answers
}{
	{"GET", getFrames, "415"},
	{"POST", func(stream uint32) []byte {
		return frames(func(fr *http2.Framer) {
			h := headers(stream, "POST", "/", "content-type", "application/json")
			h.EndStream = false
			fr.WriteHeaders(h)
			fr.WriteData(stream, true, []byte("{}"))
		})
	}, "415"},
	{"GET of gRPC", func(stream uint32) []byte {
		return frames(func(fr *http2.Framer) {
			fr.WriteHeaders(headers(stream, "GET", "/", "content-type", "application/grpc"))
		})
	}, "405"},
}

// A connection that began with a call and brings other requests is refused them, and
// counted; the first one of a server is worth a warning. Calls on it go on.
func TestForeignRequests(t *testing.T) {
	for _, first := range foreignFrames {
		t.Run(first.name, func(t *testing.T) {
			var log logBuffer
			p := start(t, both, services, mux.WithLogger(slog.New(slog.NewTextHandler(&log,
				&slog.HandlerOptions{Level: slog.LevelDebug}))))
			for n, c := range []*http2Conn{newHTTP2Conn(t, p.dial()), newHTTP2Conn(t, p.secureHTTP2()), newHTTP2Conn(t, p.dial())} {
				c.send(append(opening(), callFrames(1)...))
				c.wantStatus(1, "200")
				if got := len(log.with("native gRPC")); got != n {
					t.Errorf("%d lines before the request that is foreign, want %d", got, n)
				}
				c.send(first.request(3))
				c.wantStatus(3, first.native)
				c.send(callFrames(5))
				c.wantStatus(5, "200")
				for i, f := range foreignFrames {
					stream := uint32(2*i + 7)
					c.send(f.request(stream))
					c.wantStatus(stream, f.native)
				}
				c.send(callFrames(21))
				c.wantStatus(21, "200")
				c.processed()
			}
			if got := log.with("native gRPC", "level=WARN", "mux.WithSharedHTTP2", "--http2 shared"); len(got) != 1 {
				t.Errorf("warnings %q, want one", got)
			}
			for _, count := range []string{"connections=2\n", "connections=3\n"} {
				if got := log.with("native gRPC", "level=DEBUG", count); len(got) != 1 {
					t.Errorf("debug lines with %q: %q, want one", count, got)
				}
			}
			if got := log.with("native gRPC"); len(got) != 3 {
				t.Errorf("lines %q, want one for each connection", got)
			}
		})
	}
}

// The cure that the warning names is one.
func TestForeignRequestsShared(t *testing.T) {
	var log logBuffer
	p := start(t, cleartextOnly, services, mux.WithSharedHTTP2(), mux.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	c := newHTTP2Conn(t, p.dial())
	c.send(append(opening(), callFrames(1)...))
	c.wantStatus(1, "200")
	c.send(getFrames(3))
	c.wantStatus(3, "200")
	c.send(callFrames(5))
	c.wantStatus(5, "200")
	c.processed()
	if got := log.with("native gRPC"); len(got) != 0 {
		t.Errorf("lines %q, want none", got)
	}
}
