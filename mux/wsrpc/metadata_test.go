package wsrpc

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
)

// What a handler sees of a call does not depend on the calls before it, though a server
// remembers what it decoded.
func TestMetadataRemembered(t *testing.T) {
	tells := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		md["a"] = append(md["a"], "changed by a handler")
		md, _ = metadata.FromIncomingContext(ctx)
		return wrapperspb.String(fmt.Sprintf("a=%q b=%q c=%q", md["a"], md["b"], md["c-bin"])), nil
	}}
	open := func(md metadata.MD) *frame {
		return &frame{open: &openFrame{method: "/t/Unary", metadata: md}, message: []byte{}}
	}
	withHello := open(metadata.MD{"a": {"1"}})
	withHello.hello = &helloFrame{metadata: metadata.MD{"b": {"told again"}}}
	frames := []struct {
		*frame
		more []byte // of the frame
		want string
	}{
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["handshake"] c=[]`},
		{frame: open(nil), want: `a=[] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}, "b": {"2", "3"}, "c-bin": {"\x00"}}), want: `a=["1"] b=["2" "3"] c=["\x00"]`},
		{frame: open(metadata.MD{"a": {"1"}, "b": {"2", "3"}, "c-bin": {"\x00"}}), want: `a=["1"] b=["2" "3"] c=["\x00"]`},
		{frame: open(metadata.MD{"a": {strings.Repeat("x", maxRaw)}}), want: `a=["` + strings.Repeat("x", maxRaw) + `"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {strings.Repeat("x", maxRaw)}}), want: `a=["` + strings.Repeat("x", maxRaw) + `"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["handshake"] c=[]`},
		// A second open in one frame is merged with the first.
		{frame: open(metadata.MD{"a": {"1"}}), more: (&frame{open: &openFrame{metadata: metadata.MD{"a": {"4"}}}}).appendBinary(nil),
			want: `a=["1" "4"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"5"}}), more: (&frame{open: &openFrame{metadata: metadata.MD{"a": {"4"}}}}).appendBinary(nil),
			want: `a=["5" "4"] b=["handshake"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["handshake"] c=[]`},
		{frame: withHello, want: `a=["1"] b=["told again"] c=[]`},
		{frame: open(metadata.MD{"a": {"1"}}), want: `a=["1"] b=["told again"] c=[]`},
		{frame: open(nil), want: `a=[] b=["told again"] c=[]`},
	}
	p := connect(t, tells, map[string][]string{"B": {"handshake"}})
	defer p.close()
	for i, f := range frames {
		f.call = uint32(i + 1)
		if err := p.ws.WriteMessage(websocket.BinaryMessage, append(f.appendBinary(nil), f.more...)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-p.got // hello
		}
		var answer frame
		var m wrapperspb.StringValue
		got := []byte(<-p.got)
		if err := answer.parseBinary(got); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if err := rpc.Proto.Unmarshal(answer.message, &m); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if m.Value != f.want {
			t.Errorf("call %d: handler saw %.300s, want %.300s", f.call, m.Value, f.want)
		}
	}
	if !bytes.Contains(p.mux.lastOpen.raw, []byte("a")) || len(p.mux.lastOpen.whole) == 0 {
		t.Error("nothing was remembered")
	}
}

// An idle socket keeps little of the call before: neither its message nor what is large.
func TestRememberedIsSmall(t *testing.T) {
	p := connect(t, &script{unary: func(context.Context, *text) (*text, error) { return new(text), nil }}, nil)
	defer p.close()
	for i, tt := range []struct {
		method     string
		remembered bool
	}{
		{"/t/Unary", true},
		{strings.Repeat("x", maxRaw), true},
		{strings.Repeat("y", maxRaw+1), false},
	} {
		f := &frame{call: uint32(i + 1), open: &openFrame{method: tt.method, metadata: metadata.MD{"a": {"1"}}}, message: make([]byte, 1<<20)}
		if err := p.ws.WriteMessage(websocket.BinaryMessage, f.appendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-p.got // hello
		}
		<-p.got
		// The ping has been read when the pong has come, and what was before it done with.
		if err := p.ws.WriteMessage(websocket.BinaryMessage, (&frame{ping: new(uint64)}).appendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		<-p.got
		if l := p.mux.lastOpen; l.space.raw != nil || (l.method == tt.method) != tt.remembered {
			t.Errorf("%.10s, %d bytes: %d bytes of a frame and a method of %d are kept", tt.method, len(tt.method), cap(l.space.raw), len(l.method))
		}
	}
}
