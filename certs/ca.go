package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// CAFile is the name of the CA's certificate in the directory of [Dev].
const CAFile = "ca.pem"

const (
	caKeyFile = "ca-key.pem"
	caLife    = 10 * 365 * 24 * time.Hour
)

// openCA returns the CA of the store, which it makes where there is none.
func openCA(s *store) (*x509.Certificate, crypto.Signer, error) {
	if _, err := s.read(CAFile); !errors.Is(err, fs.ErrNotExist) {
		// A new key would not fit this CA. As the key is kept first, that it is missing is no race.
		if err == nil {
			_, err = s.read(caKeyFile)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("certs: %w: %w", err, errRemake)
		}
	}
	key, err := openKey(s, caKeyFile)
	if err != nil {
		return nil, nil, err
	}
	data, err := s.keep(CAFile, certPerm, func() ([]byte, error) { return newCA(key) })
	if err != nil {
		return nil, nil, fmt.Errorf("certs: %w: %w", err, errRemake)
	}
	ca, err := parseCert(data)
	if err == nil {
		err = checkCA(ca, key)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certs: %s: %w: %w", s.path(CAFile), err, errRemake)
	}
	return ca, key, nil
}

func checkCA(ca *x509.Certificate, key crypto.Signer) error {
	if !samePublic(key, ca) {
		return errors.New("not made for " + caKeyFile)
	}
	if !ca.IsCA || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("not the certificate of a CA")
	}
	return within(ca, time.Now())
}

func newCA(key crypto.Signer) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	// Part of the key's hash tells the CAs of several directories apart in a trust store.
	id := sha256.Sum256(spki)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("oneport dev CA %x", id[:4])},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return pemCert(der), err
}

// openKey returns the named key of the store, which it makes where there is none.
func openKey(s *store, name string) (crypto.Signer, error) {
	data, err := s.keep(name, keyPerm, newKey)
	if err != nil {
		return nil, fmt.Errorf("certs: %w: %w", err, errRemake)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("certs: %s: %w: %w", s.path(name), err, errRemake)
	}
	return key, nil
}
