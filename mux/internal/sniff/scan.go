package sniff

import "golang.org/x/net/http2"

// A frameScan follows a stream of HTTP/2 frames that comes in pieces cut anywhere, from one frame header to the next
// (RFC 9113, section 4.1). It holds no more than one header.
type frameScan struct {
	skip int                  // bytes before the next frame header: preface or payload
	hdr  [frameHeaderLen]byte // the last header that was whole, or the start of the next
	held int                  // how much of hdr is there of the next
}

// payload counts the next n bytes. It returns how many of them come before the next frame header.
func (s *frameScan) payload(n int) int {
	n = min(n, s.skip)
	s.skip -= n
	return n
}

// header takes bytes of a frame header, with which p starts. It returns how many, and whether the header is whole:
// then the other methods tell of it, until the next call.
func (s *frameScan) header(p []byte) (n int, whole bool) {
	if s.held == 0 && len(p) >= len(s.hdr) { // the usual case, which costs half as much like this
		s.hdr = [frameHeaderLen]byte(p)
		n = len(s.hdr)
	} else {
		n = copy(s.hdr[s.held:], p)
		if s.held += n; s.held < len(s.hdr) {
			return n, false
		}
		s.held = 0
	}
	s.skip = s.length()
	return n, true
}

func (s *frameScan) length() int { return int(s.hdr[0])<<16 | int(s.hdr[1])<<8 | int(s.hdr[2]) }

func (s *frameScan) isType(t http2.FrameType) bool { return http2.FrameType(s.hdr[3]) == t }

func (s *frameScan) hasFlag(f http2.Flags) bool { return http2.Flags(s.hdr[4]).Has(f) }

func (s *frameScan) isSettingsAck() bool {
	return s.isType(http2.FrameSettings) && s.hasFlag(http2.FlagSettingsAck) && s.length() == 0
}
