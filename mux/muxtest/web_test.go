package muxtest_test

import (
	"bufio"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// A handler may answer and leave requests unread that come by HTTP/1.1, whether
// they are there already, still come, or never do. What the client says next is
// then not taken for anything else, nor does it end in a panic.
func TestUnreadRequests(t *testing.T) {
	const head = "POST /echo.v1.EchoService/Converse HTTP/1.1\r\nHost: oneport.test\r\n" +
		"Content-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n"
	const message, end = "7\r\n\x00\x00\x00\x00\x02{}\r\n", "0\r\n\r\n"
	for name, tt := range map[string]struct {
		before, after string // the answer
		keep          bool   // the connection
	}{
		"read":          {before: head + message + end, keep: true},
		"there":         {before: head + message + message + end},
		"late":          {before: head + message, after: message + end},
		"much":          {before: head + message, after: strings.Repeat(message, 100<<10)},
		"never":         {before: head + message},
		"a minute late": {before: head + message, after: "wait GET /healthz HTTP/1.1\r\nHost: oneport.test\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := muxtest.New(t, func(s *mux.Server) {
					pb.RegisterEchoServiceServer(s, service{converse: func(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
						if _, err := stream.Recv(); err != nil {
							return err
						}
						if name == "read" {
							if _, err := stream.Recv(); err != io.EOF {
								return status.Errorf(codes.Internal, "the end is %v", err)
							}
						}
						return stream.Send(&pb.ConverseResponse{Message: "answer"})
					}})
				}, mux.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				c, err := s.DialContext(t.Context(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, tt.before)
				r := bufio.NewReader(c)
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil || !strings.Contains(string(body), "answer") || res.Close == tt.keep {
					t.Errorf("the response is %q, %v, and ends the connection: %v; want answer and %v", body, err, res.Close, !tt.keep)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					after, wait := strings.CutPrefix(tt.after, "wait ")
					if wait {
						time.Sleep(time.Minute)
					}
					io.WriteString(c, after)
					if tt.keep {
						io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n")
					}
				})
				rest, err := io.ReadAll(r)
				wg.Wait()
				if strings.HasSuffix(string(rest), "ok\n") != tt.keep || !tt.keep && len(rest) > 0 {
					t.Errorf("after the response comes %q, %v, want another one: %v", rest, err, tt.keep)
				}
				if logged := log.take(); logged != "" {
					t.Errorf("the log has %s", logged)
				}
			})
		})
	}
}
