package certs

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDevBrokenFile(t *testing.T) {
	other := newTestCA(t)
	foreign, foreignKey := other.issue(t, nil)
	notCA, notCAKey := other.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = "oneport dev CA 00" })
	ecdhKey, err := x509.MarshalPKCS8PrivateKey(mustECDH(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		files map[string][]byte // nil removes
		names string            // the file that the error must name
		says  string
	}{
		{"CA of rubbish", map[string][]byte{CAFile: []byte("rubbish")}, CAFile, "not a PEM certificate"},
		{"empty CA", map[string][]byte{CAFile: {}}, CAFile, "not a PEM certificate"},
		{"rubbish in PEM", map[string][]byte{CAFile: pemBlock("CERTIFICATE", []byte("x"))}, CAFile, "x509: "},
		{"CA of another key", map[string][]byte{CAFile: other.pem}, CAFile, "not made for ca-key.pem"},
		{"no CA", map[string][]byte{CAFile: notCA, caKeyFile: notCAKey}, CAFile, "not the certificate of a CA"},
		{"huge CA", map[string][]byte{CAFile: make([]byte, maxFile+1)}, CAFile, "larger than 1048576 bytes"},
		{"lost CA key", map[string][]byte{caKeyFile: nil}, caKeyFile, "no such file"},
		{"CA key of rubbish", map[string][]byte{caKeyFile: []byte("rubbish")}, caKeyFile, "not a PEM private key"},
		{"CA key is a certificate", map[string][]byte{caKeyFile: other.pem}, caKeyFile, "not a PEM private key"},
		{"CA key of rubbish in PEM", map[string][]byte{caKeyFile: pemBlock("PRIVATE KEY", []byte("x"))}, caKeyFile, "asn1: "},
		{"CA key that cannot sign", map[string][]byte{caKeyFile: pemBlock("PRIVATE KEY", ecdhKey)}, caKeyFile, "cannot sign"},
		{"leaf of rubbish", map[string][]byte{leafFile: []byte("rubbish")}, leafFile, "not a PEM certificate"},
		{"empty leaf", map[string][]byte{leafFile: {}}, leafFile, "not a PEM certificate"},
		{"huge leaf", map[string][]byte{leafFile: make([]byte, maxFile+1)}, leafFile, "larger than"},
		{"leaf key of rubbish", map[string][]byte{leafKeyFile: []byte("rubbish")}, leafKeyFile, "not a PEM private key"},
		{"a user's leaf", map[string][]byte{leafFile: foreign, leafKeyFile: foreignKey}, leafFile, "someone else"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mustDev(t, dir)
			for name, data := range tt.files {
				if data == nil {
					remove(t, dir, name)
				} else {
					write(t, filepath.Join(dir, name), data)
				}
			}
			before := contents(t, dir)
			_, err := Dev(dir)
			wantError(t, tt.name, err, filepath.Join(dir, tt.names)+": ", tt.says, ": "+errRemake.Error())
			if after := contents(t, dir); after != before {
				t.Errorf("the files have changed:\n%s\nwant\n%s", after, before)
			}
		})
	}

	t.Run("a directory for a file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, CAFile), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Dev(dir)
		wantError(t, t.Name(), err, CAFile, "is a directory", errRemake.Error())
		if got, want := contents(t, dir), CAFile+":\n"; got != want {
			t.Errorf("the directory holds %q, want %q", got, want)
		}
	})
}

func mustECDH(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A process that ends between any two of the files it writes leaves a directory that the next one completes.
func TestDevCompletes(t *testing.T) {
	order := []string{caKeyFile, CAFile, leafKeyFile, leafFile}
	for n := range order {
		dir := t.TempDir()
		mustDev(t, dir)
		remove(t, dir, order[n:]...)
		what := fmt.Sprintf("with %v", order[:n])
		kept := contents(t, dir)
		cfg := mustDev(t, dir)
		wantServed(t, what, cfg, dir)
		remove(t, dir, order[n:]...)
		if got := contents(t, dir); got != kept {
			t.Errorf("%s: these files have changed:\n%s\nwant\n%s", what, got, kept)
		}
	}
}

func TestDevConcurrent(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "dev")
		var cfgs [8]*tls.Config
		var errs [8]error
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range cfgs {
			wg.Go(func() {
				<-start
				cfgs[i], errs[i] = Dev(dir)
			})
		}
		close(start)
		wg.Wait()
		for i := range cfgs {
			if errs[i] != nil {
				t.Fatalf("Dev = %v", errs[i])
			}
			wantServed(t, "started at once", cfgs[i], dir)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != len(devFiles) {
			t.Errorf("%v are left in the directory, want %v", entries, devFiles)
		}
	}
}

func TestDevInMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, []byte("mine"))
	for _, tt := range []struct {
		dir  string
		logs []string
	}{
		{"", nil},
		{file, []string{"not a directory"}},
		{filepath.Join(file, "x"), []string{"not a directory"}},
		{filepath.Join(file, "x", "y"), []string{"not a directory"}},
	} {
		logged := captureLog(t)
		cfg := mustDev(t, tt.dir)
		var want [][]string
		if tt.logs != nil {
			want = [][]string{append(tt.logs, "WARN", "in memory only", tt.dir)}
		}
		logged.want(t, fmt.Sprintf("Dev(%q)", tt.dir), want...)

		if _, err := handshake(cfg, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}); err != nil {
			t.Errorf("Dev(%q): handshake: %v", tt.dir, err)
		}
		leaf := serves(t, cfg)
		if err := leaf.VerifyHostname("localhost"); err != nil {
			t.Errorf("Dev(%q): %v", tt.dir, err)
		}
		if serves(t, mustDev(t, tt.dir)).Equal(leaf) {
			t.Errorf("Dev(%q): the second call gave the certificate of the first", tt.dir)
		}
	}
	if got := read(t, file); string(got) != "mine" {
		t.Errorf("the file in the way now holds %q", got)
	}
}

// longDir returns the path of a directory that does not exist, such that paths of up to room bytes more
// can be used. It is how these tests get a directory in which root, too, can do only some things.
func longDir(t *testing.T, room int) string {
	t.Helper()
	const pathMax = 4096 // with the NUL, limits.h
	dir := t.TempDir()
	size := pathMax - 1 - room
	for size-len(dir) > 250 {
		dir += "/" + strings.Repeat("d", 100)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Skip("no paths of this length: ", err)
	}
	return dir + "/" + strings.Repeat("d", size-len(dir)-1)
}

// A directory that can be neither read nor written, like another user's.
func TestDevClosed(t *testing.T) {
	dir := longDir(t, len("/"))
	logged := captureLog(t)
	cfg := mustDev(t, dir)
	logged.want(t, "closed directory", []string{"WARN", "in memory only", dir, "file name too long"})
	if err := serves(t, cfg).VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
}

// A directory that can only be read: the names of temporary files do not fit.
func TestDevReadOnly(t *testing.T) {
	dir := longDir(t, len("/"+leafKeyFile))
	from := t.TempDir()
	mustDev(t, from)
	if err := os.Rename(from, dir); err != nil {
		t.Skip("no paths of this length: ", err)
	}

	for _, tt := range []struct {
		name   string
		remove []string
		lines  int
		ownCA  bool
	}{
		{"all files", nil, 0, false},
		{"no leaf", []string{leafFile}, 1, false},
		{"no leaf, no key", []string{leafKeyFile}, 1, false},
		{"no CA", []string{CAFile}, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remove(t, dir, tt.remove...) // what an earlier case removed is still missing
			roots := x509.NewCertPool()
			if !tt.ownCA {
				roots = poolOf(t, read(t, dir, CAFile))
			}
			logged := captureLog(t)
			cfg := mustDev(t, dir)
			lines := logged.lines()
			if len(lines) != tt.lines {
				t.Errorf("logged %d lines, want %d: %.200q", len(lines), tt.lines, lines)
			}
			_, err := handshake(cfg, &tls.Config{RootCAs: roots, ServerName: "localhost", InsecureSkipVerify: tt.ownCA})
			if err != nil {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

func TestDevLosesDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		dir := filepath.Join(t.TempDir(), "dev")
		cfg := mustDev(t, dir)
		roots := poolOf(t, read(t, dir, CAFile))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		logged.want(t, "at start")
		for i := range 3 {
			time.Sleep(leafLife)
			if _, err := handshake(cfg, &tls.Config{RootCAs: roots, ServerName: "localhost"}); err != nil {
				t.Errorf("handshake %d: %v", i, err)
			}
		}
		logged.want(t, "three renewals", []string{"WARN", "in memory only", dir, "no such file"})
	})
}
