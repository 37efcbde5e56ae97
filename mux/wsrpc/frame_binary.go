package wsrpc

import (
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
			b = appendText(b, 1, strings.TrimPrefix(d.GetTypeUrl(), typePrefix))
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
	if len(b) > frameRoom { // else a short look is enough
		message := 0
		if err := (known{bytes: 1 << 3}).each(b, func(_ protowire.Number, _ uint64, p []byte) error {
			message = len(p)
			return nil
		}); err != nil {
			return err
		}
		if len(b)-message > frameRoom {
			return errTooMuch
		}
	}
	return frameFields.each(b, func(num protowire.Number, v uint64, p []byte) (err error) {
		switch num {
		case 1:
			f.call, err = to32(v)
		case 2:
			if f.open == nil {
				f.open = f.space
			}
			if f.open == nil {
				f.open = new(openFrame)
			}
			err = f.open.parseBinary(p, f.room)
		case 3:
			f.message = p
		case 4:
			f.halfClose = v != 0
		case 5:
			if f.header == nil {
				f.header = metadata.MD{}
			}
			md := metadataParser{whole: p, text: string(p), md: f.header}
			err = headerFields.each(p, func(_ protowire.Number, _ uint64, p []byte) error { return md.parse(p) })
		case 6:
			if f.end == nil {
				f.end = new(endFrame)
			}
			err = f.end.parseBinary(p)
		case 7:
			f.credit, err = to32(v)
		case 8:
			f.cancel = v != 0
		case 9:
			if f.hello == nil {
				f.hello = new(helloFrame)
			}
			err = f.hello.parseBinary(p)
		case 10:
			n := v
			f.ping = &n
		case 11:
			n := v
			f.pong = &n
		case 12:
			if f.goAway == nil {
				f.goAway = new(goAwayFrame)
			}
			err = f.goAway.parseBinary(p)
		}
		return err
	})
}

// parseBinary makes one string of b, and of that those in o: an open has several, and
// each call has one.
func (o *openFrame) parseBinary(b []byte, room int) error {
	md := metadataParser{whole: b, text: string(b), md: o.metadata, room: room}
	err := openFields.each(b, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 1:
			o.method = md.string(p)
		case 2:
			return md.parse(p)
		case 3:
			o.timeoutMS = v
		}
		return nil
	})
	o.metadata = md.md
	return err
}

func (e *endFrame) parseBinary(b []byte) error {
	md := metadataParser{whole: b, text: string(b), md: e.trailer}
	err := endFields.each(b, func(num protowire.Number, v uint64, p []byte) (err error) {
		switch num {
		case 1:
			e.code, err = to32(v)
		case 2:
			e.message = md.string(p)
		case 3:
			d := new(anypb.Any)
			e.details = append(e.details, d)
			err = detailFields.each(p, func(num protowire.Number, _ uint64, p []byte) error {
				switch num {
				case 1:
					d.TypeUrl = typeURL(string(p))
				case 2:
					d.Value = append([]byte(nil), p...)
				}
				return nil
			})
		case 4:
			err = md.parse(p)
		}
		return err
	})
	e.trailer = md.md
	return err
}

// typeURL is what google.protobuf.Any has for the type of a detail.
func typeURL(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return typePrefix + name
}

func (h *helloFrame) parseBinary(b []byte) error {
	md := metadataParser{whole: b, text: string(b), md: h.metadata}
	err := helloFields.each(b, func(num protowire.Number, v uint64, p []byte) (err error) {
		switch num {
		case 1:
			h.window, err = to32(v)
		case 2:
			h.maxMessage, err = to32(v)
		case 3:
			h.maxCalls, err = to32(v)
		case 4:
			err = md.parse(p)
		}
		return err
	})
	h.metadata = md.md
	return err
}

func (g *goAwayFrame) parseBinary(b []byte) error {
	return goAwayFields.each(b, func(num protowire.Number, v uint64, p []byte) (err error) {
		switch num {
		case 1:
			g.lastCall, err = to32(v)
		case 2:
			g.reason = string(p)
		}
		return err
	})
}

// metadataParser decodes metadata, with few allocations for all of it.
type metadataParser struct {
	whole  []byte // the message that the metadata is in
	text   string // the same
	md     metadata.MD
	room   int      // see frame
	values []string // those in md, by and large
}

// parse adds one key and value.
func (m *metadataParser) parse(b []byte) error {
	var key, value string
	err := metadataFields.each(b, func(num protowire.Number, _ uint64, p []byte) error {
		switch num {
		case 1:
			key = m.string(p)
		case 2:
			value = m.string(p)
		}
		return nil
	})
	if m.md == nil {
		m.md = make(metadata.MD, 4+m.room)
		m.values = make([]string, 0, 4)
	}
	if old, ok := m.md[key]; ok {
		m.md[key] = append(old, value)
		return err
	}
	n := len(m.values)
	m.values = append(m.values, value)
	m.md[key] = m.values[n : n+1 : n+1]
	return err
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

// each calls f for the known fields of a message in the order in which they stand: with
// v for a varint, with p, which is not nil, for bytes.
func (k known) each(b []byte, f func(num protowire.Number, v uint64, p []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		var v uint64
		var p []byte
		var fields uint16
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
			fields = k.varint
		case protowire.BytesType:
			p, n = protowire.ConsumeBytes(b)
			fields = k.bytes
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if num > 15 || fields>>num&1 == 0 {
			continue
		}
		if typ == protowire.BytesType && p == nil {
			p = []byte{}
		}
		if k.text>>num&1 == 1 && !utf8.Valid(p) {
			return errNotText
		}
		if err := f(num, v, p); err != nil {
			return err
		}
	}
	return nil
}

var (
	errMalformed = errors.New("the frame is not protobuf")
	errNotText   = errors.New("a string of the frame is not UTF-8")
)

// to32 narrows a number of 32 bits. Protobuf would cut a larger one, which here could
// make one call's frame another's.
func to32(v uint64) (uint32, error) {
	if v > 1<<32-1 {
		return 0, fmt.Errorf("%d does not fit into 32 bits", v)
	}
	return uint32(v), nil
}
