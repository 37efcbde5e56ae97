package mux_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
)

const (
	floodBytes = 200 << 20
	floodTime  = 2 * time.Second // a server that is slow on purpose is let off then
	floodLimit = 8 << 20         // by which the memory may move
)

// A flood is what one client sends: first once, then more until the server hangs up.
type flood struct {
	name   string
	secure bool
	deaf   bool // does not read what is answered
	first  []byte
	more   func(i int) []byte
}

// One client that has not shown who it is cannot make the server large.
func TestFlood(t *testing.T) {
	skipUnlessMemoryCounts(t)
	line := bytes.Repeat([]byte("X-Flood: "+strings.Repeat("a", 1000)+"\r\n"), 64)
	value := bytes.Repeat([]byte("a"), 64<<10)
	floods := []flood{
		{name: "HTTP/1 header lines", first: []byte("GET / HTTP/1.1\r\nHost: x\r\n"), more: same(line)},
		{name: "HTTP/1 header lines in TLS", secure: true, first: []byte("GET / HTTP/1.1\r\nHost: x\r\n"), more: same(line)},
		{name: "HTTP/1 header value", first: []byte("GET / HTTP/1.1\r\nHost: x\r\nX: "), more: same(value)},
		{name: "HTTP/1 request line", first: []byte("GET /"), more: same(value)},
	}
	// As the first thing it says a client reaches the split and then net/http, after
	// a gRPC call grpc-go.
	for start, first := range map[string][]byte{"first": opening(), "after a gRPC call": gRPCOpening()} {
		for name, more := range map[string]func(int) []byte{
			"HEADERS":        manyRequests,
			"CONTINUATION":   oneEndlessHeader,
			"PING":           same(repeat(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) })),
			"SETTINGS":       same(repeat(func(fr *http2.Framer) { fr.WriteSettings() })),
			"large SETTINGS": same(repeat(func(fr *http2.Framer) { fr.WriteSettings(manySettings()...) })),
		} {
			floods = append(floods,
				flood{name: name + " " + start, first: first, more: more},
				flood{name: name + " " + start + ", deaf", first: first, more: more, deaf: true})
		}
	}
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			checkMemory(t, f.send)
		})
	}
}

func skipUnlessMemoryCounts(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("sends gigabytes")
	}
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector takes many times the memory")
	}
}

// checkMemory fails if attack makes a server grow. attack returns what it sent, and
// why it ended before floodBytes. A collector that gets no processor on a loaded
// machine runs late, so that what is no leak looks like one: the least of three
// servers counts.
func checkMemory(t *testing.T, attack func(*port) (sent int, err error)) {
	t.Helper()
	var grown int
	for range 3 {
		p, pid := startChild(t)
		warmUp(t, p)
		before := memory(t, pid, "VmRSS")
		resetPeak(t, pid)
		began := time.Now()
		sent, err := attack(p)
		took := time.Since(began)
		grown = memory(t, pid, "VmHWM") - before
		t.Logf("grew by %d KiB from %d KiB; %d KiB sent in %v, then %v", grown>>10, before>>10, sent>>10, took, err)
		p.alive(true)
		if grown < floodLimit {
			return
		}
	}
	t.Errorf("three servers grew, the last by %d KiB; want less than %d", grown>>10, floodLimit>>10)
}

// send floods p. The error is why it ended before floodBytes.
func (f *flood) send(p *port) (sent int, err error) {
	var c net.Conn
	if f.secure {
		c = p.secure()
	} else {
		c = p.dial()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(floodTime))
	if !f.deaf {
		go io.Copy(io.Discard, c)
	}
	if _, err := c.Write(f.first); err != nil {
		return 0, err
	}
	for i := 0; sent < floodBytes; i++ {
		n, err := c.Write(f.more(i))
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// A client that takes no answer cannot make the server keep what it would answer to:
// once nothing can be sent any more, every frame that wants an answer must wait.
func TestFloodBehindFullBuffer(t *testing.T) {
	skipUnlessMemoryCounts(t)
	small := frames(func(fr *http2.Framer) { fr.WriteSettings() })
	large := frames(func(fr *http2.Framer) { fr.WriteSettings(manySettings()...) })
	for name, first := range map[string][]byte{"first": opening(), "after a gRPC call": gRPCOpening()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkMemory(t, func(p *port) (sent int, err error) {
				c := p.dialNarrow()
				if _, err := c.Write(first); err != nil {
					return 0, err
				}
				for full := -1; ; {
					if _, err := c.Write(bytes.Repeat(small, 2000)); err != nil {
						return 0, err
					}
					now := settledSendQueue(t, p.addr, c.LocalAddr().String(), full)
					if now <= full {
						break
					}
					full = now
				}
				c.SetDeadline(time.Now().Add(floodTime))
				for sent < floodBytes {
					n, err := c.Write(large)
					sent += n
					if err != nil {
						return sent, err
					}
				}
				return sent, nil
			})
		})
	}
}

