package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all that a run has measured, and where.
type report struct {
	Time    time.Time         `json:"time"`
	Go      string            `json:"go"`
	Modules map[string]string `json:"modules"`
	Kernel  string            `json:"kernel"`
	CPUs    int               `json:"cpus"`
	Plan    plan              `json:"plan"`
	Results []*result         `json:"results"`
	Stalled *stalledResult    `json:"stalled"` // nil if it was not measured
	Idle    []*idleResult     `json:"idle"`
	Goals   []goal            `json:"goals"`
}

func newReport(p plan) (*report, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("no build information")
	}
	r := &report{
		Time:    time.Now().UTC().Truncate(time.Second),
		Go:      runtime.Version(),
		Modules: make(map[string]string),
		Kernel:  strings.TrimSpace(string(kernel)),
		CPUs:    runtime.NumCPU(),
		Plan:    p,
	}
	for _, m := range info.Deps {
		if m.Replace == nil {
			r.Modules[m.Path] = m.Version
		}
	}
	return r, nil
}

// find returns nil if that was not measured.
func (r *report) find(workload, variant string) *result {
	for _, res := range r.Results {
		if res.Workload == workload && res.Variant == variant {
			return res
		}
	}
	return nil
}

func (r *report) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o666)
}

func (r *report) printHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s, grpc %s, Linux %s, %d CPUs; median (min–max) of %d rounds\n\n",
		r.Go, r.Modules["google.golang.org/grpc"], r.Kernel, r.CPUs, r.Plan.Rounds)
	return err
}

// printResults writes the table of one workload, with CPU time relative to two variants
// and the rate relative to the first of them.
func printResults(w io.Writer, results []*result, to, too string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tCPU µs/op\tCPU, %s = 1\tCPU, %s = 1\top/s\top/s, %s = 1\tallocs/op\tload µs/op\n", results[0].Workload, to, too, to)
	for _, r := range results {
		fmt.Fprintf(t, "  %s\t%v\t%v\t%v\t%.0f\t%v\t%.1f\t%s\n", r.Variant,
			r.CPU, r.CPURatio[to], r.CPURatio[too], r.Rate.Median, r.RateRatio[to], r.Allocs.Median, digits(r.LoadCPU.Median))
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func printIdle(w io.Writer, p idlePlan, results []*idleResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %d connections\tKiB resident\tKiB heap\theap, plain = 1\tKiB stack\n", idleName, p.Conns)
	for _, r := range results {
		fmt.Fprintf(t, "  %s\t%v\t%v\t%v\t%v\n", r.Variant, r.Resident, r.Heap, r.HeapRatio["plain"], r.Stack)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func printStalled(w io.Writer, p idlePlan, r *stalledResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %d calls in flight\tµs p50\tµs p99\tp99, without = 1\n", stalledName, stalledOthers)
	fmt.Fprintf(t, "  %s without a stalled call\t%v\t%v\t\n", r.Variant, r.Without.P50, r.Without.P99)
	fmt.Fprintf(t, "  %s beside a stalled call\t%v\t%v\t%v\n", r.Variant, r.Beside.P50, r.Beside.P99, r.P99Ratio)
	fmt.Fprintln(t)
	fmt.Fprintf(t, "%s, %d connections\tKiB heap\tKiB stack\theap and stack, more than quiet\n", stalledName, p.Conns)
	fmt.Fprintf(t, "  %s with a quiet call\t%v\t%v\t\n", r.Variant, r.Quiet.Heap, r.Quiet.Stack)
	fmt.Fprintf(t, "  %s with a stalled call\t%v\t%v\t%v\n", r.Variant, r.Stalled.Heap, r.Stalled.Stack, r.Held)
	fmt.Fprintln(t)
	return t.Flush()
}

func printGoals(w io.Writer, goals []goal) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "goal\tat most\tmeasured\t")
	for _, g := range goals {
		measured, met := "-", "not measured"
		if g.Measured != nil {
			measured, met = g.Measured.String(), "not met"
		}
		if g.Met {
			met = "met"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", g.Goal, digits(g.Limit), measured, met)
	}
	return t.Flush()
}

func (s spread) String() string {
	if s == (spread{}) {
		return "-"
	}
	return fmt.Sprintf("%s (%s–%s)", digits(s.Median), digits(s.Min), digits(s.Max))
}

// digits writes a figure with three digits.
func digits(v float64) string {
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
