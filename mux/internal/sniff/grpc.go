package sniff

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/mem"
)

// maxSettings is how large a SETTINGS frame of a gRPC client may be, in bytes: 21 settings, where RFC 9113 and its
// successors know of nine and clients send five or six.
const maxSettings = 128

var errSettings = errors.New("sniff: client sent a SETTINGS frame larger than any in use")

// A settingsCheck looks through the frames of a client for such a frame. grpc-go queues every SETTINGS frame with all
// that is in it until it has been acknowledged: a client that takes no acknowledgements could make it hold hundreds of
// megabytes.
type settingsCheck struct{ frameScan }

func (s *settingsCheck) check(p []byte) error {
	for len(p) > 0 {
		p = p[s.payload(len(p)):]
		n, whole := s.header(p)
		p = p[n:]
		if whole && s.isType(http2.FrameSettings) && s.length() > maxSettings {
			return errSettings
		}
	}
	return nil
}

// A refusalScan looks through the frames that grpc-go writes for its answer to a request that is no gRPC: HEADERS that
// are the whole of it, with a status of 415 (another content-type, or none) or 405 (another method than POST). No call
// of gRPC is answered so. The status comes first in the block (RFC 9113, section 8.3); a second answer on a connection
// may name it by a table that is not kept here, so only the first is sure to be found.
type refusalScan struct {
	frameScan
	block [maxStatusField]byte // the start of a header block
	got   int                  // how much of block is there
	want  int                  // how much it is to be; 0 outside of such a block
}

// maxStatusField is where a :status ends at the latest: after two changes of the table's size (RFC 7541, sections 4.2
// and 6.3), with integers of 32 bits, the name's index, the value's length and the value.
const maxStatusField = 2*6 + 1 + 1 + 3

// look reports whether such an answer is in p, or ends in it.
func (s *refusalScan) look(p []byte) bool {
	for len(p) > 0 {
		n := s.payload(len(p))
		if s.want > 0 {
			s.got += copy(s.block[s.got:s.want], p[:n])
			if s.got == s.want {
				s.want = 0
				if isRefusal(s.block[:s.got]) {
					return true
				}
			}
		}
		p = p[n:]
		n, whole := s.header(p)
		p = p[n:]
		if whole && s.isType(http2.FrameHeaders) && s.hasFlag(http2.FlagHeadersEndStream) {
			s.got, s.want = 0, min(len(s.block), s.length())
		}
	}
	return false
}

// isRefusal reports whether a header block starts with such a status, written out.
func isRefusal(block []byte) bool {
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // the table's size changes (RFC 7541, section 6.3)
		n := 1
		if block[0]&0x1f == 0x1f { // an integer of several bytes (section 5.1)
			for n < len(block) && block[n]&0x80 != 0 {
				n++
			}
			n++
		}
		block = block[min(n, len(block)):]
	}
	// A literal, to be kept in the table or not (sections 6.2.1 and 6.2.2), with the name of any :status in the static
	// table (appendix A). Huffman's code for three digits is no shorter.
	if len(block) < 5 || block[0]&0xb0 != 0 || block[0]&0x0f < 8 || block[0]&0x0f > 14 || block[1] != 3 {
		return false
	}
	value := string(block[2:5])
	return value == "415" || value == "405"
}

// A grpcConn ends when the client sends a SETTINGS frame larger than maxSettings, and tells when the server refuses a
// request that is no gRPC.
type grpcConn struct {
	handed
	in settingsCheck

	foreign func(remote net.Addr)
	done    atomic.Bool // foreign was called, or is nil
	mu      sync.Mutex
	out     refusalScan // guarded by mu
}

// newGRPCConn keeps ReadOnReady where c has it.
func newGRPCConn(c handed, foreign func(remote net.Addr)) net.Conn {
	in := settingsCheck{frameScan{skip: len(http2.ClientPreface)}}
	g := &grpcReadyConn{grpcConn: grpcConn{handed: c, in: in, foreign: foreign}}
	g.done.Store(foreign == nil)
	var ok bool
	if g.ready, ok = c.(readOnReady); !ok {
		return &g.grpcConn
	}
	return g
}

func (c *grpcConn) Read(p []byte) (int, error) {
	n, err := c.handed.Read(p)
	if bad := c.in.check(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

func (c *grpcConn) Write(p []byte) (int, error) {
	if c.done.Load() {
		return c.handed.Write(p)
	}
	c.mu.Lock()
	n, err := c.handed.Write(p)
	found := c.out.look(p[:n])
	c.mu.Unlock()
	if found && !c.done.Swap(true) {
		c.foreign(c.RemoteAddr())
	}
	return n, err
}

// NetConn returns the connection itself: the check is never over.
func (c *grpcConn) NetConn() net.Conn { return c }

type readOnReady interface {
	ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
}

// A grpcReadyConn is a grpcConn over TCP, where the system has ReadOnReady.
type grpcReadyConn struct {
	grpcConn
	ready readOnReady
}

func (c *grpcReadyConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	buf, n, err := c.ready.ReadOnReady(size, pool)
	if buf == nil {
		return nil, n, err
	}
	if bad := c.in.check((*buf)[:n]); bad != nil {
		pool.Put(buf)
		return nil, 0, bad
	}
	return buf, n, err
}
