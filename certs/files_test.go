package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pairDir holds the two files of a server. Its CA is made on first use, as time differs in a bubble.
type pairDir struct {
	t         testing.TB
	ca        *testCA
	cert, key string
}

func newPairDir(t testing.TB) *pairDir {
	dir := t.TempDir()
	return &pairDir{t, newTestCA(t), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
}

// named returns a pair whose certificate has the common name cn.
func (d *pairDir) named(cn string) (certPEM, keyPEM []byte) {
	d.t.Helper()
	return d.ca.issue(d.t, func(c *x509.Certificate) {
		c.Subject.CommonName = cn
		c.NotAfter = c.NotBefore.Add(24 * time.Hour)
	})
}

func (d *pairDir) put(certPEM, keyPEM []byte) {
	d.t.Helper()
	write(d.t, d.cert, certPEM)
	write(d.t, d.key, keyPEM)
}

func (d *pairDir) files() *tls.Config {
	d.t.Helper()
	cfg, err := Files(d.cert, d.key)
	if err != nil {
		d.t.Fatalf("Files = %v", err)
	}
	return cfg
}

func wantName(t testing.TB, what string, cfg *tls.Config, cn string) {
	t.Helper()
	if got := serves(t, cfg).Subject.CommonName; got != cn {
		t.Errorf("%s: the certificate of %q is served, want %q", what, got, cn)
	}
}

func TestFilesErrors(t *testing.T) {
	d := newPairDir(t)
	cert, key := d.named("a")
	_, otherKey := d.named("b")
	rubbish := []byte("rubbish")
	for _, tt := range []struct {
		name      string
		cert, key []byte // nil is no file
		says      []string
	}{
		{"no certificate", nil, key, []string{d.cert, "certificate", "no such file"}},
		{"no key", cert, nil, []string{d.key, "private key", "no such file"}},
		{"mismatched", cert, otherKey, []string{d.cert, d.key, "does not match", "must be"}},
		{"switched", key, cert, []string{d.cert, d.key, "switched", "must be"}},
		{"certificate of rubbish", rubbish, key, []string{d.cert, "certificate input", "must be"}},
		{"empty certificate", []byte{}, key, []string{d.cert, "certificate input", "must be"}},
		{"key of rubbish", cert, rubbish, []string{d.key, "key input", "must be"}},
		{"half a certificate", cert[:len(cert)/2], key, []string{d.cert, "certificate input", "must be"}},
		{"huge certificate", pad(cert, maxFile+1), key, []string{d.cert, "larger than 1048576 bytes"}},
		{"huge key", cert, pad(key, maxFile+1), []string{d.key, "larger than 1048576 bytes"}},
	} {
		for path, data := range map[string][]byte{d.cert: tt.cert, d.key: tt.key} {
			os.Remove(path)
			if data != nil {
				write(t, path, data)
			}
		}
		cfg, err := Files(d.cert, d.key)
		wantError(t, tt.name, err, tt.says...)
		if cfg != nil {
			t.Errorf("%s: got a config beside the error", tt.name)
		}
	}

	d.put(pad(cert, maxFile), pad(key, maxFile))
	wantName(t, "files of the largest size", d.files(), "a")
}

// pad appends lines to PEM, which its readers skip.
func pad(data []byte, size int) []byte {
	return append(bytes.Clone(data), bytes.Repeat([]byte{'\n'}, size-len(data))...)
}

func TestFilesOneFile(t *testing.T) {
	d := newPairDir(t)
	cert, key := d.named("both")
	write(t, d.cert, append(cert, key...))
	cfg, err := Files(d.cert, d.cert)
	if err != nil {
		t.Fatalf("Files = %v", err)
	}
	wantName(t, "one file", cfg, "both")
}

func TestFilesHandshake(t *testing.T) {
	d := newPairDir(t)
	d.put(d.named("a"))
	cfg := d.files()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		state, err := handshake(cfg, &tls.Config{
			RootCAs: poolOf(t, d.ca.pem), ServerName: "localhost", NextProtos: []string{"h2"}, MaxVersion: version,
		})
		if err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		} else if state.NegotiatedProtocol != "h2" || state.Version != version {
			t.Errorf("%s: got %s %q, want h2", tls.VersionName(version), tls.VersionName(state.Version), state.NegotiatedProtocol)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if _, err := handshake(cfg, old); err == nil {
		t.Error("TLS 1.1 was served, want it refused")
	}
}

func TestFilesLooksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		d := newPairDir(t)
		d.put(d.named("a"))
		cfg := d.files()

		d.put(d.named("b"))
		time.Sleep(every - 1)
		wantName(t, "just before a second", cfg, "a")
		time.Sleep(time.Nanosecond)
		wantName(t, "after a second", cfg, "b")
		logged.want(t, "a new pair", []string{"INFO", "new certificate", d.cert})

		d.put(d.named("c"))
		time.Sleep(every - 1)
		wantName(t, "just before the next", cfg, "b")
		time.Sleep(time.Hour)
		wantName(t, "an hour later", cfg, "c")
		logged.want(t, "another pair", []string{"INFO", "new certificate", d.cert})
		time.Sleep(every)
		wantName(t, "unchanged", cfg, "c")
		logged.want(t, "no new pair")
	})
}

