package mux_test

import (
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"

	"oneport/mux"
	"oneport/mux/internal/xconnect"
)

// http2Conn is a client that sees every frame.
type http2Conn struct {
	t testing.TB
	net.Conn
	*http2.Framer
	settings []map[http2.SettingID]uint32 // of each SETTINGS frame the server has sent
	acks     int                          // of the client's
	window   int                          // of the connection, for what the client sends
}

func newHTTP2Conn(t testing.TB, c net.Conn) *http2Conn {
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	return &http2Conn{t: t, Conn: c, Framer: fr, window: 1<<16 - 1}
}

// next returns the next frame, which is noted.
func (c *http2Conn) next() http2.Frame {
	c.t.Helper()
	f, err := c.ReadFrame()
	if err != nil {
		c.t.Fatalf("after SETTINGS %v and %d acknowledgements: %v", c.settings, c.acks, err)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acks++
			break
		}
		values := make(map[http2.SettingID]uint32)
		f.ForeachSetting(func(s http2.Setting) error { values[s.ID] = s.Val; return nil })
		c.settings = append(c.settings, values)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
		}
	case *http2.GoAwayFrame:
		c.t.Fatalf("after SETTINGS %v and %d acknowledgements: %v %q", c.settings, c.acks, f.ErrCode, f.DebugData())
	}
	return f
}

// greet opens the connection and waits for the server's SETTINGS and acknowledgement before anything else.
func (c *http2Conn) greet() {
	c.t.Helper()
	c.send(opening())
	if s, ok := c.next().(*http2.SettingsFrame); !ok || s.IsAck() {
		c.t.Fatalf("first frame is %v, want SETTINGS", s)
	}
	if c.next(); c.acks != 1 {
		c.t.Fatal("second frame is not the acknowledgement")
	}
}

func (c *http2Conn) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// wantStatus returns when a stream has ended, with an answer of that status.
func (c *http2Conn) wantStatus(stream uint32, status string) {
	c.t.Helper()
	for {
		f := c.next()
		if f.Header().StreamID != stream {
			continue
		}
		ended := false
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			c.t.Fatalf("stream %d: %v", stream, f.ErrCode)
		case *http2.MetaHeadersFrame:
			if got := f.PseudoValue("status"); got != "" && got != status {
				c.t.Errorf("stream %d: status %s, want %s", stream, got, status)
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			ended = f.StreamEnded()
		}
		if ended {
			return
		}
	}
}

// processed returns when the server has read all that was sent. It reports the
// reason if it has reset a stream meanwhile.
func (c *http2Conn) processed() (reset http2.ErrCode) {
	c.t.Helper()
	ping := [8]byte{1}
	c.WritePing(false, ping)
	for {
		switch f := c.next().(type) {
		case *http2.RSTStreamFrame:
			reset = f.ErrCode
		case *http2.PingFrame:
			if f.IsAck() && f.Data == ping {
				return reset
			}
		}
	}
}

// callFrames are a call of the greeter, getFrames a request for a page.
func callFrames(stream uint32) []byte {
	return frames(func(fr *http2.Framer) {
		h := headers(stream, "POST", "/helloworld.Greeter/SayHello", "content-type", "application/grpc")
		h.EndStream = false
		fr.WriteHeaders(h)
		fr.WriteData(stream, true, make([]byte, 5))
	})
}

func getFrames(stream uint32) []byte {
	return frames(func(fr *http2.Framer) { fr.WriteHeaders(headers(stream, "GET", "/healthz")) })
}

// http2Road is a way of HTTP/2 through the split.
type http2Road struct {
	name    string
	opts    []mux.Option
	request func(stream uint32) []byte
}

var http2Roads = []http2Road{
	{"grpc", nil, callFrames},
	{"http2", nil, getFrames},
	{"shared grpc", []mux.Option{mux.WithSharedHTTP2()}, callFrames},
}

// eachRoad calls f with each road, and what dials a server there.
func eachRoad(t *testing.T, f func(*testing.T, http2Road, func() *http2Conn), opts ...mux.Option) {
	for _, r := range http2Roads {
		p := start(t, both, services, append(r.opts, opts...)...)
		t.Run(r.name+"/cleartext", func(t *testing.T) {
			f(t, r, func() *http2Conn { return newHTTP2Conn(t, p.dial()) })
		})
		t.Run(r.name+"/TLS", func(t *testing.T) {
			f(t, r, func() *http2Conn { return newHTTP2Conn(t, p.secureHTTP2()) })
		})
	}
}

