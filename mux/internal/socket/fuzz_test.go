package socket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"oneport/mux/internal/socket/sockettest"
)

// seeds are what the clients of the conformance cases send.
func seeds() (sends [][]byte) {
	for _, kind := range []byte{opText, opBinary} {
		for _, c := range sockettest.Cases(sockettest.Echo("/", kind, testLimit, testFrames)) {
			var send []byte
			for _, step := range c.Steps {
				send = append(send, step.Send...)
			}
			if len(send) < 1000 {
				sends = append(sends, send)
			}
		}
	}
	return sends
}

// FuzzFrameCheck cuts the input into pieces and compares with a parser that sees
// it whole.
func FuzzFrameCheck(f *testing.F) {
	for _, send := range seeds() {
		f.Add(send, byte(1), byte(3))
	}
	f.Fuzz(func(t *testing.T, p []byte, first, step byte) {
		const maxFrames = 3
		wantN, wantCode := checkWhole(p, maxFrames)
		c := FrameCheck{MaxFrames: maxFrames}
		gotN, gotCode := 0, 0
		for rest, n := p, int(first)+1; len(rest) > 0; n = int(step) + 1 {
			n = min(n, len(rest))
			ok, err := c.Check(rest[:n])
			gotN += ok
			if ce, isClose := errors.AsType[*CloseError](err); isClose {
				gotCode = ce.Code
				break
			}
			if ok != n || err != nil {
				t.Fatalf("check of %d bytes = %d, %v", n, ok, err)
			}
			rest = rest[n:]
		}
		if gotN != wantN || gotCode != wantCode {
			t.Errorf("passed %d bytes, code %d; want %d, %d", gotN, gotCode, wantN, wantCode)
		}
	})
}

// checkWhole returns how many bytes of p are without fault, and the close code
// for the fault, 0 if there is none.
func checkWhole(p []byte, maxFrames int) (int, int) {
	frames := 0
	for at := 0; at+2 <= len(p); {
		opcode, n, header := p[at]&15, uint64(p[at+1]&127), 2
		if opcode == opClose && n == 1 {
			return at + 1, 1002
		}
		if opcode < 8 {
			if opcode != 0 {
				frames = 0
			}
			if frames++; frames > maxFrames {
				return at + 1, 1008
			}
		}
		short := n
		if short >= 126 {
			header += map[uint64]int{126: 2, 127: 8}[short]
			if at+header > len(p) {
				break
			}
			var full [8]byte
			copy(full[10-header:], p[at+2:at+header])
			n = binary.BigEndian.Uint64(full[:])
			if n < 126 || short == 127 && n < 1<<16 || n >= 1<<63 {
				return at + header - 1, 1002
			}
		}
		if p[at+1]&128 != 0 {
			header += 4
		}
		if n > uint64(len(p)) || at+header+int(n) > len(p) {
			break
		}
		at += header + int(n)
	}
	return len(p), 0
}

// FuzzSocket sends anything after a handshake: the server must neither panic nor
// hang, and must end with a close frame or not before the client does.
func FuzzSocket(f *testing.F) {
	for _, send := range seeds() {
		f.Add(send)
	}
	log := make(errorLog, 1)
	s := NewServer(Config{MaxMessageBytes: 1000, MaxFrames: 10, QueueBytes: 500, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))})
	f.Fuzz(func(t *testing.T, p []byte) {
		near, far := net.Pipe()
		ended := make(chan struct{})
		c := upgrade(t, s, near, far, func(c *Conn) { defer close(ended); echo(c) })
		replies := c.collect()
		far.SetWriteDeadline(time.Now().Add(5 * time.Second))
		far.Write(p)
		far.Close()
		<-replies
		<-ended
		select {
		case line := <-log:
			t.Error(line)
		default:
		}
	})
}

// errorLog keeps the first line written to it.
type errorLog chan string

func (l errorLog) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// FuzzCheck sends anything in the headers of a handshake.
func FuzzCheck(f *testing.F) {
	f.Add("websocket", "Upgrade", "13", sampleKey, "a.v1, b")
	f.Add("a,,websocket", "keep-alive , upgrade", "8", "AAAA", ",")
	s := NewServer(Config{Log: quiet})
	f.Fuzz(func(t *testing.T, upgrade, connection, version, key, protocol string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = http.Header{"Upgrade": {upgrade}, "Connection": {connection}, "Sec-Websocket-Version": {version},
			"Sec-Websocket-Key": {key}, "Sec-Websocket-Protocol": {protocol}}
		chosen, refused := check(r, []string{"a.v1"})
		if chosen != "" && (chosen != "a.v1" || !strings.Contains(protocol, chosen)) || refused != nil && chosen != "" {
			t.Errorf("subprotocol %q of %q, refusal %v", chosen, protocol, refused)
		}
		near, far := net.Pipe()
		defer near.Close()
		go func() { // takes what a handshake that succeeds is answered
			defer far.Close()
			http.ReadResponse(bufio.NewReader(far), nil)
		}()
		w := httptest.NewRecorder()
		s.Upgrade(hijackable{w, near, ""}, r, func(*Conn) {}, "a.v1")
		if refused != nil && w.Code != refused.status {
			t.Errorf("status %d, want %d", w.Code, refused.status)
		}
	})
}
