package mux_test

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"oneport/mux"
	"oneport/mux/muxtest"
)

// What a client does wrong is no more than a line at debug level, since it can do so as often as
// it likes; what the program's handlers do wrong is more.
func TestHTTPLog(t *testing.T) {
	newServer := func(t *testing.T) (*muxtest.Server, *logBuffer) {
		log := new(logBuffer)
		return muxtest.New(t, func(s *mux.Server) {
			s.Handle("/panics", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") }))
			s.Handle("/twice", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(200)
				w.WriteHeader(201)
			}))
		}, mux.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))), log
	}
	for name, frame := range map[string][]byte{ // length, type, flags, stream, payload
		"DATA on stream 0":        {0, 0, 0, 0, 0, 0, 0, 0, 0},
		"HEADERS on stream 2":     {0, 0, 0, 1, 4, 0, 0, 0, 2},
		"SETTINGS of 1 byte":      {0, 0, 1, 4, 0, 0, 0, 0, 0, 1},
		"WINDOW_UPDATE by 0":      {0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"PING on a stream":        {0, 0, 8, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"a header that is cut":    {0, 0, 1, 1, 4, 0, 0, 0, 3, 0x40},
		"CONTINUATION of nothing": {0, 0, 0, 9, 4, 0, 0, 0, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, log := newServer(t)
			c, err := s.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			go c.Write(slices.Concat(opening(), getFrames(1), frame))
			io.Copy(io.Discard, c) // until the server hangs up, having logged why
			if lines := log.with("http2: "); len(lines) == 0 || len(lines) != len(log.with("http2: ", "level=DEBUG")) {
				t.Errorf("%s: logged %q, want lines at debug level", name, lines)
			}
		})
	}
	for _, tt := range []struct {
		major       int
		path, level string
	}{
		{1, "/panics", "level=ERROR"},
		{2, "/panics", "level=ERROR"},
		{1, "/twice", "level=WARN"}, // over HTTP/2 net/http says nothing
	} {
		synctest.Test(t, func(t *testing.T) {
			s, log := newServer(t)
			c := s.HTTP1()
			if tt.major == 2 {
				c = s.HTTP2()
			}
			if res, err := c.Get(muxtest.URL + tt.path); err == nil {
				res.Body.Close()
			}
			synctest.Wait() // over HTTP/2 the stream ends before that is logged
			if lines := log.with("msg=\"http", tt.level); len(lines) != 1 {
				t.Errorf("HTTP/%d, %s: logged %q, want a line with %s", tt.major, tt.path, log.with(""), tt.level)
			}
		})
	}
}
