package mux_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// pausing is a stream of one message and an hour's silence, or of the silence alone if the
// message is "-".
type pausing struct {
	pb.UnimplementedEchoServiceServer
}

func (pausing) Expand(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	if m := req.GetMessage(); m != "-" {
		if err := stream.Send(&pb.ExpandResponse{Message: m}); err != nil {
			return err
		}
	}
	select {
	case <-time.After(time.Hour):
	case <-stream.Context().Done():
	}
	return nil
}

// pausingStream calls that in a bubble, by a version of HTTP, and gives f the answer and
// when the call began.
func pausingStream(t *testing.T, major int, message string, header http.Header, f func(t *testing.T, res *http.Response, begin time.Time)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, pausing{}) })
		c := s.HTTP1()
		if major == 2 {
			c = s.HTTP2()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", muxtest.URL+"/v1/echo/"+message+":expand", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header.Clone()
		begin := time.Now()
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.ProtoMajor != major {
			t.Errorf("the answer is by %s, want HTTP/%d", res.Proto, major)
		}
		f(t, res, begin)
	})
}

// A comment of a silent stream of events is with the client when it is due, not with what
// comes after it.
func TestKeepAliveArrives(t *testing.T) {
	header := http.Header{"Accept": {"text/event-stream"}, "Accept-Encoding": {"gzip"}} // as a browser has it
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP%d", major), func(t *testing.T) {
			pausingStream(t, major, "-", header, func(t *testing.T, res *http.Response, begin time.Time) {
				for i := range 3 {
					comment := make([]byte, len(":\n\n"))
					_, err := io.ReadFull(res.Body, comment)
					if got, want := time.Since(begin), time.Duration(i+1)*15*time.Second; err != nil || string(comment) != ":\n\n" || got != want {
						t.Errorf("comment %d is %q, %v, after %v; want it after %v", i+1, comment, err, got, want)
					}
				}
			})
		})
	}
}

// A message is with a client that takes gzip before the next one is there.
func TestStreamFlushesGzip(t *testing.T) {
	message := strings.Repeat("a", 1<<10)
	for _, tt := range []struct{ accept, want string }{
		{"application/x-ndjson", `{"result":{"message":"` + message + `"}}` + "\n"},
		{"text/event-stream", "id: 1\ndata: " + `{"message":"` + message + `"}` + "\n\n"},
		{"application/json", `[{"message":"` + message + `"}`},
	} {
		header := http.Header{"Accept": {tt.accept}, "Accept-Encoding": {"gzip"}}
		for _, major := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/HTTP%d", tt.accept, major), func(t *testing.T) {
				pausingStream(t, major, message, header, func(t *testing.T, res *http.Response, begin time.Time) {
					if got := res.Header.Get("Content-Encoding"); got != "gzip" {
						t.Fatalf("Content-Encoding is %q", got)
					}
					z, err := gzip.NewReader(res.Body)
					if err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(tt.want))
					if _, err := io.ReadFull(z, got); err != nil || string(got) != tt.want {
						t.Errorf("first %q, %v, want %q", got, err, tt.want)
					}
					if d := time.Since(begin); d != 0 {
						t.Errorf("it came after %v, want at once", d)
					}
				})
			})
		}
	}
}
