package wsrpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	echopb "oneport/proto/echo"
)

// A unary call is one frame each way, and all that gRPC has comes over.
func TestClientUnary(t *testing.T) {
	for _, json := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, p := newScripted(t).connect(DialOptions{JSON: json})
			go func() {
				f := p.next()
				want := &frame{call: 1, halfClose: true, open: &openFrame{method: "/echo.v1.EchoService/Echo", timeoutMS: 1500,
					metadata: metadata.MD{"k": {"1", "2"}, "b-bin": {"\x00\xff"}}}}
				if p.echoText(f) != "hi" {
					t.Errorf("message %q", f.message)
				}
				f.message = nil
				if diff := diffFrames(want, f); diff != "" {
					t.Errorf("JSON %v: the call is opened with (-want +got):\n%s", json, diff)
				}
				p.send(&frame{call: 1, header: metadata.Pairs("h", "x"), message: p.message(&echopb.EchoResponse{Message: "ho"}),
					end: &endFrame{trailer: metadata.Pairs("t-bin", "\x01")}})
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "k", "1", "k", "2", "b-bin", "\x00\xff", "grpc-timeout", "1S", "content-type", "x")
			var header, trailer metadata.MD
			var from peer.Peer
			finished := []error{}
			res, err := echopb.NewEchoServiceClient(c).Echo(ctx, &echopb.EchoRequest{Message: "hi"}, grpc.Header(&header), grpc.Trailer(&trailer),
				grpc.Peer(&from), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
			if err != nil || res.Message != "ho" {
				t.Errorf("Echo = %v, %v", res, err)
			}
			if diff := cmp.Diff([]metadata.MD{{"h": {"x"}}, {"t-bin": {"\x01"}}}, []metadata.MD{header, trailer}); diff != "" {
				t.Errorf("header and trailer (-want +got):\n%s", diff)
			}
			if from.Addr == nil || from.Addr.String() != "pipe" {
				t.Errorf("peer %v", from.Addr)
			}
			if !slices.Equal(finished, []error{nil}) {
				t.Errorf("OnFinish got %v, want nil once", finished)
			}
		})
	}
}

func TestClientStatusDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newScripted(t).connect(DialOptions{})
		detail, err := anypb.New(&errdetails.ErrorInfo{Reason: "SOLD_OUT"})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			p.next()
			p.send(&frame{call: 1, end: &endFrame{code: 9, message: "no", details: []*anypb.Any{detail}}})
		}()
		_, err = echopb.NewEchoServiceClient(c).Echo(t.Context(), &echopb.EchoRequest{})
		st := status.Convert(err)
		if st.Code() != codes.FailedPrecondition || st.Message() != "no" || len(st.Details()) != 1 ||
			!proto.Equal(st.Details()[0].(proto.Message), &errdetails.ErrorInfo{Reason: "SOLD_OUT"}) {
			t.Errorf("%v, details %v", st, st.Details())
		}
	})
}

// What is wrong before anything is sent.
func TestClientRefusesCall(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		text int // length of the message
		opts []grpc.CallOption
		want codes.Code
	}{
		{"key", metadata.NewOutgoingContext(t.Context(), metadata.MD{"a b": {"x"}}), 0, nil, codes.Internal},
		{"value", metadata.AppendToOutgoingContext(t.Context(), "a", "\x01"), 0, nil, codes.Internal},
		{"context", ended, 0, nil, codes.Canceled},
		{"MaxCallSendMsgSize", t.Context(), 9, []grpc.CallOption{grpc.MaxCallSendMsgSize(10)}, codes.ResourceExhausted},
		{"maxMessage", t.Context(), 99, nil, codes.ResourceExhausted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScripted(t)
			s.hello.maxMessage = 100
			c, p := s.connect(DialOptions{})
			var finished error
			opts := append(tt.opts, grpc.OnFinish(func(err error) { finished = err }))
			_, err := echopb.NewEchoServiceClient(c).Echo(tt.ctx, &echopb.EchoRequest{Message: strings.Repeat("x", tt.text)}, opts...)
			if status.Code(err) != tt.want || finished != err {
				t.Errorf("%v, OnFinish got %v, want %v", err, finished, tt.want)
			}
			if c.Close(); len(p.frames) > 1 {
				t.Errorf("%d frames were sent, want only the hello", len(p.frames))
			}
		})
	}
}

