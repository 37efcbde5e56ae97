package main

import "fmt"

// goal is a figure that is not to be above a limit.
type goal struct {
	Goal     string  `json:"goal"`
	Limit    float64 `json:"limit"`
	Measured *spread `json:"measured"` // nil if it was not
	Met      bool    `json:"met"`      // by the median
}

// goals compares what was measured with what is wanted.
func (r *report) goals() []goal {
	cpu := func(workload, variant, to string, limit float64) goal {
		g := goal{Goal: fmt.Sprintf("%s: CPU of %s, %s = 1", workload, variant, to), Limit: limit}
		if res := r.find(workload, variant); res != nil {
			g.measured(res.CPURatio[to])
		}
		return g
	}
	allocs := func(workload string, limit float64) goal {
		g := goal{Goal: workload + ": allocations of grpc-ws.v1", Limit: limit}
		if res := r.find(workload, "grpc-ws.v1"); res != nil {
			g.measured(res.Allocs)
		}
		return g
	}
	resident := goal{Goal: "idle: KiB resident of grpc-ws.v1", Limit: 6.5}
	heap := goal{Goal: "idle: heap of native, plain = 1", Limit: 1.10}
	for _, res := range r.Idle {
		switch res.Variant {
		case "grpc-ws.v1":
			resident.measured(res.Resident)
		case "native":
			heap.measured(res.HeapRatio["plain"])
		}
	}
	latency := goal{Goal: "stalled: p99 beside a stalled call, without = 1", Limit: 2}
	held := goal{Goal: "stalled: KiB held per stalled call", Limit: 80}
	if r.Stalled != nil {
		latency.measured(r.Stalled.P99Ratio)
		held.measured(r.Stalled.Held)
	}
	// Also of all pairs of the three: by chance one process has as much over another.
	native := goal{Goal: "unary, 64 in flight: CPU of native, plain = 1", Limit: 1.05}
	var pairs []float64
	for _, workload := range []string{"unary-32B-64-on-1", "unary-32B-64-on-4", "unary-4KiB-64-on-4"} {
		if res, plain := r.find(workload, "native"), r.find(workload, "plain"); res != nil && plain != nil {
			pairs = append(pairs, ratios(res.Rounds, plain.Rounds, sample.cpu)...)
		}
	}
	if len(pairs) > 0 {
		native.measured(spreadOf(pairs))
	}
	return []goal{
		cpu("unary-32B-64-on-1", "grpc-ws.v1", "native", 0.25),
		cpu("unary-32B-64-on-4", "grpc-ws.v1", "native", 0.25),
		cpu("unary-32B-64-on-1", "grpc-ws.v1", "dialling", 1.0/12),
		cpu("unary-32B-64-on-4", "grpc-ws.v1", "dialling", 1.0/12),
		cpu("unary-4KiB-64-on-4", "grpc-ws.v1", "native", 0.70),
		cpu("unary-4KiB-64-on-4", "grpc-ws.v1", "dialling", 0.22),
		cpu("unary-32B-1-on-1", "grpc-ws.v1", "native", 0.65),
		cpu("push-32B", "grpc-ws.v1", "native", 0.30),
		allocs("unary-32B-64-on-1", 12),
		allocs("unary-32B-64-on-4", 12),
		latency,
		held,
		resident,
		cpu("unary-32B-64-on-1", "native", "plain", 1.05),
		cpu("unary-32B-64-on-4", "native", "plain", 1.05),
		cpu("unary-4KiB-64-on-4", "native", "plain", 1.05),
		native,
		heap,
		cpu("rest-unary-get", "rest", "grpc-gateway", 1),
		cpu("rest-unary-post", "rest", "grpc-gateway", 1),
		cpu("rest-unary-post-4KiB", "rest", "grpc-gateway", 1),
	}
}

// measured takes what was measured; a zero spread is none.
func (g *goal) measured(s spread) {
	if s != (spread{}) {
		g.Measured = &s
		g.Met = s.Median <= g.Limit
	}
}
