package muxtest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"oneport/mux"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
)

// outcome is what the two ends have seen of a call.
type outcome struct {
	Timeout  time.Duration
	Metadata map[string][]string
	Requests []string

	Header  map[string][]string
	Answers []string
	Trailer map[string][]string
	Code    codes.Code
	Message string
	Details []string
}

// TestEqual makes generated calls, each on every road, and compares what client and
// handler have seen with what the other was told to send. -rapid.checks=N makes N
// calls of each kind, each on many roads. The first thirty go everywhere; those
// beyond leave TLS out, which takes most of the time and hides nothing of a call: each
// encoding has a road in cleartext.
func TestEqual(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var p player
				clients := p.clients(t)
				everywhereFirst, scripts, calls := 30, 0, 0
				// rapid asks a bare T for its deadline, which has none in a bubble.
				rapid.Check(struct{ *testing.T }{t}, func(t *rapid.T) {
					s := kind.draw(t)
					scripts++
					for _, c := range clients {
						if c.road.secure && scripts > everywhereFirst || !c.road.certain(s) {
							continue
						}
						calls++
						got := p.play(t, kind, c, s)
						want := expect(kind, c.road, s, got)
						if near(c.road, want.Timeout, got.Timeout) {
							got.Timeout = want.Timeout
						}
						if !reflect.DeepEqual(got, want) {
							everywhereFirst = math.MaxInt // or rapid may not find it again
							t.Fatalf("%s %s differs (-want +got):\n%s", kind.name, c.road.name, cmp.Diff(want, got))
						}
					}
				})
				t.Logf("%d generated calls, made %d times in all", scripts, calls)
			})
		})
	}
}

// certain tells whether s has one outcome only on r: the answer in JSON may be
// binary if the handler is faster than the request.
func (r road) certain(s *script) bool {
	return !(s.AnswerFirst && r.socket && r.json)
}

// messageLimit is that of the servers.
const messageLimit = 4 << 10

// kind is a kind of call and how its client makes it.
type kind struct {
	name                         string
	clientStreams, serverStreams bool
	call                         func(context.Context, client, *script, *outcome) error
}

var kinds = []kind{
	{"unary", false, false, func(ctx context.Context, c client, s *script, out *outcome) error {
		res, err := c.Echo(ctx, &pb.EchoRequest{Message: s.Requests[0]}, grpc.Header((*metadata.MD)(&out.Header)), grpc.Trailer((*metadata.MD)(&out.Trailer)))
		if err == nil {
			out.Answers = append(out.Answers, res.GetMessage())
		}
		return err
	}},
	{"server-streaming", false, true, func(ctx context.Context, c client, s *script, out *outcome) error {
		stream, err := c.Expand(ctx, &pb.ExpandRequest{Message: s.Requests[0]})
		if err != nil {
			return err
		}
		return receive(stream, stream.Recv, out)
	}},
	{"client-streaming", true, false, func(ctx context.Context, c client, s *script, out *outcome) error {
		stream, err := c.Collect(ctx)
		if err != nil {
			return err
		}
		for _, text := range s.Requests {
			if err := stream.Send(&pb.CollectRequest{Message: text}); err != nil {
				break // CloseAndRecv tells why
			}
		}
		res, err := stream.CloseAndRecv()
		out.Answers = res.GetMessages()
		out.Header, _ = stream.Header()
		out.Trailer = stream.Trailer()
		return err
	}},
	{"bidi-streaming", true, true, func(ctx context.Context, c client, s *script, out *outcome) error {
		stream, err := c.Converse(ctx)
		if err != nil {
			return err
		}
		for _, text := range s.Requests {
			if err := stream.Send(&pb.ConverseRequest{Message: text}); err != nil {
				break // Recv tells why
			}
		}
		stream.CloseSend()
		return receive(stream, stream.Recv, out)
	}},
}

