package rest

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// body is the body of a request as its messages are read from it.
type body struct {
	src   io.Reader
	http  *http.ResponseController
	limit int // of a message, decompressed

	zipped bool
	unzip  *gzip.Reader // once something was read of a zipped one

	ended   atomic.Bool // src has been read to its end
	spoiled atomic.Bool // the connection has a read deadline that has passed

	values values // of a stream
}

// Read reads what the client has compressed, if it has.
func (b *body) Read(p []byte) (n int, err error) {
	if !b.zipped {
		return b.readSource(p)
	}
	if b.unzip == nil {
		z := unzippers.Get().(*gzip.Reader)
		if err := z.Reset(sourceReader{b}); err != nil {
			unzippers.Put(z)
			if err == io.EOF { // no byte at all
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		b.unzip = z
	}
	return b.unzip.Read(p)
}

var unzippers = sync.Pool{New: func() any { return new(gzip.Reader) }}

// sourceReader is what has come by HTTP. It is not a pointer to b, whose Read is the other.
type sourceReader struct{ b *body }

func (s sourceReader) Read(p []byte) (int, error) { return s.b.readSource(p) }

func (b *body) readSource(p []byte) (int, error) {
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		b.ended.Store(true)
	case err != nil:
		err = sourceError(err)
	}
	return n, err
}

// sourceError makes a status of what net/http says of a body.
func sourceError(err error) error {
	if big, ok := errors.AsType[*http.MaxBytesError](err); ok { // the program's own limit
		return status.Errorf(codes.ResourceExhausted, "the body has more than %d bytes", big.Limit)
	}
	return rpc.ReadError(err)
}

// release gives back what b has borrowed. Nobody reads b any more.
func (b *body) release() {
	if b.unzip != nil {
		unzippers.Put(b.unzip)
		b.unzip = nil
	}
}

// during runs read, which ends when ctx does.
func (b *body) during(ctx context.Context, read func() error) error {
	if ctx.Err() != nil {
		return rpc.ContextError(ctx)
	}
	if b.ended.Load() { // net/http reads on, for the next request
		return read()
	}
	stop := rpc.During(ctx, func() { _ = b.http.SetReadDeadline(time.Unix(1, 0)) })
	err := read()
	if stop() {
		b.spoiled.Store(true)
		if err != nil && err != io.EOF {
			return rpc.ContextError(ctx)
		}
	}
	return err
}

// chunk returns what there is next of the body, io.EOF at its end. It is there until chunk
// is called again.
func (b *body) chunk() ([]byte, error) {
	if b.values.buf == nil {
		b.values.buf = make([]byte, min(b.limit, maxChunk))
	}
	for {
		n, err := b.Read(b.values.buf)
		switch {
		case n > 0:
			return b.values.buf[:n], nil // an error comes again
		case err == io.EOF:
			return nil, io.EOF
		case err != nil:
			return nil, readError(err)
		}
	}
}

// maxChunk is the most that is one message of an upload by google.api.HttpBody.
const maxChunk = 32 << 10

// appendAll appends all of the body to buf, which is empty: one message.
func (b *body) appendAll(buf []byte) ([]byte, error) {
	for {
		// One byte more than is allowed, to see whether there is one.
		if room := b.limit + 1 - len(buf); cap(buf)-len(buf) < min(room, 512) {
			buf = append(make([]byte, 0, len(buf)+min(room, max(len(buf), 4<<10))), buf...)
		}
		n, err := b.Read(buf[len(buf):min(cap(buf), b.limit+1)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > b.limit:
			return buf, errTooLarge("body", b.limit)
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, readError(err)
		}
	}
}

// readError makes a status of an error of Read: what is none yet is of gzip.
func readError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.InvalidArgument, "the body is not gzip, as its Content-Encoding says: %.200v", err)
}

// values cuts a stream of JSON values, with or without space between them, into these. It
// only looks for their ends; whether they are JSON is for others to say.
type values struct {
	buf  []byte // read; of it from pos on is not used
	pos  int
	done bool // there is no more to read
	n    int  // which of the stream was asked for last, from 1
}

