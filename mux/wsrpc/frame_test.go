package wsrpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
	greeterpb "oneport/proto/helloworld"
)

// vector is an entry of a file in testdata/vectors.
type vector struct {
	Name    string
	Text    *string
	Binary  *string // hex
	Written bool
	Close   int
}

func vectors(t testing.TB, name string) []vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil || len(vs) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(vs), err)
	}
	return vs
}

func (v vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(*v.Binary)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

func diffFrames(a, b *frame) string {
	return cmp.Diff(a, b, cmp.AllowUnexported(frame{}, openFrame{}, endFrame{}, helloFrame{}, goAwayFrame{}), protocmp.Transform())
}

// What a frame says is the same in both encodings, and is written as it is read.
func TestFrameVectors(t *testing.T) {
	written := 0
	for _, v := range vectors(t, "frames.json") {
		var text, binary frame
		if err := text.parseJSON([]byte(*v.Text)); err != nil {
			t.Errorf("%s: JSON: %v", v.Name, err)
			continue
		}
		if err := binary.parseBinary(v.bytes(t)); err != nil {
			t.Errorf("%s: protobuf: %v", v.Name, err)
			continue
		}
		if v.Written {
			written++
			if b, err := text.appendJSON([]byte("x")); err != nil || string(b) != "x"+*v.Text {
				t.Errorf("%s: JSON is written as %s, %v, want x%s", v.Name, b, err, *v.Text)
			}
			if b := binary.appendBinary([]byte("x")); !bytes.Equal(b, append([]byte("x"), v.bytes(t)...)) {
				t.Errorf("%s: protobuf is written as %x, want 78%s", v.Name, b, *v.Binary)
			}
		}
		if (text.message == nil) != (binary.message == nil) {
			t.Errorf("%s: a message in JSON: %v, in protobuf: %v", v.Name, text.message != nil, binary.message != nil)
		}
		text.message, binary.message = nil, nil
		if diff := diffFrames(&text, &binary); diff != "" {
			t.Errorf("%s: the encodings differ (-JSON +protobuf):\n%s", v.Name, diff)
		}
	}
	if written < 10 {
		t.Errorf("only %d vectors tell how a frame is written", written)
	}
}

func TestMalformedVectors(t *testing.T) {
	for _, v := range vectors(t, "malformed.json") {
		var f frame
		var err error
		if v.Text != nil {
			err = f.parseJSON([]byte(*v.Text))
		} else {
			err = f.parseBinary(v.bytes(t))
		}
		if err == nil || len(err.Error()) > 123 || v.Close != 1007 {
			t.Errorf("%s: %v, close code %d; want an error that fits into a close frame, and 1007", v.Name, err, v.Close)
		}
	}
}

// The examples of PROTOCOL.md are written like that, and among the vectors, whose bytes
// have the same message.
func TestExamplesOfProtocol(t *testing.T) {
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, examples, ok := bytes.Cut(text, []byte("## 8. Examples"))
	if !ok {
		t.Fatal("PROTOCOL.md has no examples")
	}
	inVectors := make(map[string]vector)
	for _, v := range vectors(t, "frames.json") {
		inVectors[*v.Text] = v
	}
	methods := make(map[uint32]string) // of calls
	n := 0
	for line := range bytes.Lines(examples) {
		_, example, ok := bytes.Cut(line, []byte(" {"))
		if !ok || line[0] != '<' && line[0] != '>' {
			continue
		}
		n++
		example = append([]byte("{"), bytes.TrimSpace(example)...)
		var f, binary frame
		if err := f.parseJSON(example); err != nil {
			t.Errorf("%s: %v", example, err)
			continue
		}
		if b, err := f.appendJSON(nil); err != nil || !bytes.Equal(b, example) {
			t.Errorf("%s is written as %s, %v", example, b, err)
		}
		v, ok := inVectors[string(example)]
		if !ok || !v.Written {
			t.Errorf("%s is not among the vectors that are written", example)
			continue
		}
		if f.open != nil {
			methods[f.call] = f.open.method
		}
		if f.message == nil {
			continue
		}
		if err := binary.parseBinary(v.bytes(t)); err != nil {
			t.Errorf("%s: protobuf: %v", v.Name, err)
			continue
		}
		want, got := exampleMessage(methods[f.call], line[0] == '>'), exampleMessage(methods[f.call], line[0] == '>')
		if err := errors.Join(rpc.JSON.Unmarshal(f.message, want), rpc.Proto.Unmarshal(binary.message, got)); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: the messages differ (-JSON +protobuf):\n%s", v.Name, diff)
		}
	}
	if n != 21 {
		t.Errorf("%d examples were found, want 21", n)
	}
}

