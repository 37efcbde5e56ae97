package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var devFiles = []string{CAFile, caKeyFile, leafFile, leafKeyFile}

func mustDev(t testing.TB, dir string) *tls.Config {
	t.Helper()
	cfg, err := Dev(dir)
	if err != nil {
		t.Fatalf("Dev(%q) = %v", dir, err)
	}
	return cfg
}

func TestDevFiles(t *testing.T) {
	logged := captureLog(t)
	dir := filepath.Join(t.TempDir(), "certs", "dev")
	cfg := mustDev(t, dir)

	for name, want := range map[string]fs.FileMode{
		"": fs.ModeDir | 0o700, CAFile: 0o644, caKeyFile: 0o600, leafFile: 0o644, leafKeyFile: 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %q = %v, want %v", name, info.Mode(), want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != len(devFiles) {
		t.Errorf("%d files are left in the directory (%v), want %d", len(entries), entries, len(devFiles))
	}

	ca := readCert(t, dir, CAFile)
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("CA has IsCA %v, MaxPathLen %d, KeyUsage %b; want a CA of leaves that only signs certificates",
			ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
	if !strings.HasPrefix(ca.Subject.CommonName, "oneport dev CA ") {
		t.Errorf("CA is named %q, want oneport dev CA and a number", ca.Subject.CommonName)
	}
	if got, want := ca.NotAfter.Sub(ca.NotBefore), caLife+skew; got != want {
		t.Errorf("CA lasts %v, want %v", got, want)
	}

	leaf := readCert(t, dir, leafFile)
	if got, want := fmt.Sprint(leaf.IPAddresses), "[127.0.0.1 ::1]"; got != want {
		t.Errorf("addresses of the leaf = %v, want %v", got, want)
	}
	wantNames := []string{"localhost"}
	if host, _ := os.Hostname(); dnsName(host) != "" && dnsName(host) != "localhost" {
		wantNames = append(wantNames, dnsName(host))
	}
	if got, want := fmt.Sprint(leaf.DNSNames), fmt.Sprint(wantNames); got != want {
		t.Errorf("names of the leaf = %v, want %v", got, want)
	}
	if got, want := leaf.NotAfter.Sub(leaf.NotBefore), leafLife+skew; got != want {
		t.Errorf("leaf lasts %v, want %v", got, want)
	}
	if leaf.IsCA || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("leaf has IsCA %v, ExtKeyUsage %v; want server authentication only", leaf.IsCA, leaf.ExtKeyUsage)
	}
	for _, c := range []*x509.Certificate{ca, leaf} {
		if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
			t.Errorf("%s has a key of %T, want ECDSA P-256", c.Subject.CommonName, c.PublicKey)
		}
	}

	before := contents(t, dir)
	again := mustDev(t, dir)
	if after := contents(t, dir); after != before {
		t.Errorf("second Dev changed the files:\n%s\nwant\n%s", after, before)
	}
	if !serves(t, again).Equal(leaf) || !serves(t, cfg).Equal(leaf) {
		t.Error("the configs of two calls do not both serve the certificate on disk")
	}
	logged.want(t, "two good calls")
}

// contents is all that the files of dir hold.
func contents(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s:\n", e.Name())
		if !e.IsDir() {
			b.Write(read(t, dir, e.Name()))
		}
	}
	return b.String()
}

func TestDevHandshake(t *testing.T) {
	dir := t.TempDir()
	cfg := mustDev(t, dir)
	roots := poolOf(t, read(t, dir, CAFile))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, proto := range []string{"h2", "http/1.1"} {
			for _, name := range append(dnsNames(), "127.0.0.1", "::1") {
				what := fmt.Sprintf("%s %s %s", tls.VersionName(version), proto, name)
				state, err := handshake(cfg, &tls.Config{
					RootCAs: roots, ServerName: name, NextProtos: []string{proto}, MaxVersion: version,
				})
				if err != nil {
					t.Errorf("%s: %v", what, err)
				} else if state.Version != version || state.NegotiatedProtocol != proto {
					t.Errorf("%s: got %s %q", what, tls.VersionName(state.Version), state.NegotiatedProtocol)
				}
			}
		}
	}

	old := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if _, err := handshake(cfg, old); err == nil {
		t.Error("TLS 1.1 was served, want it refused")
	}
	if _, err := handshake(cfg, &tls.Config{RootCAs: roots, ServerName: "example.com"}); err == nil {
		t.Error("the certificate is good for example.com, want it refused")
	}
	if _, err := handshake(cfg, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"other"}}); err == nil {
		t.Error("a client that speaks neither protocol was served, want it refused")
	}
}

