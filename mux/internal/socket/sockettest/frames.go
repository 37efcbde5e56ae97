// Package sockettest has what a WebSocket endpoint must make of the handshake and the
// frames of any client (RFC 6455), as cases to be run against each endpoint there is, and
// a client's frames as bytes.
package sockettest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"sync"
)

// First bytes of frames: FIN, and the opcodes.
const (
	Fin = 0x80

	Text   = 0x1
	Binary = 0x2
	Close  = 0x8
	Ping   = 0x9
	Pong   = 0xa
)

// Key and Accept are from RFC 6455 §1.3.
const (
	Key    = "dGhlIHNhbXBsZSBub25jZQ=="
	Accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// Handshake is a request for path that will be upgraded; more are header lines.
func Handshake(path string, more ...string) string {
	lines := append([]string{"GET " + path + " HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + Key}, more...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// Frame builds a masked frame: first is FIN, RSV and opcode.
func Frame(first byte, payload string) []byte { return Mask(header(first, len(payload)), payload) }

// header is that of a frame of n bytes, in its shortest form.
func header(first byte, n int) []byte {
	switch {
	case n < 126:
		return []byte{first, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n))
	}
}

// maskKey has bytes that differ, so that a slip by one shows.
var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// Mask appends a masked payload to a header made by hand.
func Mask(header []byte, payload string) []byte { return maskWith(maskKey, header, payload) }

func maskWith(key [4]byte, header []byte, payload string) []byte {
	b := make([]byte, 0, len(header)+len(key)+len(payload))
	b = append(b, header...)
	b[1] |= 0x80
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// Closing builds a close frame; code 0 means an empty one.
func Closing(code int, reason string) []byte {
	if code == 0 {
		return Frame(Fin|Close, "")
	}
	return Frame(Fin|Close, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// Fragments builds a message of several frames.
func Fragments(opcode byte, parts ...string) (b []byte) {
	for i, p := range parts {
		first := opcode
		if i > 0 {
			first = 0
		}
		if i == len(parts)-1 {
			first |= Fin
		}
		b = append(b, Frame(first, p)...)
	}
	return b
}

// Long is valid UTF-8 of n bytes, up to a little more than 1 MiB, in which no short period
// hides a slip.
func Long(n int) string { return long()[:n] }

var long = sync.OnceValue(func() string {
	var b []byte
	for i := 0; len(b) < 1<<20+1000; i++ {
		b = append(strconv.AppendInt(b, int64(i), 10), ',')
	}
	return string(b)
})

// Describe makes a frame of the server comparable and printable.
func Describe(first byte, payload string) string {
	names := map[byte]string{Fin | Text: "text", Fin | Binary: "binary", Fin | Close: "close", Fin | Ping: "ping", Fin | Pong: "pong"}
	name, ok := names[first]
	switch {
	case !ok:
		return fmt.Sprintf("frame %#x", first)
	case name == "close" && payload == "":
		return "close"
	case name == "close":
		return fmt.Sprintf("close %d", binary.BigEndian.Uint16([]byte(payload)))
	case len(payload) <= 125:
		return fmt.Sprintf("%s %q", name, payload)
	}
	return fmt.Sprintf("%s of %d bytes, crc %08x", name, len(payload), crc32.ChecksumIEEE([]byte(payload)))
}

// ReadFrame reads a frame; of a server none is masked, fragmented or compressed.
func ReadFrame(r *bufio.Reader) (first byte, payload string, err error) {
	var h [10]byte
	if _, err = io.ReadFull(r, h[:2]); err != nil {
		return 0, "", err
	}
	n := uint64(h[1])
	switch h[1] {
	case 126:
		_, err = io.ReadFull(r, h[2:4])
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(r, h[2:10])
		n = binary.BigEndian.Uint64(h[2:])
	}
	if err == nil && (h[1] > 127 || n > 64<<20) {
		err = fmt.Errorf("frame begins %x", h)
	}
	if err != nil {
		return 0, "", err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(r, p)
	return h[0], string(p), err
}

// Reply reads a frame and describes it, or the end of the connection.
func Reply(r *bufio.Reader) string {
	first, payload, err := ReadFrame(r)
	if err != nil {
		return Outcome(err)
	}
	return Describe(first, payload)
}

// Outcome describes an error of ReadFrame: the end of the connection as "EOF".
func Outcome(err error) string {
	if errors.Is(err, io.EOF) {
		return "EOF"
	}
	return err.Error()
}
