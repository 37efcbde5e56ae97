package mux_test

import (
	"bytes"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// These make the bytes of HTTP/2 clients that no library would be.

// frames returns what write writes.
func frames(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	write(http2.NewFramer(&b, nil))
	return b.Bytes()
}

// opening is the start of an HTTP/2 connection, with what more write.
func opening(more ...func(*http2.Framer)) []byte {
	return append([]byte(http2.ClientPreface), frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		for _, write := range more {
			write(fr)
		}
	})...)
}

// headers are those of a request without a body.
func headers(stream uint32, method, path string, more ...string) http2.HeadersFrameParam {
	block := fields(append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "localhost"}, more...)...)
	return http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true, EndStream: true}
}

// fields encodes names and values, without a reference to earlier ones.
func fields(kv ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(kv); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1], Sensitive: true})
	}
	return b.Bytes()
}

// gRPCOpening has a call in it.
func gRPCOpening() []byte {
	return opening(func(fr *http2.Framer) {
		h := headers(1, "POST", "/helloworld.Greeter/SayHello", "content-type", "application/grpc")
		h.EndStream = false
		fr.WriteHeaders(h)
		fr.WriteData(1, true, make([]byte, 5))
	})
}
