package rpc

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Codec encodes messages. Both kinds take what generated code gives them:
// proto.Message, or the older protoadapt.MessageV1.
type Codec interface {
	// Append appends the encoding of m to b and returns the extended slice. A
	// nil m counts as an empty message, as in grpc-go.
	Append(b []byte, m any) ([]byte, error)
	// Unmarshal replaces the content of m. It keeps no reference to b. The
	// error is safe for the sender of b: it has a bounded length.
	Unmarshal(b []byte, m any) error
}

// Proto is the protobuf binary format, JSON its JSON mapping (protojson) as it is
// without options.
var (
	Proto Codec = protoCodec{}
	JSON  Codec = NewJSON(protojson.MarshalOptions{})
)

// source is a message to be read. Nil is one without fields: interceptors and
// handlers that return (nil, nil) get away with it over grpc-go too.
func source(m any) (proto.Message, error) {
	if m == nil {
		return (*emptypb.Empty)(nil), nil
	}
	return MessageOf(m)
}

// MessageOf is m as a proto.Message: a message of generated code, also of old.
func MessageOf(m any) (proto.Message, error) {
	switch m := m.(type) {
	case proto.Message:
		return m, nil
	case protoadapt.MessageV1:
		return protoadapt.MessageV2Of(m), nil
	}
	return nil, fmt.Errorf("rpc: %T is not a protobuf message", m)
}

type protoCodec struct{}

func (protoCodec) Append(b []byte, m any) ([]byte, error) {
	pm, err := source(m)
	if err != nil {
		return b, err
	}
	return proto.MarshalOptions{}.MarshalAppend(b, pm)
}

func (protoCodec) Unmarshal(b []byte, m any) error {
	pm, err := MessageOf(m)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, pm)
}

type jsonCodec struct{ marshal protojson.MarshalOptions }

// NewJSON is JSON with options, of which Multiline and Indent do not count: a message is
// one line.
func NewJSON(opts protojson.MarshalOptions) Codec {
	opts.Multiline, opts.Indent = false, ""
	return jsonCodec{opts}
}

// Append writes compact JSON. protojson puts random spaces into its output, so
// that nobody relies on it; here the text is stable, since people read it in a
// terminal and in DevTools.
func (c jsonCodec) Append(b []byte, m any) ([]byte, error) {
	pm, err := source(m)
	if err != nil {
		return b, err
	}
	text, err := c.marshal.MarshalAppend(b, pm)
	if err != nil {
		return b, err
	}
	return compact(text, len(b)), nil
}

// compact takes the spaces out of the JSON in b from start on, in place.
func compact(b []byte, start int) []byte {
	i := bytes.IndexByte(b[start:], ' ')
	if i < 0 {
		return b
	}
	// The space may be in a string, so from the start.
	out := b[:start]
	for rest := b[start:]; len(rest) > 0; {
		n := 1
		switch rest[0] {
		case ' ':
			rest = rest[1:]
			continue
		case '"':
			n = stringLen(rest)
		}
		out = append(out, rest[:n]...)
		rest = rest[n:]
	}
	return out
}

// stringLen is the length of the JSON string that b begins with.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// MaxJSONDepth bounds nesting, since each level costs a reader more memory than
// the two bytes it is written with.
const MaxJSONDepth = 100

// Unmarshal ignores unknown fields, so that an older server accepts a newer
// client, as the binary format does.
func (jsonCodec) Unmarshal(b []byte, m any) error {
	pm, err := MessageOf(m)
	if err != nil {
		return err
	}
	opts := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: MaxJSONDepth}
	if err := opts.Unmarshal(b, pm); err != nil {
		return errors.New(clip(err.Error())) // protojson quotes its input, however long
	}
	return nil
}
