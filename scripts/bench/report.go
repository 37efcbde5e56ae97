package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// printResults writes the table of one workload.
func printResults(w io.Writer, results []*result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tCPU µs/op (min–max)\tCPU, native = 1\tCPU, dialling = 1\top/s\top/s, native = 1\tallocs/op\n", results[0].Workload)
	for _, r := range results {
		fmt.Fprintf(t, "  %s\t%s (%s–%s)\t%s\t%s\t%.0f\t%s\t%.1f\n", r.Variant,
			digits(r.CPU.Median), digits(r.CPU.Min), digits(r.CPU.Max),
			ratio(r.CPURatio, "native"), ratio(r.CPURatio, "dialling"),
			r.Rate.Median, ratio(r.RateRatio, "native"), r.Allocs.Median)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func ratio(m map[string]spread, to string) string {
	s, ok := m[to]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

// digits writes a figure with three digits.
func digits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
