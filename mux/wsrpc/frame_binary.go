package wsrpc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// The protobuf encoding of frames, written by hand: it costs a call no reflection and
// no allocation, and a client needs no generated code either. The numbers are those of
// PROTOCOL.md, section 2.

// appendBinary appends the encoding of f to b.
func (f *frame) appendBinary(b []byte) []byte {
	b = appendUint(b, 1, uint64(f.call))
	if o := f.open; o != nil {
		b = appendSub(b, 2, func(b []byte) []byte {
			b = appendText(b, 1, o.method)
			b = appendMetadata(b, 2, o.metadata)
			return appendUint(b, 3, o.timeoutMS)
		})
	}
	if f.message != nil {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, f.message)
	}
	b = appendBool(b, 4, f.halfClose)
	if f.header != nil {
		b = appendSub(b, 5, func(b []byte) []byte { return appendMetadata(b, 1, f.header) })
	}
	if e := f.end; e != nil {
		b = appendSub(b, 6, e.appendBinary)
	}
	b = appendUint(b, 7, uint64(f.credit))
	b = appendBool(b, 8, f.cancel)
	if h := f.hello; h != nil {
		b = appendSub(b, 9, func(b []byte) []byte {
			b = appendUint(b, 1, uint64(h.window))
			b = appendUint(b, 2, uint64(h.maxMessage))
			b = appendUint(b, 3, uint64(h.maxCalls))
			return appendMetadata(b, 4, h.metadata)
		})
	}
	b = appendPresent(b, 10, f.ping)
	b = appendPresent(b, 11, f.pong)
	if g := f.goAway; g != nil {
		b = appendSub(b, 12, func(b []byte) []byte {
			b = appendUint(b, 1, uint64(g.lastCall))
			return appendText(b, 2, g.reason)
		})
	}
	return b
}

func (e *endFrame) appendBinary(b []byte) []byte {
	b = appendUint(b, 1, uint64(e.code))
	b = appendText(b, 2, e.message)
	for _, d := range e.details {
		b = appendSub(b, 3, func(b []byte) []byte {
			b = appendText(b, 1, typeName(d.GetTypeUrl()))
			if len(d.GetValue()) > 0 {
				b = protowire.AppendTag(b, 2, protowire.BytesType)
				b = protowire.AppendBytes(b, d.GetValue())
			}
			return b
		})
	}
	return appendMetadata(b, 4, e.trailer)
}

// appendSub appends a message within a message, whose content add appends.
func appendSub(b []byte, num protowire.Number, add func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	start := len(b)
	b = add(append(b, 0)) // room for a length of one byte, as it mostly is
	n := len(b) - start - 1
	if extra := protowire.SizeVarint(uint64(n)) - 1; extra > 0 {
		b = append(b, make([]byte, extra)...)
		copy(b[start+1+extra:], b[start+1:start+1+n])
	}
	protowire.AppendVarint(b[:start], uint64(n))
	return b
}

func appendMetadata(b []byte, num protowire.Number, md metadata.MD) []byte {
	for _, key := range sortedKeys(md) {
		for _, v := range md[key] {
			b = appendSub(b, num, func(b []byte) []byte {
				b = appendText(b, 1, key)
				if v == "" {
					return b
				}
				return protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), v)
			})
		}
	}
	return b
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendPresent(b []byte, num protowire.Number, v *uint64) []byte {
	if v == nil {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), *v)
}

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendUint(b, num, 1)
}

// appendText appends a string, which is to be UTF-8, as encoding/json does.
func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), strings.ToValidUTF8(s, "\uFFFD"))
}

// parseBinary decodes b into f, which is zero. The message of f is a part of b. The
// error is fit for a close frame.
func (f *frame) parseBinary(b []byte) error {
	if err := checkRoom(b); err != nil {
		return err
	}
	s := frameFields.scan(b)
	for s.next() {
		switch s.num {
		case 1:
			f.call = s.uint32()
		case 2:
			s.fail(f.parseOpen(s.bytes))
		case 3:
			f.message = s.bytes
		case 4:
			f.halfClose = s.varint != 0
		case 5:
			if f.header == nil {
				f.header = metadata.MD{}
			}
			md := metadataParser{whole: s.bytes, text: string(s.bytes), md: f.header}
			h := headerFields.scan(s.bytes)
			for h.next() {
				h.fail(md.parse(h.bytes))
			}
			s.fail(h.err)
		case 6:
			if f.end == nil {
				f.end = new(endFrame)
			}
			s.fail(f.end.parseBinary(s.bytes))
		case 7:
			f.credit = s.uint32()
		case 8:
			f.cancel = s.varint != 0
		case 9:
			if f.hello == nil {
				f.hello = new(helloFrame)
			}
			s.fail(f.hello.parseBinary(s.bytes))
		case 10:
			n := s.varint
			f.ping = &n
		case 11:
			n := s.varint
			f.pong = &n
		case 12:
			if f.goAway == nil {
				f.goAway = new(goAwayFrame)
			}
			s.fail(f.goAway.parseBinary(s.bytes))
		}
	}
	return s.err
}

