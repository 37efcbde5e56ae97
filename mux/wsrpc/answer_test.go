package wsrpc

import (
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// A message that cannot be encoded costs its own call and nobody else an answer: the
// buffer is used again.
func TestAnswerAfterError(t *testing.T) {
	for kind, codec := range map[socket.Kind]rpc.Codec{socket.Text: rpc.JSON, socket.Binary: rpc.Proto} {
		var a answer
		// Of a map with such a key protobuf returns nothing, not what it was given.
		if err := a.set(codec, kind, 1, &structpb.Struct{Fields: map[string]*structpb.Value{"\xff": nil}}); err == nil {
			t.Errorf("kind %d: a key that is not UTF-8 is encoded", kind)
		}
		if err := a.set(codec, kind, 1, wrapperspb.String("x")); err != nil {
			t.Errorf("kind %d: the message after one that cannot be encoded: %v", kind, err)
		}
		a.release()
	}
}
