package mux_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "oneport/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestImports keeps the parts apart: what is written here is why a protocol can
// be added without touching another, and why a service can leave for another
// server.
func TestImports(t *testing.T) {
	ours := []string{"oneport/mux/internal/rpc", "oneport/mux/internal/socket"}
	rules := []struct {
		of     string   // a package, or with /... all below
		only   []string // of this module, if not nil; /... as well
		never  []string
		reason string
	}{
		{of: "oneport/proto/...", only: []string{}, reason: "generated code stands alone"},
		{of: "oneport/services/...", only: []string{"oneport/proto/...", "oneport/services/internal/..."},
			reason: "a service knows nothing of the server it runs in"},
		{of: "oneport/certs", only: []string{}, reason: "certificates are not the server's business"},
		{of: "oneport/mux/internal/rpc", only: []string{}, never: []string{"net/http", "github.com/soheilhy/cmux", "github.com/gorilla/websocket"},
			reason: "the core knows no protocol"},
		{of: "oneport/mux/internal/ready", only: []string{}, reason: "it reads, and knows not what"},
		{of: "oneport/mux/internal/sniff", only: []string{"oneport/mux/internal/ready"}, never: []string{"net/http", "github.com/gorilla/websocket"},
			reason: "the split serves nothing itself"},
		{of: "oneport/mux/internal/socket", only: []string{"oneport/mux/internal/ready"}, never: []string{"google.golang.org/grpc"},
			reason: "a socket carries any messages"},
		{of: "oneport/mux/internal/xconnect", only: []string{}, never: []string{"github.com/gorilla/websocket", "google.golang.org/grpc"},
			reason: "it knows upgrades, not who upgrades"},
		{of: "oneport/mux/internal/connectrpc", only: []string{"oneport/mux/internal/rpc"},
			never:  []string{"google.golang.org/grpc", "github.com/gorilla/websocket", "github.com/soheilhy/cmux"},
			reason: "adapters know the core, not each other and not mux"},
		{of: "oneport/mux/internal/rest", only: []string{"oneport/mux/internal/rpc"},
			never:  []string{"google.golang.org/grpc", "github.com/gorilla/websocket", "github.com/soheilhy/cmux"},
			reason: "adapters know the core, not each other and not mux"},
		{of: "oneport/mux/internal/openapi", only: []string{"oneport/mux/internal/rest", "oneport/mux/internal/rpc"},
			reason: "it describes what rest serves"},
		{of: "oneport/mux/wsrpc", only: ours, reason: "adapters know the core, not each other and not mux"},
		{of: "oneport/mux/tunnel", only: []string{"oneport/mux/internal/socket"}, reason: "a tunnel carries any bytes"},
		{of: "oneport/mux", only: append(ours, "oneport/mux/internal/connectrpc", "oneport/mux/internal/openapi", "oneport/mux/internal/rest", "oneport/mux/internal/sniff", "oneport/mux/internal/xconnect", "oneport/mux/tunnel", "oneport/mux/wsrpc"),
			reason: "the library knows no service and no certificate"},
	}
	pkgs := listPackages(t)
	for _, rule := range rules {
		found := false
		for _, p := range pkgs {
			if !covers(rule.of, p.ImportPath) {
				continue
			}
			found = true
			for _, imp := range p.Imports {
				inside := strings.HasPrefix(imp, "oneport/")
				allowed := slices.ContainsFunc(rule.only, func(o string) bool { return covers(o, imp) })
				if inside && !allowed || slices.Contains(rule.never, imp) {
					t.Errorf("%s must not import %s: %s", p.ImportPath, imp, rule.reason)
				}
			}
		}
		if !found {
			t.Errorf("no package %s: the rule about it checks nothing", rule.of)
		}
	}
}

func covers(pattern, path string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	return path == prefix || below && strings.HasPrefix(path, prefix+"/")
}

// TestDependencies lists the modules that a program gets with the library. One more
// is to be weighed, not to slip in.
func TestDependencies(t *testing.T) {
	want := []string{
		"connectrpc.com/connect/v2",
		"github.com/gorilla/websocket",
		"github.com/soheilhy/cmux",
		"golang.org/x/net",
		"golang.org/x/sys",
		"golang.org/x/text",
		"golang.org/x/time",
		"google.golang.org/genproto/googleapis/api",
		"google.golang.org/genproto/googleapis/rpc",
		"google.golang.org/grpc",
		"google.golang.org/protobuf",
		"oneport",
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "oneport/mux").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("oneport/mux depends on\n%q, want\n%q", got, want)
	}
}

// TestVersionFloors fails where a dependency is older than the fix of a flaw that
// can be reached from the network here.
func TestVersionFloors(t *testing.T) {
	floors := map[string]string{
		"google.golang.org/grpc":     "v1.82.1",  // GHSA-hrxh-6v49-42gf
		"golang.org/x/net":           "v0.51.0",  // CVE-2026-27141
		"google.golang.org/protobuf": "v1.33.0",  // CVE-2024-24786
		"go":                         "go1.26.6", // CVE-2026-56853, in net/http
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "all").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	for line := range strings.Lines(string(out) + "go " + string(version)) {
		path, got, _ := strings.Cut(strings.TrimSpace(line), " ")
		floor, ok := floors[path]
		if !ok || got == "" {
			continue
		}
		if older(got, floor) {
			t.Errorf("%s is %s, want at least %s", path, got, floor)
		}
		delete(floors, path)
	}
	for path := range floors {
		t.Errorf("%s is not among the modules: its floor checks nothing", path)
	}
}

// older compares versions of three numbers.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

func numbers(v string) []int {
	v = strings.TrimPrefix(strings.TrimPrefix(v, "go"), "v")
	var ns []int
	for part := range strings.SplitSeq(v, ".") {
		n := 0
		for _, c := range part {
			if c < '0' || c > '9' {
				break
			}
			n = n*10 + int(c-'0')
		}
		ns = append(ns, n)
	}
	return ns
}
