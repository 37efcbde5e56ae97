package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Opcodes of WebSocket (RFC 6455, section 5.2), with the bit that says the frame is
// a whole message.
const (
	binaryFrame = 0x82
	closeFrame  = 0x88
	pingFrame   = 0x89
	pongFrame   = 0x8a
)

// messageCost is what a message costs of the credit beside its length (PROTOCOL.md of
// mux/wsrpc, section 4).
const messageCost = 16

// socketClient calls by grpc-ws.v1, in binary frames made by hand.
type socketClient struct {
	conn
	window  int
	call    *call
	request []byte // what opens call, behind its number

	stingy    bool            // no credit is given back
	timed     bool            // whether latencies are taken
	latencies []time.Duration // of calls, from start to end

	lastCall uint32
	calls    map[uint32]*socketCall
	free     []*socketCall
	frame    []byte // is being made
}

// socketCall is a call in flight.
type socketCall struct {
	*call
	number   uint32
	messages int
	owed     int       // credit to be given back
	started  time.Time // if the client is timed
}

func dialSocket(addr string, c *call) (client, error) {
	s, err := dialWindow(addr, c, clientWindow)
	if err != nil {
		return nil, err // not a client that is a nil pointer
	}
	return s, nil
}

// dialWindow connects and tells the server how much it may send ahead, of a call.
func dialWindow(addr string, c *call, window int) (*socketClient, error) {
	raw, err := dial(addr)
	if err != nil {
		return nil, err
	}
	s := &socketClient{conn: raw, window: window, call: c, request: openCall(c), calls: make(map[uint32]*socketCall)}
	if err := s.upgrade(addr); err != nil {
		s.Close()
		return nil, err
	}
	hello := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(window))
	s.appendFrame(binaryFrame, protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), hello))
	return s, nil
}

// openCall is the frame that opens a call with its message, but for the number.
func openCall(c *call) []byte {
	return protowire.AppendBytes(protowire.AppendTag(openMethod(c.method), 3, protowire.BytesType), c.request)
}

// openMethod is the part of it that names the method, with the metadata.
func openMethod(method string) []byte {
	open := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), method)
	for _, kv := range requestMetadata {
		var m []byte
		m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), kv[0])
		m = protowire.AppendString(protowire.AppendTag(m, 2, protowire.BytesType), kv[1])
		open = protowire.AppendBytes(protowire.AppendTag(open, 2, protowire.BytesType), m)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), open)
}

// upgrade does the handshake.
func (s *socketClient) upgrade(addr string) error {
	_, err := fmt.Fprintf(s, "GET /grpc-ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUser-Agent: ws-bench/1\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", addr, subprotocol)
	if err != nil {
		return err
	}
	// The server says nothing more before it has been spoken to.
	res, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Protocol") != subprotocol {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return fmt.Errorf("handshake: %s, subprotocol %q: %s", res.Status, res.Header.Get("Sec-WebSocket-Protocol"), text)
	}
	return nil
}

func (s *socketClient) start() { s.begin(s.call, s.request) }

// begin gets a call ready to be sent whose first frame is opening, behind its number.
func (s *socketClient) begin(c *call, opening []byte) *socketCall {
	s.lastCall++
	s.frame = appendCall(s.frame[:0], s.lastCall)
	s.frame = append(s.frame, opening...)
	s.appendFrame(binaryFrame, s.frame)
	sc := new(socketCall)
	if n := len(s.free); n > 0 {
		sc, s.free = s.free[n-1], s.free[:n-1]
	}
	*sc = socketCall{call: c, number: s.lastCall}
	if s.timed {
		sc.started = time.Now()
	}
	s.calls[s.lastCall] = sc
	return sc
}

// finish says that the client is done, and waits for the server's answer.
func (s *socketClient) finish() error {
	defer s.Close()
	s.appendFrame(closeFrame, []byte{1000 >> 8, 1000 & 0xff})
	if err := s.flush(); err != nil {
		return err
	}
	for {
		if err := s.fill(); err != nil {
			return err
		}
		for {
			opcode, payload, ok := s.next()
			if !ok {
				break
			}
			if opcode != closeFrame {
				continue
			}
			if len(payload) < 2 || binary.BigEndian.Uint16(payload) != 1000 {
				return fmt.Errorf("closed with %q", payload)
			}
			return nil
		}
	}
}

func (s *socketClient) exchange() (messages, ended int, err error) {
	if err := s.flush(); err != nil {
		return 0, 0, err
	}
	if err := s.fill(); err != nil {
		return 0, 0, err
	}
	for {
		opcode, payload, ok := s.next()
		if !ok {
			return messages, ended, nil
		}
		switch opcode {
		case binaryFrame:
			m, done, err := s.take(payload)
			if err != nil {
				return messages, ended, fmt.Errorf("frame %.60q: %w", payload, err)
			}
			messages += m
			if done {
				ended++
			}
		case pingFrame:
			s.appendFrame(pongFrame, payload)
		default:
			return messages, ended, fmt.Errorf("WebSocket frame %#x: %q", opcode, payload)
		}
	}
}

