// Package certs makes the [tls.Config] of a server: from a development CA of its own ([Dev]) or from
// certificate files that something else renews ([Files]).
//
// Both give the same shape: TLS 1.2 at least, ALPN "h2" and "http/1.1", and a certificate that is chosen
// anew at each handshake. Neither starts a goroutine, so there is nothing to stop. Connections and
// resumed sessions go on with the certificate they began with.
//
// # Development
//
// [Dev] keeps four PEM files in its directory:
//
//	ca.pem          the CA's certificate: give this one to clients (curl --cacert, grpcurl -cacert)
//	ca-key.pem      its key, mode 0600
//	server.pem      the server's certificate
//	server-key.pem  its key, mode 0600
//
// The CA lasts ten years. The server's certificate lasts 90 days and is made anew by the same CA when a
// third of that is left, so what a client trusts stays as it is. Whoever holds ca-key.pem can pose as any
// site to those who trust ca.pem: never commit the directory, and trust it on your own machine only.
//
// # Files that change
//
// [Files] serves what cert-manager, certbot or a Kubernetes secret put there, without a restart. While a
// renewal is half done, or has gone wrong, the last good pair stays in use and one line is logged.
//
// # Client certificates
//
// [RequireClientCA] makes either config ask for a client certificate and refuse a client without one.
package certs
