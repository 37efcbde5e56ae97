package sniff

import (
	"bytes"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// How far a look into an HTTP/2 connection goes; beyond each, the server judges.
const (
	maxFrames       = 16       // before and including the end of the first header block
	maxFrameBytes   = 16 << 10 // payload of one frame: the least and default SETTINGS_MAX_FRAME_SIZE (RFC 9113, section 6.5.2)
	maxHeaderString = 8 << 10  // one name or value
	maxHeaderList   = 16 << 10 // all fields, each counted as its name, its value and 32 (RFC 9113, section 6.5.2)

	frameHeaderLen = 9 // RFC 9113, section 4.1
)

// hasPreface reports whether c starts with the HTTP/2 client preface. It reads no further than to the first
// difference, so that a short start of something else is not waited on.
func (c *Conn) hasPreface() (bool, error) {
	for i := range len(http2.ClientPreface) {
		if err := c.need(i + 1); err != nil {
			return false, err
		}
		if c.head[i] != http2.ClientPreface[i] {
			return false, nil
		}
	}
	return true, nil
}

// classifyHTTP2 walks over the frames after the preface to the end of the first header block and looks for its
// content-type. It stops at the first frame that wants an answer or a complaint: to wait for more then would keep the
// client waiting too.
func (c *Conn) classifyHTTP2() (Kind, error) {
	src := &headReader{c: c, pos: len(http2.ClientPreface)}
	fr := http2.NewFramer(nil, src)
	fr.SetMaxReadFrameSize(maxFrameBytes)
	var block headerBlock
	window := uint32(1<<16 - 1) // initial, of the connection (RFC 9113, section 6.9.2)
	for i := range maxFrames {
		if err := c.need(src.pos + frameHeaderLen); err != nil {
			return c.general(err)
		}
		// The frame is given to the Framer when it is there as a whole, since it makes room for it first.
		fh, err := http2.ReadFrameHeader(bytes.NewReader(c.head[src.pos:]))
		if err != nil || fh.Length > maxFrameBytes || !mayPrecedeRequest(fh.Type) {
			return HTTP2, err
		}
		if err := c.need(src.pos + frameHeaderLen + int(fh.Length)); err != nil {
			return c.general(err)
		}
		frame, err := fr.ReadFrame()
		if err != nil {
			return HTTP2, err
		}
		if i == 0 {
			// The preface includes a SETTINGS frame (RFC 9113, section 3.4).
			f, ok := frame.(*http2.SettingsFrame)
			if !ok || f.IsAck() || f.ForeachSetting(http2.Setting.Valid) != nil {
				return HTTP2, nil
			}
			c.opening = src.pos
			c.window = 1<<16 - 1 // RFC 9113, section 6.9.2
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				c.window = v
			}
			continue
		}
		good, ended := true, false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			good = f.IsAck()
		case *http2.WindowUpdateFrame:
			window += f.Increment
			good = f.StreamID == 0 && window < 1<<31
		case *http2.PriorityFrame:
			good = f.StreamDep != f.StreamID
		case *http2.HeadersFrame:
			good, ended = block.add(f.HeaderBlockFragment()), f.HeadersEnded()
		case *http2.ContinuationFrame:
			good, ended = block.add(f.HeaderBlockFragment()), f.HeadersEnded()
		}
		switch {
		case !good, ended && !block.close():
			return HTTP2, nil
		case ended:
			c.stream = fh.StreamID
			if isGRPC(block.contentType) {
				return GRPC, nil
			}
			return HTTP2, nil
		}
	}
	return HTTP2, nil
}

// mayPrecedeRequest reports whether a frame of type t is one to walk over or of the request itself.
func mayPrecedeRequest(t http2.FrameType) bool {
	switch t {
	case http2.FrameSettings, http2.FrameWindowUpdate, http2.FramePriority, http2.FrameHeaders, http2.FrameContinuation:
		return true
	default:
		return false
	}
}

// A headReader reads what was read of c so far.
type headReader struct {
	c   *Conn
	pos int
}

func (r *headReader) Read(p []byte) (int, error) {
	n := copy(p, r.c.head[r.pos:])
	r.pos += n
	return n, nil
}

// general is the verdict on an HTTP/2 connection whose next bytes did not come: HTTP2, unless it is not known what
// the client got of our SETTINGS, when no server could go on with it.
func (c *Conn) general(err error) (Kind, error) {
	if c.greetErr != nil {
		return Unknown, c.greetErr
	}
	return HTTP2, err
}

// A headerBlock decodes one header block for its content-type. The zero value is ready for use.
type headerBlock struct {
	dec         *hpack.Decoder
	size        uint32 // of the header list so far
	contentType string // the first one
}

func (b *headerBlock) field(f hpack.HeaderField) {
	b.size += f.Size()
	if b.size > maxHeaderList {
		// A byte that names a table entry yields up to 4 KiB: decode no more of them than must be to stay in step.
		b.dec.SetEmitEnabled(false)
		return
	}
	if f.Name == "content-type" && b.contentType == "" {
		b.contentType = f.Value
	}
}

// add decodes a fragment. It reports whether the block is good so far.
func (b *headerBlock) add(fragment []byte) bool {
	if b.dec == nil {
		b.dec = hpack.NewDecoder(4<<10, b.field) // the initial SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2)
		b.dec.SetMaxStringLength(maxHeaderString)
	}
	_, err := b.dec.Write(fragment)
	return err == nil && b.size <= maxHeaderList
}

// close ends the block. It reports whether the block was whole.
func (b *headerBlock) close() bool { return b.dec.Close() == nil }

// isGRPC reports whether a content-type is that of gRPC itself ("Requests" in PROTOCOL-HTTP2.md), not of gRPC-Web, and
// for grpc-go: that would take JSON for protobuf, which the general server tells apart.
func isGRPC(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/grpc" || strings.HasPrefix(media, "application/grpc+") && media != "application/grpc+json"
}
