package muxtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

// certificates are those of one Server and its clients, all of one authority.
type certificates struct {
	roots          *x509.CertPool
	server, client tls.Certificate
}

// newCertificates makes an authority for one test, where keys of its own are
// cheaper than to think about a clock that is the bubble's.
func newCertificates(tb testing.TB) certificates {
	tb.Helper()
	ca := issue(tb, nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "muxtest"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	return certificates{
		roots: roots,
		server: issue(tb, &ca, &x509.Certificate{
			DNSNames:    []string{host},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}),
		client: issue(tb, &ca, &x509.Certificate{
			Subject:     pkix.Name{CommonName: "client"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}),
	}
}

// issue signs c, for ten years from now. Without an issuer it signs itself.
func issue(tb testing.TB, issuer *tls.Certificate, c *x509.Certificate) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("muxtest: certificate: %v", err)
	}
	c.NotBefore = time.Now()
	c.NotAfter = c.NotBefore.AddDate(10, 0, 0)
	parent, signer := c, any(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		tb.Fatalf("muxtest: certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("muxtest: certificate: %v", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
