package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader   = 9
	initialWindow = 65535 // RFC 9113, section 6.9.2
	connWindow    = 1 << 20
	maxRequest    = 16<<10 - 5
)

// grpcClient calls by native gRPC, in frames of HTTP/2 made by hand: a client that costs
// less than the server leaves the machine to it.
type grpcClient struct {
	conn
	header  [2][]byte // the fields of a request as the first call has them, and as those after it do
	request []byte    // the messages as gRPC has them, with their length before
	reply   []byte
	replies int

	nextID  uint32
	waiting int // calls that are started and for which there is no room in the window
	window  int // what may still be sent on the connection
	owed    int // bytes that have come on the connection and not been given back
	streams map[uint32]*grpcStream
	free    []*grpcStream

	decoder *hpack.Decoder
	fields  []hpack.HeaderField
	known   map[string]bool // blocks of indexed fields that are as they should be, whether for trailers; as long as the table is the same
}

// grpcStream is a call in flight. What comes on it must be the reply, again and again.
type grpcStream struct {
	offset   int // in the reply
	messages int
	owed     int
}

func dialGRPC(addr string, c *call) (client, error) {
	if n := len(c.request); n > maxRequest {
		return nil, fmt.Errorf("request of %d bytes, which do not go into one frame", n)
	}
	raw, err := dial(addr)
	if err != nil {
		return nil, err
	}
	g := &grpcClient{
		conn: raw, nextID: 1, window: initialWindow,
		request: envelope(c.request), reply: envelope(c.reply), replies: c.replies,
		streams: make(map[uint32]*grpcStream), known: make(map[string]bool),
	}
	g.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { g.fields = append(g.fields, f) })
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range g.header {
		block.Reset()
		for _, f := range grpcHeader(addr, c.method) {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return nil, err
			}
		}
		g.header[i] = bytes.Clone(block.Bytes())
	}

	g.out = append(g.out, http2.ClientPreface...)
	g.appendFrame(http2.FrameSettings, 0, 0, binary.BigEndian.AppendUint32([]byte{0, byte(http2.SettingInitialWindowSize)}, clientWindow))
	g.appendNumber(http2.FrameWindowUpdate, 0, connWindow-initialWindow)
	return g, nil
}

func grpcHeader(addr, method string) [][2]string {
	return slices.Concat([][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", addr},
		{"content-type", "application/grpc"}, {"user-agent", "grpc-bench/1"}, {"te", "trailers"},
	}, requestMetadata)
}

func envelope(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func (g *grpcClient) start() { g.waiting++ }

func (g *grpcClient) finish() error { return g.Close() }

func (g *grpcClient) exchange() (messages, ended int, err error) {
	for ; g.waiting > 0 && g.window >= len(g.request); g.waiting-- {
		g.open()
	}
	if err := g.flush(); err != nil {
		return 0, 0, err
	}
	if err := g.fill(); err != nil {
		return 0, 0, err
	}
	for len(g.in) >= frameHeader {
		size := int(g.in[0])<<16 | int(g.in[1])<<8 | int(g.in[2])
		if len(g.in) < frameHeader+size {
			break
		}
		kind, flags := http2.FrameType(g.in[3]), http2.Flags(g.in[4])
		id := binary.BigEndian.Uint32(g.in[5:])
		payload := g.in[frameHeader : frameHeader+size]
		g.in = g.in[frameHeader+size:]
		m, done, err := g.take(kind, flags, id, payload)
		if err != nil {
			return messages, ended, fmt.Errorf("%v of stream %d: %w", kind, id, err)
		}
		messages += m
		if done {
			ended++
		}
	}
	return messages, ended, nil
}

// open sends a call.
func (g *grpcClient) open() {
	header := g.header[1]
	if g.nextID == 1 {
		header = g.header[0]
	}
	g.appendFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, g.nextID, header)
	g.appendFrame(http2.FrameData, http2.FlagDataEndStream, g.nextID, g.request)
	g.window -= len(g.request)
	s := new(grpcStream)
	if n := len(g.free); n > 0 {
		s, g.free = g.free[n-1], g.free[:n-1]
		*s = grpcStream{}
	}
	g.streams[g.nextID] = s
	g.nextID += 2
}

