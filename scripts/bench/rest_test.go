package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/services/echo"
)

// restCalls are those of the workloads, with texts of a size.
var restCalls = []func(int) (*call, error){restGet, restPost}

func of(size int, f func(int) (*call, error)) func() (*call, error) {
	return func() (*call, error) { return f(size) }
}

func TestRESTRightAnswer(t *testing.T) {
	for _, v := range kind(true) {
		for _, f := range restCalls {
			for _, size := range []int{1, 32, 1000, 4 << 10} {
				c := must(t, of(size, f))
				conn := dialVariant(t, v, echo.Register, c)
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
					t.Fatal(err)
				}
				for i := range 20 {
					// One at a time, since one may take several reads.
					if got, err := drive(conn, 1, func() bool { return true }); err != nil || got != 1 {
						t.Fatalf("%s: %.20s of %d bytes: call %d has %d messages, %v, want 1", v.name, c.method, size, i, got, err)
					}
				}
			}
		}
	}
}

func TestRESTWrongAnswer(t *testing.T) {
	for _, v := range kind(true) {
		for _, f := range restCalls {
			for _, tt := range []struct {
				serve faulty
				want  string
			}{
				{faulty{texts: []string{strings.Replace(text(32), "c", "C", 1)}}, "another message"},
				{faulty{texts: []string{text(31)}}, "another message"},
				{faulty{err: status.Error(codes.Internal, "oops")}, "oops"},
			} {
				err := callVariant(t, v, tt.serve.register, must(t, of(32, f)))
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v, want an error with %q", v.name, err, tt.want)
				}
			}
		}
	}
}

// Without the token nothing is answered, by either.
func TestRESTToken(t *testing.T) {
	old := requestMetadata[0]
	defer func() { requestMetadata[0] = old }()
	requestMetadata[0][1] = "Bearer wrong"
	for _, v := range kind(true) {
		for _, f := range restCalls {
			err := callVariant(t, v, echo.Register, must(t, of(32, f)))
			if err == nil || !strings.Contains(err.Error(), "401") {
				t.Errorf("%s with a wrong token: %v, want an error with 401", v.name, err)
			}
		}
	}
}