// The limits at their last byte: a text of n bytes, up to 127, is a message of n+2.
func TestClientMessageLimits(t *testing.T) {
	s := newScripted(t)
	s.hello.maxMessage = 100
	c, p := s.connect(DialOptions{MaxMessageBytes: 90})
	go func() {
		for f := range p.frames {
			if f.open != nil {
				p.send(&frame{call: f.call, message: f.message, end: &endFrame{}})
			}
		}
	}()
	for _, tt := range []struct {
		text int
		opts []grpc.CallOption
		want string
	}{
		{88, nil, ""},
		{89, nil, "grpc: received message larger than max (91 vs. 90)"},
		{98, nil, "grpc: received message larger than max (100 vs. 90)"},
		{99, nil, "trying to send message larger than max (101 vs. 100)"},
		{18, []grpc.CallOption{grpc.MaxCallRecvMsgSize(20), grpc.MaxCallSendMsgSize(20)}, ""},
		{19, []grpc.CallOption{grpc.MaxCallRecvMsgSize(20)}, "grpc: received message larger than max (21 vs. 20)"},
		{19, []grpc.CallOption{grpc.MaxCallSendMsgSize(20)}, "trying to send message larger than max (21 vs. 20)"},
		{89, []grpc.CallOption{grpc.MaxCallRecvMsgSize(1000)}, "grpc: received message larger than max (91 vs. 90)"},
	} {
		_, err := echopb.NewEchoServiceClient(c).Echo(t.Context(), &echopb.EchoRequest{Message: strings.Repeat("x", tt.text)}, tt.opts...)
		if got := status.Convert(err); tt.want == "" && err != nil || got.Message() != tt.want {
			t.Errorf("%d bytes: %v, want %q", tt.text, err, tt.want)
		}
	}
}

