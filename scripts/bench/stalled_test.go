package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "oneport/proto/echo"
	"oneport/services/echo"
)

func TestStalledLatency(t *testing.T) {
	v, err := findVariant(stalledVariant)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := newStalledCalls()
	if err != nil {
		t.Fatal(err)
	}
	addr := serveVariant(t, v, echo.Register)
	for _, stall := range []bool{false, true} {
		begin := time.Now()
		latencies, err := calls.measure(addr, stall, time.Millisecond)
		took := time.Since(begin)
		if err != nil || len(latencies) < stalledOthers {
			t.Fatalf("stalled %v: %d latencies, %v, want one for each of %d calls at least", stall, len(latencies), err, stalledOthers)
		}
		if least, most := slices.Min(latencies), slices.Max(latencies); least <= 0 || most > took {
			t.Errorf("stalled %v: calls of %v to %v in %v", stall, least, most, took)
		}
	}
}

// faultyExpand is faulty in Expand alone.
type faultyExpand struct{ faulty }

func (f *faultyExpand) register(r grpc.ServiceRegistrar) { pb.RegisterEchoServiceServer(r, f) }

func (*faultyExpand) Echo(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	return &pb.EchoResponse{Message: req.GetMessage()}, nil
}

// A call that has ended, or whose server goes on without credit, is none that stalls.
func TestNotStalled(t *testing.T) {
	mux, err := findVariant(stalledVariant)
	if err != nil {
		t.Fatal(err)
	}
	dialling, err := findVariant("dialling")
	if err != nil {
		t.Fatal(err)
	}
	calls, err := newStalledCalls()
	if err != nil {
		t.Fatal(err)
	}
	// 16 fill the window: 15 cost less than 65 536, each being 4 096 + 3 + 16.
	expand := func(n int, s string) service {
		return (&faultyExpand{faulty{texts: slices.Repeat([]string{s}, n)}}).register
	}
	for _, tt := range []struct {
		name    string
		variant variant
		serve   service
		want    string
	}{
		{"too few to fill the window", mux, expand(15, text(stalledSize)), "ended after 15 messages"},
		{"just enough", mux, expand(16, text(stalledSize)), "ended after 16 messages"},
		{"other texts", mux, expand(17, text(stalledSize-1)), "another message"},
		{"no end without credit", dialling, echo.Register, "message 17, beyond the window"},
	} {
		addr := serveVariant(t, tt.variant, tt.serve)
		latencies, err := calls.measure(addr, true, time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d latencies, %v, want an error with %q", tt.name, len(latencies), err, tt.want)
		}
	}
}
