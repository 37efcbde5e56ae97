package rpc

import (
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ParseTimeout decodes a grpc-timeout header: 1 to 8 digits and a unit of H, M,
// S, m, u or n ("Timeout" in PROTOCOL-HTTP2.md). Values beyond the range of
// time.Duration become its maximum; zero becomes the shortest duration, so that
// 0 can mean "none" elsewhere. The error is INVALID_ARGUMENT and safe for the
// client.
func ParseTimeout(s string) (time.Duration, error) {
	if len(s) < 2 || len(s) > 9 {
		return 0, malformedTimeout(s)
	}
	unit, ok := timeoutUnits[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 64)
	if !ok || err != nil {
		return 0, malformedTimeout(s)
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, nil
	}
	return max(time.Duration(n)*unit, 1), nil
}

var timeoutUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second,
	'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// ParseTimeoutMillis decodes a connect-timeout-ms header: up to 10 digits
// ("Timeout" in the Connect protocol). Zero becomes the shortest duration, as in
// ParseTimeout. The error is INVALID_ARGUMENT and safe for the client.
func ParseTimeoutMillis(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(s) > 10 {
		return 0, status.Errorf(codes.InvalidArgument, "connect-timeout-ms %.20q: want 1 to 10 digits", s)
	}
	return max(time.Duration(n)*time.Millisecond, 1), nil
}

func malformedTimeout(s string) error {
	return status.Errorf(codes.InvalidArgument, "grpc-timeout %.20q: want 1 to 8 digits and a unit of H, M, S, m, u or n", s)
}