// Two renewals within one tick of a file system's clock.
func TestFilesSameSizeAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		captureLog(t)
		d := newPairDir(t)
		stamp := time.Now()
		// An ECDSA signature varies by a few bytes.
		put := func(cn string, size int) int {
			cert, key := d.named(cn)
			if size == 0 {
				size = len(cert) + 16
			}
			d.put(pad(cert, size), key)
			for _, path := range []string{d.cert, d.key} {
				if err := os.Chtimes(path, stamp, stamp); err != nil {
					t.Fatal(err)
				}
			}
			return size
		}
		size := put("a", 0)
		cfg := d.files()
		put("b", size)
		time.Sleep(every)
		wantName(t, "rewritten in place", cfg, "b")
	})
}

func TestFilesKeepsLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		d := newPairDir(t)
		good, goodKey := d.named("good")
		next, nextKey := d.named("next")
		expired, expiredKey := d.ca.issue(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		})
		d.put(good, goodKey)
		cfg := d.files()

		keeps := "keeping the last good certificate"
		for _, step := range []struct {
			name      string
			cert, key []byte // nil is no file
			serves    string
			logs      []string // nil is no line
		}{
			{"half a certificate", next[:len(next)/2], goodKey, "good", []string{"WARN", keeps, "certificate input", d.cert}},
			{"more of it", next[:len(next)-10], goodKey, "good", []string{"WARN", keeps, "certificate input"}},
			{"mismatched", next, goodKey, "good", []string{"WARN", keeps, "does not match"}},
			{"mismatched otherwise", good, nextKey, "good", []string{"WARN", keeps, "does not match"}},
			{"half a key", next, nextKey[:50], "good", []string{"WARN", keeps, "key input"}},
			{"no key", next, nil, "good", []string{"WARN", keeps, d.key, "no such file"}},
			{"no file", nil, nil, "good", []string{"WARN", keeps, d.cert, "no such file"}},
			{"complete", next, nextKey, "next", []string{"INFO", "new certificate"}},
			{"mismatched again", next, goodKey, "next", []string{"WARN", keeps, "does not match"}},
			{"put right", next, nextKey, "next", nil},
			{"the same mismatch", next, goodKey, "next", []string{"WARN", keeps, "does not match"}},
			{"expired", expired, expiredKey, "next", []string{"WARN", keeps, "expired on 1999-12-31T23:"}},
			{"the first pair", good, goodKey, "good", []string{"INFO", "new certificate"}},
		} {
			for path, data := range map[string][]byte{d.cert: step.cert, d.key: step.key} {
				os.Remove(path)
				if data != nil {
					write(t, path, data)
				}
			}
			for range 3 { // only the first look is logged
				time.Sleep(every)
				wantName(t, step.name, cfg, step.serves)
			}
			if step.logs == nil {
				logged.want(t, step.name)
			} else {
				logged.want(t, step.name, step.logs)
			}
		}
	})
}

