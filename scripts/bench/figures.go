package main

import (
	"math"
	"slices"
)

// spread sums up what was measured several times.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf needs at least one value.
func spreadOf(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// quantile is the least of sorted that a part p of it does not exceed; it needs at
// least one value.
func quantile[T any](sorted []T, p float64) T {
	return sorted[max(int(math.Ceil(p*float64(len(sorted))))-1, 0)]
}

// cpu is what an operation costs, in microseconds.
func (s sample) cpu() float64 { return s.CPU.Seconds() / float64(s.Ops) * 1e6 }

// loadCPU is what it costs the load, in microseconds.
func (s sample) loadCPU() float64 { return s.LoadCPU.Seconds() / float64(s.Ops) * 1e6 }

// rate is operations in a second.
func (s sample) rate() float64 { return float64(s.Ops) / s.Elapsed.Seconds() }

// allocs is heap allocations of an operation.
func (s sample) allocs() float64 { return float64(s.Allocs) / float64(s.Ops) }

// result is what was measured of one variant under one workload.
type result struct {
	Workload string   `json:"workload"`
	Variant  string   `json:"variant"`
	Rounds   []sample `json:"rounds"`

	CPU     spread `json:"cpu_us_per_op"`
	LoadCPU spread `json:"load_cpu_us_per_op"`
	Rate    spread `json:"ops_per_second"`
	Allocs  spread `json:"allocs_per_op"`

	// To other variants, by name: in each round, and of those ratios the median.
	// So what slows the machine down for a while counts for both.
	CPURatio  map[string]spread `json:"cpu_ratio"`
	RateRatio map[string]spread `json:"rate_ratio"`
}

// references are the variants that others are compared with.
var references = []string{"native", "plain", "dialling", "grpc-gateway", "rest"}

// sumUp fills in what follows from the rounds. All of results are of one workload and
// have the same rounds.
func sumUp(results []*result) {
	for _, r := range results {
		r.CPU = spreadOf(each(r.Rounds, sample.cpu))
		r.LoadCPU = spreadOf(each(r.Rounds, sample.loadCPU))
		r.Rate = spreadOf(each(r.Rounds, sample.rate))
		r.Allocs = spreadOf(each(r.Rounds, sample.allocs))
		r.CPURatio, r.RateRatio = make(map[string]spread), make(map[string]spread)
		for _, to := range results {
			if slices.Contains(references, to.Variant) {
				r.CPURatio[to.Variant] = spreadOf(ratios(r.Rounds, to.Rounds, sample.cpu))
				r.RateRatio[to.Variant] = spreadOf(ratios(r.Rounds, to.Rounds, sample.rate))
			}
		}
	}
}

func each[S any](rounds []S, f func(S) float64) []float64 {
	var values []float64
	for _, s := range rounds {
		values = append(values, f(s))
	}
	return values
}

func ratios[S any](rounds, to []S, f func(S) float64) []float64 {
	var values []float64
	for i := range rounds {
		values = append(values, f(rounds[i])/f(to[i]))
	}
	return values
}
