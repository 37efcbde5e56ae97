package conformance

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/mux"
)

// h2specCases is how many cases h2spec has. Fewer prove less than this test says.
const h2specCases = 145

// TestH2spec compares HTTP/2 through the split of a mux.Server with that of net/http
// alone, which fails some cases itself: the split must fail no others.
func TestH2spec(t *testing.T) {
	path, err := exec.Command("go", "tool", "-n", "h2spec").Output()
	if err != nil {
		t.Fatalf("go tool -n h2spec: %v", err)
	}
	tool := strings.TrimSpace(string(path))
	for _, secure := range []bool{false, true} {
		name := "cleartext"
		if secure {
			name = "TLS"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareH2spec(t, tool, secure)
		})
	}
}

func compareH2spec(t *testing.T, tool string, secure bool) {
	quiet := slog.New(slog.DiscardHandler) // of all that is broken on purpose
	opts := []mux.Option{mux.WithLogger(quiet)}
	var cfg *tls.Config
	if secure {
		cfg, _ = newTLS(t)
		opts = append(opts, mux.WithTLSConfig(cfg))
	}
	s := mux.NewServer(opts...)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// All of the body first, which decides whether some requests are malformed.
		// Some cases want an answer with one.
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			io.WriteString(w, "hello")
		}
	})
	s.Handle("/", hello)
	split := h2spec{tool: tool, addr: serve(t, s), secure: secure}
	bare := h2spec{tool: tool, addr: serveBare(t, hello, cfg), secure: secure}
	var both sync.WaitGroup
	for _, h := range []*h2spec{&split, &bare} {
		both.Go(func() { h.run(t.Context(), t.TempDir()) })
	}
	both.Wait()
	if err := errors.Join(split.err, bare.err); err != nil {
		t.Fatal(err)
	}

	t.Logf("%s: %d passed, %d failed through the split; %d passed, %d failed by net/http alone",
		t.Name(), split.passed, len(split.failed), bare.passed, len(bare.failed))
	for _, h := range []h2spec{split, bare} {
		if n := h.passed + len(h.failed); n < h2specCases {
			t.Errorf("h2spec ran %d cases, want %d", n, h2specCases)
		}
	}
	for _, c := range without(split.failed, bare.failed) {
		t.Errorf("fails through the split only: %s", c)
	}
	for _, c := range without(bare.failed, split.failed) {
		t.Logf("fails by net/http alone only: %s", c)
	}
}

// without returns the cases of a that are not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(c string) bool { return slices.Contains(b, c) })
}

// serveBare serves h by net/http alone, under the limits that the HTTP servers of mux
// have.
func serveBare(t *testing.T, h http.Handler, cfg *tls.Config) (addr string) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(cfg != nil)
	protocols.SetUnencryptedHTTP2(cfg == nil)
	s := &http.Server{
		Handler:           h,
		TLSConfig:         cfg,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		if cfg != nil {
			served <- s.ServeTLS(ln, "", "")
		} else {
			served <- s.Serve(ln)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v, want %v", err, http.ErrServerClosed)
		}
	})
	return ln.Addr().String()
}

// h2spec is a run of the tool against a server.
type h2spec struct {
	tool   string
	addr   string
	secure bool

	passed int
	failed []string // or skipped
	err    error
}

// run fills in the result.
func (h *h2spec) run(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	host, port, _ := net.SplitHostPort(h.addr)
	report := filepath.Join(dir, "report.xml")
	// Two seconds for a case whose answer does not come.
	args := []string{"--host", host, "--port", port, "--timeout", "2", "--junit-report", report}
	if h.secure {
		args = append(args, "--tls", "--insecure")
	}
	// The exit code is 1 where a case fails, and in any other trouble; the report is
	// written at the end.
	out, runErr := exec.CommandContext(ctx, h.tool, args...).CombinedOutput()
	b, err := os.ReadFile(report)
	if err != nil {
		h.err = fmt.Errorf("h2spec: %w: %.1000s", errors.Join(runErr, err), out)
		return
	}
	var suites struct {
		Cases []struct {
			Section string    `xml:"package,attr"`
			Name    string    `xml:"classname,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"` // a failure as well: it has the frame that came
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(b, &suites); err != nil {
		h.err = fmt.Errorf("h2spec: report: %w", err)
		return
	}
	number := make(map[string]int) // of the last case of a section
	for _, c := range suites.Cases {
		number[c.Section]++
		if c.Failure == nil && c.Error == nil && c.Skipped == nil {
			h.passed++
			continue
		}
		h.failed = append(h.failed, fmt.Sprintf("%s/%d %s", c.Section, number[c.Section], c.Name))
	}
}
