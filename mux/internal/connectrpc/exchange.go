package connectrpc

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// exchange is what the two ends of the bridge have in common: an HTTP request and
// the call that it is.
type exchange struct {
	protocol protocol
	http     *http.ResponseController
	body     *body
	call     *rpc.Call
	err      error // why there is no call: the request's headers are malformed
}

type exchangeKey struct{}

func newExchange(w http.ResponseWriter, r *http.Request, maxMessage int, p protocol) *exchange {
	x := &exchange{protocol: p, http: http.NewResponseController(w), body: &body{src: r.Body}}
	if p.streams() {
		x.body.maxMessage = maxMessage
	}
	x.call, x.err = newCall(r, p)
	return x
}

// newCall makes a Call of the header of r. The timeout is taken out of it, since
// it is the dispatcher's. The error is a status, safe for the client.
func newCall(r *http.Request, p protocol) (*rpc.Call, error) {
	name, parse := "Grpc-Timeout", rpc.ParseTimeout
	if p == connectUnary || p == connectStream {
		name, parse = "Connect-Timeout-Ms", rpc.ParseTimeoutMillis
	}
	var timeout time.Duration
	if v := r.Header.Get(name); v != "" {
		var err error
		if timeout, err = parse(v); err != nil {
			r.Header.Del(name)
			return nil, err
		}
	}
	r.Header.Del(name)
	md, err := rpc.RequestMetadata(r.Header, r.Host)
	if err != nil {
		return nil, err
	}
	client, ok := peer.FromContext(r.Context())
	if !ok {
		client = &peer.Peer{}
	}
	return &rpc.Call{Metadata: md, Timeout: timeout, Peer: client}, nil
}

// body is the body of a request. It refuses an envelope above the limit as soon as
// its length is known, where connecthttp would first read all of it.
type body struct {
	src        io.ReadCloser
	maxMessage int // zero: there are no envelopes

	prefix [5]byte // of an envelope: flags and length ("Delimited-Message" in PROTOCOL-HTTP2.md)
	have   int     // how much of prefix has come
	left   int64   // how much of the message after it has not
	err    error   // once an envelope was too large

	ended   atomic.Bool // src has been read to its end
	spoiled atomic.Bool // the connection has a read deadline that has passed
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		b.ended.Store(true)
	case err != nil:
		if _, ok := errors.AsType[*http.MaxBytesError](err); !ok { // which connecthttp knows
			err = rpc.ReadError(err)
		}
	}
	if b.maxMessage == 0 {
		return n, err
	}
	for rest := p[:n]; len(rest) > 0; {
		if b.left > 0 {
			k := min(b.left, int64(len(rest)))
			b.left -= k
			rest = rest[k:]
			continue
		}
		k := copy(b.prefix[b.have:], rest)
		rest = rest[k:]
		if b.have += k; b.have < len(b.prefix) {
			break
		}
		b.have = 0
		b.left = int64(binary.BigEndian.Uint32(b.prefix[1:]))
		if b.left > int64(b.maxMessage) {
			b.err = rpc.ErrTooLarge(int(b.left), b.maxMessage)
			if b.prefix[0] == '{' { // no flags are so; the commonest mistake with curl
				b.err = errNoEnvelope
			}
			return n - len(rest), nil
		}
	}
	return n, err
}

var errNoEnvelope = status.Error(codes.InvalidArgument,
	"the body begins with JSON; each message of a stream comes after 5 bytes: a zero and its length in 4")

// Close does nothing: net/http closes the body after the handler, with a time
// limit. Closing it before may wait for the client without one.
func (b *body) Close() error { return nil }