// receive reads a stream to its end.
func receive[M interface{ GetMessage() string }](stream grpc.ClientStream, recv func() (M, error), out *outcome) error {
	for {
		m, err := recv()
		if err != nil {
			out.Header, _ = stream.Header()
			out.Trailer = stream.Trailer()
			if err == io.EOF {
				return nil
			}
			return err
		}
		out.Answers = append(out.Answers, m.GetMessage())
	}
}

// player makes one call at a time and is the handler of it.
type player struct {
	script *script
	seen   *outcome
}

// roadClient is a client and the road it takes.
type roadClient struct {
	client
	road road
}

// clients takes every road. Servers and connections serve all calls, with as few
// handshakes as can be: most of the time would go there.
func (p *player) clients(t *testing.T) []roadClient {
	servers := make(map[bool]*muxtest.Server) // by whether its HTTP/2 is shared
	var clients []roadClient
	for _, r := range everywhere {
		shared := len(r.options) > 0
		if servers[shared] == nil {
			servers[shared] = muxtest.New(t, func(s *mux.Server) {
				pb.RegisterEchoServiceServer(s, service{echo: p.echo, expand: p.expand, collect: p.collect, converse: p.converse})
			}, append(r.options, mux.WithMaxMessageBytes(messageLimit))...)
			servers[shared].ClientTLS.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		}
		clients = append(clients, roadClient{r.client(servers[shared]), r})
	}
	return clients
}

// play makes the call that s describes.
func (p *player) play(t *rapid.T, k kind, c roadClient, s *script) *outcome {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(t.Context(), s.Metadata))
	defer cancel()
	if s.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	} else {
		defer time.AfterFunc(time.Hour, cancel).Stop() // a call that hangs is one that differs
	}
	got := &outcome{}
	p.script, p.seen = s, got
	st := status.Convert(k.call(ctx, c.client, s, got))
	if s.TooLarge {
		synctest.Wait() // the handler may learn of it after the client
	}
	got.Metadata, got.Header, got.Trailer = sent(got.Metadata), sent(got.Header), sent(got.Trailer)
	got.Code, got.Message, got.Details = st.Code(), st.Message(), details(st.Proto())
	if s.TooLarge {
		got.Message = "" // of different words, and with the length in this encoding
	}
	return got
}

func (p *player) echo(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	p.begin(ctx, req.GetMessage())
	if err := p.header(ctx); err != nil {
		return nil, err
	}
	return &pb.EchoResponse{Message: p.script.Answers[0]}, p.end(ctx)
}

func (p *player) expand(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	p.begin(stream.Context(), req.GetMessage())
	if err := p.header(stream.Context()); err != nil {
		return err
	}
	for _, text := range p.script.Answers {
		if err := stream.Send(&pb.ExpandResponse{Message: text}); err != nil {
			return err
		}
	}
	return p.end(stream.Context())
}

func (p *player) collect(stream grpc.ClientStreamingServer[pb.CollectRequest, pb.CollectResponse]) error {
	p.begin(stream.Context())
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		p.seen.Requests = append(p.seen.Requests, req.GetMessage())
	}
	if err := p.header(stream.Context()); err != nil {
		return err
	}
	if err := p.end(stream.Context()); err != nil {
		return err
	}
	return stream.SendAndClose(&pb.CollectResponse{Messages: p.script.Answers})
}

func (p *player) converse(stream grpc.BidiStreamingServer[pb.ConverseRequest, pb.ConverseResponse]) error {
	p.begin(stream.Context())
	read := func() error {
		for {
			req, err := stream.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			p.seen.Requests = append(p.seen.Requests, req.GetMessage())
		}
	}
	answer := func() error {
		if err := p.header(stream.Context()); err != nil {
			return err
		}
		for _, text := range p.script.Answers {
			if err := stream.Send(&pb.ConverseResponse{Message: text}); err != nil {
				return err
			}
		}
		return nil
	}
	parts := []func() error{read, answer}
	if p.script.AnswerFirst {
		slices.Reverse(parts)
	}
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	return p.end(stream.Context())
}