// checkRoom judges what a frame has beside its message.
func checkRoom(b []byte) error {
	if len(b) <= frameRoom {
		return nil
	}
	message := 0
	s := known{bytes: 1 << 3}.scan(b)
	for s.next() {
		message = len(s.bytes)
	}
	if s.err == nil && len(b)-message > frameRoom {
		return errTooMuch
	}
	return s.err
}

func (f *frame) parseOpen(b []byte) error {
	last := f.last
	switch {
	case f.open != nil: // in protobuf a second one is merged with the first
		last = nil
		if f.open.repeats {
			if err := f.open.parseMetadata(f.open.raw, 0); err != nil {
				return err
			}
		}
		f.open.repeats, f.open.raw = false, nil
	case last != nil:
		last.space = openFrame{}
		f.open = &last.space
	default:
		f.open = new(openFrame)
	}
	return f.open.parseBinary(b, last)
}

func (o *openFrame) parseBinary(b []byte, last *lastOpen) error {
	start, end := 0, 0 // of all metadata
	s := openFields.scan(b)
	for at := 0; s.next(); at = len(b) - len(s.rest) {
		switch s.num {
		case 1:
			o.method = last.name(s.bytes)
		case 2:
			if end == 0 {
				start = at
			}
			end = len(b) - len(s.rest)
		case 3:
			o.timeoutMS = s.varint
		}
	}
	if s.err != nil || end == 0 {
		return s.err
	}
	raw := b[start:end]
	if last == nil {
		return o.parseMetadata(raw, 0)
	}
	o.raw = raw
	if o.repeats = bytes.Equal(raw, last.raw); o.repeats {
		return nil
	}
	return o.parseMetadata(raw, last.room)
}

// parseMetadata decodes the metadata among the fields in b.
func (o *openFrame) parseMetadata(b []byte, room int) error {
	md := metadataParser{whole: b, text: string(b), md: o.metadata, room: room}
	s := known{bytes: 1 << 2}.scan(b)
	for s.next() {
		s.fail(md.parse(s.bytes))
	}
	o.metadata = md.md
	return s.err
}

func (e *endFrame) parseBinary(b []byte) error {
	md := metadataParser{whole: b, text: string(b), md: e.trailer}
	s := endFields.scan(b)
	for s.next() {
		switch s.num {
		case 1:
			e.code = s.uint32()
		case 2:
			e.message = md.string(s.bytes)
		case 3:
			d := new(anypb.Any)
			e.details = append(e.details, d)
			in := detailFields.scan(s.bytes)
			for in.next() {
				switch in.num {
				case 1:
					d.TypeUrl = typeURL(string(in.bytes))
				case 2:
					d.Value = append([]byte(nil), in.bytes...)
				}
			}
			s.fail(in.err)
		case 4:
			s.fail(md.parse(s.bytes))
		}
	}
	e.trailer = md.md
	return s.err
}

func (h *helloFrame) parseBinary(b []byte) error {
	md := metadataParser{whole: b, text: string(b), md: h.metadata}
	s := helloFields.scan(b)
	for s.next() {
		switch s.num {
		case 1:
			h.window = s.uint32()
		case 2:
			h.maxMessage = s.uint32()
		case 3:
			h.maxCalls = s.uint32()
		case 4:
			s.fail(md.parse(s.bytes))
		}
	}
	h.metadata = md.md
	return s.err
}

func (g *goAwayFrame) parseBinary(b []byte) error {
	s := goAwayFields.scan(b)
	for s.next() {
		switch s.num {
		case 1:
			g.lastCall = s.uint32()
		case 2:
			g.reason = string(s.bytes)
		}
	}
	return s.err
}

