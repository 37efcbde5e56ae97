package rpc_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
)

// Each option does what it does over a network, for both ways to begin a call.
func TestCallOptions(t *testing.T) {
	fail := false
	reply := ""
	answer := func(ctx context.Context) (*text, error) {
		grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
		grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
		if fail {
			return nil, status.Error(codes.NotFound, "no")
		}
		return wrapperspb.String(reply), nil
	}
	s := &script{
		unary: func(ctx context.Context, _ *text) (*text, error) { return answer(ctx) },
		stream: func(ss grpc.ServerStream) error {
			if err := ss.RecvMsg(new(text)); err != nil {
				return err
			}
			m, err := answer(ss.Context())
			if err != nil {
				return err
			}
			return ss.SendMsg(m)
		},
	}
	calls := map[string]func(t *testing.T, cc grpc.ClientConnInterface, request string, opts ...grpc.CallOption) error{
		"Invoke": func(t *testing.T, cc grpc.ClientConnInterface, request string, opts ...grpc.CallOption) error {
			return cc.Invoke(t.Context(), scriptUnary, wrapperspb.String(request), new(text), opts...)
		},
		"NewStream": func(t *testing.T, cc grpc.ClientConnInterface, request string, opts ...grpc.CallOption) error {
			cs := newStream(t, t.Context(), cc, clientStreams, scriptClient, opts...)
			if err := cs.SendMsg(wrapperspb.String(request)); err != nil {
				return err
			}
			if err := cs.CloseSend(); err != nil {
				return err
			}
			return cs.RecvMsg(new(text))
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
				for _, fail = range []bool{false, true} {
					var header, trailer metadata.MD
					var p peer.Peer
					var finished []error
					err := call(t, cc, "", grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p),
						grpc.OnFinish(func(err error) { finished = append(finished, err) }), grpc.WaitForReady(true), grpc.StaticMethod())
					if (err != nil) != fail || !slices.Equal(header["h"], []string{"1"}) || !slices.Equal(trailer["t"], []string{"1"}) || p.Addr == nil {
						t.Errorf("handler fails: %t: %v, header %q, trailer %q, peer %v", fail, err, header, trailer, p)
					}
					if len(finished) != 1 || status.Code(finished[0]) != status.Code(err) {
						t.Errorf("OnFinish got %v, want %v once", finished, err)
					}
				}
				fail = false
				const limit = 100
				fits, exceeds := strings.Repeat("x", limit-2), strings.Repeat("x", limit-1)
				for _, tt := range []struct {
					name           string
					request, reply string
					opt            grpc.CallOption
					want           codes.Code
					message        string
				}{
					{"request at the limit", fits, "", grpc.MaxCallSendMsgSize(limit), codes.OK, ""},
					{"request above it", exceeds, "", grpc.MaxCallSendMsgSize(limit), codes.ResourceExhausted, "trying to send message larger than max (101 vs. 100)"},
					{"reply at the limit", "", fits, grpc.MaxCallRecvMsgSize(limit), codes.OK, ""},
					{"reply above it", "", exceeds, grpc.MaxCallRecvMsgSize(limit), codes.ResourceExhausted, "grpc: received message larger than max (101 vs. 100)"},
					{"the limits are apart", exceeds, "", grpc.MaxCallRecvMsgSize(limit), codes.OK, ""},
				} {
					reply = tt.reply
					if s := status.Convert(call(t, cc, tt.request, tt.opt)); s.Code() != tt.want || s.Message() != tt.message {
						t.Errorf("%s: %v, want %v %q", tt.name, s, tt.want, tt.message)
					}
				}
			})
		})
	}
}

// perCall are credentials made of functions.
type perCall struct {
	get    func(ctx context.Context, uri ...string) (map[string]string, error)
	secure bool
}

func (p perCall) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	return p.get(ctx, uri...)
}
func (p perCall) RequireTransportSecurity() bool { return p.secure }

