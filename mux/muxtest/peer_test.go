package muxtest_test

import (
	"context"
	"crypto/tls"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	pb "oneport/proto/echo"
)

// Handlers see the same client whichever way it has come: its address, and over
// TLS the connection's state with the certificate that was shown.
func TestPeer(t *testing.T) {
	for _, certificate := range []bool{false, true} {
		name := "anonymous"
		if certificate {
			name = "with certificate"
		}
		t.Run(name, func(t *testing.T) {
			on(t, everywhere, func(t *testing.T, r road) {
				var got *peer.Peer
				note := func(ctx context.Context) { got, _ = peer.FromContext(ctx) }
				c := r.to(t, service{
					echo: func(ctx context.Context, _ *pb.EchoRequest) (*pb.EchoResponse, error) {
						note(ctx)
						return &pb.EchoResponse{}, nil
					},
					expand: func(_ *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
						note(stream.Context())
						return nil
					},
				})
				if certificate {
					c.server.ClientTLS.Certificates = []tls.Certificate{c.server.ClientCertificate}
					c = r.client(c.server)
				}
				if _, err := c.Echo(t.Context(), &pb.EchoRequest{}); err != nil {
					t.Fatal(err)
				}
				checkPeer(t, r, "unary", got, certificate)
				got = nil
				if _, err := expand(t, c, &pb.ExpandRequest{}); err != nil {
					t.Fatal(err)
				}
				checkPeer(t, r, "stream", got, certificate)
			})
		})
	}
}

func checkPeer(t *testing.T, r road, kind string, p *peer.Peer, certificate bool) {
	t.Helper()
	if p == nil {
		t.Fatalf("%s: no peer", kind)
	}
	wantAddr, wantLocal := "192.0.2.2:50000", "192.0.2.1:443"
	if r.local {
		wantAddr, wantLocal = "inprocess", "inprocess"
	}
	if p.Addr == nil || p.Addr.String() != wantAddr {
		t.Errorf("%s: Addr = %v, want %s", kind, p.Addr, wantAddr)
	}
	if p.LocalAddr == nil || p.LocalAddr.String() != wantLocal {
		t.Errorf("%s: LocalAddr = %v, want %s", kind, p.LocalAddr, wantLocal)
	}
	switch {
	case r.local:
		if p.AuthInfo == nil || p.AuthInfo.AuthType() != "inprocess" {
			t.Errorf("%s: AuthInfo = %v, want that of a call in process", kind, p.AuthInfo)
		}
		return
	case !r.secure:
		if p.AuthInfo != nil {
			t.Errorf("%s: AuthInfo = %v in cleartext, want none", kind, p.AuthInfo)
		}
		return
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		t.Fatalf("%s: AuthInfo is a %T, want credentials.TLSInfo", kind, p.AuthInfo)
	}
	if s := info.State; !s.HandshakeComplete || s.ServerName != "oneport.test" || s.Version != tls.VersionTLS13 {
		t.Errorf("%s: the TLS state has handshake %v, server name %q, version %x", kind, s.HandshakeComplete, s.ServerName, s.Version)
	}
	if info.SecurityLevel != credentials.PrivacyAndIntegrity {
		t.Errorf("%s: security level is %v", kind, info.SecurityLevel)
	}
	name := ""
	for _, chain := range info.State.VerifiedChains {
		name = chain[0].Subject.CommonName
	}
	if want := map[bool]string{true: "client"}[certificate]; name != want {
		t.Errorf("%s: verified client is %q, want %q", kind, name, want)
	}
}