// metadataParser decodes metadata, with few allocations for all of it.
type metadataParser struct {
	whole  []byte // the message that the metadata is in
	text   string // the same
	md     metadata.MD
	room   int      // keys that md is to have room for beside its own
	values []string // those in md, by and large
}

// parse adds one key and value.
func (m *metadataParser) parse(b []byte) error {
	var key, value string
	s := metadataFields.scan(b)
	for s.next() {
		switch s.num {
		case 1:
			key = m.string(s.bytes)
		case 2:
			value = m.string(s.bytes)
		}
	}
	if m.md == nil {
		m.md = make(metadata.MD, 4+m.room)
		m.values = make([]string, 0, 4)
	}
	if old, ok := m.md[key]; ok {
		m.md[key] = append(old, value)
		return s.err
	}
	n := len(m.values)
	m.values = append(m.values, value)
	m.md[key] = m.values[n : n+1 : n+1]
	return s.err
}

// string returns the part of the text that p, a part of whole, is.
func (m *metadataParser) string(p []byte) string {
	if len(p) == 0 {
		return "" // where p may be no part of whole
	}
	start := cap(m.whole) - cap(p)
	return m.text[start : start+len(p)]
}

// known are the fields of a message that a receiver knows, as bits by number and wire
// type, and which of those of bytes are strings. Protobuf takes a field of a known
// number and another type for an unknown one.
type known struct{ varint, bytes, text uint16 }

var (
	frameFields    = known{varint: 1<<1 | 1<<4 | 1<<7 | 1<<8 | 1<<10 | 1<<11, bytes: 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<9 | 1<<12}
	openFields     = known{varint: 1 << 3, bytes: 1<<1 | 1<<2, text: 1 << 1}
	headerFields   = known{bytes: 1 << 1}
	endFields      = known{varint: 1 << 1, bytes: 1<<2 | 1<<3 | 1<<4, text: 1 << 2}
	detailFields   = known{bytes: 1<<1 | 1<<2, text: 1 << 1}
	helloFields    = known{varint: 1<<1 | 1<<2 | 1<<3, bytes: 1 << 4}
	goAwayFields   = known{varint: 1 << 1, bytes: 1 << 2, text: 1 << 2}
	metadataFields = known{bytes: 1<<1 | 1<<2, text: 1 << 1}
)

func (k known) scan(b []byte) scanner { return scanner{rest: b, known: k} }

// scanner goes through the known fields of a message in the order in which they stand.
type scanner struct {
	known known
	rest  []byte

	num    protowire.Number
	varint uint64 // of a field that is one
	bytes  []byte // of a field that has them; not nil then
	err    error  // why next has returned false before the end
}

// next goes to the next field. It reports false at the end and after an error.
func (s *scanner) next() bool {
	for len(s.rest) > 0 && s.err == nil {
		num, typ, n := protowire.ConsumeTag(s.rest)
		if n < 0 {
			s.err = errMalformed
			return false
		}
		s.rest = s.rest[n:]
		var fields uint16
		switch typ {
		case protowire.VarintType:
			s.varint, n = protowire.ConsumeVarint(s.rest)
			fields = s.known.varint
		case protowire.BytesType:
			s.bytes, n = protowire.ConsumeBytes(s.rest)
			fields = s.known.bytes
			if s.bytes == nil {
				s.bytes = []byte{}
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, s.rest)
		}
		if n < 0 {
			s.err = errMalformed
			return false
		}
		s.rest = s.rest[n:]
		if num > 15 || fields>>num&1 == 0 {
			continue
		}
		if s.known.text>>num&1 == 1 && !utf8.Valid(s.bytes) {
			s.err = errNotText
			return false
		}
		s.num = num
		return true
	}
	return false
}

// fail ends the scan with err, unless that is nil.
func (s *scanner) fail(err error) {
	if err != nil {
		s.err = err
	}
}

// uint32 is the varint. Protobuf would cut a larger one, which here could make one
// call's frame another's.
func (s *scanner) uint32() uint32 {
	if s.varint > 1<<32-1 {
		s.fail(fmt.Errorf("%d does not fit into 32 bits", s.varint))
	}
	return uint32(s.varint)
}

var (
	errMalformed = errors.New("the frame is not protobuf")
	errNotText   = errors.New("a string of the frame is not UTF-8")
)
