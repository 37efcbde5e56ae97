package main

import (
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{4}, spread{4, 4, 4}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
		{[]float64{8, 1, 2, 4}, spread{3, 1, 8}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("spreadOf(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		n        int // values, 1 to n
		p50, p99 int
	}{{1, 1, 1}, {2, 1, 2}, {99, 50, 99}, {100, 50, 99}, {101, 51, 100}, {200, 100, 198}} {
		var values []int
		for i := range tt.n {
			values = append(values, i+1)
		}
		if p50, p99 := quantile(values, 0.50), quantile(values, 0.99); p50 != tt.p50 || p99 != tt.p99 {
			t.Errorf("of 1 to %d: %d and %d, want %d and %d", tt.n, p50, p99, tt.p50, tt.p99)
		}
	}
}

// The second round is ten times slower for both.
func TestStalledSums(t *testing.T) {
	rounds := func(p99 ...time.Duration) latencyResult {
		var l latencyResult
		for _, d := range p99 {
			l.Rounds = append(l.Rounds, latencySample{P50: d / 2, P99: d})
		}
		return l
	}
	held := func(heap, stack float64) idleResult {
		return idleResult{Rounds: []idleSample{{Heap: heap, Stack: stack}}}
	}
	r := &stalledResult{
		Without: rounds(100*time.Microsecond, 1000*time.Microsecond, 100*time.Microsecond),
		Beside:  rounds(150*time.Microsecond, 1100*time.Microsecond, 300*time.Microsecond),
		Quiet:   held(5, 8), Stalled: held(20, 9),
	}
	r.sumUp()
	if want := (spread{1.5, 1.1, 3}); r.P99Ratio != want {
		t.Errorf("p99, without = 1: %v, want %v", r.P99Ratio, want)
	}
	if want := (spread{300, 150, 1100}); r.Beside.P99 != want {
		t.Errorf("p99 = %v, want %v", r.Beside.P99, want)
	}
	if want := (spread{50, 50, 500}); r.Without.P50 != want {
		t.Errorf("p50 = %v, want %v", r.Without.P50, want)
	}
	if want := (spread{16, 16, 16}); r.Held != want {
		t.Errorf("KiB held = %v, want %v", r.Held, want)
	}
}

// The machine is three times slower in the second round and twice in the third. The
// medians of the two variants are then of different rounds, and their ratio is not 2.
func TestRatiosAreWithinRounds(t *testing.T) {
	cost := func(µs ...int) (rounds []sample) {
		for _, n := range µs {
			rounds = append(rounds, sample{Ops: 10, CPU: time.Duration(10*n) * time.Microsecond, Elapsed: time.Second, Allocs: 30, LoadCPU: 1})
		}
		return rounds
	}
	results := []*result{
		{Variant: "native", Rounds: cost(10, 30, 20)},
		{Variant: "grpc-ws.v1", Rounds: cost(20, 60, 10)},
	}
	sumUp(results)
	if got, want := results[1].CPU.String(), "20.0 (10.0–60.0)"; got != want {
		t.Errorf("CPU = %s, want %s", got, want)
	}
	if got, want := results[1].CPURatio["native"].String(), "2.00 (0.50–2.00)"; got != want {
		t.Errorf("CPU, native = 1: %s, want %s", got, want)
	}
	if got, want := results[1].RateRatio["native"], (spread{1, 1, 1}); got != want {
		t.Errorf("rate, native = 1: %v, want %v", got, want)
	}
	if got, want := results[1].Allocs, (spread{3, 3, 3}); got != want {
		t.Errorf("allocations = %v, want %v", got, want)
	}
	if got, ok := results[1].CPURatio["grpc-ws.v1"]; ok {
		t.Errorf("CPU, grpc-ws.v1 = 1: %v, but it is no reference", got)
	}
}

func TestGoals(t *testing.T) {
	rounds := func(cpu ...time.Duration) []sample {
		var s []sample
		for _, c := range cpu {
			s = append(s, sample{Ops: 1, CPU: c})
		}
		return s
	}
	at := func(median float64) map[string]spread { return map[string]spread{"native": {Median: median}} }
	r := &report{
		Results: []*result{
			{Workload: "unary-32B-64-on-1", Variant: "grpc-ws.v1", CPURatio: at(0.25), Allocs: spread{Median: 12.1}},
			{Workload: "unary-32B-64-on-4", Variant: "grpc-ws.v1", CPURatio: at(0.26), Allocs: spread{Median: 12}},
			{Workload: "unary-32B-64-on-4", Variant: "plain", Rounds: rounds(100, 100)},
			{Workload: "unary-32B-64-on-4", Variant: "native", Rounds: rounds(90, 105)},
			{Workload: "unary-4KiB-64-on-4", Variant: "plain", Rounds: rounds(100)},
			{Workload: "unary-4KiB-64-on-4", Variant: "native", Rounds: rounds(106)},
		},
		Idle:    []*idleResult{{Variant: "grpc-ws.v1", Resident: spread{Median: 6.6}}},
		Stalled: &stalledResult{P99Ratio: spread{Median: 2.1}, Held: spread{Median: 80}},
	}
	type outcome struct{ measured, met bool }
	want := map[string]outcome{
		"unary-32B-64-on-1: CPU of grpc-ws.v1, native = 1": {true, true},
		"unary-32B-64-on-4: CPU of grpc-ws.v1, native = 1": {true, false},
		"unary-32B-64-on-1: allocations of grpc-ws.v1":     {true, false},
		"unary-32B-64-on-4: allocations of grpc-ws.v1":     {true, true},
		"unary, 64 in flight: CPU of native, plain = 1":    {true, true}, // of 0.90, 1.05 and 1.06
		"idle: KiB resident of grpc-ws.v1":                 {true, false},
		"stalled: p99 beside a stalled call, without = 1":  {true, false},
		"stalled: KiB held per stalled call":               {true, true},
	}
	seen := 0
	for _, g := range r.goals() {
		if _, ok := want[g.Goal]; ok {
			seen++
		}
		if got := (outcome{g.Measured != nil, g.Met}); got != want[g.Goal] {
			t.Errorf("%s: measured, met = %v, want %v", g.Goal, got, want[g.Goal])
		}
	}
	if seen != len(want) {
		t.Errorf("%d of the goals %v are there", seen, want)
	}
}
