// Command oneport serves the example services on one port to clients of every
// protocol. It is wiring only: flags, certificates, services, server.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"oneport/certs"
	"oneport/mux"
	"oneport/proto"
	"oneport/services/echo"
	"oneport/services/greeter"
	"oneport/services/health"
	"oneport/services/reflection"
)

// Exit codes.
const (
	exitClean   = 0
	exitRuntime = 1
	exitUsage   = 2
	exitListen  = 3
)

// flags are the command line; each has an environment name, ONEPORT_ADDR for
// --addr and so on.
type flags struct {
	Addr     string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address to listen on; port 0 picks a free one. Default ${default}."`
	AddrFile string `placeholder:"FILE" help:"Write the real address to FILE once ready."`

	TLS      string `name:"tls" default:"both" enum:"both,only,off" help:"TLS and cleartext on the port: both, only (cleartext is redirected or refused), off. Default ${default}."`
	Cert     string `placeholder:"FILE" help:"Certificate chain in PEM, followed when it changes. Without it a development certificate is made."`
	Key      string `placeholder:"FILE" help:"Private key of --cert in PEM."`
	CertDir  string `default:"certs/dev" placeholder:"DIR" help:"Where the development certificates are kept. Default ${default}."`
	ClientCA string `name:"client-ca" placeholder:"FILE" help:"Require client certificates issued by a CA in FILE (PEM)."`

	HTTP2       string   `name:"http2" env:"ONEPORT_HTTP2" default:"native" enum:"native,shared" help:"An HTTP/2 connection that begins with gRPC: native (carries nothing else) or shared (anything, request by request: for proxies that pool connections). Default ${default}."`
	AllowOrigin []string `placeholder:"ORIGIN" help:"Let pages of these origins (https://app.example.com, or * for all) make calls and open WebSockets."`

	DrainDelay   *time.Duration `placeholder:"DURATION" help:"After SIGTERM, how long to go on accepting while not ready, for load balancers to notice. SIGINT does not wait. Must be below --drain-timeout. Default 5s, or half of --drain-timeout if that is less."`
	DrainTimeout time.Duration  `default:"30s" help:"How long calls in flight may take to end after a signal, the delay included. Another signal a second or more after the first cuts them at once. Default ${default}."`

	LogFormat string `default:"text" enum:"text,json" help:"Log as text or json, to stderr. Default ${default}."`
	LogLevel  level  `default:"info" help:"Least level to log: debug, info, warn or error. Default ${default}."`

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

// level is a slog.Level whose errors name what there is.
type level slog.Level

func (l *level) UnmarshalText(text []byte) error {
	if (*slog.Level)(l).UnmarshalText(text) != nil {
		return fmt.Errorf("%.100q is not debug, info, warn or error", text)
	}
	return nil
}

// parseDuration is kong's, but for an error that names the cure.
func parseDuration(c *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := c.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%.100q is not a duration, such as 30s or 1m30s", text)
	}
	target.SetInt(int64(d))
	return nil
}

// Validate is called by kong.
func (f *flags) Validate() error {
	switch {
	case (f.Cert == "") != (f.Key == ""):
		return errors.New("--cert and --key go together: give both or neither")
	case f.TLS == "off" && (f.Cert != "" || f.ClientCA != ""):
		return errors.New("--cert, --key and --client-ca need TLS: drop --tls=off")
	case checkAddr(f.Addr) != nil:
		return checkAddr(f.Addr)
	case f.DrainTimeout <= 0:
		return errors.New("--drain-timeout must be above zero; it includes --drain-delay")
	case f.drainDelay() < 0:
		return errors.New("--drain-delay must not be negative")
	case f.drainDelay() >= f.DrainTimeout:
		return fmt.Errorf("--drain-delay %v leaves calls no time to end, as --drain-timeout %v includes it: make --drain-timeout longer or --drain-delay shorter", f.drainDelay(), f.DrainTimeout)
	}
	return checkOrigins(f.AllowOrigin)
}

// drainDelay is --drain-delay, or what it is by default.
func (f *flags) drainDelay() time.Duration {
	if f.DrainDelay != nil {
		return *f.DrainDelay
	}
	return min(5*time.Second, f.DrainTimeout/2)
}

// checkAddr takes what can be listened on, as far as that can be told without trying.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("--addr %.100q is not HOST:PORT, such as 127.0.0.1:8080, or :8080 for all addresses", addr)
	}
	return nil
}

// checkOrigins asks mux, which panics as for any option of a program.
func checkOrigins(origins []string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("--allow-origin: %s", strings.TrimPrefix(fmt.Sprint(v), "mux: WithAllowedOrigins: "))
		}
	}()
	mux.WithAllowedOrigins(origins...)
	return nil
}

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, signals))
}

