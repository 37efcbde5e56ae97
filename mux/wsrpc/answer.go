package wsrpc

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// answer is a message of a call, or none, that the rest of its frame can be put around
// without copying it.
type answer struct {
	kind  socket.Kind
	buf   *[]byte // the message, after answerRoom bytes; nil: there is no message
	start int     // in buf, of the frame

	// What all frames of the call with a message begin with: its number, and the tag of
	// the message.
	front    [1 + 5 + 1]byte
	frontLen uint8 // zero before the first
}

// answerRoom is what the beginning of a frame may take: front, and the message's length.
const answerRoom = 1 + 5 + 1 + 5

// answerBuffers holds *[]byte.
var answerBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

const (
	// maxAnswerBuffer is the capacity above which a buffer is not kept for reuse,
	// maxKeptAnswer that above which it is not kept by a call from one message to
	// the next.
	maxAnswerBuffer = 128 << 10
	maxKeptAnswer   = 8 << 10
)

// set encodes a message of a call, always the same one, by codec into a, in place of the
// message before. The caller must release a, also after an error.
func (a *answer) set(codec rpc.Codec, kind socket.Kind, call uint32, m any) error {
	a.kind = kind
	if a.buf == nil {
		a.buf = answerBuffers.Get().(*[]byte)
	}
	b, err := codec.Append((*a.buf)[:answerRoom], m)
	if err != nil {
		return err // b may be nil
	}
	*a.buf = b
	if kind != socket.Binary {
		return nil
	}
	if a.frontLen == 0 {
		f := appendUint(a.front[:0], 1, uint64(call))
		a.frontLen = uint8(len(protowire.AppendTag(f, 3, protowire.BytesType)))
	}
	size := uint64(len(b) - answerRoom)
	at := answerRoom - protowire.SizeVarint(size)
	protowire.AppendVarint(b[:at], size)
	a.start = at - int(a.frontLen)
	copy(b[a.start:at], a.front[:a.frontLen])
	return nil
}

// size is the length of the message.
func (a *answer) size() int { return len(*a.buf) - answerRoom }

// encode makes a frame of a and of f, which is of the same call and has no message. The
// bytes are good until a is set or released. It is errTooMuch if no client could read
// the frame.
func (a *answer) encode(f *frame) (b []byte, err error) {
	whole, size := *f, 0
	if a.buf != nil {
		size = a.size()
	}
	switch {
	case a.buf == nil:
		b, err = whole.append(nil, a.kind)
	case a.kind == socket.Binary:
		whole.call = 0 // which is in front of the message
		*a.buf = whole.appendBinary(*a.buf)
		b = a.alone()
	default:
		whole.message = (*a.buf)[answerRoom:]
		b, err = whole.appendJSON(nil)
	}
	if err == nil && len(b)-size > frameRoom {
		err = errTooMuch
	}
	return b, err
}

// alone makes a frame of a alone, which is one of protobuf.
func (a *answer) alone() []byte { return (*a.buf)[a.start:] }

// release gives the buffer back for reuse. It may be called again.
func (a *answer) release() {
	if a.buf != nil {
		recycle(a.buf)
	}
	a.buf = nil
}

// recycle gives a buffer back to answerBuffers.
func recycle(b *[]byte) {
	if cap(*b) <= maxAnswerBuffer {
		answerBuffers.Put(b)
	}
}
