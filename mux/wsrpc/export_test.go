package wsrpc

import (
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
)

// ToBinary makes a frame of protobuf of one of JSON, whose message, if there is one, is of
// the type of m.
func ToBinary(text string, m proto.Message) ([]byte, error) {
	var f frame
	if err := f.parseJSON([]byte(text)); err != nil {
		return nil, err
	}
	if f.message != nil {
		m = m.ProtoReflect().New().Interface()
		if err := rpc.JSON.Unmarshal(f.message, m); err != nil {
			return nil, err
		}
		var err error
		if f.message, err = rpc.Proto.Append([]byte{}, m); err != nil {
			return nil, err
		}
	}
	return f.appendBinary(nil), nil
}

// ToText is the inverse of ToBinary, for messages of the type that is the call's.
func ToText(b []byte, of func(call int) proto.Message) ([]byte, error) {
	var f frame
	if err := f.parseBinary(b); err != nil {
		return nil, err
	}
	if f.message != nil {
		m := of(int(f.call)).ProtoReflect().New().Interface()
		if err := rpc.Proto.Unmarshal(f.message, m); err != nil {
			return nil, err
		}
		var err error
		if f.message, err = rpc.JSON.Append([]byte{}, m); err != nil {
			return nil, err
		}
	}
	return f.appendJSON(nil)
}