// secureHTTP2 opens a connection over TLS that has agreed on HTTP/2.
func (p *port) secureHTTP2() *tls.Conn {
	p.t.Helper()
	cfg := p.clientTLS.Clone()
	cfg.ServerName, cfg.NextProtos = "localhost", []string{http2.NextProtoTLS}
	c := tls.Client(p.dial(), cfg)
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// What a client is told that waits for the server before its first request is what
// the server of that request tells one that does not wait. So it is told once, and
// every acknowledgement has its SETTINGS. If this fails after an upgrade of Go or of
// grpc-go, mux/limits.go must announce what they do now.
func TestEarlySettings(t *testing.T) {
	if xconnect.Enabled {
		t.Skip("of extended CONNECT grpc-go says nothing, so that its clients see two SETTINGS frames")
	}
	eachRoad(t, func(t *testing.T, r http2Road, dial func() *http2Conn) {
		hasty := dial()
		hasty.send(append(opening(), r.request(1)...))
		hasty.wantStatus(1, "200")
		if len(hasty.settings) != 1 || hasty.acks != 1 {
			t.Fatalf("SETTINGS %v and %d acknowledgements, want one of each", hasty.settings, hasty.acks)
		}

		patient := dial()
		patient.greet()
		if got, want := patient.settings[0], hasty.settings[0]; !maps.Equal(got, want) {
			t.Errorf("early SETTINGS %v, the server's %v", got, want)
		}
		// More SETTINGS right behind the acknowledgement want one of their own.
		patient.WriteSettingsAck()
		patient.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
		for i := range uint32(6) {
			patient.send(r.request(2*i + 1))
			patient.wantStatus(2*i+1, "200")
		}
		patient.processed()
		if len(patient.settings) != 1 || patient.acks != 2 {
			t.Errorf("SETTINGS %v and %d acknowledgements, want one and two", patient.settings, patient.acks)
		}
		if patient.window != 1<<20 || hasty.window != 1<<20 {
			t.Errorf("connection windows %d and %d, want 1 MiB", patient.window, hasty.window)
		}
	})
}

// With options of the program grpc-go may announce anything. The client is told
// nothing early, then what holds.
func TestEarlySettingsOfProgram(t *testing.T) {
	if xconnect.Enabled {
		t.Skip("of extended CONNECT grpc-go says nothing, so that its clients see two SETTINGS frames")
	}
	eachRoad(t, func(t *testing.T, r http2Road, dial func() *http2Conn) {
		hasty := dial()
		hasty.send(append(opening(), r.request(1)...))
		hasty.wantStatus(1, "200")
		patient := dial()
		patient.greet()
		patient.WriteSettingsAck()
		for i := range uint32(6) {
			patient.send(r.request(2*i + 1))
			patient.wantStatus(2*i+1, "200")
			if i == 0 && len(patient.settings) == 2 {
				patient.WriteSettingsAck()
			}
		}
		patient.processed()
		last := patient.settings[len(patient.settings)-1]
		if want := hasty.settings[0]; !maps.Equal(last, want) || patient.acks != 1 {
			t.Errorf("SETTINGS %v and %d acknowledgements, want %v last and 1", patient.settings, patient.acks, want)
		}
		// On the shared road the options are not for anybody.
		if early := len(patient.settings[0]) > 0; early != (len(r.opts) > 0) || early != (len(patient.settings) == 1) {
			t.Errorf("SETTINGS %v, told early %v", patient.settings, early)
		}
	}, mux.WithGRPCServerOptions(grpc.InitialWindowSize(1<<20), grpc.MaxConcurrentStreams(7)))
}

// A client may use the window it is told of early as a whole, and no more.
func TestEarlyWindow(t *testing.T) {
	const window = 256 << 10
	for _, road := range []struct{ name, path, contentType string }{
		{"grpc", "/stuck.Stuck/Stream", "application/grpc"},
		{"http2", "/stuck", "text/plain"},
	} {
		for more, want := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeFlowControl} {
			t.Run(road.name, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				p := start(t, cleartextOnly, func(s *mux.Server) {
					s.Handle("/stuck", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
					s.RegisterService(&grpc.ServiceDesc{ServiceName: "stuck.Stuck", HandlerType: (*any)(nil),
						Streams: []grpc.StreamDesc{{StreamName: "Stream", ClientStreams: true, ServerStreams: true,
							Handler: func(any, grpc.ServerStream) error { <-release; return nil }}}}, nil)
				})
				c := newHTTP2Conn(t, p.dial())
				c.greet()
				if got := c.settings[0][http2.SettingInitialWindowSize]; got != window {
					t.Fatalf("window of a stream = %d, want %d", got, window)
				}
				c.WriteSettingsAck()
				h := headers(1, "POST", road.path, "content-type", road.contentType)
				h.EndStream = false
				c.WriteHeaders(h)
				for c.window < window+1 {
					c.next()
				}
				for range window / (16 << 10) {
					c.WriteData(1, false, make([]byte, 16<<10))
				}
				c.WriteData(1, false, make([]byte, more))
				if got := c.processed(); got != want {
					t.Errorf("after %d bytes: stream reset with %v, want %v", window+more, got, want)
				}
			})
		}
	}
}
