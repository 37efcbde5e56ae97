package rpc

import (
	"bytes"
	"encoding/json"
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

// Proto is the protobuf binary format, JSON its JSON mapping (protojson).
var (
	Proto Codec = protoCodec{}
	JSON  Codec = jsonCodec{}
)

// source is a message to be read. Nil is one without fields: interceptors and
// handlers that return (nil, nil) get away with it over grpc-go too.
func source(m any) (proto.Message, error) {
	if m == nil {
		return (*emptypb.Empty)(nil), nil
	}
	return target(m)
}

// target is a message to be written into.
func target(m any) (proto.Message, error) {
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
	pm, err := target(m)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, pm)
}

type jsonCodec struct{}

// Append writes compact JSON. protojson puts random spaces into its output, so
// that nobody relies on it; here the text is stable, since people read it in a
// terminal and in DevTools.
func (jsonCodec) Append(b []byte, m any) ([]byte, error) {
	pm, err := source(m)
	if err != nil {
		return b, err
	}
	text, err := protojson.Marshal(pm)
	if err != nil {
		return b, err
	}
	buf := bytes.NewBuffer(b)
	if err := json.Compact(buf, text); err != nil {
		return b, err
	}
	return buf.Bytes(), nil
}

// maxJSONDepth bounds nesting, since each level costs a reader more memory than
// the two bytes it is written with.
const maxJSONDepth = 100

// Unmarshal ignores unknown fields, so that an older server accepts a newer
// client, as the binary format does.
func (jsonCodec) Unmarshal(b []byte, m any) error {
	pm, err := target(m)
	if err != nil {
		return err
	}
	opts := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxJSONDepth}
	if err := opts.Unmarshal(b, pm); err != nil {
		return errors.New(clip(err.Error())) // protojson quotes its input, however long
	}
	return nil
}