// renewAt is the last moment at which leaf is still used.
func renewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

func TestDevRenewsOnLoad(t *testing.T) {
	t.Run("by time", func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			wait  func(leaf *x509.Certificate) time.Duration
			renew bool
		}{
			{"a third is left", func(c *x509.Certificate) time.Duration { return time.Until(renewAt(c)) }, false},
			{"less is left", func(c *x509.Certificate) time.Duration { return time.Until(renewAt(c)) + 1 }, true},
			{"expired", func(c *x509.Certificate) time.Duration { return time.Until(c.NotAfter) + time.Hour }, true},
		} {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				mustDev(t, dir)
				ca, leaf := readCert(t, dir, CAFile), readCert(t, dir, leafFile)
				time.Sleep(tt.wait(leaf))
				cfg := mustDev(t, dir)
				if got := !readCert(t, dir, leafFile).Equal(leaf); got != tt.renew {
					t.Errorf("%s: renewed %v, want %v", tt.name, got, tt.renew)
				}
				if !readCert(t, dir, CAFile).Equal(ca) {
					t.Errorf("%s: the CA has changed", tt.name)
				}
				wantServed(t, tt.name, cfg, dir)
			})
		}
	})

	// Here a leaf that is good at first is spoilt.
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
	}{
		{"another CA", func(t *testing.T, dir string) {
			remove(t, dir, CAFile, caKeyFile)
		}},
		{"another key", func(t *testing.T, dir string) {
			remove(t, dir, leafKeyFile)
		}},
		{"no leaf", func(t *testing.T, dir string) {
			remove(t, dir, leafFile)
		}},
		{"no host name", func(t *testing.T, dir string) {
			if len(dnsNames()) == 1 {
				t.Skip("this host's name is no DNS name")
			}
			spoilLeaf(t, dir, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
		}},
		{"no ::1", func(t *testing.T, dir string) {
			spoilLeaf(t, dir, func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] })
		}},
		{"not yet valid", func(t *testing.T, dir string) {
			spoilLeaf(t, dir, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
		}},
		{"for clients", func(t *testing.T, dir string) {
			spoilLeaf(t, dir, func(c *x509.Certificate) { c.ExtKeyUsage[0] = x509.ExtKeyUsageClientAuth })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mustDev(t, dir)
			tt.spoil(t, dir)
			before, _ := os.ReadFile(filepath.Join(dir, leafFile))
			cfg := mustDev(t, dir)
			if bytes.Equal(read(t, dir, leafFile), before) {
				t.Error("the leaf is the same as before, want a new one")
			}
			wantServed(t, tt.name, cfg, dir)
		})
	}

	t.Run("as good as new", func(t *testing.T) {
		dir := t.TempDir()
		mustDev(t, dir)
		spoilLeaf(t, dir, func(*x509.Certificate) {})
		before := contents(t, dir)
		mustDev(t, dir)
		if after := contents(t, dir); after != before {
			t.Error("spoilLeaf makes leaves that are renewed whatever its argument, so the cases above show nothing")
		}
	})
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
}

