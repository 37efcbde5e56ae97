package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"oneport/certs"
)

// A server for development, and a client that trusts its CA.
func ExampleDev() {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	cfg, err := certs.Dev(dir)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		TLSConfig: cfg,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s over %s", r.Proto, tls.VersionName(r.TLS.Version))
		}),
	}
	served := make(chan error)
	go func() { served <- srv.ServeTLS(ln, "", "") }()

	ca, err := os.ReadFile(filepath.Join(dir, certs.CAFile))
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	res, err := (&http.Client{Transport: transport}).Get("https://" + ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	fmt.Printf("%s\n", body)

	res.Body.Close()
	transport.CloseIdleConnections()
	srv.Close()
	fmt.Println(<-served)
	// Output:
	// HTTP/2.0 over TLS 1.3
	// http: Server closed
}
