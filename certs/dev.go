package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	leafFile    = "server.pem"
	leafKeyFile = "server-key.pem"

	leafLife = 90 * 24 * time.Hour
	// skew is how far a client's clock may be behind ours when a certificate is new.
	skew = time.Hour

	// leafName tells a leaf made here, which may be replaced, from a user's own, which may not.
	leafName = "oneport dev server"
)

// Dev returns a config for development: a certificate for localhost, 127.0.0.1, ::1 and the host name,
// issued by a CA that is made on first use. Both are kept in dir (see the package comment), and dir is
// made with mode 0700 where it is missing. Several processes may use one dir at the same time.
//
// Dev makes a new certificate when the one in dir has less than a third of its life left, is of another
// CA or lacks one of the names; a running server makes one when the time has come. A file in dir that
// cannot be read, or that Dev would have to replace and did not make, is an error and stays as it is.
//
// An empty dir keeps everything in memory. So does a dir that cannot be made or written (or whose file
// system has no hard links), after one line in the log, except that a CA which can still be read there
// is used. Hence, when Dev has returned without an error and the file [CAFile] in dir can be read, it is
// the CA of the certificate.
func Dev(dir string) (*tls.Config, error) {
	d := &dev{store: openStore(dir)}
	var err error
	if d.ca, d.caKey, err = openCA(d.store); err != nil {
		return nil, err
	}
	if d.key, err = openKey(d.store, leafKeyFile); err != nil {
		return nil, err
	}
	if err = d.openLeaf(); err != nil {
		return nil, err
	}
	return config(d.certificate), nil
}

type dev struct {
	ca    *x509.Certificate
	caKey crypto.Signer
	key   crypto.Signer // of every leaf

	leaf atomic.Pointer[tls.Certificate]

	mu    sync.Mutex // held while the leaf is renewed
	store *store     // guarded by mu
}

// certificate is a [tls.Config.GetCertificate].
func (d *dev) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := d.leaf.Load(); !d.ending(c.Leaf) {
		return c, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending(d.leaf.Load().Leaf) { // not renewed while we waited
		if err := d.renew(); err != nil {
			return nil, err
		}
	}
	return d.leaf.Load(), nil
}

// ending reports whether less than a third of the life of leaf is left and a new one would last longer.
func (d *dev) ending(leaf *x509.Certificate) bool {
	third := leaf.NotAfter.Sub(leaf.NotBefore) / 3
	return time.Until(leaf.NotAfter) < third && leaf.NotAfter.Before(d.ca.NotAfter)
}

// openLeaf takes the leaf that is in the store, or makes a new one.
func (d *dev) openLeaf() error {
	data, err := d.store.read(leafFile)
	if errors.Is(err, fs.ErrNotExist) {
		return d.renew()
	}
	if err != nil {
		return fmt.Errorf("certs: %w: %w", err, errRemake)
	}
	leaf, err := parseCert(data)
	if err != nil {
		return fmt.Errorf("certs: %s: %w: %w", d.store.path(leafFile), err, errRemake)
	}
	if err = d.check(leaf); err != nil {
		if leaf.Subject.CommonName != leafName {
			return fmt.Errorf("certs: %s: made by someone else: %w: %w", d.store.path(leafFile), err, errRemake)
		}
		return d.renew()
	}
	d.use(leaf)
	return nil
}

// check tells why a leaf from the store cannot be used.
func (d *dev) check(leaf *x509.Certificate) error {
	if !samePublic(d.key, leaf) {
		return errors.New("not made for " + leafKeyFile)
	}
	roots := x509.NewCertPool()
	roots.AddCert(d.ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return err
	}
	for _, name := range append(dnsNames(), "127.0.0.1", "::1") {
		if err := leaf.VerifyHostname(name); err != nil {
			return err
		}
	}
	if d.ending(leaf) {
		return fmt.Errorf("expires on %s", leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// renew makes a new leaf and keeps it. d.mu is held, or d not yet shared.
func (d *dev) renew() error {
	now := time.Now()
	end := now.Add(leafLife)
	if end.After(d.ca.NotAfter) {
		end = d.ca.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject:               pkix.Name{CommonName: leafName},
		DNSNames:              dnsNames(),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             now.Add(-skew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, d.ca, d.key.Public(), d.caKey)
	if err != nil {
		return fmt.Errorf("certs: make a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("certs: make a certificate: %w", err)
	}
	d.use(leaf) // handshakes need not wait for the disk
	d.store.replace(leafFile, certPerm, pemCert(der))
	return nil
}

func (d *dev) use(leaf *x509.Certificate) {
	d.leaf.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: d.key, Leaf: leaf})
}

func dnsNames() []string {
	names := []string{"localhost"}
	if host, err := os.Hostname(); err == nil {
		if host = dnsName(host); host != "" && host != "localhost" {
			names = append(names, host)
		}
	}
	return names
}

// dnsName returns host as it stands in a certificate, or "" when no client would match it: host is not
// made of letter-digit-hyphen labels (RFC 1123, section 2.1), or is an address.
func dnsName(host string) string {
	for _, c := range []byte(host) {
		if c >= utf8.RuneSelf {
			return "" // before ToLower, which makes ASCII of some such letters
		}
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || len(host) > 253 {
		return ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return ""
		}
		for _, c := range label {
			if (c < 'a' || 'z' < c) && (c < '0' || '9' < c) && c != '-' {
				return ""
			}
		}
	}
	return host
}
