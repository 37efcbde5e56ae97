package sniff

import (
	"errors"
	"net"

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

// A grpcConn ends when the client sends a SETTINGS frame larger than maxSettings.
type grpcConn struct {
	handed
	in settingsCheck
}

// newGRPCConn keeps ReadOnReady where c has it.
func newGRPCConn(c handed) net.Conn {
	g := grpcConn{handed: c, in: settingsCheck{frameScan{skip: len(http2.ClientPreface)}}}
	if r, ok := c.(readOnReady); ok {
		return &grpcReadyConn{grpcConn: g, ready: r}
	}
	return &g
}

func (c *grpcConn) Read(p []byte) (int, error) {
	n, err := c.handed.Read(p)
	if bad := c.in.check(p[:n]); bad != nil {
		return 0, bad
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
