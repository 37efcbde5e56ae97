package sniff

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// handedTCP returns a client and what Handoff makes of the server's end after in was sent, in two pieces if cut is not
// zero: the second when the client has the early SETTINGS.
func handedTCP(t *testing.T, in []byte, cut int) (client *net.TCPConn, server net.Conn, bare *net.TCPConn) {
	t.Helper()
	client, bare = tcpPair(t)
	c := accept(t, bare, quiet)
	if cut == 0 {
		cut = len(in)
	}
	if _, err := client.Write(in[:cut]); err != nil {
		t.Fatal(err)
	}
	told := make(chan Kind, 1)
	go func() { told <- verdict(t, c) }()
	if cut < len(in) {
		if _, err := io.ReadFull(client, make([]byte, len(greeting(nil)))); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(in[cut:]); err != nil {
			t.Fatal(err)
		}
	}
	<-told
	server = Handoff(c)
	return client, server, bare
}

// settingsThen is a client that acknowledges the early SETTINGS before its request; end is where it waits for them.
func settingsThen(contentType string) (in []byte, end int) {
	start := frames(func(fr *http2.Framer) { fr.WriteSettings() })
	return append(start, frames(func(fr *http2.Framer) {
		fr.WriteSettingsAck()
		fr.WriteHeaders(headers(post(contentType)))
	})[len(http2.ClientPreface):]...), len(start)
}

var settingsThenRequest, settingsEnd = settingsThen("application/grpc")

func TestHandoffTCP(t *testing.T) {
	in := []byte("GET / HTTP/1.1\r\n\r\n")
	_, server, bare := handedTCP(t, in, 0)
	c := server.(handed)
	if got := c.NetConn(); got != server {
		t.Errorf("NetConn before the prefix was read = %T, want itself", got)
	}
	got := make([]byte, len(in))
	if _, err := io.ReadFull(server, got); !bytes.Equal(got, in) {
		t.Errorf("read %q, %v, want %q", got, err, in)
	}
	if got := c.NetConn(); got != bare {
		t.Errorf("NetConn after the prefix was read = %T, want the accepted connection", got)
	}
	if server.(*tcpConn).prefix != nil {
		t.Error("the prefix is held after it was read")
	}
	if c.TLS() != nil {
		t.Error("TLS in cleartext is not nil")
	}
}

var (
	_ handed = (*conn)(nil)
	_ handed = (*tcpConn)(nil)
	_ handed = (*greetedConn)(nil)
	_ handed = (*tcpGreetedConn)(nil)

	_ io.ReaderFrom = (*tcpConn)(nil)
)

// A writeSpy has the methods of a tcpConn, also those package net keeps to itself, and counts calls of Write.
type writeSpy struct {
	*tcpConn
	writes int
}

func (s *writeSpy) Write(p []byte) (int, error) { s.writes++; return s.tcpConn.Write(p) }