// exampleMessage is a request of a method of the examples, or an answer.
func exampleMessage(method string, request bool) proto.Message {
	types := map[string][2]proto.Message{
		"helloworld.Greeter/SayHello":  {new(greeterpb.HelloReply), new(greeterpb.HelloRequest)},
		"/shop.v1.Shop/Buy":            {nil, new(emptypb.Empty)},
		"echo.v1.EchoService/Expand":   {new(echopb.ExpandResponse), new(echopb.ExpandRequest)},
		"echo.v1.EchoService/Converse": {new(echopb.ConverseResponse), new(echopb.ConverseRequest)},
	}[method]
	if request {
		return types[1]
	}
	return types[0]
}

// What can be read can be written and read again, to the same; in JSON too, if it
// can be said there.
func FuzzFrameBinary(f *testing.F) {
	for _, name := range []string{"frames.json", "malformed.json"} {
		for _, v := range vectors(f, name) {
			if v.Binary != nil {
				f.Add(v.bytes(f))
			}
		}
	}
	open := (&frame{call: 1, open: &openFrame{method: "m", metadata: metadata.MD{"a": {"1", "2"}}}}).appendBinary(nil)
	f.Add(open)
	f.Add(append(open, open...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, again frame
		err := first.parseBinary(b)
		last := new(lastOpen)
		for _, frames := range []string{"alone", "repeated"} { // what is remembered makes no difference
			got := frame{last: last}
			if gotErr := got.parseBinary(b); gotErr != err && fmt.Sprint(gotErr) != fmt.Sprint(err) {
				t.Fatalf("%x, %s: %v, want %v", b, frames, gotErr, err)
			}
			if err != nil {
				continue
			}
			if o := got.open; o != nil {
				last.keep(o)
				if o.repeats {
					if err := o.parseMetadata(o.raw, 0); err != nil {
						t.Fatalf("%x, %s: %v", b, frames, err)
					}
				}
				o.repeats, o.raw = false, nil
			}
			got.last = nil
			if diff := diffFrames(&first, &got); diff != "" {
				t.Fatalf("%x, %s (-want +got):\n%s", b, frames, diff)
			}
		}
		if err != nil {
			if len(err.Error()) > 123 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if err := again.parseBinary(first.appendBinary(nil)); err != nil {
			t.Fatalf("%x: written and read again: %v", b, err)
		}
		normalise(&first)
		normalise(&again)
		if diff := diffFrames(&first, &again); diff != "" {
			t.Fatalf("%x: written and read again (-first +again):\n%s", b, diff)
		}
	})
}

func FuzzFrameJSON(f *testing.F) {
	for _, name := range []string{"frames.json", "malformed.json"} {
		for _, v := range vectors(f, name) {
			if v.Text != nil {
				f.Add([]byte(*v.Text))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, again frame
		if err := first.parseJSON(b); err != nil {
			if len(err.Error()) > 123 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		text, err := first.appendJSON(nil)
		if err == nil {
			err = again.parseJSON(text)
		}
		if err != nil {
			t.Fatalf("%s: written and read again: %v", b, err)
		}
		// Blanks in a message are not written.
		if (first.message == nil) != (again.message == nil) {
			t.Fatalf("%s: a message first: %v, again: %v", b, first.message != nil, again.message != nil)
		}
		first.message, again.message = nil, nil
		normalise(&first)
		normalise(&again)
		if diff := diffFrames(&first, &again); diff != "" {
			t.Fatalf("%s: written and read again (-first +again):\n%s", b, diff)
		}
	})
}

// normalise makes metadata that is empty, in whichever way, nil: it is not written.
func normalise(f *frame) {
	var all []*metadata.MD
	if f.open != nil {
		all = append(all, &f.open.metadata)
	}
	if f.end != nil {
		all = append(all, &f.end.trailer)
	}
	if f.hello != nil {
		all = append(all, &f.hello.metadata)
	}
	for _, md := range all {
		if len(*md) == 0 {
			*md = nil
		}
	}
	for _, md := range append(all, &f.header) {
		for key, values := range *md {
			if len(values) == 0 {
				delete(*md, key)
			}
		}
	}
}

// What is of another type than it must be is told with that.
func TestTypesInJSON(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{"call":"1"}`, "call must be a number from 0 to 2^32-1, such as 1500"},
		{`{"call":1.5}`, "call must be a number from 0 to 2^32-1, such as 1500"},
		{`{"ping":-1}`, "ping must be a number from 0 to 2^64-1, such as 1500"},
		{`{"call":1,"open":{"timeoutMs":1e3}}`, "timeoutMs must be a number from 0 to 2^64-1, such as 1500"},
		{`{"call":1,"open":{"method":1}}`, "method must be a string"},
		{`{"call":1,"open":{"metadata":{"a":"b"}}}`, "metadata must be an object from key to a list of strings"},
		{`{"call":1,"halfClose":1}`, "halfClose must be true or false"},
		{`{"call":1,"end":{"details":{}}}`, "details must be a list of objects with type and value, strings"},
		{`{"call":1,"open":[]}`, "open is not an object"},
	} {
		var f frame
		if err := f.parseJSON([]byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.text, err, tt.want)
		}
	}
}