func TestFilesDates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		d := newPairDir(t)
		now := time.Now()
		from := func(cn string, begin, end time.Duration) ([]byte, []byte) {
			return d.ca.issue(t, func(c *x509.Certificate) {
				c.Subject.CommonName = cn
				c.NotBefore, c.NotAfter = now.Add(begin), now.Add(end)
			})
		}
		refuse := "clients will refuse"

		d.put(from("old", -2*time.Hour, -time.Hour))
		cfg := d.files()
		wantName(t, "expired at start", cfg, "old")
		logged.want(t, "expired at start", []string{"WARN", refuse, d.cert, "expired on 1999-12-31T23:"})
		time.Sleep(every)
		wantName(t, "still expired", cfg, "old")
		logged.want(t, "still expired")

		d.put(from("now", 0, time.Hour))
		time.Sleep(every)
		wantName(t, "renewed", cfg, "now")
		logged.want(t, "renewed", []string{"INFO", "new certificate"})

		// One that was put there too early waits for its time.
		d.put(from("early", 30*time.Minute, time.Hour))
		for time.Since(now) < 30*time.Minute-every {
			time.Sleep(every)
			wantName(t, "too early", cfg, "now")
		}
		logged.want(t, "too early", []string{"WARN", "keeping the last good", "not valid before 2000-01-01T00:30:00Z"})
		time.Sleep(every)
		wantName(t, "in time", cfg, "early")
		logged.want(t, "in time", []string{"INFO", "new certificate"})

		time.Sleep(time.Until(now.Add(time.Hour)))
		wantName(t, "last moment", cfg, "early")
		logged.want(t, "last moment")
		for range 3 {
			time.Sleep(every)
			wantName(t, "not renewed in time", cfg, "early")
		}
		logged.want(t, "not renewed in time", []string{"WARN", refuse, "expired on 2000-01-01T01:00:00Z"})
	})
}

// Kubernetes keeps a secret in a directory of its own and swaps the link ..data to it.
func TestFilesSymlinkSwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		d := newPairDir(t)
		dir := filepath.Dir(d.cert)
		swap := func(version string) {
			t.Helper()
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			cert, key := d.named(version)
			write(t, filepath.Join(dir, version, "tls.crt"), cert)
			write(t, filepath.Join(dir, version, "tls.key"), key)
			link(t, version, filepath.Join(dir, "..data_tmp"))
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		link(t, "..data/tls.crt", d.cert)
		link(t, "..data/tls.key", d.key)
		swap("v1")
		cfg := d.files()
		wantName(t, "at start", cfg, "v1")
		swap("v2")
		if err := os.RemoveAll(filepath.Join(dir, "v1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(every)
		wantName(t, "after the swap", cfg, "v2")
		logged.want(t, "a swap", []string{"INFO", "new certificate"})
	})
}

func link(t testing.TB, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// For the race detector: handshakes while the files change.
func TestFilesConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		captureLog(t)
		d := newPairDir(t)
		d.put(d.named("a"))
		cfg := d.files()
		client := &tls.Config{RootCAs: poolOf(t, d.ca.pem), ServerName: "localhost"}
		for range 5 {
			time.Sleep(every)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if _, err := handshake(cfg, client); err != nil {
						t.Errorf("handshake: %v", err)
					}
				})
			}
			d.put(d.named("b"))
			wg.Wait()
		}
		time.Sleep(every)
		wantName(t, "at the end", cfg, "b")
	})
}