// dialNarrow is dial with a receive buffer as small as may be.
func (p *port) dialNarrow() net.Conn {
	p.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
	}}
	c, err := d.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// settledSendQueue returns how many bytes from one address to the other the kernel
// holds, as soon as they are more than old, or after a while.
func settledSendQueue(t *testing.T, from, to string, old int) int {
	t.Helper()
	inHex := func(addr string) string {
		a := netip.MustParseAddrPort(addr)
		ip := a.Addr().As4()
		return fmt.Sprintf("%08X:%04X", binary.LittleEndian.Uint32(ip[:]), a.Port())
	}
	socket := inHex(from) + " " + inHex(to)
	n := -1
	for deadline := time.Now().Add(100 * time.Millisecond); n <= old && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, ok := strings.Cut(string(table), socket); ok {
			fmt.Sscanf(rest, "%x %x:", new(int), &n) // state, tx_queue:rx_queue
		}
	}
	return n
}

// warmUp uses every road, with as many calls at once as a connection may have, so that
// the server has what it needs for honest work.
func warmUp(t *testing.T, p *port) {
	t.Helper()
	for _, secure := range []bool{false, true} {
		cfg, s := p.clientTLS, "s"
		if !secure {
			cfg, s = nil, ""
		}
		p.alive(secure)
		cc := p.grpc(cfg)
		ws := p.socket("ws"+s, "/grpc-ws")
		h1, h2 := p.http(1), p.http(2)
		for range 200 {
			ws.send(websocket.TextMessage, "{}")
			ws.want(websocket.TextMessage, `{"message":"Hello "}`)
			get(t, h1, p.url("http"+s, "/"))
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for range 10 {
					if err := hello(t, cc); err != nil {
						t.Error(err)
					}
					if res, err := h2.Get(p.url("http"+s, "/")); err != nil {
						t.Error(err)
					} else {
						res.Body.Close()
					}
				}
			})
		}
		wg.Wait()
		cc.Close()
		ws.Close()
	}
}

// memory reads a size of a process, in bytes; see proc_pid_status(5).
func memory(t *testing.T, pid int, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("\n"+field+":"))
	kib, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" kB"))
	n, err := strconv.Atoi(string(kib))
	if err != nil {
		t.Fatalf("%s in %s: %v", field, status, err)
	}
	return n << 10
}

// resetPeak makes VmHWM start again from VmRSS; see proc_pid_clear_refs(5).
func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func same(b []byte) func(int) []byte { return func(int) []byte { return b } }

// repeat is frames, to 64 KiB.
func repeat(write func(*http2.Framer)) []byte {
	one := frames(write)
	return bytes.Repeat(one, (64<<10)/len(one)+1)
}

var largeField = []string{"x-flood", strings.Repeat("~", 8000)} // encoded about as long

// manyRequests is the i'th of many.
func manyRequests(i int) []byte {
	return frames(func(fr *http2.Framer) { fr.WriteHeaders(headers(uint32(2*i+3), "GET", "/", largeField...)) })
}

// oneEndlessHeader is the i'th part of one.
func oneEndlessHeader(i int) []byte {
	return frames(func(fr *http2.Framer) {
		if i == 0 {
			h := headers(3, "GET", "/")
			h.EndHeaders = false
			fr.WriteHeaders(h)
		}
		fr.WriteContinuation(3, false, fields(largeField...))
	})
}

func manySettings() []http2.Setting {
	list := make([]http2.Setting, 2700) // just below the 16 KiB of a frame
	for i := range list {
		list[i] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)}
	}
	return list
}