func TestPerCallCredentials(t *testing.T) {
	give := func(key, value string) func(context.Context, ...string) (map[string]string, error) {
		return func(context.Context, ...string) (map[string]string, error) { return map[string]string{key: value}, nil }
	}
	refuse := func(err error) func(context.Context, ...string) (map[string]string, error) {
		return func(context.Context, ...string) (map[string]string, error) { return nil, err }
	}
	var got []string
	s := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
		got = metadata.ValueFromIncomingContext(ctx, "authorization")
		return new(text), nil
	}}
	onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
		for _, tt := range []struct {
			name  string
			creds perCall
			code  codes.Code
			want  []string
		}{
			{"given", perCall{get: give("authorization", "Bearer a")}, codes.OK, []string{"Bearer a", "mine"}},
			{"upper case", perCall{get: give("Authorization", "Bearer a")}, codes.OK, []string{"Bearer a", "mine"}},
			{"illegal key", perCall{get: give("a b", "x")}, codes.Internal, nil},
			{"illegal value", perCall{get: give("a", "x\n")}, codes.Internal, nil},
			{"status", perCall{get: refuse(status.Error(codes.Unauthenticated, "no"))}, codes.Unauthenticated, nil},
			{"other error", perCall{get: refuse(errors.New("no"))}, codes.Internal, nil},
		} {
			got = nil
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "mine")
			err := cc.Invoke(ctx, scriptUnary, new(text), new(text), grpc.PerRPCCredentials(tt.creds))
			if status.Code(err) != tt.code || !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v, handler got %q, want %v, %q", tt.name, err, got, tt.code, tt.want)
			}
		}
	})

	// In process the transport is as safe as any, and has a URI to sign.
	cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
	safe := perCall{secure: true, get: func(ctx context.Context, uri ...string) (map[string]string, error) {
		ri, ok := credentials.RequestInfoFromContext(ctx)
		if !ok || ri.Method != scriptUnary || credentials.CheckSecurityLevel(ri.AuthInfo, credentials.PrivacyAndIntegrity) != nil {
			t.Errorf("credentials see %+v", ri)
		}
		if !slices.Equal(uri, []string{"https://inprocess/test.Script"}) {
			t.Errorf("credentials are for %q", uri)
		}
		return map[string]string{"authorization": "Bearer a"}, nil
	}}
	if err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text), grpc.PerRPCCredentials(safe)); err != nil || !slices.Equal(got, []string{"Bearer a"}) {
		t.Errorf("secure credentials: %v, handler got %q", err, got)
	}
}

// Metadata that no transport could carry is refused.
func TestIllegalRequestMetadata(t *testing.T) {
	s := &script{
		unary:  func(context.Context, *text) (*text, error) { t.Error("the handler ran"); return nil, nil },
		stream: func(grpc.ServerStream) error { t.Error("the handler ran"); return nil },
	}
	onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
		for _, md := range []metadata.MD{{"a b": {"1"}}, {"a": {"1\n"}}, {"": {"1"}}} {
			ctx := metadata.NewOutgoingContext(t.Context(), md)
			if err := cc.Invoke(ctx, scriptUnary, new(text), new(text)); status.Code(err) != codes.Internal {
				t.Errorf("Invoke with %q = %v, want INTERNAL", md, err)
			}
			if _, err := cc.NewStream(ctx, bothStream, scriptBidi); status.Code(err) != codes.Internal {
				t.Errorf("NewStream with %q = %v, want INTERNAL", md, err)
			}
		}
	})
}

// Invoke wants one answer, neither none nor two.
func TestInvokeOfAStream(t *testing.T) {
	for answers, want := range []codes.Code{codes.Internal, codes.OK, codes.Internal} {
		s := &script{stream: func(ss grpc.ServerStream) error {
			for range answers {
				if err := ss.SendMsg(new(text)); err != nil {
					return err
				}
			}
			return nil
		}}
		onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
			if err := cc.Invoke(t.Context(), scriptBidi, new(text), new(text)); status.Code(err) != want {
				t.Errorf("%d answers: Invoke = %v, want %v", answers, err, want)
			}
		})
	}
}
