package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"oneport/mux"
	"oneport/mux/muxtest"
	echopb "oneport/proto/echo"
	pb "oneport/proto/helloworld"
	"oneport/services/echo"
)

// asProgram in the environment makes the test binary the command itself, for what
// only a process has: signals and an end.
const asProgram = "ONEPORT_TEST_AS_PROGRAM"

// patience is how long a test waits before it has gone wrong: on a busy machine what
// takes a millisecond may take seconds.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// program is a run of the command.
type program struct {
	t      *testing.T
	addr   string
	certs  string
	signal func(os.Signal)
	code   chan int
	log    *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs the command on a free port and waits for its address.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	p, args := newProgram(t, args)
	signals := make(chan os.Signal, 2)
	p.signal = func(sig os.Signal) { signals <- sig }
	go func() { p.code <- run(args, io.Discard, p.log, signals) }()
	p.waitReady()
	return p
}

// startProcess is start in a process of its own.
func startProcess(t *testing.T, args ...string) *program {
	t.Helper()
	p, args := newProgram(t, args)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	p.signal = func(sig os.Signal) {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
	}
	go func() {
		cmd.Wait()
		p.code <- cmd.ProcessState.ExitCode()
	}()
	p.waitReady()
	return p
}

func newProgram(t *testing.T, args []string) (*program, []string) {
	dir := t.TempDir()
	p := &program{t: t, certs: filepath.Join(dir, "certs"), addr: filepath.Join(dir, "addr"), code: make(chan int, 1), log: new(logBuffer)}
	return p, append([]string{"--addr=127.0.0.1:0", "--addr-file=" + p.addr, "--cert-dir=" + p.certs}, args...)
}

