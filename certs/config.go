package certs

import (
	"crypto/tls"
	"fmt"
)

// config is the one shape of every config of this package. certificate runs once a full handshake, from
// many goroutines.
func config(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: certificate,
	}
}

// RequireClientCA makes cfg refuse every client that does not show a certificate for client
// authentication (RFC 5280, section 4.2.1.12) issued by a CA in file, which holds one or more PEM
// certificates. The file is read once. On error cfg is left as it was; cfg must not be in use yet.
func RequireClientCA(cfg *tls.Config, file string) error {
	data, err := readFile(file)
	if err != nil {
		return fmt.Errorf("certs: client CA: %w", err)
	}
	pool, err := parsePool(data)
	if err != nil {
		return fmt.Errorf("certs: client CA: %s: %w", file, err)
	}
	cfg.ClientCAs = pool
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return nil
}