// next returns the next value of b, io.EOF after the last. It is there until next is called
// again. Before it, and at the end, there may be as many blanks as there may be bytes in a
// message: compressed they cost the client nothing.
func (b *body) next() ([]byte, error) {
	v := &b.values
	v.n++
	for blanks := 0; ; {
		for v.pos < len(v.buf) && isSpace(v.buf[v.pos]) {
			if v.pos++; blanks == b.limit {
				return nil, status.Errorf(codes.ResourceExhausted, "there are more than %d blanks before message %d", b.limit, v.n)
			}
			blanks++
		}
		if v.pos < len(v.buf) {
			break
		}
		if err := b.more(); err != nil {
			return nil, err
		}
	}
	var s scanner
	for n := 0; ; {
		rest := v.buf[v.pos:]
		for ; n < len(rest); n++ {
			if n > b.limit {
				return nil, v.tooLarge(b.limit)
			}
			if s.ended(rest[n]) {
				return v.take(n), nil
			}
		}
		var err error
		if !s.complete {
			err = b.more()
		}
		switch {
		case err == io.EOF && s.open():
			return nil, status.Errorf(codes.InvalidArgument, "the body ends within message %d", v.n)
		case err != nil && err != io.EOF:
			return nil, err
		case n > b.limit:
			return nil, v.tooLarge(b.limit)
		case s.complete || err == io.EOF:
			return v.take(n), nil
		}
	}
}

func (v *values) tooLarge(limit int) error { return errTooLarge(fmt.Sprintf("message %d", v.n), limit) }

// errTooLarge is not in the words of grpc-go, since nobody has counted how large it is.
func errTooLarge(name string, limit int) error {
	return status.Errorf(codes.ResourceExhausted, "%s: more than %d bytes", name, limit)
}

// take takes the next n bytes.
func (v *values) take(n int) []byte {
	v.pos += n
	return v.buf[v.pos-n : v.pos]
}

// more reads something into v.buf, and moves what is not used to its beginning. It returns
// io.EOF when there is nothing more.
func (b *body) more() error {
	v := &b.values
	if v.pos > 0 {
		v.buf = v.buf[:copy(v.buf, v.buf[v.pos:])]
		v.pos = 0
	}
	if len(v.buf) == 0 && cap(v.buf) > maxKept {
		v.buf = nil
	}
	for !v.done {
		if cap(v.buf)-len(v.buf) < 512 {
			v.buf = append(make([]byte, 0, 2*cap(v.buf)+(4<<10)), v.buf...)
		}
		n, err := b.Read(v.buf[len(v.buf):cap(v.buf)])
		v.buf = v.buf[:len(v.buf)+n]
		if err == io.EOF {
			v.done = true
		} else if err != nil {
			return readError(err)
		}
		if n > 0 {
			return nil
		}
	}
	return io.EOF
}

// scanner follows one JSON value byte by byte.
type scanner struct {
	depth    int
	begun    bool
	text     bool // within a string
	escaped  bool // after a backslash in it
	complete bool // the value has ended with the byte before
}

// ended tells whether c is after the value.
func (s *scanner) ended(c byte) bool {
	switch {
	case s.complete:
		return true
	case s.escaped:
		s.escaped = false
	case s.text:
		switch c {
		case '\\':
			s.escaped = true
		case '"':
			s.text = false
			s.complete = s.depth == 0
		}
	case c == '"':
		if s.begun && s.depth == 0 {
			return true
		}
		s.text = true
	case c == '{' || c == '[':
		if s.begun && s.depth == 0 {
			return true
		}
		s.depth++
	case c == '}' || c == ']':
		s.depth--
		s.complete = s.depth <= 0
	case s.depth == 0 && isSpace(c):
		return true
	}
	s.begun = true
	return false
}

// open tells whether the value cannot end here.
func (s *scanner) open() bool { return s.text || s.depth > 0 }

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
