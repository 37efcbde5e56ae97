package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The processes that bench starts are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve" {
		variants = append(variants, faultyVariant)
		main()
		return
	}
	os.Exit(m.Run())
}

var faultyVariant = variant{
	name: "faulty",
	serve: func(ln net.Listener, _ service) error {
		return servePlain(ln, (&faulty{texts: []string{"something else"}}).register)
	},
	dial: dialGRPC,
}

func runBench(t *testing.T, only string) (*report, string, error) {
	t.Helper()
	var out bytes.Buffer
	b := &bench{out: &out, only: regexp.MustCompile(only), plan: plan{
		Rounds: 3, Turns: 2, Turn: time.Millisecond, Idle: idlePlan{Rounds: 2, Conns: 37}, Stalled: idlePlan{Rounds: 1, Conns: 17},
	}}
	r, err := b.run()
	return r, out.String(), err
}

func TestBench(t *testing.T) {
	r, out, err := runBench(t, "^(unary-32B-64-on-4|connect|idle|stalled)/(native|grpc-ws)")
	if err != nil {
		t.Fatal(err)
	}
	for _, workload := range []string{"unary-32B-64-on-4", "connect"} {
		for _, variant := range []string{"native", "grpc-ws.v1"} {
			res := r.find(workload, variant)
			if res == nil {
				t.Fatalf("%s/%s was not measured:\n%s", workload, variant, out)
			}
			if len(res.Rounds) != 3 {
				t.Errorf("%s/%s: %d rounds, want 3", workload, variant, len(res.Rounds))
			}
			for _, s := range res.Rounds {
				// No call is made without all of these.
				if s.Ops < 2 || s.CPU <= 0 || s.LoadCPU <= 0 || s.Elapsed < 2*time.Millisecond || s.allocs() < 1 {
					t.Errorf("%s/%s: %+v", workload, variant, s)
				}
			}
		}
	}
	if len(r.Results) != 4 || len(r.Idle) != 2 {
		t.Errorf("%d results and %d of idle connections, want 4 and 2:\n%s", len(r.Results), len(r.Idle), out)
	}
	for _, res := range r.Idle {
		// Each connection is some structs at least. What is resident is no measure of a few.
		if len(res.Rounds) != 2 || res.Heap.Min < 1 {
			t.Errorf("idle/%s: %+v", res.Variant, res)
		}
	}
	if r.Stalled == nil {
		t.Fatalf("stalled was not measured:\n%s", out)
	}
	for _, l := range []latencyResult{r.Stalled.Without, r.Stalled.Beside} {
		if len(l.Rounds) != 3 {
			t.Errorf("stalled: %d rounds, want 3", len(l.Rounds))
		}
		for _, s := range l.Rounds {
			if s.Calls < 2*stalledOthers || s.P50 <= 0 || s.P99 < s.P50 { // in two turns
				t.Errorf("stalled: %+v", s)
			}
		}
	}
	// The text that the handler has in its hands. Stacks of a few connections are no measure.
	held := r.Stalled.Stalled.Heap.Median - r.Stalled.Quiet.Heap.Median
	if len(r.Stalled.Quiet.Rounds) != 1 || held < stalledSize/1024 {
		t.Errorf("stalled: %+v and %+v", r.Stalled.Quiet, r.Stalled.Stalled)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := r.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var read report
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&read, r) {
		t.Errorf("JSON is of %+v, want %+v", read, *r)
	}
	if r.Go == "" || r.Kernel == "" || r.CPUs == 0 {
		t.Errorf("where: %+v", *r)
	}
	for _, want := range []string{"unary-32B-64-on-4 ", "  grpc-ws.v1 ", "idle, 37 connections", "beside a stalled call", "stalled, 17 connections", "not measured"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the output:\n%s", want, out)
		}
	}
}

func TestBenchFails(t *testing.T) {
	defer func(old []variant) { variants = old }(variants)
	variants = append(variants[:len(variants):len(variants)], faultyVariant)
	for _, only := range []string{"unary-32B-1-on-1/faulty", "push-32B/faulty", "connect/faulty", "idle/faulty"} {
		r, out, err := runBench(t, only)
		if err == nil || !strings.Contains(err.Error(), "faulty: ") || !strings.Contains(err.Error(), "another message") {
			t.Errorf("%s: %v, %v, want an error about another message:\n%s", only, r, err, out)
		}
	}
}