// waitReady reads the address from the file that p.addr names.
func (p *program) waitReady() {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if b, err := os.ReadFile(p.addr); err == nil {
			addr, ok := strings.CutSuffix(string(b), "\n")
			if !ok {
				p.t.Fatalf("--addr-file holds %q: not written whole", b)
			}
			p.addr = addr
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("no address after %v; log:\n%s", patience, p.log)
		}
		select {
		case code := <-p.code:
			p.t.Fatalf("exit code %d; log:\n%s", code, p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *program) stop(sig os.Signal, want int) {
	p.t.Helper()
	p.signal(sig)
	p.wait(want)
}

func (p *program) wait(want int) {
	p.t.Helper()
	select {
	case code := <-p.code:
		if code != want {
			p.t.Errorf("exit code %d, want %d; log:\n%s", code, want, p.log)
		}
	case <-time.After(patience):
		p.t.Fatalf("still running; log:\n%s", p.log)
	}
}

func (p *program) roots() *x509.CertPool {
	p.t.Helper()
	pem, err := os.ReadFile(filepath.Join(p.certs, "ca.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		p.t.Fatal("no certificate in ca.pem")
	}
	return pool
}

func (p *program) hello(creds credentials.TransportCredentials) (string, error) {
	p.t.Helper()
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		p.t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := pb.NewGreeterClient(cc).SayHello(ctx, &pb.HelloRequest{Name: "you"})
	return reply.GetMessage(), err
}

func (p *program) get(url string, cfg *tls.Config) (*http.Response, error) {
	t := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
	c := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(url)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

func TestServes(t *testing.T) {
	p := start(t)
	for name, creds := range map[string]credentials.TransportCredentials{
		"cleartext": insecure.NewCredentials(),
		"TLS":       credentials.NewTLS(&tls.Config{RootCAs: p.roots()}),
	} {
		if got, err := p.hello(creds); err != nil || got != "Hello you" {
			t.Errorf("SayHello in %s = %q, %v; want Hello you", name, got, err)
		}
	}
	if !strings.Contains(p.log.String(), filepath.Join(p.certs, "ca.pem")) {
		t.Errorf("the log does not name the CA:\n%s", p.log)
	}
	p.stop(os.Interrupt, 0)
	if _, err := net.Dial("tcp", p.addr); err == nil {
		t.Error("the port is still open")
	}
}

// Clients run in other directories, so the log names the CA by a path that holds there too.
func TestLogNamesCA(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "--cert-dir=here")
	p.stop(os.Interrupt, 0)
	if want := filepath.Join(dir, "here", "ca.pem"); !strings.Contains(p.log.String(), want) {
		t.Errorf("no %s in the log:\n%s", want, p.log)
	}
}

func TestTLSModes(t *testing.T) {
	t.Run("only", func(t *testing.T) {
		p := start(t, "--tls=only")
		resp, err := p.get("http://"+p.addr+"/x?y=z", nil)
		if err != nil || resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != "https://"+p.addr+"/x?y=z" {
			t.Errorf("cleartext GET: %v, %v; want a redirect to https", resp, err)
		}
		if resp, err := p.get("https://"+p.addr+"/healthz", &tls.Config{RootCAs: p.roots()}); err != nil || resp.StatusCode != 200 {
			t.Errorf("https: %v, %v", resp, err)
		}
		p.stop(os.Interrupt, 0)
	})
	t.Run("off", func(t *testing.T) {
		p := start(t, "--tls=off")
		if _, err := p.get("https://"+p.addr+"/healthz", &tls.Config{InsecureSkipVerify: true}); err == nil {
			t.Error("https answers with --tls=off")
		}
		if _, err := os.Stat(p.certs); err == nil {
			t.Error("certificates were made with --tls=off")
		}
		p.stop(os.Interrupt, 0)
	})
}

// One HTTP/2 connection that begins with gRPC goes on with a page if it is shared.
func TestHTTP2Modes(t *testing.T) {
	for mode, want := range map[string]int{"native": http.StatusUnsupportedMediaType, "shared": http.StatusOK} {
		p := start(t, "--tls=off", "--http2="+mode)
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: &protocols, MaxConnsPerHost: 1}
		call, err := http.NewRequest("POST", "http://"+p.addr+"/helloworld.Greeter/SayHello", strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		call.Header.Set("Content-Type", "application/grpc")
		page, err := http.NewRequest("GET", "http://"+p.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			req  *http.Request
			want int
		}{{call, http.StatusOK}, {page, want}} {
			resp, err := tr.RoundTrip(tt.req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("%s: %s %s = %s, want %d", mode, tt.req.Method, tt.req.URL, resp.Status, tt.want)
			}
		}
		tr.CloseIdleConnections()
		p.stop(os.Interrupt, 0)
	}
}

func TestAllowOrigin(t *testing.T) {
	p := start(t, "--tls=off", "--allow-origin=https://app.example.com,https://other.example.com")
	for origin, want := range map[string]string{"https://other.example.com": "https://other.example.com", "https://evil.example": ""} {
		req, err := http.NewRequest("POST", "http://"+p.addr+"/helloworld.Greeter/SayHello", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Origin", origin)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("a call from %s allows %q, want %q", origin, got, want)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	p.stop(os.Interrupt, 0)
}

// The files of one program's development certificate serve another as given ones,
// and its CA as client CA.
func TestGivenFiles(t *testing.T) {
	dev := start(t)
	file := func(name string) string { return filepath.Join(dev.certs, name) }
	p := start(t, "--cert="+file("server.pem"), "--key="+file("server-key.pem"), "--client-ca="+file("ca.pem"), "--tls=only")
	cfg := &tls.Config{RootCAs: dev.roots()}
	if _, err := p.get("https://"+p.addr+"/healthz", cfg); err == nil {
		t.Error("served without a client certificate")
	}
	p.stop(os.Interrupt, 0)

	p = start(t, "--client-ca="+file("ca.pem"))
	if !strings.Contains(p.log.String(), "--tls=only") {
		t.Errorf("no warning that cleartext needs no certificate; log:\n%s", p.log)
	}
	p.stop(os.Interrupt, 0)
	dev.stop(os.Interrupt, 0)
}

func TestExitCodes(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir, broken := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "ca.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		text string // in what is printed
	}{
		{"help", []string{"--help"}, 0, "--addr"},
		{"version", []string{"--version"}, 0, "oneport "},
		{"unknown flag", []string{"--nope"}, 2, "--nope"},
		{"bad enum", []string{"--tls=maybe"}, 2, "both"},
		{"bad HTTP/2 mode", []string{"--http2=both"}, 2, "native"},
		{"bad origin", []string{"--allow-origin=app.example.com"}, 2, `--allow-origin: "app.example.com" is not an origin: want scheme://host`},
		{"bad level", []string{"--log-level=loud"}, 2, `--log-level: "loud" is not debug, info, warn or error`},
		{"bad format", []string{"--log-format=xml"}, 2, `--log-format must be one of "text","json" but got "xml"`},
		{"no unit", []string{"--drain-timeout=5"}, 2, `--drain-timeout: "5" is not a duration, such as 30s`},
		{"no duration", []string{"--drain-delay=soon"}, 2, `--drain-delay: "soon" is not a duration, such as 30s`},
		{"argument", []string{"serve"}, 2, "serve"},
		{"cert without key", []string{"--cert=x"}, 2, "--cert and --key go together"},
		{"client CA without TLS", []string{"--tls=off", "--client-ca=x"}, 2, "drop --tls=off"},
		{"drain timeout", []string{"--drain-timeout=0s"}, 2, "--drain-timeout"},
		{"drain delay", []string{"--drain-delay=-1s"}, 2, "must not be negative"},
		{"drain delay of the timeout", []string{"--drain-delay=9s", "--drain-timeout=9s"}, 2, "--drain-delay 9s leaves calls no time to end, as --drain-timeout 9s includes it: make --drain-timeout longer"},
		{"drain delay of the default timeout", []string{"--drain-delay=30s"}, 2, "--drain-timeout 30s includes it"},
		{"missing cert", []string{"--cert=" + dir + "/c", "--key=" + dir + "/k"}, 1, "--cert, --key: certs: certificate: open " + dir + "/c"},
		{"missing client CA", []string{"--cert-dir=" + dir, "--client-ca=" + dir + "/a"}, 1, "--client-ca: certs: client CA: open " + dir + "/a"},
		{"broken development certificate", []string{"--cert-dir=" + broken}, 1, "--cert-dir: certs: open " + broken},
		{"address in use", []string{"--tls=off", "--addr=" + busy.Addr().String()}, 3, "choose another --addr"},
		{"no such address", []string{"--tls=off", "--addr=192.0.2.1:0"}, 3, "choose another --addr"},
		{"port alone", []string{"--addr=8080"}, 2, "such as 127.0.0.1:8080, or :8080"},
		{"port too high", []string{"--addr=:65536"}, 2, "is not HOST:PORT"},
		{"addr file", []string{"--tls=off", "--addr=127.0.0.1:0", "--addr-file=" + dir + "/none/addr"}, 1, "cannot write --addr-file\" file=" + dir + "/none/addr"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			code := run(tt.args, &out, &out, make(chan os.Signal))
			if code != tt.code || !strings.Contains(out.String(), tt.text) {
				t.Errorf("%q: exit code %d, printed %q; want %d with %q", tt.args, code, &out, tt.code, tt.text)
			}
		})
	}
}

// Nobody finds the address of a process before in the file of one that does not listen yet.
func TestOldAddrFile(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "addr")
	if err := os.WriteFile(file, []byte("127.0.0.1:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run([]string{"--tls=off", "--addr=" + busy.Addr().String(), "--addr-file=" + file}, &out, &out, make(chan os.Signal)); code != exitListen {
		t.Errorf("exit code %d, printed %q; want %d", code, &out, exitListen)
	}
	if b, err := os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file holds %q, %v; want none", b, err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("ONEPORT_TLS", "off")
	t.Setenv("ONEPORT_LOG_FORMAT", "json")
	t.Setenv("ONEPORT_VERSION", "1.2.3") // an image's label, not a request
	p := start(t)
	p.stop(os.Interrupt, 0)
	if log := p.log.String(); !strings.HasPrefix(log, "{") || !strings.Contains(log, `"tls":"off"`) {
		t.Errorf("log = %s, want JSON that says TLS is off", log)
	}
}

// An error names the variable that has set the flag it blames, unless the command line has.
func TestBadEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		args        []string
		want        string // after the error; "" for none
	}{
		{"ONEPORT_TLS", "foo", nil, `(from envar ONEPORT_TLS="foo")`},
		{"ONEPORT_TLS", "off", []string{"--tls=foo"}, ""},
		{"ONEPORT_ADDR", "8080", nil, `(from envar ONEPORT_ADDR="8080")`},
		{"ONEPORT_DRAIN_TIMEOUT", "5", nil, `(from envar ONEPORT_DRAIN_TIMEOUT="5")`},
		{"ONEPORT_CERT", "x", nil, `(from envar ONEPORT_CERT="x")`},
		{"ONEPORT_CERT_DIR", "x", []string{"--cert=x"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			var out bytes.Buffer
			code := run(tt.args, io.Discard, &out, make(chan os.Signal))
			said, _, _ := strings.Cut(out.String(), "\n")
			if code != 2 || strings.Count(said, "ONEPORT_") != strings.Count(tt.want, "ONEPORT_") || !strings.HasSuffix(said, tt.want) {
				t.Errorf("%s=%s and %q: exit code %d, printed %q; want 2 with %q at the end", tt.name, tt.value, tt.args, code, said, tt.want)
			}
		})
	}
}

// Whoever reads the address file finds the old text or the new, never a part.
func TestWriteAddr(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "addr")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := writeAddr(file, &net.TCPAddr{IP: net.IPv6loopback, Port: 8080}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(reader); err != nil || string(b) != "old" {
		t.Errorf("a reader from before finds %q, %v; want the old text", b, err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "[::1]:8080\n" {
		t.Errorf("the file holds %q, %v; want the address and a newline", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v; want the file alone", left, err)
	}
}

// After SIGTERM the port goes on accepting while it is not ready; a second
// signal ends that, and the program, at once.
func TestDrainDelayAndSecondSignal(t *testing.T) {
	p := start(t, "--tls=off", "--drain-delay=1h", "--drain-timeout=2h")
	p.signal(syscall.SIGTERM)
	deadline := time.Now().Add(patience)
	for {
		resp, err := p.get("http://"+p.addr+"/readyz", nil)
		if err != nil {
			t.Fatalf("the port has closed before its time: %v", err)
		}
		if resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("still ready after SIGTERM")
		}
	}
	if got, err := p.hello(insecure.NewCredentials()); err != nil || got != "Hello you" {
		t.Errorf("SayHello while draining = %q, %v", got, err)
	}
	for deadline = time.Now().Add(20 * time.Second); ; {
		p.signal(syscall.SIGTERM) // of no effect at first
		select {
		case code := <-p.code:
			if code != 1 {
				t.Errorf("exit code %d after a second signal, want 1; log:\n%s", code, p.log)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running; log:\n%s", p.log)
		}
	}
}

// What cuts calls at the end of the timeout is not an error; and a timeout may be shorter
// than the default of the delay.
func TestDrainTimeout(t *testing.T) {
	p := start(t, "--tls=off", "--drain-timeout=50ms")
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	stream, err := echopb.NewEchoServiceClient(cc).Expand(t.Context(), &echopb.ExpandRequest{Count: 2, Interval: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM, 0)
	if !strings.Contains(p.log.String(), "cut what was left") {
		t.Errorf("the log does not tell that a call was cut:\n%s", p.log)
	}
}

// The delay by default is 5 s, if the timeout has room for it.
func TestDrainDelayDefault(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		30 * time.Second: 5 * time.Second,
		10 * time.Second: 5 * time.Second,
		9 * time.Second:  4500 * time.Millisecond,
		1:                0,
	} {
		f := flags{DrainTimeout: timeout}
		if got := f.drainDelay(); got != want {
			t.Errorf("with a timeout of %v the delay is %v, want %v", timeout, got, want)
		}
	}
}

// The timeout counts from the signal, the delay included, which is for SIGTERM alone.
// Another signal counts from a second on, of whatever kind it is.
func TestDrain(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		sig   os.Signal
		call  time.Duration // how long a call goes on; zero: there is none
		again []time.Duration
		took  time.Duration
		code  int
	}{
		{"nothing to do", syscall.SIGTERM, 0, nil, 4000 * ms, exitClean},
		{"without a delay", os.Interrupt, 0, nil, 0, exitClean},
		{"call", syscall.SIGTERM, 6000 * ms, nil, 6000 * ms, exitClean},
		{"call without a delay", os.Interrupt, 6000 * ms, nil, 6000 * ms, exitClean},
		{"call that is too long", syscall.SIGTERM, time.Hour, nil, 10000 * ms, exitClean},
		{"the same signal again", syscall.SIGTERM, time.Hour, []time.Duration{0, 0, ms, 998 * ms}, 10000 * ms, exitClean},
		{"second signal in the delay", syscall.SIGTERM, 0, []time.Duration{1000 * ms}, 1000 * ms, exitRuntime},
		{"second signal after the same", syscall.SIGTERM, time.Hour, []time.Duration{0, 999 * ms, ms}, 1000 * ms, exitRuntime},
		{"second signal after the delay", syscall.SIGTERM, time.Hour, []time.Duration{0, 5000 * ms}, 5000 * ms, exitRuntime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := muxtest.New(t, func(s *mux.Server) { echo.Register(s) })
				if tt.call > 0 {
					stream, err := echopb.NewEchoServiceClient(s.GRPC()).Expand(t.Context(), &echopb.ExpandRequest{Count: 2, Interval: durationpb.New(tt.call)})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := stream.Recv(); err != nil {
						t.Fatal(err)
					}
				}
				signals := make(chan os.Signal)
				go func() {
					for _, after := range tt.again {
						time.Sleep(after)
						signals <- tt.sig
					}
				}()
				delay, start := 4000*ms, time.Now()
				f := flags{DrainDelay: &delay, DrainTimeout: 10000 * ms}
				code := drain(&f, tt.sig, signals, s.Server, func() {}, slog.New(slog.DiscardHandler))
				if took := time.Since(start); code != tt.code || took != tt.took {
					t.Errorf("exit code %d after %v, want %d after %v", code, took, tt.code, tt.took)
				}
			})
		})
	}
}

