package wsrpc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	echopb "oneport/proto/echo"
)

// credsFunc are per-call credentials.
type credsFunc struct {
	get    func(ctx context.Context, uri []string) (map[string]string, error)
	secure bool
}

func (c credsFunc) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	return c.get(ctx, uri)
}
func (c credsFunc) RequireTransportSecurity() bool { return c.secure }

// Credentials of the connection, then of the call, come before the metadata of the
// context, and learn what the transport is.
func TestClientCredentials(t *testing.T) {
	serverTLS, clientTLS := exampleTLS()
	for _, secure := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(t)
			opts := DialOptions{}
			if secure {
				s.tls, opts.TLSConfig = serverTLS, clientTLS
			}
			var got []string
			creds := func(name string) credsFunc {
				return credsFunc{func(ctx context.Context, uri []string) (map[string]string, error) {
					ri, _ := credentials.RequestInfoFromContext(ctx)
					safe := credentials.CheckSecurityLevel(ri.AuthInfo, credentials.PrivacyAndIntegrity) == nil
					if ri.AuthInfo == nil {
						safe = false
					}
					if safe != secure {
						t.Errorf("TLS %v: the credentials see %v", secure, ri.AuthInfo)
					}
					got = append(got, name, ri.Method, strings.Join(uri, " "))
					return map[string]string{"K": name}, nil
				}, secure}
			}
			opts.PerRPCCredentials = creds("dial")
			c, p := s.connect(opts)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "k", "context")
			if _, err := c.NewStream(ctx, bidi, "echo.v1.EchoService/Converse", grpc.PerRPCCredentials(creds("call"))); err != nil {
				t.Fatal(err)
			}
			if md := p.next().open.metadata; !slices.Equal(md["k"], []string{"dial", "call", "context"}) {
				t.Errorf("TLS %v: metadata %v", secure, md)
			}
			const method, uri = "/echo.v1.EchoService/Converse", "https://server.test/echo.v1.EchoService"
			if diff := cmp.Diff([]string{"dial", method, uri, "call", method, uri}, got); diff != "" {
				t.Errorf("TLS %v: the credentials were asked (-want +got):\n%s", secure, diff)
			}
		})
	}
}

// A call whose credentials fail, or are not for cleartext, does not begin.
func TestClientCredentialsErrors(t *testing.T) {
	fails := func(err error) credsFunc {
		return credsFunc{get: func(context.Context, []string) (map[string]string, error) { return map[string]string{"k": "\x01"}, err }}
	}
	secure := fails(nil)
	secure.secure = true
	for _, tt := range []struct {
		name       string
		dial, call credentials.PerRPCCredentials
		want       codes.Code
	}{
		{"of the connection", fails(errors.New("no token")), nil, codes.Unauthenticated},
		{"of the call", nil, fails(errors.New("no token")), codes.Internal},
		{"status of the connection", fails(status.Error(codes.PermissionDenied, "no token")), nil, codes.PermissionDenied},
		{"status of the call", nil, fails(status.Error(codes.PermissionDenied, "no token")), codes.PermissionDenied},
		{"metadata that is not allowed", nil, fails(nil), codes.Internal},
		{"not for cleartext", nil, secure, codes.Unauthenticated},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, p := newScripted(t).connect(DialOptions{PerRPCCredentials: tt.dial})
			var opts []grpc.CallOption
			if tt.call != nil {
				opts = append(opts, grpc.PerRPCCredentials(tt.call))
			}
			var from peer.Peer
			_, err := echopb.NewEchoServiceClient(c).Echo(t.Context(), &echopb.EchoRequest{}, append(opts, grpc.Peer(&from))...)
			if status.Code(err) != tt.want || from.Addr != nil {
				t.Errorf("%s: %v, peer %v, want %v", tt.name, err, from.Addr, tt.want)
			}
			if c.Close(); len(p.frames) > 1 {
				t.Errorf("%s: %d frames were sent, want only the hello", tt.name, len(p.frames))
			}
		})
	}
	if _, err := Dial(t.Context(), "ws://server.test", &DialOptions{PerRPCCredentials: secure}); err == nil || !strings.Contains(err.Error(), "use wss") {
		t.Errorf("Dial = %v", err)
	}
}
