package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"
)

func TestRequireClientCA(t *testing.T) {
	dir := t.TempDir()
	ours, also, other := newTestCA(t), newTestCA(t), newTestCA(t)
	file := filepath.Join(dir, "clients.pem")
	write(t, file, append(bytes.Clone(ours.pem), also.pem...))

	pairs := filepath.Join(t.TempDir(), "pair.pem")
	cert, key := ours.issue(t, nil)
	write(t, pairs, append(cert, key...))
	fromFiles, err := Files(pairs, pairs)
	if err != nil {
		t.Fatal(err)
	}

	forClients := func(c *x509.Certificate) {
		c.Subject.CommonName = "client"
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	for name, cfg := range map[string]*tls.Config{"Dev": mustDev(t, ""), "Files": fromFiles} {
		if err := RequireClientCA(cfg, file); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			ca     *testCA // nil shows no certificate
			change func(*x509.Certificate)
			ok     bool
		}{
			{"the CA", ours, forClients, true},
			{"the second CA", also, forClients, true},
			{"another CA", other, forClients, false},
			{"no certificate", nil, nil, false},
			{"a server's certificate", ours, nil, false},
			{"expired", ours, func(c *x509.Certificate) {
				forClients(c)
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			}, false},
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				client := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", MaxVersion: version}
				if tt.ca != nil {
					pair, err := tls.X509KeyPair(tt.ca.issue(t, tt.change))
					if err != nil {
						t.Fatal(err)
					}
					// Unlike Certificates, shown even when the server does not name its CA.
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
				}
				if _, err := handshake(cfg, client); (err == nil) != tt.ok {
					t.Errorf("%s, %s, %s: handshake = %v, want accepted %v", name, tt.name, tls.VersionName(version), err, tt.ok)
				}
			}
		}
	}
}

func TestRequireClientCAErrors(t *testing.T) {
	ca := newTestCA(t).pem
	keyPEM, _ := makeKey(t)
	file := filepath.Join(t.TempDir(), "clients.pem")
	for _, tt := range []struct {
		name string
		data []byte // nil is no file
		says string
	}{
		{"no file", nil, "no such file"},
		{"empty", []byte{}, "no PEM certificate"},
		{"rubbish", []byte("rubbish"), "no PEM certificate"},
		{"a key", keyPEM, "no PEM certificate"},
		{"second cut short", append(bytes.Clone(ca), ca[:len(ca)/2]...), "1 of 2 certificates"},
		{"second is rubbish", append(bytes.Clone(ca), pemBlock("CERTIFICATE", []byte("x"))...), "certificate 2: x509: "},
		{"too large", pad(ca, maxFile+1), "larger than 1048576 bytes"},
	} {
		if tt.data != nil {
			write(t, file, tt.data)
		}
		cfg := mustDev(t, "")
		wantError(t, tt.name, RequireClientCA(cfg, file), "client CA", file, tt.says)
		if cfg.ClientCAs != nil || cfg.ClientAuth != tls.NoClientCert {
			t.Errorf("%s: the config has changed", tt.name)
		}
	}
	write(t, file, pad(append(keyPEM, ca...), maxFile)) // other blocks are skipped
	if err := RequireClientCA(mustDev(t, ""), file); err != nil {
		t.Errorf("the largest file: %v", err)
	}
}

// What parsePool accepts, it reads as the standard library does.
func FuzzParsePool(f *testing.F) {
	ca := newTestCA(f).pem
	for _, data := range [][]byte{nil, ca, append(bytes.Clone(ca), ca[:90]...), pemBlock("CERTIFICATE", []byte("x"))} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		pool, err := parsePool(data)
		if err != nil {
			return
		}
		want := x509.NewCertPool()
		if !want.AppendCertsFromPEM(data) || !pool.Equal(want) {
			t.Errorf("parsePool(%q) differs from AppendCertsFromPEM", data)
		}
	})
}
