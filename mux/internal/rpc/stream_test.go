package rpc_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
)

// Header and trailer follow the rules of grpc-go.
func TestHeaderAndTrailer(t *testing.T) {
	fail := status.Error(codes.NotFound, "no")
	send := func(ss grpc.ServerStream) error { return ss.SendMsg(wrapperspb.String("m")) }
	for _, tt := range []struct {
		name            string
		handler         func(grpc.ServerStream) error
		header, trailer metadata.MD
		code            codes.Code
	}{
		{"nothing", func(grpc.ServerStream) error { return nil }, nil, nil, codes.OK},
		{"set is sent at the end", func(ss grpc.ServerStream) error {
			return ss.SetHeader(metadata.Pairs("a", "1"))
		}, metadata.Pairs("a", "1"), nil, codes.OK},
		{"set is sent with an error", func(ss grpc.ServerStream) error {
			return errors.Join(ss.SetHeader(metadata.Pairs("a", "1")), fail)
		}, metadata.Pairs("a", "1"), nil, codes.NotFound},
		{"set twice, sent with the first message", func(ss grpc.ServerStream) error {
			return errors.Join(ss.SetHeader(metadata.Pairs("a", "1", "b", "1")), ss.SetHeader(metadata.Pairs("a", "2")), send(ss))
		}, metadata.Pairs("a", "1", "a", "2", "b", "1"), nil, codes.OK},
		{"set, then sent", func(ss grpc.ServerStream) error {
			return errors.Join(ss.SetHeader(metadata.Pairs("a", "1")), ss.SendHeader(metadata.Pairs("a", "2")))
		}, metadata.Pairs("a", "1", "a", "2"), nil, codes.OK},
		{"sent twice", func(ss grpc.ServerStream) error {
			if err := ss.SendHeader(metadata.Pairs("a", "1")); err != nil {
				return err
			}
			return ss.SendHeader(metadata.Pairs("a", "2"))
		}, metadata.Pairs("a", "1"), nil, codes.Internal},
		{"set after a message", func(ss grpc.ServerStream) error {
			if err := send(ss); err != nil {
				return err
			}
			return ss.SetHeader(metadata.Pairs("a", "1"))
		}, nil, nil, codes.Internal},
		{"nothing set after a message", func(ss grpc.ServerStream) error {
			return errors.Join(send(ss), ss.SetHeader(nil))
		}, nil, nil, codes.OK},
		{"trailers add up", func(ss grpc.ServerStream) error {
			ss.SetTrailer(metadata.Pairs("a", "1"))
			err := send(ss)
			ss.SetTrailer(metadata.Pairs("a", "2", "b-bin", "\x00\xff"))
			return err
		}, nil, metadata.Pairs("a", "1", "a", "2", "b-bin", "\x00\xff"), codes.OK},
		{"trailer with an error", func(ss grpc.ServerStream) error {
			ss.SetTrailer(metadata.Pairs("a", "1"))
			return fail
		}, nil, metadata.Pairs("a", "1"), codes.NotFound},
		{"reserved keys", func(ss grpc.ServerStream) error {
			ss.SetTrailer(metadata.Pairs("grpc-status", "3", "grpc-message", "x", "content-type", "x", ":status", "500", "a", "1"))
			return ss.SendHeader(metadata.Pairs("grpc-encoding", "x", "te", "x", "user-agent", "x", ":path", "x", "a", "1"))
		}, metadata.Pairs("a", "1"), metadata.Pairs("a", "1"), codes.OK},
		{"illegal key", func(ss grpc.ServerStream) error { return ss.SetHeader(metadata.Pairs("a b", "1")) }, nil, nil, codes.Internal},
		{"empty key", func(ss grpc.ServerStream) error { return ss.SendHeader(metadata.MD{"": {"1"}}) }, nil, nil, codes.Internal},
		{"upper case", func(ss grpc.ServerStream) error { return ss.SetHeader(metadata.MD{"A": {"1"}}) }, nil, nil, codes.Internal},
		{"illegal value", func(ss grpc.ServerStream) error {
			return ss.SendHeader(metadata.Pairs("a", "1\r\nb: 2"))
		}, nil, nil, codes.Internal},
		{"bytes in a -bin value", func(ss grpc.ServerStream) error {
			return ss.SendHeader(metadata.Pairs("a-bin", "\r\n\x00é"))
		}, metadata.Pairs("a-bin", "\r\n\x00é"), nil, codes.OK},
		{"by context", func(ss grpc.ServerStream) error {
			ctx := ss.Context()
			return errors.Join(grpc.SetHeader(ctx, metadata.Pairs("a", "1")), grpc.SendHeader(ctx, metadata.Pairs("b", "2")),
				grpc.SetTrailer(ctx, metadata.Pairs("c", "3")))
		}, metadata.Pairs("a", "1", "b", "2"), metadata.Pairs("c", "3"), codes.OK},
		{"sent twice by context", func(ss grpc.ServerStream) error {
			if err := grpc.SendHeader(ss.Context(), nil); err != nil {
				return err
			}
			return grpc.SetHeader(ss.Context(), metadata.Pairs("a", "1"))
		}, nil, nil, codes.Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{stream: tt.handler}
			onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
				got, err := streamCall(t, cc, bothStream, scriptBidi)
				if code := status.Convert(err).Code(); code != tt.code {
					t.Errorf("outcome %v, want %v", err, tt.code)
				}
				if diff := cmp.Diff(tt.header, got.header, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("header (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.trailer, got.trailer, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("trailer (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What the transport of grpc-go does not check must not reach one that writes
// HTTP/1.1.
func TestIllegalTrailerIsDropped(t *testing.T) {
	for _, md := range []metadata.MD{{"a": {"1\r\nb: 2"}}, {"a b": {"1"}}, {"": {"1"}}} {
		var byContext error
		s := &script{stream: func(ss grpc.ServerStream) error {
			ss.SetTrailer(md)
			byContext = grpc.SetTrailer(ss.Context(), md)
			return nil
		}}
		got, err := streamCall(t, rpc.NewConn(newRegistry(rpc.Config{}, s.register)), bothStream, scriptBidi)
		if err != nil || len(got.trailer) > 0 || status.Code(byContext) != codes.Internal {
			t.Errorf("trailer %q: the caller got %q, %v and grpc.SetTrailer %v; want nothing, nil, INTERNAL", md, got.trailer, err, byContext)
		}
	}
}

// An adapter sees the header once and before the first message.
func TestHeaderGoesFirst(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler func(grpc.ServerStream) error
		want    []string
	}{
		{"nothing", func(grpc.ServerStream) error { return nil }, nil},
		{"set", func(ss grpc.ServerStream) error { return ss.SetHeader(metadata.Pairs("a", "1")) }, []string{"header"}},
		{"sent", func(ss grpc.ServerStream) error { return ss.SendHeader(nil) }, []string{"header"}},
		{"messages", func(ss grpc.ServerStream) error {
			return errors.Join(ss.SendMsg(new(text)), ss.SendMsg(new(text)))
		}, []string{"header", "message", "message"}},
		{"sent, message", func(ss grpc.ServerStream) error {
			return errors.Join(ss.SendHeader(nil), ss.SendMsg(new(text)))
		}, []string{"header", "message"}},
	} {
		reg := newRegistry(rpc.Config{}, (&script{stream: tt.handler}).register)
		w := new(wire)
		if _, err := lookup(t, reg, scriptBidi).Serve(t.Context(), newCall(), w); err != nil || !slices.Equal(w.log, tt.want) {
			t.Errorf("%s: the adapter saw %q, %v, want %q, nil", tt.name, w.log, err, tt.want)
		}
	}
}

// early is a wire that has the trailer of a unary call before the message.
type early struct {
	wire
	trailer metadata.MD
}

func (e *early) SetTrailer(md metadata.MD) { e.log, e.trailer = append(e.log, "trailer"), md }

// The trailer of a unary call can be had before its message, and is whole then:
// a goroutine that the handler has left behind adds nothing.
func TestEarlyTrailer(t *testing.T) {
	var failure, late error
	var handler context.Context
	s := &script{
		unary: func(ctx context.Context, _ *text) (*text, error) {
			handler = ctx
			return new(text), errors.Join(grpc.SetTrailer(ctx, metadata.Pairs("t", "1", "grpc-status", "7")), failure)
		},
		stream: func(ss grpc.ServerStream) error {
			ss.SetTrailer(metadata.Pairs("t", "1"))
			return ss.SendMsg(new(text))
		},
	}
	reg := newRegistry(rpc.Config{}, s.register)
	for _, tt := range []struct {
		method string
		fails  bool
		want   []string
	}{
		{scriptUnary, false, []string{"trailer", "header", "message"}},
		{scriptUnary, true, nil},
		{scriptBidi, false, []string{"header", "message"}},
	} {
		failure, late = nil, nil
		if tt.fails {
			failure = errors.New("failed")
		}
		w := new(early)
		w.send = func(context.Context, any) (int, error) {
			if handler != nil {
				late = grpc.SetTrailer(handler, metadata.Pairs("t", "2"))
			}
			return 0, nil
		}
		trailer, err := lookup(t, reg, tt.method).Serve(t.Context(), newCall(), w)
		want := metadata.MD{"t": {"1"}}
		if (err != nil) != tt.fails || !slices.Equal(w.log, tt.want) || !cmp.Equal(trailer, want) {
			t.Errorf("%s, failure %v: outcome %v, trailer %q after %q, want %q after %q", tt.method, tt.fails, err, trailer, w.log, want, tt.want)
		}
		if unary := len(tt.want) == 3; unary && (!cmp.Equal(w.trailer, want) || status.Code(late) != codes.Internal) {
			t.Errorf("%s: early trailer %q, want %q; a later one = %v, want INTERNAL", tt.method, w.trailer, want, late)
		}
		handler = nil
	}
}

// late is a wire that has the header together with what follows it.
type late struct{ wire }

func (l *late) SetHeader(md metadata.MD) { l.log = append(l.log, "held "+md.Get("a")[0]) }

// A header that the handler has not sent itself may go with what follows it.
func TestLateHeader(t *testing.T) {
	set := func(ss grpc.ServerStream) error { return ss.SetHeader(metadata.Pairs("a", "1")) }
	for _, tt := range []struct {
		name    string
		handler func(grpc.ServerStream) error
		want    []string
	}{
		{"set", set, []string{"held 1"}},
		{"set, message", func(ss grpc.ServerStream) error {
			return errors.Join(set(ss), ss.SendMsg(new(text)), ss.SendMsg(new(text)))
		}, []string{"held 1", "message", "message"}},
		{"set, sent, message", func(ss grpc.ServerStream) error {
			return errors.Join(set(ss), ss.SendHeader(nil), ss.SendMsg(new(text)))
		}, []string{"header", "message"}},
	} {
		reg := newRegistry(rpc.Config{}, (&script{stream: tt.handler}).register)
		w := new(late)
		if _, err := lookup(t, reg, scriptBidi).Serve(t.Context(), newCall(), w); err != nil || !slices.Equal(w.log, tt.want) {
			t.Errorf("%s: the adapter saw %q, %v, want %q, nil", tt.name, w.log, err, tt.want)
		}
	}
}

// Once the wire has failed, the call has, and the wire is left alone.
func TestWireFailureIsTheOutcome(t *testing.T) {
	broken := status.Error(codes.Unavailable, "broken")
	for _, tt := range []struct {
		name string
		wire *wire
		want []string
	}{
		{"RecvMsg", &wire{recv: func(context.Context, any) (int, error) { return 0, broken }}, nil},
		{"SendHeader", &wire{header: func(metadata.MD) error { return broken }}, []string{"header"}},
		{"SendMsg", &wire{send: func(context.Context, any) (int, error) { return 0, broken }}, []string{"header", "message"}},
	} {
		var errs []error
		s := &script{stream: func(ss grpc.ServerStream) error {
			for range 2 {
				errs = append(errs, ss.RecvMsg(new(text)), ss.SendMsg(new(text)))
			}
			return nil
		}}
		_, err := lookup(t, newRegistry(rpc.Config{}, s.register), scriptBidi).Serve(t.Context(), newCall(), tt.wire)
		if status.Code(err) != codes.Unavailable || !slices.Equal(tt.wire.log, tt.want) {
			t.Errorf("%s fails: outcome %v after %q, want UNAVAILABLE after %q", tt.name, err, tt.wire.log, tt.want)
		}
		if status.Code(errs[len(errs)-1]) != codes.Unavailable {
			t.Errorf("%s fails: SendMsg after that = %v, want UNAVAILABLE", tt.name, errs[len(errs)-1])
		}
	}
}

func TestMessageLimit(t *testing.T) {
	s := &script{
		unary: func(_ context.Context, in *text) (*text, error) { return new(text), nil },
		stream: func(ss grpc.ServerStream) error {
			_ = ss.RecvMsg(new(text)) // a handler that takes any error for the end
			return nil
		},
	}
	const limit = 100
	fits, exceeds := strings.Repeat("x", limit-2), strings.Repeat("x", limit-1) // 2 bytes of tag and length
	onRoads(t, rpc.Config{MaxMessageBytes: limit}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
		for _, tt := range []struct {
			value   string
			code    codes.Code
			message string
		}{
			{fits, codes.OK, ""},
			{exceeds, codes.ResourceExhausted, "grpc: received message larger than max (101 vs. 100)"},
		} {
			check := func(method string, err error) {
				t.Helper()
				if s := status.Convert(err); s.Code() != tt.code || s.Message() != tt.message {
					t.Errorf("%s with a message of %d bytes: %v, want %v %q", method, len(tt.value)+2, err, tt.code, tt.message)
				}
			}
			check(scriptUnary, cc.Invoke(t.Context(), scriptUnary, wrapperspb.String(tt.value), new(text)))
			_, err := streamCall(t, cc, bothStream, scriptBidi, tt.value)
			check(scriptBidi, err)
			_, err = streamCall(t, cc, serverStreams, scriptServer, tt.value)
			check(scriptServer, err)
		}
	})
}

// A header that cannot be sent is not a call that went well.
func TestLateHeaderFails(t *testing.T) {
	broken := status.Error(codes.Unavailable, "broken")
	for _, tt := range []struct {
		returned error
		want     codes.Code
	}{{nil, codes.Unavailable}, {status.Error(codes.NotFound, "no"), codes.NotFound}} {
		s := &script{stream: func(ss grpc.ServerStream) error {
			return errors.Join(ss.SetHeader(metadata.Pairs("a", "1")), tt.returned)
		}}
		w := &wire{header: func(metadata.MD) error { return broken }}
		_, err := lookup(t, newRegistry(rpc.Config{}, s.register), scriptBidi).Serve(t.Context(), newCall(), w)
		if status.Code(err) != tt.want {
			t.Errorf("handler returned %v: %v, want %v", tt.returned, err, tt.want)
		}
	}
}

// A method whose client does not stream reads one message, then io.EOF.
func TestSingleRequest(t *testing.T) {
	var errs []error
	s := &script{stream: func(ss grpc.ServerStream) error {
		errs = nil
		for range 3 {
			errs = append(errs, ss.RecvMsg(new(text)))
		}
		return errs[0]
	}}
	m := lookup(t, newRegistry(rpc.Config{}, s.register), scriptServer)
	reads := 0
	w := &wire{recv: func(context.Context, any) (int, error) { reads++; return 0, nil }}
	if _, err := m.Serve(t.Context(), newCall(), w); err != nil || reads != 1 || errs[1] != io.EOF || errs[2] != io.EOF {
		t.Errorf("one message: %v after %d reads, handler saw %v; want nil, 1, [nil EOF EOF]", err, reads, errs)
	}
	w = &wire{recv: func(context.Context, any) (int, error) { return 0, io.EOF }}
	if _, err := m.Serve(t.Context(), newCall(), w); status.Code(err) != codes.Unimplemented {
		t.Errorf("no message: %v, want UNIMPLEMENTED", err)
	}
}

// Nothing uses the wire after Serve, whatever the handler has left behind.
func TestServeWaitsForTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reader, late error
		left := make(chan struct{})
		returned := make(chan struct{})
		s := &script{stream: func(ss grpc.ServerStream) error {
			go func() {
				defer close(left)
				reader = ss.RecvMsg(new(text))
				<-returned
				late = errors.Join(ss.SendMsg(new(text)), ss.SendHeader(nil), ss.SetHeader(metadata.Pairs("a", "1")),
					grpc.SetTrailer(ss.Context(), metadata.Pairs("a", "1")), ss.RecvMsg(new(text)))
				ss.SetTrailer(metadata.Pairs("a", "1"))
			}()
			synctest.Wait() // until it blocks in the wire
			return nil
		}}
		inWire := false
		w := &wire{recv: func(ctx context.Context, _ any) (int, error) {
			inWire = true
			<-ctx.Done()
			inWire = false
			return 0, status.FromContextError(ctx.Err()).Err()
		}}
		m := lookup(t, newRegistry(rpc.Config{}, s.register), scriptBidi)
		trailer, err := m.Serve(t.Context(), newCall(), w)
		if err != nil || inWire {
			t.Errorf("Serve = %v with RecvMsg of the adapter running: %t, want nil, false", err, inWire)
		}
		close(returned)
		<-left
		if status.Code(reader) != codes.Canceled {
			t.Errorf("RecvMsg that outlived the handler = %v, want CANCELLED", reader)
		}
		if n := len(late.(interface{ Unwrap() []error }).Unwrap()); n != 5 || len(w.log) > 0 || len(trailer) > 0 {
			t.Errorf("after Serve %d of 5 methods failed, the adapter saw %q, the trailer is %q", n, w.log, trailer)
		}
	})
}

// A call of a method that answers with one message is OK only if that was sent, also where
// the handler has left its sender behind.
func TestAnswerLeftBehind(t *testing.T) {
	s := &script{stream: func(ss grpc.ServerStream) error {
		go ss.SendMsg(new(text))
		return nil
	}}
	m := lookup(t, newRegistry(rpc.Config{}, s.register), scriptClient)
	for range 5000 {
		w := new(wire)
		if _, err := m.Serve(t.Context(), newCall(), w); err == nil && len(w.log) == 0 {
			t.Fatal("OK, and no answer")
		}
	}
}

// The adapter's side is not touched any more once Serve has returned, also when nothing of
// the call has failed.
func TestNothingAfterServe(t *testing.T) {
	var left grpc.ServerStream
	s := &script{stream: func(ss grpc.ServerStream) error {
		left = ss
		return nil
	}}
	w := &wire{recv: func(context.Context, any) (int, error) {
		t.Error("a message was received")
		return 0, io.EOF
	}}
	m := lookup(t, newRegistry(rpc.Config{}, s.register), scriptBidi)
	if _, err := m.Serve(t.Context(), newCall(), w); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{left.RecvMsg(new(text)), left.SendMsg(new(text)), left.SendHeader(nil)} {
		if err == nil || !strings.Contains(err.Error(), "the handler has returned") {
			t.Errorf("error %v, want one that says that the handler has returned", err)
		}
	}
	if len(w.log) > 0 {
		t.Errorf("the adapter saw %q", w.log)
	}
}