// run is the program; it returns the exit code.
func run(args []string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	var f flags
	exited := -1
	parser, err := kong.New(&f, kong.Name("oneport"), kong.Writers(stdout, stderr),
		kong.Description("One port, every protocol: gRPC, HTTP, HTTPS and WebSocket to one service."),
		kong.DefaultEnvars("ONEPORT"), kong.Vars{"version": version()},
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(parseDuration)),
		kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(stderr, "oneport:", err)
		return exitUsage
	}
	if _, err := parser.Parse(args); exited >= 0 {
		return exited // --help or --version has been answered
	} else if err != nil {
		fmt.Fprintf(stderr, "oneport: %v%s\nRun oneport --help for usage.\n", err, variables(parser.Model.Flags, args, err))
		return exitUsage
	}
	log := newLogger(&f, stderr)
	slog.SetDefault(log)

	if err := removeAddr(f.AddrFile); err != nil {
		log.Error("cannot remove the --addr-file of before", "err", err)
		return exitRuntime
	}
	opts, err := tlsOptions(&f, log)
	if err != nil {
		log.Error(err.Error())
		return exitRuntime
	}
	if f.HTTP2 == "shared" {
		opts = append(opts, mux.WithSharedHTTP2())
	}
	opts = append(opts, mux.WithAllowedOrigins(f.AllowOrigin...), mux.WithOpenAPI(proto.Descriptors))
	server := mux.NewServer(append(opts, mux.WithLogger(log))...)
	greeter.Register(server)
	echo.Register(server)
	status := health.Register(server)
	reflection.Register(server)

	ln, err := net.Listen("tcp", f.Addr)
	if err != nil {
		log.Error("cannot listen; choose another --addr", "err", err)
		return exitListen
	}
	if err := writeAddr(f.AddrFile, ln.Addr()); err != nil {
		ln.Close()
		log.Error("cannot write --addr-file", "file", f.AddrFile, "err", err)
		return exitRuntime
	}
	log.Info("listening", "addr", ln.Addr().String(), "tls", f.TLS)

	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		log.Error("server failed", "err", err)
		return exitRuntime
	case sig := <-signals:
		log.Info("draining; another signal, a second later or more, ends it at once", "signal", sig.String(), "timeout", f.DrainTimeout.String())
		return drain(&f, sig, signals, server, status.Shutdown, log)
	}
}

// variables names those of the environment that an error is about: it blames flags, which
// nobody may have given.
func variables(flags []*kong.Flag, args []string, err error) string {
	blamed := strings.FieldsFunc(err.Error(), func(r rune) bool { return r != '-' && !unicode.IsLower(r) && !unicode.IsDigit(r) })
	var names []string
	for _, f := range flags {
		given := func(arg string) bool { return arg == "--"+f.Name || strings.HasPrefix(arg, "--"+f.Name+"=") }
		if !slices.Contains(blamed, "--"+f.Name) || slices.ContainsFunc(args, given) {
			continue
		}
		for _, name := range f.Envs {
			if value, ok := os.LookupEnv(name); ok && !strings.Contains(err.Error(), name) {
				names = append(names, fmt.Sprintf("%s=%.100q", name, value))
			}
		}
	}
	if names == nil {
		return ""
	}
	return " (from envar " + strings.Join(names, ", ") + ")" // as kong says it of values that it cannot read
}

// sameSignal is how long after a signal another one counts as the same. timeout(1) sends
// one to the process and one to its group; wrappers that pass on what a terminal has sent
// to the whole group do the like.
const sameSignal = time.Second

// drain ends the server in good order: readiness off, time for load balancers
// to notice, then mux.Server.Shutdown. Another signal ends it at once.
func drain(f *flags, sig os.Signal, signals <-chan os.Signal, server *mux.Server, unready func(), log *slog.Logger) int {
	first := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), f.DrainTimeout)
	defer cancel()
	unready()
	delay := f.drainDelay()
	if sig != syscall.SIGTERM {
		delay = 0
	}
	drained := make(chan error, 1)
	go func() {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		drained <- server.Shutdown(ctx)
	}()
	for {
		select {
		case err := <-drained:
			if err != nil {
				log.Warn("drain timeout: cut what was left", "err", err)
			} else {
				log.Info("drained")
			}
			return exitClean
		case sig := <-signals:
			if time.Since(first) < sameSignal {
				log.Debug("signal counted with the first", "signal", sig.String())
				continue
			}
			log.Warn("ended by a second signal", "signal", sig.String())
			server.Close()
			return exitRuntime
		}
	}
}

// tlsOptions turns the flags about TLS into options of the server.
func tlsOptions(f *flags, log *slog.Logger) ([]mux.Option, error) {
	if f.TLS == "off" {
		return nil, nil
	}
	cfg, err := certificate(f, log)
	if err != nil {
		return nil, err
	}
	if f.ClientCA != "" {
		if err := certs.RequireClientCA(cfg, f.ClientCA); err != nil {
			return nil, fmt.Errorf("--client-ca: %w", err)
		}
		if f.TLS == "both" {
			log.Warn("--client-ca does not touch cleartext, which the port serves too; --tls=only refuses it")
		}
	}
	opts := []mux.Option{mux.WithTLSConfig(cfg)}
	if f.TLS == "both" {
		opts = append(opts, mux.WithCleartext())
	}
	return opts, nil
}

func certificate(f *flags, log *slog.Logger) (*tls.Config, error) {
	if f.Cert != "" {
		cfg, err := certs.Files(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert, --key: %w", err)
		}
		return cfg, nil
	}
	cfg, err := certs.Dev(f.CertDir)
	if err != nil {
		return nil, fmt.Errorf("--cert-dir: %w", err)
	}
	if ca := filepath.Join(f.CertDir, certs.CAFile); f.CertDir != "" && exists(ca) {
		if abs, err := filepath.Abs(ca); err == nil {
			ca = abs
		}
		log.Info("development certificate; clients may trust its CA", "ca", ca)
	}
	return cfg, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func newLogger(f *flags, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.Level(f.LogLevel)}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// removeAddr removes the file of a process before, from which nobody is to take its address
// for that of this one.
func removeAddr(file string) error {
	if info, err := os.Lstat(file); err != nil || info.IsDir() {
		return nil // there is none; what is wrong otherwise writeAddr will find
	}
	return os.Remove(file)
}

// writeAddr writes the address so that a reader sees all of it or nothing.
func writeAddr(file string, addr net.Addr) error {
	if file == "" {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".oneport-addr-*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(tmp, addr)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// version is that of the module, or of the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "oneport (unknown version)"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return fmt.Sprintf("oneport %s %s", v, info.GoVersion)
}