// The rules of grpc.ClientStream.
func TestClientStreamRules(t *testing.T) {
	bidi := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	unary := &grpc.StreamDesc{}
	recv := func(s grpc.ClientStream) (string, error) {
		m := new(echopb.EchoResponse)
		err := s.RecvMsg(m)
		return m.Message, err
	}
	send := func(s grpc.ClientStream) error { return s.SendMsg(&echopb.EchoRequest{Message: "q"}) }
	for _, tt := range []struct {
		name string
		desc *grpc.StreamDesc
		run  func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, cancel func())
	}{
		{"Header waits, RecvMsg repeats the end, Trailer follows", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			got := make(chan metadata.MD)
			go func() {
				md, _ := s.Header()
				got <- md
			}()
			synctest.Wait()
			if len(got) > 0 {
				t.Error("Header did not wait")
			}
			p.send(&frame{call: 1, header: metadata.Pairs("a", "b")})
			if md := <-got; !slices.Equal(md["a"], []string{"b"}) {
				t.Errorf("Header = %v", md)
			}
			p.respond(1, "one")
			p.end(1, 0, "c", "d")
			if m, err := recv(s); m != "one" || err != nil {
				t.Errorf("RecvMsg = %q, %v", m, err)
			}
			for range 3 {
				if _, err := recv(s); err != io.EOF {
					t.Errorf("RecvMsg = %v, want io.EOF", err)
				}
			}
			if md := s.Trailer(); !slices.Equal(md["c"], []string{"d"}) {
				t.Errorf("Trailer = %v", md)
			}
			if s.Context().Err() == nil {
				t.Error("the stream's context has not ended")
			}
		}},
		{"Header is nil where there is none", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			p.end(1, 5)
			if md, err := s.Header(); md != nil || err != nil {
				t.Errorf("Header = %v, %v", md, err)
			}
			for range 3 {
				if _, err := recv(s); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "as told" {
					t.Errorf("RecvMsg = %v", err)
				}
			}
		}},
		{"Header is empty where the first message comes without", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			p.respond(1, "one")
			if md, _ := s.Header(); md == nil || len(md) > 0 {
				t.Errorf("Header = %#v", md)
			}
		}},
		{"SendMsg is io.EOF after the end", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			p.end(1, 5)
			synctest.Wait()
			for range 2 {
				if err := send(s); err != io.EOF {
					t.Errorf("SendMsg = %v, want io.EOF", err)
				}
			}
			if _, err := recv(s); status.Code(err) != codes.NotFound {
				t.Errorf("RecvMsg = %v", err)
			}
		}},
		{"SendMsg is nil after the end where the client does not stream", unary, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			p.end(1, 5)
			synctest.Wait()
			if err := send(s); err != nil {
				t.Errorf("SendMsg = %v", err)
			}
		}},
		{"CloseSend half-closes once, SendMsg is refused after it", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			send(s)
			if f := p.next(); p.echoText(f) != "q" || f.halfClose {
				t.Errorf("sent %+v", f)
			}
			if err := errors.Join(s.CloseSend(), s.CloseSend()); err != nil {
				t.Errorf("CloseSend = %v", err)
			}
			if f := p.next(); !f.halfClose || f.message != nil {
				t.Errorf("sent %+v, want a half-close", f)
			}
			if err := send(s); status.Code(err) != codes.Internal {
				t.Errorf("SendMsg = %v", err)
			}
			if f := p.next(); !f.cancel {
				t.Errorf("sent %+v, want cancel", f)
			}
		}},
		{"the only message half-closes", unary, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.next()
			send(s)
			if f := p.next(); p.echoText(f) != "q" || !f.halfClose {
				t.Errorf("sent %+v", f)
			}
			p.respond(1, "a")
			p.end(1, 0)
			if m, err := recv(s); m != "a" || err != nil {
				t.Errorf("RecvMsg = %q, %v", m, err)
			}
			if _, err := recv(s); err != io.EOF {
				t.Errorf("RecvMsg = %v, want io.EOF", err)
			}
		}},
		{"an answer counts only with OK", unary, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.respond(p.next().call, "a")
			p.end(1, 5)
			if _, err := recv(s); status.Code(err) != codes.NotFound {
				t.Errorf("RecvMsg = %v", err)
			}
		}},
		{"OK without an answer", unary, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.end(p.next().call, 0)
			if _, err := recv(s); status.Code(err) != codes.Internal {
				t.Errorf("RecvMsg = %v", err)
			}
		}},
		{"two answers", unary, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.respond(p.next().call, "a")
			p.respond(1, "b")
			if _, err := recv(s); status.Code(err) != codes.Internal {
				t.Errorf("RecvMsg = %v", err)
			}
			if f := p.next(); !f.cancel {
				t.Errorf("sent %+v, want cancel", f)
			}
		}},
		{"the end of the context cancels", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, cancel func()) {
			p.next()
			cancel()
			if f := p.next(); !f.cancel || f.call != 1 {
				t.Errorf("sent %+v, want cancel", f)
			}
			if _, err := recv(s); status.Code(err) != codes.Canceled {
				t.Errorf("RecvMsg = %v", err)
			}
			if err := send(s); err != io.EOF {
				t.Errorf("SendMsg = %v", err)
			}
			p.respond(1, "late") // and is ignored
			synctest.Wait()
		}},
		{"a message that is not one", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.send(&frame{call: p.next().call, message: []byte{0x80}})
			if _, err := recv(s); status.Code(err) != codes.Internal {
				t.Errorf("RecvMsg = %v", err)
			}
		}},
		{"a second header", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.send(&frame{call: p.next().call, header: metadata.MD{}})
			p.send(&frame{call: 1, header: metadata.MD{}})
			if _, err := recv(s); status.Code(err) != codes.Internal {
				t.Errorf("RecvMsg = %v", err)
			}
			if f := p.next(); !f.cancel {
				t.Errorf("sent %+v, want cancel", f)
			}
		}},
		{"a credit above 2^31-1", bidi, func(t *testing.T, s grpc.ClientStream, p *scriptedPeer, _ func()) {
			p.send(&frame{call: p.next().call, credit: 1<<31 - 1 - 65536})
			synctest.Wait()
			if err := send(s); err != nil {
				t.Errorf("SendMsg = %v at 2^31-1", err)
			}
			p.next()
			p.send(&frame{call: 1, credit: 20})
			if _, err := recv(s); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("RecvMsg = %v", err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := newScripted(t).connect(DialOptions{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, err := c.NewStream(ctx, tt.desc, "/echo.v1.EchoService/Converse")
				if err != nil {
					t.Fatal(err)
				}
				tt.run(t, s, p, cancel)
			})
		})
	}
}

// The client keeps the time itself.
func TestClientDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newScripted(t).connect(DialOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := echopb.NewEchoServiceClient(c).Echo(ctx, &echopb.EchoRequest{})
		if took := time.Since(begin); status.Code(err) != codes.DeadlineExceeded || took != 10*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		if f := p.next(); f.open.timeoutMS != 10000 {
			t.Errorf("timeout %d ms", f.open.timeoutMS)
		}
		if f := p.next(); !f.cancel {
			t.Errorf("sent %+v, want cancel", f)
		}
	})
}