// A process that is told to end in the middle of its work finishes what it has
// begun, tells its clients, and exits with 0.
func TestSIGTERM(t *testing.T) {
	p := startProcess(t, "--drain-delay=0s", "--drain-timeout=20s")
	var clients, busy sync.WaitGroup
	// A client calls ready once it is in the middle of something, and returns what
	// went wrong.
	client := func(name string, run func(ready func()) error) {
		busy.Add(1)
		ready := sync.OnceFunc(busy.Done)
		clients.Go(func() {
			defer ready()
			if err := run(ready); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	const messages = 20 // of each stream, 20 ms apart
	for _, cfg := range []*tls.Config{nil, {RootCAs: p.roots()}} {
		creds, ws, web := insecure.NewCredentials(), "ws://", "http://"
		if cfg != nil {
			creds, ws, web = credentials.NewTLS(cfg), "wss://", "https://"
		}
		client("gRPC stream", func(ready func()) error {
			cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(creds))
			if err != nil {
				return err
			}
			defer cc.Close()
			req := &echopb.ExpandRequest{Count: messages, Interval: durationpb.New(20 * time.Millisecond)}
			stream, err := echopb.NewEchoServiceClient(cc).Expand(t.Context(), req)
			for n := 0; err == nil; n++ {
				if _, err = stream.Recv(); err == io.EOF && n == messages {
					return nil
				}
				ready()
			}
			return err
		})
		client("gRPC calls", func(ready func()) error {
			for {
				if _, err := p.hello(creds); status.Code(err) == codes.Unavailable {
					return nil
				} else if err != nil {
					return err
				}
				ready()
			}
		})
		client("HTTP", func(ready func()) error {
			for {
				res, err := p.get(web+p.addr+"/healthz", cfg)
				if err != nil {
					return nil // refused
				}
				if res.StatusCode != 200 {
					return errors.New(res.Status)
				}
				ready()
			}
		})
		socket := func(path, request string, answers, code int) func(func()) error {
			return func(ready func()) error {
				c, _, err := (&websocket.Dialer{TLSClientConfig: cfg}).Dial(ws+p.addr+path, nil)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.WriteMessage(websocket.TextMessage, []byte(request)); err != nil {
					return err
				}
				for n := 0; ; n++ {
					if _, _, err := c.ReadMessage(); n == answers && websocket.IsCloseError(err, code) {
						return nil
					} else if err != nil {
						return fmt.Errorf("after %d messages of %d: %w", n, answers, err)
					}
					ready()
				}
			}
		}
		expand := fmt.Sprintf(`{"count":%d,"interval":"0.02s"}`, messages)
		client("WebSocket stream", socket("/grpc-ws/echo.v1.EchoService/Expand", expand, messages, 1000))
		client("WebSocket call", socket("/grpc-ws", "{}", 1, 1001))
		client("WebSocket echo", socket("/ws", "x", 1, 1001))
	}
	busy.Wait()
	closed := make(chan struct{})
	// The last, since a header must not take long.
	client("half a request", func(ready func()) error {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\n")
		ready()
		<-closed
		fmt.Fprint(c, "Host: x\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(b, []byte("\r\n\r\nok\n")) {
			return fmt.Errorf("answer %q, %w", b, err)
		}
		return nil
	})
	busy.Wait()
	// Once this has been answered that connection has been accepted as well: what the
	// kernel has not passed on is lost with the port.
	if _, err := p.get("http://"+p.addr+"/healthz", nil); err != nil {
		t.Error(err)
	}
	start := time.Now()
	p.signal(syscall.SIGTERM)
	for {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(closed)
	p.wait(0)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the end took %v, nearly all that it may", took)
	}
	clients.Wait()
	if !strings.Contains(p.log.String(), "msg=drained") {
		t.Errorf("not drained; log:\n%s", p.log)
	}
}
