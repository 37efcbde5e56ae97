package connectrpc

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gRPC-Web text is gRPC-Web in base64, for clients that read no binary bodies as
// they come (PROTOCOL-WEB.md in the grpc repository, "Protocol differences"). This
// file turns a request and its answer into the binary form and back.

const (
	textMedia   = "application/grpc-web-text"
	binaryMedia = "application/grpc-web"
)

// newTextResponse makes r binary. The caller must call end after the handler.
func newTextResponse(w http.ResponseWriter, r *http.Request) *textResponse {
	_, suffix, _ := strings.Cut(strings.ToLower(r.Header.Get("Content-Type")), textMedia)
	r.Header.Set("Content-Type", binaryMedia+suffix)
	r.Header.Del("Content-Length")
	r.ContentLength = -1
	r.Body = &textBody{src: r.Body}
	return &textResponse{ResponseWriter: w}
}

// textBody decodes base64. What it reads may have been encoded in pieces, each
// padded by itself.
type textBody struct {
	src io.ReadCloser
	raw []byte // read and not decoded: less than 4 characters, after Read
	err error  // of src
	buf [2 << 10]byte
	out []byte // decoded and not read, part of buf
}

var errText = status.Error(codes.InvalidArgument, "the body is not base64, which "+textMedia+" asks for")

func (b *textBody) Read(p []byte) (int, error) {
	for len(b.out) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		if err := b.fill(); err != nil {
			b.err = err
		}
	}
	n := copy(p, b.out)
	b.out = b.out[n:]
	return n, nil
}

// fill reads once and decodes what that completes. It may decode something and
// return an error as well.
func (b *textBody) fill() error {
	have := copy(b.buf[:], b.raw)
	n, err := b.src.Read(b.buf[have:])
	n += have
	whole := n - n%4
	if err == io.EOF && whole < n {
		err = errText // in the middle of a character
	}
	size, bad := decodePieces(b.buf[:whole])
	b.out = b.buf[:size]
	b.raw = append(b.raw[:0], b.buf[whole:n]...)
	if bad != nil {
		return bad
	}
	return err
}

// decodePieces decodes b, whose length is a multiple of 4, in place and returns
// the length of the result.
func decodePieces(b []byte) (int, error) {
	if bytes.ContainsAny(b, "\r\n") { // which package base64 would skip
		return 0, errText
	}
	size := 0
	for rest := b; len(rest) > 0; {
		piece := rest
		for i := 3; i < len(rest); i += 4 {
			if rest[i] == '=' { // the end of a piece
				piece = rest[:i+1]
				break
			}
		}
		n, err := base64.StdEncoding.Decode(b[size:], piece)
		if err != nil {
			return size, errText
		}
		size += n
		rest = rest[len(piece):]
	}
	return size, nil
}

func (b *textBody) Close() error { return b.src.Close() }

// textResponse encodes an answer. Each flush ends a piece with its padding, so
// that the client can read all that has been sent.
type textResponse struct {
	http.ResponseWriter
	headed bool
	held   []byte // written, and less than the 3 bytes that make 4 characters
}

// Unwrap is for http.ResponseController.
func (w *textResponse) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *textResponse) WriteHeader(code int) {
	w.head()
	w.ResponseWriter.WriteHeader(code)
}

// head gives the answer the content type of the request.
func (w *textResponse) head() {
	if w.headed {
		return
	}
	w.headed = true
	h := w.Header()
	if suffix, ok := strings.CutPrefix(h.Get("Content-Type"), binaryMedia); ok {
		h.Set("Content-Type", textMedia+suffix)
	}
}

func (w *textResponse) Write(p []byte) (int, error) {
	w.head()
	all := append(w.held, p...)
	whole := len(all) - len(all)%3
	w.held = append([]byte(nil), all[whole:]...)
	if err := w.encode(all[:whole]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *textResponse) encode(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.ResponseWriter.Write(base64.StdEncoding.AppendEncode(nil, p))
	return err
}

// pad ends a piece. An error shows at the next write.
func (w *textResponse) pad() {
	_ = w.encode(w.held)
	w.held = nil
}

func (w *textResponse) Flush() {
	w.head()
	w.pad()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// end sends what is left.
func (w *textResponse) end() {
	w.head()
	w.pad()
}
