package sniff

import (
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// An ackScan finds the first SETTINGS acknowledgement in a stream of HTTP/2 frames that comes in pieces cut anywhere.
// It looks at frame headers only, and holds no more than one of them.
type ackScan struct {
	skip int                  // bytes that pass before the next frame header: preface or payload
	hdr  [frameHeaderLen]byte // the start of a frame header that was cut
	held int                  // how much of hdr is there
	done atomic.Bool          // the acknowledgement was found: all else passes
}

// next splits a piece that does not begin inside a frame header. p[:pass] may pass. If ack, a whole acknowledgement
// follows, and the stream is done; otherwise what is left of p is the start of a frame header, now held in hdr.
func (s *ackScan) next(p []byte) (pass int, ack bool) {
	for {
		if s.skip >= len(p)-pass {
			s.skip -= len(p) - pass
			return len(p), false
		}
		pass += s.skip
		s.skip = 0
		if len(p)-pass < frameHeaderLen {
			s.held = copy(s.hdr[:], p[pass:])
			return pass, false
		}
		if s.frame(p[pass:]) {
			return pass, true
		}
		s.skip += frameHeaderLen
	}
}

// frame takes note of the whole frame header that h starts with. It reports whether that is the acknowledgement.
func (s *ackScan) frame(h []byte) (ack bool) {
	length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if length == 0 && http2.FrameType(h[3]) == http2.FrameSettings && http2.Flags(h[4]).Has(http2.FlagSettingsAck) {
		s.done.Store(true)
		return true
	}
	s.skip = length
	return false
}

// whole takes note of the frame header in hdr, which has become whole. It reports whether that is the acknowledgement.
func (s *ackScan) whole() (ack bool) {
	s.held = 0
	return s.frame(s.hdr[:])
}

// An ackReader reads the frames a client sends, without its first SETTINGS acknowledgement.
type ackReader struct {
	ackScan
	src io.Reader
	out []byte // part of hdr, to be given out
}

func (r *ackReader) Read(p []byte) (int, error) {
	for len(p) > 0 && !r.done.Load() {
		switch {
		case len(r.out) > 0:
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		case r.held > 0:
			// Reading only the rest of the header keeps what follows out of the way: p may be too small for both.
			n, err := r.src.Read(r.hdr[r.held:])
			r.held += n
			switch {
			case r.held == len(r.hdr):
				if !r.whole() {
					r.out = r.hdr[:]
				}
			case err == io.EOF:
				r.out, r.held = r.hdr[:r.held], 0
			case err != nil:
				return 0, err
			}
		default:
			n, err := r.src.Read(p)
			if n == 0 {
				return 0, err
			}
			// An error that came with bytes comes again.
			pass, ack := r.next(p[:n])
			if ack {
				pass += copy(p[pass:], p[pass+frameHeaderLen:n])
			}
			if pass > 0 {
				return pass, nil
			}
		}
	}
	return r.src.Read(p)
}

// An ackWriter writes the frames a server sends, without its first SETTINGS acknowledgement.
type ackWriter struct {
	mu      sync.Mutex
	ackScan // guarded by mu, except done
	dst     io.Writer
}

// Write reports the bytes left out as written.
func (w *ackWriter) Write(p []byte) (n int, err error) {
	if w.done.Load() {
		return w.dst.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held > 0 {
		n = copy(w.hdr[w.held:], p)
		w.held += n
		if w.held < len(w.hdr) {
			return n, nil
		}
		if !w.whole() {
			if _, err := w.dst.Write(w.hdr[:]); err != nil {
				return 0, err
			}
		}
	}
	if w.done.Load() {
		return w.pass(p, n, len(p))
	}
	pass, ack := w.next(p[n:])
	if n, err = w.pass(p, n, n+pass); err != nil {
		return n, err
	}
	if ack {
		return w.pass(p, n+frameHeaderLen, len(p))
	}
	return len(p), nil
}

// pass writes p[from:to], if there is any, and returns how much of p is dealt with then.
func (w *ackWriter) pass(p []byte, from, to int) (int, error) {
	if from == to {
		return to, nil
	}
	n, err := w.dst.Write(p[from:to])
	return from + n, err
}
