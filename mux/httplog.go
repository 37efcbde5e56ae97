package mux

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// newHTTPLog returns the ErrorLog of an http.Server.
func newHTTPLog(l *slog.Logger) *log.Logger { return log.New(httpLog{l}, "", 0) }

// httpLog gives each line of net/http the level it deserves. Most are about what a client
// has done wrong, which clients can repeat as often as they like.
type httpLog struct{ log *slog.Logger }

func (l httpLog) Write(p []byte) (int, error) {
	text := strings.TrimSuffix(string(p), "\n")
	level := slog.LevelDebug
	switch {
	case strings.HasPrefix(text, "http: panic serving "), strings.HasPrefix(text, "http2: panic serving "):
		level = slog.LevelError
	case strings.HasPrefix(text, "http: "), strings.HasPrefix(text, "ignoring invalid trailer "):
		level = slog.LevelWarn // what a handler has done wrong
	}
	l.log.Log(context.Background(), level, text)
	return len(p), nil
}
