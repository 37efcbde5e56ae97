package sniff

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"oneport/mux/internal/ready"
)

// A greetedConn is a conn whose client has had the greeting. The server behind knows nothing of it, so what the
// greeting said in its place is left out of what the server writes, and what the client answers to the greeting alone
// is left out of what the server reads.
type greetedConn struct {
	conn
	in  greetedReader
	out greetedWriter
}

// newGreetedConn replays head, of which the first opening bytes are the client's preface and first SETTINGS.
func newGreetedConn(nc net.Conn, head []byte, opening int, greeting []byte) *greetedConn {
	over := make(chan struct{})
	c := &greetedConn{conn: conn{Conn: nc, prefix: head}}
	c.out = greetedWriter{dst: nc, settings: greeting[:len(greeting)-frameHeaderLen], over: over,
		end: sync.OnceFunc(func() { close(over) })}
	c.in = greetedReader{src: &c.conn, server: &c.out, frameScan: frameScan{skip: opening}}
	return c
}

func (c *greetedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *greetedConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *greetedConn) Close() error {
	c.out.end()
	return c.conn.Close()
}

func (c *greetedConn) NetConn() net.Conn {
	if !c.in.done || !c.out.done.Load() {
		return c
	}
	return c.conn.NetConn()
}

// A tcpGreetedConn is a greetedConn over TCP. It does not embed a *net.TCPConn: some of its methods would write around
// out.
type tcpGreetedConn struct {
	*greetedConn
	tcp   *net.TCPConn
	ready ready.Reader
}

// A greetedWriter writes the frames of a server without its SETTINGS, if they say what those of the greeting did, and
// without its first acknowledgement. It holds back no more than that SETTINGS frame and, until done, a frame header.
type greetedWriter struct {
	dst      io.Writer
	settings []byte        // the SETTINGS frame of the greeting
	same     atomic.Bool   // the SETTINGS of the server were left out
	done     atomic.Bool   // the acknowledgement was left out: all else passes
	over     chan struct{} // closed by end
	end      func()        // called when done, when a write has failed, and when the connection is closed

	mu        sync.Mutex
	first     []byte // guarded by mu: of the first frame, until it is judged
	judged    bool   // guarded by mu
	frameScan        // guarded by mu
}

// Write reports the bytes left out as written.
func (w *greetedWriter) Write(p []byte) (int, error) {
	if w.done.Load() {
		return w.dst.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.write(p)
	if err != nil {
		w.end() // grpc-go does not close the connection then: its reader is to find out
	}
	return n, err
}

func (w *greetedWriter) write(p []byte) (int, error) {
	n := 0
	if !w.judged {
		n = w.judge(p)
		if !w.judged {
			return n, nil
		}
		first := w.first
		w.first = nil
		if _, err := w.filter(first); err != nil {
			return 0, err
		}
	}
	m, err := w.filter(p[n:])
	return n + m, err
}

// judge takes bytes of the first frame, and returns how many. Once it is judged, what is left in first is to be written.
func (w *greetedWriter) judge(p []byte) (n int) {
	n = min(len(p), len(w.settings)-len(w.first))
	w.first = append(w.first, p[:n]...)
	switch {
	case len(w.first) < frameHeaderLen:
	case !bytes.Equal(w.first[:frameHeaderLen], w.settings[:frameHeaderLen]): // other frame, or other number of settings
		w.judged = true
	case len(w.first) == len(w.settings):
		w.judged = true
		if sameSettings(w.first[frameHeaderLen:], w.settings[frameHeaderLen:]) {
			w.first = nil
			w.same.Store(true)
		}
	}
	return n
}

// sameSettings reports whether two payloads of SETTINGS, of the same length, hold the same, in any order. None of b
// may be in it twice.
func sameSettings(a, b []byte) bool {
	const size = 6 // RFC 9113, section 6.5.1
	in := slices.Collect(slices.Chunk(a, size))
	for s := range slices.Chunk(b, size) {
		if !slices.ContainsFunc(in, func(t []byte) bool { return bytes.Equal(s, t) }) {
			return false
		}
	}
	return true
}

// filter writes p without the acknowledgement.
func (w *greetedWriter) filter(p []byte) (int, error) {
	if w.done.Load() {
		return w.pass(p)
	}
	dealt, at := 0, 0 // p[:dealt] was written or left out, p[dealt:at] is to be written
	for {
		at += w.payload(len(p) - at)
		n, whole := w.header(p[at:])
		switch {
		case !whole:
			if m, err := w.pass(p[dealt:at]); err != nil {
				return dealt + m, err
			}
			return len(p), nil
		case w.isSettingsAck():
			if m, err := w.pass(p[dealt:at]); err != nil {
				return dealt + m, err
			}
			w.done.Store(true)
			w.end()
			at += n
			m, err := w.pass(p[at:])
			return at + m, err
		case n < frameHeaderLen: // the start of it was held back
			if _, err := w.dst.Write(w.hdr[:]); err != nil {
				return 0, err
			}
			dealt, at = n, n
		default:
			at += n
		}
	}
}

// pass writes p, if there is any.
func (w *greetedWriter) pass(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return w.dst.Write(p)
}

// A greetedReader reads the frames of a client. If the server's own SETTINGS were left out, that is all: the client's
// acknowledgement of the greeting is the one the server waits for. Else the client sends one for each of the two, and
// the first of them is left out.
//
// After the client's first SETTINGS, Read waits until the server has acknowledged them, or cannot, whatever the
// deadline: then it is known which it is to be. Also, net/http acknowledges SETTINGS that come close upon others only
// once, so those must not come before. Servers do not wait for anything with that (RFC 9113, section 6.5.3).
type greetedReader struct {
	src    io.Reader
	server *greetedWriter
	done   bool // no acknowledgement is to be left out any more
	frameScan
	out []byte // part of hdr, to be given out
}

// Read never gives bytes of two frames until done, which is soon.
func (r *greetedReader) Read(p []byte) (int, error) {
	for len(p) > 0 && !r.done {
		switch {
		case len(r.out) > 0:
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		case r.skip > 0:
			n, err := r.src.Read(p[:min(len(p), r.skip)])
			r.payload(n)
			return n, err
		}
		<-r.server.over
		if r.server.same.Load() {
			r.done = true
			break
		}
		from := r.held
		n, err := r.src.Read(r.hdr[from:])
		// An error that came with bytes comes again.
		_, whole := r.header(r.hdr[from : from+n])
		switch {
		case whole && r.isSettingsAck():
			r.done = true
		case whole:
			r.out = r.hdr[:]
		case n > 0:
		case err == io.EOF && r.held > 0:
			r.out, r.held = r.hdr[:r.held], 0
		default:
			return 0, err
		}
	}
	return r.src.Read(p)
}
