package certs

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A testCA issues what a test needs beside the package's own certificates.
type testCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	_, key := makeKey(t)
	data, err := newCA(key)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{mustParseCert(t, data), key, data}
}

func makeKey(t testing.TB) ([]byte, crypto.Signer) {
	t.Helper()
	data, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return data, key
}

// issue returns PEM of a certificate for localhost, good for an hour from now unless change says
// otherwise, and of its key.
func (ca *testCA) issue(t testing.TB, change func(*x509.Certificate)) (certPEM, keyPEM []byte) {
	t.Helper()
	keyPEM, key := makeKey(t)
	return ca.issueFor(t, key.Public(), change), keyPEM
}

func (ca *testCA) issueFor(t testing.TB, public crypto.PublicKey, change func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "test"},
		DNSNames:    []string{"localhost"},
		NotBefore:   time.Now(),
		NotAfter:    time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return pemCert(der)
}

func mustParseCert(t testing.TB, data []byte) *x509.Certificate {
	t.Helper()
	cert, err := parseCert(data)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func readCert(t testing.TB, path ...string) *x509.Certificate {
	t.Helper()
	return mustParseCert(t, read(t, path...))
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func poolOf(t testing.TB, data []byte) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatalf("no certificate in %q", data)
	}
	return pool
}

// serves returns the certificate that cfg gives to the next handshake.
func serves(t testing.TB, cfg *tls.Config) *x509.Certificate {
	t.Helper()
	c, err := cfg.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// handshake connects client to server in memory. The error is the client's, also when the server refuses
// the client only after the client's handshake has ended, as TLS 1.3 does.
func handshake(server, client *tls.Config) (tls.ConnectionState, error) {
	// A buffer, as both sides of TLS 1.2 write at once when the server refuses.
	ln := bufconn.Listen(1 << 16)
	defer ln.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		c := tls.Server(conn, server)
		if c.Handshake() == nil {
			io.WriteString(c, "served")
		}
	})
	defer wg.Wait()
	conn, err := ln.Dial()
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	if err := c.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err = io.ReadFull(c, make([]byte, len("served")))
	return c.ConnectionState(), err
}

// A logBuffer holds what was logged through the default logger since the last call of lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func captureLog(t testing.TB) *logBuffer {
	l := new(logBuffer)
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(os.Stderr) // slog.SetDefault had redirected it
	})
	return l
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines returns the lines since the last call.
func (l *logBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

// want fails unless exactly one line was logged for each element, and holds the element's words.
func (l *logBuffer) want(t testing.TB, what string, words ...[]string) {
	t.Helper()
	lines := l.lines()
	if len(lines) != len(words) {
		t.Errorf("%s: logged %q, want %d lines", what, lines, len(words))
		return
	}
	for i, line := range lines {
		for _, w := range words[i] {
			if !strings.Contains(line, w) {
				t.Errorf("%s: logged %q, want it to contain %q", what, line, w)
			}
		}
	}
}

func pemBlock(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}
