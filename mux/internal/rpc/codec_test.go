package rpc_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
)

var codecs = map[string]rpc.Codec{"proto": rpc.Proto, "json": rpc.JSON}

// oldMessage is what protoc-gen-go generated before 2020.
type oldMessage struct {
	Message string `protobuf:"bytes,1,opt,name=message,proto3"`
}

var _ protoadapt.MessageV1 = (*oldMessage)(nil)

func (o *oldMessage) Reset()         { *o = oldMessage{} }
func (o *oldMessage) String() string { return o.Message }
func (o *oldMessage) ProtoMessage()  {}

func TestCodecRoundTrip(t *testing.T) {
	want := &echopb.ExpandRequest{Message: "<é & \u2028>", Count: 7}
	for name, codec := range codecs {
		b, err := codec.Append([]byte("before"), want)
		if err != nil || !strings.HasPrefix(string(b), "before") {
			t.Errorf("%s: Append = %q, %v, want it after the text before", name, b, err)
			continue
		}
		got := &echopb.ExpandRequest{Message: "old", Interval: nil}
		b = b[len("before"):]
		if err := codec.Unmarshal(b, got); err != nil {
			t.Errorf("%s: Unmarshal(%q) = %v", name, b, err)
		}
		for i := range b {
			b[i] = 'x'
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: round trip (-want +got):\n%s", name, diff)
		}
	}
}

func TestCodecTakesOldMessages(t *testing.T) {
	for name, codec := range codecs {
		b, err := codec.Append(nil, &oldMessage{Message: "a"})
		if err != nil {
			t.Errorf("%s: Append = %v", name, err)
		}
		got := &oldMessage{Message: "old"}
		if err := codec.Unmarshal(b, got); err != nil || got.Message != "a" {
			t.Errorf("%s: Unmarshal(%q) gives %q, %v, want a", name, b, got.Message, err)
		}
	}
}

func TestCodecNilMessage(t *testing.T) {
	want := map[string]string{"proto": "", "json": "{}"}
	for name, codec := range codecs {
		for _, m := range []any{nil, (*echopb.EchoRequest)(nil)} {
			if b, err := codec.Append(nil, m); string(b) != want[name] || err != nil {
				t.Errorf("%s: Append(%T(nil)) = %q, %v, want %q", name, m, b, err, want[name])
			}
		}
		if err := codec.Unmarshal([]byte(want[name]), nil); err == nil {
			t.Errorf("%s: Unmarshal into nil = nil, want an error", name)
		}
	}
}

func TestCodecNotAMessage(t *testing.T) {
	for name, codec := range codecs {
		if b, err := codec.Append([]byte("a"), 7); err == nil || string(b) != "a" {
			t.Errorf("%s: Append(7) = %q, %v, want what it had and an error", name, b, err)
		}
		if err := codec.Unmarshal(nil, new(int)); err == nil {
			t.Errorf("%s: Unmarshal into *int = nil, want an error", name)
		}
		if b, err := codec.Append([]byte("a"), wrapperspb.String("\xff")); err == nil || string(b[:1]) != "a" {
			t.Errorf("%s: Append of a text that is not UTF-8 = %q, %v, want an error", name, b, err)
		}
	}
}

// People read the JSON, and tests of users compare it.
func TestJSONIsCompactAndStable(t *testing.T) {
	m, err := structpb.NewStruct(map[string]any{"b": "< >", "a": []any{1, true, nil}, "c": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"a":[1,true,null],"b":"< >","c":{}}`
	for range 20 {
		if got, err := rpc.JSON.Append(nil, m); string(got) != want || err != nil {
			t.Fatalf("Append = %s, %v, want %s", got, err, want)
		}
	}
}

func TestJSONIgnoresUnknownFields(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"message":"a","later":{"x":[1,"]"]}}`, "a"},
		{`{"later":null}`, ""},
	} {
		got := &echopb.EchoRequest{Message: "old"}
		if err := rpc.JSON.Unmarshal([]byte(tt.in), got); err != nil || got.Message != tt.want {
			t.Errorf("Unmarshal(%s) gives %q, %v, want %q", tt.in, got.Message, err, tt.want)
		}
	}
}

