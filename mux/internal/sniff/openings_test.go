package sniff

import (
	"bytes"
	"strings"

	"golang.org/x/net/http2"
)

// openings are starts of connections, each long enough to be told without reading on.
var openings = []struct {
	name string
	in   []byte
	want Kind
}{
	{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), TLS},
	{"TLS, first byte", []byte("\x16"), TLS},

	{"gRPC", request("application/grpc"), GRPC},
	{"gRPC with codec", request("application/grpc+proto"), GRPC},
	{"gRPC in JSON", request("application/grpc+json; charset=utf-8"), HTTP2},
	{"gRPC with parameters", request("application/grpc+proto; charset=utf-8"), GRPC},
	{"gRPC with space before parameters", request("application/grpc ;v=1"), GRPC},
	{"gRPC in capitals", request("Application/GRPC"), GRPC},
	{"gRPC-Web", request("application/grpc-web+proto"), HTTP2},
	{"gRPC-Web text", request("application/grpc-web-text"), HTTP2},
	{"near gRPC", request("application/grpcx"), HTTP2},
	{"JSON", request("application/json"), HTTP2},
	{"Connect", request("application/connect+proto"), HTTP2},
	{"no content-type", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(fields(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "localhost")))
	}), HTTP2},
	{"first of two content-types", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(fields(":method", "POST", "content-type", "text/plain", "content-type", "application/grpc")))
	}), HTTP2},
	{"gRPC after other frames", frames(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
		fr.WriteSettingsAck()
		fr.WriteWindowUpdate(0, 1<<20)
		fr.WritePriority(3, http2.PriorityParam{Weight: 200})
		fr.WriteHeaders(headers(post("application/grpc")))
	}), GRPC},
	{"gRPC padded, with priority", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		p := headers(post("application/grpc"))
		p.PadLength, p.Priority = 100, http2.PriorityParam{StreamDep: 3, Weight: 7}
		fr.WriteHeaders(p)
	}), GRPC},
	{"gRPC in continuations", frames(func(fr *http2.Framer) {
		block := post("application/grpc")
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5]})
		fr.WriteContinuation(1, false, nil)
		fr.WriteContinuation(1, false, block[5:20])
		fr.WriteContinuation(1, true, block[20:])
	}), GRPC},

	{"GET", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), HTTP1},
	{"GET 1.0", []byte("GET / HTTP/1.0\r\n\r\n"), HTTP1},
	{"PATCH", []byte("PATCH /x HTTP/1.1\r\nHost: localhost\r\n\r\n{}"), HTTP1},
	{"QUERY", []byte("QUERY /x HTTP/1.1\r\nHost: localhost\r\n\r\n"), HTTP1},
	{"method of one", []byte("X / HTTP/1.1\r\n\r\n"), HTTP1},
	{"method of 16", []byte("BASELINE-CONTROL / HTTP/1.1\r\n\r\n"), HTTP1},
	{"method of 17", []byte("UPDATEREDIRECTREF "), Unknown},
	{"lone LF", []byte("GET / HTTP/1.1\nHost: localhost\n\n"), HTTP1},
	{"long URL", []byte("GET /?q=" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n"), HTTP1},
	{"header over the budget", []byte("GET / HTTP/1.1\r\nA: " + strings.Repeat("a", 64<<10)), HTTP1},
	{"PRI, but HTTP/1", []byte("PRI * HTTP/1.1\r\n\r\n"), HTTP1},
	{"gRPC-Web over HTTP/1", []byte("POST /a/b HTTP/1.1\r\nContent-Type: application/grpc-web\r\n\r\n"), HTTP1},

	{"upgrade", []byte("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), Upgrade},
	{"upgrade, other case and lists", []byte("GET /ws HTTP/1.1\r\nconnection: keep-alive, upgrade\r\nUPGRADE: h2c ,\tWebSocket\r\n\r\n"), Upgrade},
	{"upgrade, two lines", []byte("GET /ws HTTP/1.1\r\nConnection: keep-alive\r\nConnection:Upgrade\r\nUpgrade:websocket\r\n\r\n"), Upgrade},
	{"upgrade, without connection", []byte("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), HTTP1},
	{"upgrade, connection says otherwise", []byte("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrader\r\n\r\n"), HTTP1},
	{"upgrade to h2c", []byte("GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"), HTTP1},
	{"upgrade in the body", []byte("POST / HTTP/1.1\r\n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), HTTP1},
	{"upgrade of no version", []byte("GET /ws\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), HTTP1},

	{"upgrade at the budget", upgradeOf(32 << 10), Upgrade},
	{"upgrade over the budget", upgradeOf(32<<10 + 1), HTTP1},

	{"SSH", []byte("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), Unknown},
	{"NUL", []byte("\x00"), Unknown},
	{"space", []byte(" / HTTP/1.1\r\n\r\n"), Unknown},
	{"empty line first", []byte("\r\nGET / HTTP/1.1\r\n\r\n"), Unknown},
	{"SSLv2", []byte("\x80\x2e\x01\x03\x01"), Unknown},
	{"TLS alert", []byte("\x15\x03\x01\x00\x02\x02\x28"), Unknown},
}

// upgradeOf is an upgrade whose header is of a size.
func upgradeOf(size int) []byte {
	const start = "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nA: "
	return []byte(start + strings.Repeat("a", size-len(start)-4) + "\r\n\r\n")
}

// wrongHTTP2 are openings of HTTP/2 that are for the server to judge.
var wrongHTTP2 = []struct {
	name string
	in   []byte
}{
	{"preface alone", []byte(http2.ClientPreface)},
	{"no SETTINGS", frames(func(fr *http2.Framer) { fr.WriteHeaders(headers(post("application/grpc"))) })},
	{"acknowledgement first", frames(func(fr *http2.Framer) { fr.WriteSettingsAck(); fr.WriteHeaders(headers(post("application/grpc"))) })},
	{"SETTINGS on a stream", frames(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameSettings, 0, 1, nil) })},
	{"PING", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WritePing(false, [8]byte{})
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"DATA", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteData(1, true, []byte("x"))
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"unknown frame type", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteRawFrame(0x0b, 0, 0, []byte("x"))
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"WINDOW_UPDATE on a stream", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteWindowUpdate(1, 1)
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"17 frames", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		for range 15 {
			fr.WriteSettingsAck()
		}
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"frame over 16 KiB", frames(func(fr *http2.Framer) {
		fr.WriteSettings(make([]http2.Setting, 16384/6+1)...)
		fr.WriteHeaders(headers(post("application/grpc")))
	})},
	{"broken header block", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(append(post("application/grpc"), 0xff, 0xff, 0xff, 0xff, 0x0f)))
	})},
	{"cut header block", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(append(post("application/grpc"), 0x40)))
	})},
	{"padding longer than the frame", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte("\xff\x82"))
	})},
	{"no room for padding", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, nil)
	})},
	{"no room for priority", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority, 1, []byte("1234"))
	})},
	{"continuation of another stream", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post("application/grpc")})
		fr.WriteContinuation(3, true, nil)
	})},
	{"frame within a header block", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post("application/grpc")})
		fr.WriteSettings()
		fr.WriteContinuation(1, true, nil)
	})},
	{"continuation of nothing", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteContinuation(1, true, post("application/grpc"))
	})},
	{"value over 8 KiB", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(append(post("application/grpc"), fields("a", strings.Repeat("\x00", 8192+1))...)))
	})},
	{"header list over 16 KiB", frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(headers(bomb(200)))
	})},
}

