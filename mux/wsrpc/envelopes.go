package wsrpc

import (
	"encoding/binary"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// prefixBytes precede each message in a body of gRPC-Web: flags, and the length in four
// bytes ("Length-Prefixed-Message" in PROTOCOL-HTTP2.md). trailerFlag tells that what
// follows is no message but lines of a header or trailer (PROTOCOL-WEB.md).
const (
	prefixBytes = 5
	trailerFlag = 0x80
)

// envelopes takes the messages out of a body that comes in parts, wherever those end.
type envelopes struct {
	limit int // bytes of a message

	part  []byte // not taken yet, of the last that was added
	begun []byte // an envelope that began in one before; never more than has come of it
}

// add gives it the next part, once next has told that it needs one.
func (e *envelopes) add(part []byte) { e.part = part }

// next returns the next message, or false if more is needed for one. The message is good
// for as long as the parts are. An error, which is a status and safe for the client, is
// final.
func (e *envelopes) next() (message []byte, ok bool, err error) {
	if len(e.begun) == 0 && len(e.part) >= prefixBytes { // as it mostly is
		end, err := e.end(e.part)
		if err != nil {
			return nil, false, err
		}
		if end <= len(e.part) {
			message, e.part = e.part[prefixBytes:end], e.part[end:]
			return message, true, nil
		}
	}
	if !e.fill(prefixBytes) {
		return nil, false, nil
	}
	end, err := e.end(e.begun)
	if err != nil || !e.fill(end) {
		return nil, false, err
	}
	message, e.begun = e.begun[prefixBytes:], nil
	return message, true, nil
}

// fill moves bytes to begun until there are n. It reports false if there are not.
func (e *envelopes) fill(n int) bool {
	k := min(max(n-len(e.begun), 0), len(e.part))
	e.begun = append(e.begun, e.part[:k]...)
	e.part = e.part[k:]
	return len(e.begun) >= n
}

// partial tells whether an envelope has begun and not ended.
func (e *envelopes) partial() bool { return len(e.begun) > 0 }

// end judges the prefix of an envelope and returns where it ends.
func (e *envelopes) end(envelope []byte) (int, error) {
	switch flags := envelope[0]; {
	case flags == 1:
		return 0, status.Error(codes.Unimplemented, "a compressed message; compression is not spoken over grpc-websockets, send messages with flags 0")
	case flags != 0:
		return 0, status.Errorf(codes.InvalidArgument, "an envelope with flags %#x; a message has 0", flags)
	}
	size := binary.BigEndian.Uint32(envelope[1:])
	if uint64(size) > uint64(e.limit) {
		return 0, rpc.ErrTooLarge(int(size), e.limit)
	}
	return prefixBytes + int(size), nil
}

// seal makes an envelope of b, whose first prefixBytes are left for that.
func seal(b []byte, flags byte) []byte {
	b[0] = flags
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-prefixBytes))
	return b
}