// spoilLeaf has the CA in dir issue a leaf as Dev does, but for change.
func spoilLeaf(t *testing.T, dir string, change func(*x509.Certificate)) {
	t.Helper()
	caKey, err := parseKey(read(t, dir, caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{cert: readCert(t, dir, CAFile), key: caKey}
	leaf := readCert(t, dir, leafFile)
	write(t, filepath.Join(dir, leafFile), ca.issueFor(t, leaf.PublicKey, func(c *x509.Certificate) {
		c.Subject.CommonName = leafName
		c.DNSNames = dnsNames()
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		c.NotAfter = c.NotBefore.Add(leafLife)
		change(c)
	}))
}

// wantServed fails unless a client that trusts the CA in dir accepts cfg, and the pair in dir is one.
func wantServed(t testing.TB, what string, cfg *tls.Config, dir string) {
	t.Helper()
	client := &tls.Config{RootCAs: poolOf(t, read(t, dir, CAFile)), ServerName: "localhost"}
	if _, err := handshake(cfg, client); err != nil {
		t.Errorf("%s: handshake: %v", what, err)
	}
	disk, err := tls.LoadX509KeyPair(filepath.Join(dir, leafFile), filepath.Join(dir, leafKeyFile))
	if err != nil {
		t.Errorf("%s: on disk: %v", what, err)
		return
	}
	if _, err := handshake(&tls.Config{Certificates: []tls.Certificate{disk}}, client); err != nil {
		t.Errorf("%s: handshake with the pair on disk: %v", what, err)
	}
}

func TestDevRenewsInHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := mustDev(t, dir)
		first := serves(t, cfg)

		time.Sleep(time.Until(renewAt(first)))
		if !serves(t, cfg).Equal(first) {
			t.Error("renewed while a third of its life was left")
		}
		time.Sleep(time.Nanosecond)
		second := serves(t, cfg)
		if second.Equal(first) {
			t.Error("not renewed when less than a third of its life was left")
		}
		if !readCert(t, dir, leafFile).Equal(second) {
			t.Error("the renewed certificate is not the one on disk")
		}
		wantServed(t, "renewed", cfg, dir)

		// Asleep for so long that the certificate has expired: no handshake may get it.
		time.Sleep(time.Until(second.NotAfter) + time.Hour)
		var wg sync.WaitGroup
		var leaves [16]*x509.Certificate
		for i := range leaves {
			wg.Go(func() { leaves[i] = serves(t, cfg) })
		}
		wg.Wait()
		for _, leaf := range leaves {
			if err := within(leaf, time.Now()); err != nil {
				t.Errorf("a handshake got a certificate that is %v", err)
			}
			if !leaf.Equal(leaves[0]) {
				t.Error("handshakes at the same time got different new certificates")
			}
		}
		wantServed(t, "after a long sleep", cfg, dir)
	})
}

func TestDevEndOfCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		mustDev(t, dir)
		ca := readCert(t, dir, CAFile)
		time.Sleep(time.Until(ca.NotAfter) - 24*time.Hour)
		cfg := mustDev(t, dir)
		leaf := serves(t, cfg)
		if !leaf.NotAfter.Equal(ca.NotAfter) {
			t.Errorf("leaf ends %v, want the end of the CA %v", leaf.NotAfter, ca.NotAfter)
		}
		time.Sleep(time.Until(ca.NotAfter))
		if !serves(t, cfg).Equal(leaf) {
			t.Error("renewed a leaf that already lasts as long as its CA")
		}
		mustDev(t, dir)
		time.Sleep(time.Nanosecond)
		_, err := Dev(dir)
		wantError(t, "expired CA", err, filepath.Join(dir, CAFile), "expired on 2009-12-", errRemake.Error())
	})
}

func wantError(t testing.TB, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one", what)
		return
	}
	for _, w := range append(words, "certs: ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: error %q, want it to contain %q", what, err, w)
		}
	}
}

func TestDNSName(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, label[:61]}, ".")
	for _, tt := range []struct{ host, want string }{
		{"vm", "vm"},
		{"VM-1.Example", "vm-1.example"},
		{"vm.", "vm"},
		{"123", "123"},
		{label, label},
		{label + "a", ""},
		{long, long}, // 253
		{long + "a", ""},
		{"", ""},
		{".", ""},
		{"a..b", ""},
		{"-a", ""},
		{"a-", ""},
		{"my_vm", ""},
		{"vm local", ""},
		{"vmé", ""},
		{"10.0.0.1", ""},
		{"::1", ""},
		{"*.example", ""},
	} {
		if got := dnsName(tt.host); got != tt.want {
			t.Errorf("dnsName(%q) = %q, want %q", tt.host, got, tt.want)
		}
	}
}

// Whatever the host is called, x509 accepts the name that dnsName makes of it.
func FuzzDNSName(f *testing.F) {
	for _, s := range []string{"vm", "VM-1.Example.", "my_vm", "10.0.0.1", "a..b", "1", "xn--a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		name := dnsName(host)
		if name == "" {
			return
		}
		if again := dnsName(name); again != name {
			t.Errorf("dnsName(%q) = %q, want %q", name, again, name)
		}
		cert := &x509.Certificate{DNSNames: []string{name}}
		if err := cert.VerifyHostname(strings.TrimSuffix(host, ".")); err != nil {
			t.Errorf("a certificate for %q: %v", name, err)
		}
	})
}