// take looks at one frame: how many messages it has completed, and whether a call.
func (g *grpcClient) take(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) (messages int, done bool, err error) {
	switch kind {
	case http2.FrameData:
		if flags&(http2.FlagDataEndStream|http2.FlagDataPadded) != 0 {
			return 0, false, errors.New("ends without a status, or padded")
		}
		messages, err = g.data(id, payload)
	case http2.FrameHeaders:
		done, err = g.headers(flags, id, payload)
	case http2.FrameSettings:
		if flags&http2.FlagSettingsAck == 0 {
			g.appendFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
		}
	case http2.FramePing:
		if flags&http2.FlagPingAck == 0 {
			g.appendFrame(http2.FramePing, http2.FlagPingAck, 0, payload)
		}
	case http2.FrameWindowUpdate:
		// A stream needs no more than it begins with.
		if id == 0 {
			g.window += int(binary.BigEndian.Uint32(payload))
		}
	default:
		err = fmt.Errorf("not expected: %q", payload)
	}
	return messages, done, err
}

func (g *grpcClient) data(id uint32, p []byte) (messages int, err error) {
	s := g.streams[id]
	if s == nil {
		return 0, errors.New("no such call")
	}
	if g.owed += len(p); g.owed >= connWindow/2 {
		g.appendNumber(http2.FrameWindowUpdate, 0, g.owed)
		g.owed = 0
	}
	if s.owed += len(p); s.owed >= clientWindow/2 {
		g.appendNumber(http2.FrameWindowUpdate, id, s.owed)
		s.owed = 0
	}
	for len(p) > 0 {
		n := min(len(p), len(g.reply)-s.offset)
		if !bytes.Equal(p[:n], g.reply[s.offset:s.offset+n]) {
			return messages, fmt.Errorf("another message: %.60q at %d", p[:n], s.offset)
		}
		p = p[n:]
		if s.offset += n; s.offset == len(g.reply) {
			s.offset = 0
			messages++
		}
	}
	s.messages += messages
	return messages, nil
}

// headers takes the header of an answer or, at the end of the stream, its trailer.
func (g *grpcClient) headers(flags http2.Flags, id uint32, block []byte) (done bool, err error) {
	s := g.streams[id]
	if s == nil {
		return false, errors.New("no such call")
	}
	if flags&http2.FlagHeadersEndHeaders == 0 || flags&(http2.FlagHeadersPadded|http2.FlagHeadersPriority) != 0 {
		return false, fmt.Errorf("flags %#x", flags)
	}
	trailer := flags&http2.FlagHeadersEndStream != 0
	if kind, ok := g.known[string(block)]; !ok || kind != trailer {
		if err := g.decode(trailer, block); err != nil {
			return false, err
		}
		if indexed(block) {
			g.known[string(block)] = trailer
		} else {
			clear(g.known) // the table may have changed
		}
	}
	if !trailer {
		return false, nil
	}
	if s.messages != g.replies || s.offset != 0 {
		return false, fmt.Errorf("ended after %d messages and %d bytes, want %d", s.messages, s.offset, g.replies)
	}
	delete(g.streams, id)
	g.free = append(g.free, s)
	return true, nil
}

func (g *grpcClient) decode(trailer bool, block []byte) error {
	g.fields = g.fields[:0]
	if _, err := g.decoder.Write(block); err != nil {
		return err
	}
	if err := g.decoder.Close(); err != nil {
		return err
	}
	want := hpack.HeaderField{Name: ":status", Value: "200"}
	if trailer {
		want = hpack.HeaderField{Name: "grpc-status", Value: "0"}
	}
	if !slices.Contains(g.fields, want) {
		return fmt.Errorf("without %v: %v", want, g.fields)
	}
	return nil
}

// indexed tells whether a block has nothing but references to fields in the tables of
// HPACK (RFC 7541, section 6.1), each in one byte. Such a block does not change them.
func indexed(block []byte) bool {
	for _, b := range block {
		if b < 0x80 || b == 0xff {
			return false
		}
	}
	return true
}

func (g *grpcClient) appendFrame(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	n := len(payload)
	g.out = append(g.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	g.out = binary.BigEndian.AppendUint32(g.out, id)
	g.out = append(g.out, payload...)
}

func (g *grpcClient) appendNumber(kind http2.FrameType, id uint32, n int) {
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], uint32(n))
	g.appendFrame(kind, 0, id, payload[:])
}
