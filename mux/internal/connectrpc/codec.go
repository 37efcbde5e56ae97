package connectrpc

import (
	"context"
	"io"

	"connectrpc.com/connect/v2"

	"oneport/mux/internal/rpc"
)

// codec gives a Codec of the core to connect under a name.
type codec struct {
	name string
	rpc.Codec
}

var _ connect.Codec = codec{}

func (c codec) Name() string { return c.name }

// MarshalWrite encodes into the spare room of dst where it has any.
func (c codec) MarshalWrite(_ context.Context, dst io.Writer, m any) error {
	var spare []byte
	if b, ok := dst.(interface{ AvailableBuffer() []byte }); ok {
		spare = b.AvailableBuffer()
	}
	b, err := c.Append(spare, m)
	if err != nil {
		return err
	}
	_, err = dst.Write(b)
	return err
}

// UnmarshalRead decodes src, which is one message that is there already.
func (c codec) UnmarshalRead(_ context.Context, src io.Reader, m any) error {
	var b []byte
	if buf, ok := src.(interface{ Bytes() []byte }); ok {
		b = buf.Bytes()
	} else {
		var err error
		if b, err = io.ReadAll(src); err != nil {
			return err
		}
	}
	if err := c.Unmarshal(b, m); err != nil {
		return badMessage{err}
	}
	return nil
}

// badMessage is a message that is not what its content type says.
type badMessage struct{ error }