// atOnce are starts of HTTP/2 after which a client may wait for an answer or a complaint by the server, so that the
// verdict must come without more bytes.
var atOnce = []struct {
	name string
	in   []byte
}{
	{"second SETTINGS", afterSettings(func(fr *http2.Framer) { fr.WriteSettings() })},
	{"SETTINGS of no whole number", afterSettings(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 7)) })},
	{"acknowledgement with a payload", afterSettings(func(fr *http2.Framer) {
		fr.WriteRawFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6))
	})},
	{"PING", afterSettings(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) })},
	{"DATA", afterSettings(func(fr *http2.Framer) { fr.WriteData(1, true, nil) })},
	{"GOAWAY", afterSettings(func(fr *http2.Framer) { fr.WriteGoAway(0, 0, nil) })},
	{"RST_STREAM", afterSettings(func(fr *http2.Framer) { fr.WriteRSTStream(1, 0) })},
	{"WINDOW_UPDATE of zero", afterSettings(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 0) })},
	{"WINDOW_UPDATE beyond the largest window", afterSettings(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1<<31-1<<16+1) })},
	{"WINDOW_UPDATEs beyond all numbers", afterSettings(func(fr *http2.Framer) {
		fr.WriteWindowUpdate(0, 1<<30)
		fr.WriteWindowUpdate(0, 1<<31-1)
	})},
	{"WINDOW_UPDATE of another length", afterSettings(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 3)) })},
	{"PRIORITY on no stream", afterSettings(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FramePriority, 0, 0, make([]byte, 5)) })},
	{"PRIORITY that depends on itself", afterSettings(func(fr *http2.Framer) { fr.WritePriority(3, http2.PriorityParam{StreamDep: 3}) })},
	{"HEADERS on no stream", afterSettings(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameHeaders, 0, 0, nil) })},
	{"header of a frame of 16 KiB and one", append(afterSettings(func(*http2.Framer) {}), "\x00\x40\x01\x01\x04\x00\x00\x00\x01"...)},
}

// afterSettings returns the client preface, SETTINGS and what write adds.
func afterSettings(write func(*http2.Framer)) []byte {
	return frames(func(fr *http2.Framer) { fr.WriteSettings(); write(fr) })
}

// bomb is a small header block of gRPC that decodes to about 100 bytes for each of n.
func bomb(n int) []byte {
	return append(append(post("application/grpc"), "\x40\x01a\x42"+strings.Repeat("b", 66)...), bytes.Repeat([]byte{0xbe}, n)...)
}
