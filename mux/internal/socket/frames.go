package socket

import "encoding/binary"

// Bits of the first two bytes of a frame (RFC 6455 §5.2).
const (
	final  = 0x80
	masked = 0x80
)

// opcodes of control frames (RFC 6455 §5.2); those of messages are Kinds.
const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// FrameCheck follows the frame headers in a stream of bytes from a peer and
// finds what gorilla lets pass: lengths that are not minimal or have the top bit
// set, one-byte close frames, and messages of endless, perhaps empty, frames.
type FrameCheck struct {
	MaxFrames int // of one message

	frames  int      // of the message that is open or was last
	header  [10]byte // of the current frame, without the masking key
	have    int      // bytes of header and key seen
	lengthy int      // bytes of header, known once two are seen
	want    int      // bytes of header and key, likewise
	payload uint64   // bytes of payload still to come after those
}

// Check looks at the next bytes of the stream. It returns how many of them may
// be passed on and, if that is not all, why: the error is a *CloseError to send.
// It may not be called after an error.
func (f *FrameCheck) Check(p []byte) (int, error) {
	for i := 0; i < len(p); i++ {
		if f.have == f.want && f.have > 0 {
			if f.payload >= uint64(len(p)-i) {
				f.payload -= uint64(len(p) - i)
				break
			}
			i += int(f.payload)
			f.payload, f.have = 0, 0
		}
		if f.have < len(f.header) {
			f.header[f.have] = p[i]
		}
		f.have++
		if f.have == 2 {
			if err := f.begin(); err != nil {
				return i, err
			}
		}
		// At once, for gorilla judges the length before it has the key.
		if f.have == f.lengthy {
			if err := f.length(); err != nil {
				return i, err
			}
		}
	}
	return len(p), nil
}

// between tells whether the next byte begins a frame.
func (f *FrameCheck) between() bool { return f.have == 0 || f.have == f.want && f.payload == 0 }

// begin judges the first two bytes of a frame.
func (f *FrameCheck) begin() error {
	opcode, length := f.header[0]&0xf, f.header[1]&0x7f
	switch {
	case opcode == opClose && length == 1:
		return &CloseError{Code: CloseProtocol, Reason: "close frame of one byte"} // §5.5.1
	case opcode >= opClose:
	case opcode != 0:
		f.frames = 1
	default:
		f.frames++
		if f.frames > f.MaxFrames {
			return &CloseError{Code: ClosePolicy, Reason: "too many frames in one message"}
		}
	}
	f.lengthy = 2
	switch length {
	case 126:
		f.lengthy = 4
	case 127:
		f.lengthy = 10
	}
	f.want = f.lengthy
	if f.header[1]&0x80 != 0 {
		f.want += 4
	}
	return nil
}

// length judges the payload length of a frame (§5.2).
func (f *FrameCheck) length() error {
	least := uint64(0)
	switch n := f.header[1] & 0x7f; n {
	default:
		f.payload = uint64(n)
	case 126:
		f.payload, least = uint64(binary.BigEndian.Uint16(f.header[2:])), 126
	case 127:
		f.payload, least = binary.BigEndian.Uint64(f.header[2:]), 1<<16
	}
	switch {
	case f.payload < least:
		return &CloseError{Code: CloseProtocol, Reason: "frame length not in its shortest form"}
	case f.payload > 1<<63-1:
		return &CloseError{Code: CloseProtocol, Reason: "frame length above 2^63-1"}
	}
	return nil
}

// appendHeader appends the header of an unfragmented frame of a server.
func appendHeader(b []byte, opcode byte, n int) []byte {
	b = append(b, 0x80|opcode)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
}

// maxHeader is the length of the longest header made by appendHeader.
const maxHeader = 10