// next takes one frame of WebSocket off what has been read, if it is all there.
func (s *socketClient) next() (opcode byte, payload []byte, ok bool) {
	if len(s.in) < 2 {
		return 0, nil, false
	}
	header, size := 2, int(s.in[1])
	switch size {
	case 126:
		if header = 4; len(s.in) >= header {
			size = int(binary.BigEndian.Uint16(s.in[2:]))
		}
	case 127:
		if header = 10; len(s.in) >= header {
			size = int(binary.BigEndian.Uint64(s.in[2:]))
		}
	}
	if len(s.in) < header || len(s.in)-header < size {
		return 0, nil, false
	}
	opcode, payload = s.in[0], s.in[header:header+size]
	s.in = s.in[header+size:]
	return opcode, payload, true
}

// take looks at one frame of the protocol: how many messages came in it, and whether
// it has ended its call.
func (s *socketClient) take(p []byte) (messages int, done bool, err error) {
	var c *socketCall
	for len(p) > 0 {
		number, kind, n := protowire.ConsumeTag(p)
		if n < 0 {
			return messages, done, protowire.ParseError(n)
		}
		p = p[n:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(p)
		default:
			return messages, done, errors.New("neither varint nor bytes")
		}
		if n < 0 {
			return messages, done, protowire.ParseError(n)
		}
		p = p[n:]
		switch number {
		case 1: // call
			if c = s.calls[uint32(v)]; c == nil {
				return messages, done, errors.New("no such call")
			}
		case 3, 5, 6: // message, header, end
			if c == nil {
				return messages, done, errors.New("the number of the call is not there, or not first")
			}
			if number == 3 {
				messages++
				err = s.message(c, b)
			}
			if number == 6 {
				done = true
				err = s.end(c, b)
			}
			if err != nil {
				return messages, done, err
			}
		case 7, 9: // credit, which these calls do not need, and hello
		default:
			return messages, done, fmt.Errorf("field %d", number)
		}
	}
	return messages, done, nil
}

func (s *socketClient) message(c *socketCall, b []byte) error {
	if !bytes.Equal(b, c.reply) {
		return errors.New("another message")
	}
	if c.owed >= s.window {
		return fmt.Errorf("message %d, beyond the window", c.messages+1)
	}
	c.messages++
	if c.owed += c.cost(); c.owed >= s.window/2 && !s.stingy {
		s.credit(c, c.owed)
	}
	return nil
}

// cost is what each message that comes back takes off the credit.
func (c *call) cost() int { return len(c.reply) + messageCost }

// credit gets credit ready to be given back.
func (s *socketClient) credit(c *socketCall, n int) {
	s.frame = appendCall(s.frame[:0], c.number)
	s.frame = protowire.AppendVarint(protowire.AppendTag(s.frame, 7, protowire.VarintType), uint64(n))
	s.appendFrame(binaryFrame, s.frame)
	c.owed -= n
}

func (s *socketClient) end(c *socketCall, end []byte) error {
	if code, ok := statusCode(end); !ok || code != 0 {
		return fmt.Errorf("ended with code %d", code)
	}
	if c.messages != c.replies {
		return fmt.Errorf("ended after %d messages, want %d", c.messages, c.replies)
	}
	if s.timed {
		s.latencies = append(s.latencies, time.Since(c.started))
	}
	delete(s.calls, c.number)
	s.free = append(s.free, c)
	return nil
}

// statusCode is that of an end, which has it first; OK need not be told.
func statusCode(end []byte) (code uint64, ok bool) {
	number, kind, n := protowire.ConsumeTag(end)
	if len(end) == 0 || n > 0 && number != 1 {
		return 0, true
	}
	if n < 0 || kind != protowire.VarintType {
		return 0, false
	}
	code, n = protowire.ConsumeVarint(end[n:])
	return code, n > 0
}

func appendCall(frame []byte, id uint32) []byte {
	return protowire.AppendVarint(protowire.AppendTag(frame, 1, protowire.VarintType), uint64(id))
}

// appendFrame adds a frame of WebSocket. Its masking key is zero, which leaves the
// payload as it is; the server has the same work with it.
func (s *socketClient) appendFrame(opcode byte, payload []byte) {
	s.out = append(s.out, opcode)
	switch n := len(payload); {
	case n < 126:
		s.out = append(s.out, 0x80|byte(n))
	case n < 1<<16:
		s.out = binary.BigEndian.AppendUint16(append(s.out, 0x80|126), uint16(n))
	default:
		s.out = binary.BigEndian.AppendUint64(append(s.out, 0x80|127), uint64(n))
	}
	s.out = append(s.out, 0, 0, 0, 0)
	s.out = append(s.out, payload...)
}