// begin notes what a handler sees of a call.
func (p *player) begin(ctx context.Context, requests ...string) {
	p.seen.Metadata, _ = metadata.FromIncomingContext(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		p.seen.Timeout = time.Until(deadline)
	}
	p.seen.Requests = requests
}

func (p *player) header(ctx context.Context) error {
	if p.script.SendHeader {
		return grpc.SendHeader(ctx, p.script.Header)
	}
	return grpc.SetHeader(ctx, p.script.Header)
}

func (p *player) end(ctx context.Context) error {
	if err := grpc.SetTrailer(ctx, p.script.Trailer); err != nil {
		return err
	}
	return status.ErrorProto(p.script.Status)
}

// expect is the outcome that s should have on r. Of what is not certain there it takes
// what it got.
func expect(k kind, r road, s *script, got *outcome) *outcome {
	want := &outcome{
		Timeout:  s.Timeout,
		Metadata: sent(s.Metadata),
		Requests: s.Requests,
		Header:   sent(s.Header),
		Answers:  s.Answers,
		Trailer:  sent(s.Trailer),
		Code:     codes.Code(s.Status.GetCode()),
		Message:  s.Status.GetMessage(),
		Details:  details(s.Status),
	}
	if want.Code == codes.OK {
		want.Message, want.Details = "", nil
	} else if !k.serverStreams {
		want.Answers = nil
	}
	if s.TooLarge {
		want.refuse(k, s)
	}
	if (r.socket || r.calls) && s.TooLarge { // the end overtakes the requests before it, or the handler
		want.Timeout, want.Metadata, want.Requests, want.Answers, want.Header = got.Timeout, got.Metadata, got.Requests, got.Answers, got.Header
	}
	if r.socket { // which has no place for the rest
		want.Header, want.Trailer, want.Details = nil, nil, nil
		want.Message = strings.ToValidUTF8(want.Message[:min(len(want.Message), 123)], "")
	}
	return want
}

// refuse makes the outcome that of a call whose last request is too large. A handler
// that runs by then has not come further than to read it.
func (o *outcome) refuse(k kind, s *script) {
	o.Code, o.Message, o.Details = codes.ResourceExhausted, "", nil
	o.Requests = append([]string(nil), o.Requests[:len(o.Requests)-1]...)
	o.Trailer = nil
	if !s.AnswerFirst {
		o.Header, o.Answers = nil, nil
	}
	if !k.clientStreams {
		o.Timeout, o.Metadata, o.Requests = 0, nil, nil
	}
}

// near tells whether a handler has seen the timeout that its client had, as exactly
// as the wire can tell.
func near(r road, want, got time.Duration) bool {
	if want == 0 || got == 0 {
		return got == want
	}
	resolution := time.Millisecond // of Connect, and of socketConn
	switch {
	case r.local:
		resolution = 1
	case r.grpcTimeout:
		// Eight digits and a unit ("Timeout" in PROTOCOL-HTTP2.md).
		resolution = 1
		for _, unit := range []time.Duration{time.Microsecond, time.Millisecond, time.Second} {
			if want >= resolution*1e8 {
				resolution = unit
			}
		}
	}
	return (want - got).Abs() < resolution
}

// sent leaves out of metadata what a wire has added to it.
func sent(md metadata.MD) map[string][]string {
	md = md.Copy()
	maps.DeleteFunc(md, func(key string, values []string) bool {
		return ownKey(key) || len(values) == 0
	})
	if len(md) == 0 {
		return nil
	}
	return md
}

func details(st *spb.Status) []string {
	var texts []string
	for _, d := range st.GetDetails() {
		texts = append(texts, fmt.Sprintf("%s %q", d.GetTypeUrl(), d.GetValue()))
	}
	return texts
}