func TestHandoffWritev(t *testing.T) {
	client, server, _ := handedTCP(t, []byte("GET / HTTP/1.1\r\n\r\n"), 0)
	spy := &writeSpy{tcpConn: server.(*tcpConn)}
	bufs := net.Buffers{[]byte("a"), []byte("b"), []byte("c")}
	if _, err := bufs.WriteTo(spy); err != nil || spy.writes != 0 {
		t.Errorf("%d single writes, %v, want the buffers gathered in one system call", spy.writes, err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(client, got); string(got) != "abc" {
		t.Errorf("client read %q, %v", got, err)
	}
}

func TestHandoffWriteTo(t *testing.T) {
	const in = "GET / HTTP/1.1\r\n\r\n"
	client, server, _ := handedTCP(t, []byte(in), 0)
	client.Write([]byte("rest"))
	client.CloseWrite()
	var b bytes.Buffer
	if n, err := io.Copy(&b, server); b.String() != in+"rest" || n != int64(b.Len()) || err != nil {
		t.Errorf("Copy = %d, %v, %q, want %q", n, err, &b, in+"rest")
	}

	_, server, _ = handedTCP(t, []byte(in), 0)
	n, err := io.Copy(&shortWriter{4}, server)
	if n != 4 || err != io.ErrShortWrite {
		t.Errorf("Copy to a short writer = %d, %v, want 4, %v", n, err, io.ErrShortWrite)
	}
	rest := make([]byte, len(in)-4)
	if _, err := io.ReadFull(server, rest); string(rest) != in[4:] {
		t.Errorf("then read %q, %v, want %q", rest, err, in[4:])
	}
}

func TestHandoffSendfile(t *testing.T) {
	client, server, _ := handedTCP(t, []byte("GET / HTTP/1.1\r\n\r\n"), 0)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := server.(io.ReaderFrom).ReadFrom(f); n != 7 || err != nil {
		t.Errorf("ReadFrom = %d, %v, want 7", n, err)
	}
	server.(handed).CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "content" || err != nil {
		t.Errorf("client read %q, %v", got, err)
	}
}

// What each side of an HTTP/2 connection with early SETTINGS gets over TCP, and when it is bare: if the server announces
// the same, and if it does not.
func TestHandoffGreeted(t *testing.T) {
	other := frames(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	})[len(http2.ClientPreface):]
	same, ack := greeting(nil)[:9], greeting(nil)[9:]
	in, settingsEnd := settingsThen("application/json")
	for name, tt := range map[string]struct {
		announces, arrives, want []byte
	}{
		"same":  {same, nil, in},
		"other": {other, other, withoutAck(in, len(http2.ClientPreface))},
	} {
		t.Run(name, func(t *testing.T) {
			client, server, bare := handedTCP(t, in, settingsEnd)
			c := server.(handed)
			if _, err := server.Write(tt.announces); err != nil {
				t.Fatal(err)
			}
			opening := make([]byte, settingsEnd)
			if _, err := io.ReadFull(server, opening); err != nil {
				t.Fatal(err)
			}
			if got := c.NetConn(); got == bare {
				t.Error("NetConn is bare before the server's acknowledgement was left out")
			}
			bufs := net.Buffers{ack, []byte("rest")}
			if _, err := bufs.WriteTo(server); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(tt.want)-settingsEnd)
			if _, err := io.ReadFull(server, got); !bytes.Equal(append(opening, got...), tt.want) {
				t.Errorf("server read %x, then %x, %v; want %x", opening, got, err, tt.want)
			}
			if got := c.NetConn(); got != bare {
				t.Errorf("NetConn afterwards = %T, want the accepted connection", got)
			}
			c.CloseWrite()
			written, err := io.ReadAll(client)
			if want := string(tt.arrives) + "rest"; string(written) != want || err != nil {
				t.Errorf("client read %x, %v, want %x", written, err, want)
			}
		})
	}
}

// TestHandoffConcurrent runs all that may run at once; the race detector judges.
func TestHandoffConcurrent(t *testing.T) {
	client, server, _ := handedTCP(t, settingsThenRequest, settingsEnd)
	go io.Copy(io.Discard, client)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, server) })
	for range 3 {
		wg.Go(func() {
			for range 100 {
				server.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
				server.Write(greeting(nil)[9:])
			}
		})
	}
	for range 100 {
		client.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	}
	server.SetDeadline(time.Now().Add(time.Minute))
	server.Close()
	wg.Wait()
}

// TestHandoffOther is a connection that is neither TCP nor TLS.
func TestHandoffOther(t *testing.T) {
	s := &script{pieces: [][]byte{[]byte("\x00")}}
	c := accept(t, s, quiet)
	verdict(t, c)
	server := Handoff(c)
	if err := server.(handed).CloseWrite(); err != errors.ErrUnsupported {
		t.Errorf("CloseWrite = %v, want %v", err, errors.ErrUnsupported)
	}
	io.ReadAll(server)
	if got := server.(handed).NetConn(); got != net.Conn(s) {
		t.Errorf("NetConn = %T, want the accepted connection", got)
	}
	if got := Handoff(s); got != net.Conn(s) {
		t.Errorf("Handoff of a foreign connection = %T, want itself", got)
	}
}

// TestHandoffExpired is a connection that was closed for good just before.
func TestHandoffExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := accept(t, server, quiet)
		time.Sleep(time.Minute)
		kind, after := KindOf(c), Handoff(c)
		if _, err := after.Read(make([]byte, 1)); err != io.ErrClosedPipe || kind != Unknown {
			t.Errorf("read %v from kind %v, want %v from unknown", err, kind, io.ErrClosedPipe)
		}
	})
}