func TestJSONDepth(t *testing.T) {
	for _, tt := range []struct {
		name, open, inner, close string
		m                        proto.Message
	}{
		{"messages", `{"nestedType":[`, `{}`, `]}`, new(descriptorpb.DescriptorProto)},
		{"lists", `[`, `[]`, `]`, new(structpb.ListValue)},
		{"structs", `{"a":`, `{}`, `}`, new(structpb.Struct)},
		{"unknown field", `{"later":`, `{}`, `}`, new(echopb.EchoRequest)},
	} {
		nested := func(depth int) []byte {
			return []byte(strings.Repeat(tt.open, depth-1) + tt.inner + strings.Repeat(tt.close, depth-1))
		}
		if err := rpc.JSON.Unmarshal(nested(100), tt.m); err != nil {
			t.Errorf("%s: depth 100 = %v, want nil", tt.name, err)
		}
		if err := rpc.JSON.Unmarshal(nested(101), tt.m); err == nil {
			t.Errorf("%s: depth 101 = nil, want an error", tt.name)
		}
	}
}

// protojson quotes what it did not like.
func TestJSONErrorIsShort(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, in := range []string{`{"count":"` + long + `"}`, `{"count":` + strings.Repeat("9", 1<<20) + `}`, long, `{"message":"\xff` + long} {
		err := rpc.JSON.Unmarshal([]byte(in), new(echopb.ExpandRequest))
		if err == nil || len(err.Error()) > 300 || !utf8.ValidString(err.Error()) {
			t.Errorf("Unmarshal(%.20s…) = %.400v, want a short error in UTF-8", in, err)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,null,{"b":"c"}]}`))
	f.Add([]byte(`[[[[[[`))
	f.Add([]byte("{\"a\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(structpb.Value)
		if err := rpc.JSON.Unmarshal(b, m); err != nil {
			if len(err.Error()) > 300 || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q: error of %d bytes", b, len(err.Error()))
			}
			return
		}
		out, err := rpc.JSON.Append(nil, m)
		if err != nil || !json.Valid(out) {
			t.Fatalf("%q: Append = %q, %v", b, out, err)
		}
		again := new(structpb.Value)
		if err := rpc.JSON.Unmarshal(out, again); err != nil || !proto.Equal(m, again) {
			t.Fatalf("%q became %q, which reads as %v, %v", b, out, again, err)
		}
	})
}

// The text is what json.Compact makes of it, also where strings have blanks, quotes and
// backslashes.
func TestJSONIsCompact(t *testing.T) {
	for _, text := range []string{"", " ", `"`, `\`, `\" `, `a "b" \\`, `": , `, "\u2028 é", strings.Repeat(` \" `, 100)} {
		m := &structpb.Struct{Fields: map[string]*structpb.Value{
			text: structpb.NewStringValue(text), text + " ": structpb.NewListValue(&structpb.ListValue{
				Values: []*structpb.Value{structpb.NewNumberValue(1), structpb.NewStringValue(text), structpb.NewNullValue()}}),
		}}
		loose, err := protojson.MarshalOptions{Multiline: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, loose); err != nil {
			t.Fatal(err)
		}
		got, err := rpc.JSON.Append([]byte("be fore "), m)
		if err != nil || string(got) != "be fore "+want.String() {
			t.Errorf("%q: %s, %v, want %s", text, got, err, &want)
		}
	}
}

func TestJSONOptions(t *testing.T) {
	m := &echopb.CollectResponse{}
	for _, tt := range []struct {
		opts protojson.MarshalOptions
		want string
	}{
		{protojson.MarshalOptions{}, `{}`},
		{protojson.MarshalOptions{EmitUnpopulated: true}, `{"messages":[]}`},
		{protojson.MarshalOptions{EmitUnpopulated: true, Multiline: true, Indent: "  "}, `{"messages":[]}`},
	} {
		reg := rpc.NewRegistry(rpc.Config{JSON: tt.opts})
		if got, err := reg.JSON().Append(nil, m); err != nil || string(got) != tt.want {
			t.Errorf("%v: %s, %v, want %s", tt.opts, got, err, tt.want)
		}
	}
}
