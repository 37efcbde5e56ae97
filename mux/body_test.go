package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oneport/mux"
	"oneport/mux/muxtest"
)

// A request body may stand still for 30 s at a time, however long it takes in
// all; and once it has been read the handler has all the time it wants.
func TestBodyStall(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pauses []time.Duration // between the bytes of the body
		want   time.Duration   // until the handler has the body or an error
		fails  bool
	}{
		{"steady", []time.Duration{29 * time.Second, 29 * time.Second, 29 * time.Second}, 87 * time.Second, false},
		{"stalls", []time.Duration{time.Second, 31 * time.Second}, 31 * time.Second, true},
	} {
		for _, road := range []struct {
			name   string
			client func(*muxtest.Server) *http.Client
		}{
			{"http1", (*muxtest.Server).HTTP1},
			{"http2", (*muxtest.Server).HTTP2},
		} {
			t.Run(tt.name+"/"+road.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					type result struct {
						took time.Duration
						err  error
						late error // of the request's context, long after the body
					}
					results := make(chan result, 1)
					s := muxtest.New(t, func(s *mux.Server) {
						s.Handle("POST /upload", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							start := time.Now()
							_, err := io.Copy(io.Discard, r.Body)
							took := time.Since(start)
							if err == nil {
								time.Sleep(5 * time.Minute)
							}
							results <- result{took, err, context.Cause(r.Context())}
						}))
					})
					body, send := io.Pipe()
					var sender sync.WaitGroup
					defer sender.Wait()
					sender.Go(func() {
						fmt.Fprint(send, "x")
						for _, d := range tt.pauses {
							time.Sleep(d)
							if _, err := fmt.Fprint(send, "x"); err != nil {
								return
							}
						}
						send.Close()
					})
					resp, err := road.client(s).Post(muxtest.URL+"/upload", "text/plain", body)
					if err == nil {
						resp.Body.Close()
					}
					body.Close()
					got := <-results
					if got.took != tt.want || (got.err != nil) != tt.fails {
						t.Errorf("body ended after %v with %v, want %v, failure %v", got.took, got.err, tt.want, tt.fails)
					}
					if tt.fails && !errors.Is(got.err, os.ErrDeadlineExceeded) {
						t.Errorf("error = %v, want a deadline", got.err)
					}
					if !tt.fails && got.late != nil {
						t.Errorf("context ended while the handler was at work: %v", got.late)
					}
				})
			})
		}
	}
}
