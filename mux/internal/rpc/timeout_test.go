package rpc_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

func TestParseTimeout(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration // zero for an error
	}{
		{"1H", time.Hour},
		{"2M", 2 * time.Minute},
		{"3S", 3 * time.Second},
		{"4m", 4 * time.Millisecond},
		{"5u", 5 * time.Microsecond},
		{"6n", 6},
		{"007S", 7 * time.Second},
		{"0n", 1},
		{"00000000H", 1},
		{"99999999n", 99999999},
		{"99999999M", 99999999 * time.Minute},
		{"2562047H", 2562047 * time.Hour}, // the last below the range of time.Duration
		{"2562048H", math.MaxInt64},
		{"99999999H", math.MaxInt64},
		{in: "100000000n"},
		{in: ""},
		{in: "n"},
		{in: "1"},
		{in: "12"},
		{in: "1s"},
		{in: "1h"},
		{in: "-1S"},
		{in: "+1S"},
		{in: "1_0S"},
		{in: "0x1S"},
		{in: "1.5S"},
		{in: " 1S"},
		{in: "1S "},
		{in: "1SS"},
		{in: "١S"},
		{in: "\xff\xff"},
		{in: strings.Repeat("1", 1<<20) + "S"},
	} {
		got, err := rpc.ParseTimeout(tt.in)
		if tt.want == 0 {
			if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 300 || got != 0 {
				t.Errorf("ParseTimeout(%.40q) = %v, %.400v, want INVALID_ARGUMENT with a short text", tt.in, got, err)
			}
			continue
		}
		if got != tt.want || err != nil {
			t.Errorf("ParseTimeout(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseTimeout(f *testing.F) {
	for _, s := range []string{"", "n", "0n", "1S", "99999999H", "100000000n", "\xffS"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := rpc.ParseTimeout(s)
		switch {
		case err == nil && (d <= 0 || len(s) < 2 || len(s) > 9):
			t.Errorf("ParseTimeout(%q) = %d, nil", s, d)
		case err != nil && (d != 0 || status.Code(err) != codes.InvalidArgument || len(err.Error()) > 300):
			t.Errorf("ParseTimeout(%q) = %d, %v", s, d, err)
		}
	})
}

func TestParseTimeoutMillis(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration // zero for an error
	}{
		{"1", time.Millisecond},
		{"0", 1},
		{"0000000000", 1},
		{"1500", 1500 * time.Millisecond},
		{"9999999999", 9999999999 * time.Millisecond}, // 10 digits
		{in: "00000000000"},                           // 11
		{in: ""},
		{in: "-1"},
		{in: "+1"},
		{in: "1.5"},
		{in: "1 "},
		{in: "1m"},
		{in: "0x1"},
		{in: strings.Repeat("1", 1<<20)},
	} {
		got, err := rpc.ParseTimeoutMillis(tt.in)
		if tt.want == 0 {
			if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 300 || got != 0 {
				t.Errorf("ParseTimeoutMillis(%.40q) = %v, %.400v, want INVALID_ARGUMENT with a short text", tt.in, got, err)
			}
			continue
		}
		if got != tt.want || err != nil {
			t.Errorf("ParseTimeoutMillis(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}
