package rest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "oneport/mux/internal/rest/resttest"
	"oneport/mux/internal/rpc"
)

const (
	typeNDJSON = "application/x-ndjson"
	typeEvents = "text/event-stream"
	typeArray  = "application/json"
)

// The form of a stream, and how it ends.
func TestStreamForms(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	aborted := failed(codes.Aborted, "no more")
	for _, tt := range []struct{ accept, query, want string }{
		{typeNDJSON, "pages=2", `{"result":{"name":"a","id":"1"}}` + "\n" + `{"result":{"name":"a","id":"2"}}` + "\n"},
		{typeNDJSON, "", ""},
		{typeNDJSON, "pages=1&note=no+more", `{"result":{"name":"a","id":"1"}}` + "\n" + `{"error":` + aborted + "}\n"},

		{typeEvents, "pages=2", "id: 1\ndata: " + `{"name":"a","id":"1"}` + "\n\nid: 2\ndata: " + `{"name":"a","id":"2"}` + "\n\n" +
			"event: status\nid: end\ndata: " + failed(codes.OK, "") + "\n\n"},
		{typeEvents, "", "event: status\nid: end\ndata: " + failed(codes.OK, "") + "\n\n"},
		{typeEvents, "pages=1&note=no+more", "id: 1\ndata: " + `{"name":"a","id":"1"}` + "\n\nevent: status\ndata: " + aborted + "\n\n"},

		{typeArray, "pages=2", `[{"name":"a","id":"1"},` + "\n" + `{"name":"a","id":"2"}]` + "\n"},
		{typeArray, "", "[]\n"},
		{typeArray, "pages=1&note=no+more", `[{"name":"a","id":"1"},` + "\n" + `{"error":` + aborted + "}\n"},
	} {
		res := serve(h, request("GET /v1/watch/a?"+tt.query, "", "Accept: "+tt.accept))
		got := text(t, res)
		wantStatus := "0"
		if strings.Contains(tt.query, "note") {
			wantStatus = "10"
		}
		if got != tt.want || res.Header.Get("Content-Type") != tt.accept || res.Trailer.Get("Grpc-Status") != wantStatus {
			t.Errorf("%s %s\n gives %q, %v %v\n want  %q", tt.accept, tt.query, got, res.Header, res.Trailer, tt.want)
		}
		// What is between must neither keep nor collect it, nor take one form for another.
		for name, want := range map[string]string{"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Vary": "Accept, Accept-Encoding"} {
			if got := strings.Join(res.Header[name], ", "); got != want {
				t.Errorf("%s %s: %s is %q, want %q", tt.accept, tt.query, name, got, want)
			}
		}
	}
	// Before the first message an error is one of HTTP, in every form.
	for _, accept := range []string{typeNDJSON, typeEvents, typeArray} {
		res := serve(h, request("GET /v1/watch/a?note=no+more", "", "Accept: "+accept))
		if got := text(t, res); res.StatusCode != 409 || got != aborted || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s, want 409 %s", accept, res.Status, got, aborted)
		}
	}
	res := serve(h, request("POST /v1/watch", `{"pages":2,"tags":["a","b"]}`, "Accept: "+typeArray))
	if got, want := text(t, res), "[[\"a\",\"b\"],\n[\"a\",\"b\"]]\n"; got != want {
		t.Errorf("with response_body: %q, want %q", got, want)
	}
}

func TestAccept(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct {
		accept []string
		want   string
	}{
		{nil, typeNDJSON},
		{[]string{""}, typeNDJSON},
		{[]string{"*/*"}, typeNDJSON},
		{[]string{"text/html,application/xhtml+xml,*/*;q=0.8"}, typeNDJSON}, // a browser
		{[]string{"text/html"}, typeNDJSON},
		{[]string{"application/json"}, typeArray},
		{[]string{"application/json, text/plain, */*"}, typeArray}, // axios
		{[]string{"Application/JSON; charset=utf-8"}, typeArray},
		{[]string{"application/*"}, typeNDJSON},
		{[]string{"text/*"}, typeEvents},
		{[]string{"text/event-stream"}, typeEvents},
		{[]string{"text/event-stream;q=0.1, application/json;q=0.9"}, typeArray},
		{[]string{"application/json;q=0.1", "text/event-stream"}, typeEvents},
		{[]string{"*/*;q=0.1, text/event-stream;q=0"}, typeNDJSON},
		{[]string{"application/json, text/event-stream, application/x-ndjson"}, typeNDJSON},
		{[]string{"application/jsonl"}, typeNDJSON},
		{[]string{"application/json;q=x"}, typeArray},
		{[]string{"image/png"}, typeNDJSON}, // from here on: none of the forms
		{[]string{"image/png, */*;q=0"}, typeNDJSON},
		{[]string{"application/x-ndjson;q=0"}, typeNDJSON},
	} {
		r := request("GET /v1/watch/a", "")
		r.Header["Accept"] = tt.accept
		if got := serve(h, r).Header.Get("Content-Type"); got != tt.want {
			t.Errorf("Accept %q gives %s, want %s", tt.accept, got, tt.want)
		}
	}
}

// A single answer has one form, and whoever asks for another gets that.
func TestAcceptOfSingleAnswer(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, accept := range []string{"text/html", "text/event-stream", "application/json;q=0", "*/*;q=0"} {
		res := serve(h, request("GET /v1/books/1", "", "Accept: "+accept))
		if got, contentType := text(t, res), res.Header.Get("Content-Type"); res.StatusCode != 200 || got != `{"id":"1"}` || contentType != typeArray {
			t.Errorf("Accept: %s gives %s %s %s, want the JSON", accept, res.Status, contentType, got)
		}
	}
}

// An EventSource asks again from where it was, and no more after the end.
func TestLastEventID(t *testing.T) {
	var got []string
	h := newHandler(t, &library{watch: func(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
		got = metadata.ValueFromIncomingContext(s.Context(), "last-event-id")
		return s.Send(b)
	}}, rpc.Config{})
	for _, tt := range []struct{ id, want string }{
		{"41", "id: 42\n"},
		{"x", "id: 1\n"},
		{"-1", "id: 1\n"},
		{"99999999999999999999", "id: 1\n"},
	} {
		res := serve(h, request("GET /v1/watch/a", "", "Accept: text/event-stream", "Last-Event-ID: "+tt.id))
		if text := text(t, res); !strings.HasPrefix(text, tt.want) || len(got) != 1 || got[0] != tt.id {
			t.Errorf("after %q: %q, metadata %q; want %q", tt.id, text, got, tt.want)
		}
	}
	got = nil
	res := serve(h, request("GET /v1/watch/a", "", "Accept: text/event-stream", "Last-Event-ID: end"))
	if res.StatusCode != http.StatusNoContent || got != nil {
		t.Errorf("after the end: %s, the handler saw %q; want 204 without it", res.Status, got)
	}
	res = serve(h, request("GET /v1/watch/a", "", "Last-Event-ID: end"))
	if res.StatusCode != http.StatusOK {
		t.Errorf("not an EventSource: %s", res.Status)
	}
}

// A comment goes out when nothing else has for 15 s, also before the first message.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &library{watch: func(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
			for _, d := range []time.Duration{14, 31, 15} {
				time.Sleep(d*time.Second + time.Millisecond)
				if err := s.Send(&pb.Book{Pages: uint32(d)}); err != nil {
					return err
				}
			}
			return status.Error(codes.DataLoss, "x")
		}}, rpc.Config{})
		const comment = ":\n\n"
		want := "id: 1\ndata: {\"pages\":14}\n\n" + comment + comment + "id: 2\ndata: {\"pages\":31}\n\n" + comment + "id: 3\ndata: {\"pages\":15}\n\n" +
			"event: status\ndata: " + failed(codes.DataLoss, "x") + "\n\n"
		if got := text(t, serve(h, request("GET /v1/watch/a", "", "Accept: text/event-stream"))); got != want {
			t.Errorf("stream is %q, want %q", got, want)
		}

		h = newHandler(t, &library{watch: func(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
			time.Sleep(16 * time.Second)
			s.SetHeader(metadata.Pairs("x-late", "1"))
			return status.Error(codes.NotFound, "x")
		}}, rpc.Config{})
		res := serve(h, request("GET /v1/watch/a", "", "Accept: text/event-stream"))
		if got, want := text(t, res), comment+"event: status\ndata: "+failed(codes.NotFound, "x")+"\n\n"; res.StatusCode != 200 || got != want {
			t.Errorf("stream without messages is %s %q, want 200 %q", res.Status, got, want)
		}
		time.Sleep(time.Minute) // no comment comes after the end, or the race detector sees it
	})
}

// Header and trailer of a stream are those of HTTP.
func TestStreamMetadata(t *testing.T) {
	h := newHandler(t, &library{watch: func(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
		s.SetTrailer(metadata.Pairs("x-trailer", "t", "grpc-status", "7"))
		if b.GetPages() > 0 {
			if err := s.SendHeader(metadata.Pairs("x-header", "h")); err != nil {
				return err
			}
		} else {
			s.SetHeader(metadata.Pairs("x-header", "h"))
		}
		return nil
	}}, rpc.Config{})
	for _, query := range []string{"", "pages=1"} {
		res := serve(h, request("GET /v1/watch/a?"+query, ""))
		if res.Header.Get("X-Header") != "h" || res.Trailer.Get("X-Trailer") != "t" || res.Trailer.Get("Grpc-Status") != "0" || len(res.Trailer) != 2 {
			t.Errorf("%s: header is %v, trailer %v", query, res.Header, res.Trailer)
		}
	}
	w := &flushes{ResponseRecorder: httptest.NewRecorder()}
	newHandler(t, new(library), rpc.Config{}).ServeHTTP(w, request("GET /v1/watch/a?pages=3", ""))
	if w.n != 3 {
		t.Errorf("3 messages were flushed %d times, want each", w.n)
	}
	w = &flushes{ResponseRecorder: httptest.NewRecorder()}
	newHandler(t, new(library), rpc.Config{}).ServeHTTP(w, request("GET /v1/books/1", ""))
	if w.n != 0 {
		t.Errorf("a single answer was flushed %d times", w.n)
	}
}

type flushes struct {
	*httptest.ResponseRecorder
	n int
}

func (f *flushes) Flush() { f.n++ }

// Bytes have no place for an error but the end of the connection.
func TestRawStreamFails(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("the handler panics with %v, want ErrAbortHandler", v)
			}
		}()
		h.ServeHTTP(w, request("GET /v1/parts/abc?fail_after=2", ""))
	}()
	if got := w.Body.String(); got != "ab" {
		t.Errorf("body is %q, want what came before", got)
	}
}

// A stream of requests is a sequence of JSON values, however they come and are parted; each
// has what path and query say.
func TestClientStream(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct{ body, want string }{
		{"", `{}`},
		{" \r\n\t", `{}`},
		{`{}`, `{"books":[{"name":"shelves/1"}]}`},
		{"{\"id\":1}\n{\"id\":2}\n\n{\"id\":3}\n", `{"books":[{"name":"shelves/1","id":"1"},{"name":"shelves/1","id":"2"},{"name":"shelves/1","id":"3"}]}`},
		{`{"id":1}{"id":2}`, `{"books":[{"name":"shelves/1","id":"1"},{"name":"shelves/1","id":"2"}]}`},
		{"{\n \"author\": {\"name\": \"}\\\"{\"}\n}\n{}", `{"books":[{"name":"shelves/1","author":{"name":"}\"{"}},{"name":"shelves/1"}]}`},
		{`{"id":1}x`, invalidIn("message 2", "book", "line 1, column 1", "syntax error: invalid value x")},
		{`{"id":1}]`, invalidIn("message 2", "book", "line 1, column 1", "syntax error: unexpected token ]")},
		{`{"id":1}{"id":`, failed(3, "the body ends within message 2")},
		{`{"id":1}"x`, failed(3, "the body ends within message 2")},
		{`{"id":1}{"id":{}}`, invalidIn("message 2", "book.id", "line 1, column 7", `invalid value for int64: {`)},
	} {
		for name, body := range map[string]io.Reader{
			"whole": strings.NewReader(tt.body), "bytes": iotest.OneByteReader(strings.NewReader(tt.body)), "with EOF": iotest.DataErrReader(strings.NewReader(tt.body)),
		} {
			r := httptest.NewRequest("POST", "/v1/shelves/1/books:import", body)
			r.Header.Set("Content-Type", typeNDJSON)
			if got := text(t, serve(h, r)); got != tt.want {
				t.Errorf("%q, read %s\n gives %s\n want  %s", tt.body, name, got, tt.want)
			}
		}
	}
}

// One answer is one: not before the call is over, nor two.
func TestSingleAnswer(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler func(grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error
		code    int
		want    string
	}{
		{"none", func(grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error { return nil }, 500, failed(codes.Internal, "/resttest.Library/Import ended OK without an answer")},
		{"then an error", func(s grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error {
			s.SendAndClose(new(pb.Books))
			return status.Error(codes.NotFound, "x")
		}, 404, failed(codes.NotFound, "x")},
		{"two", func(s grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error {
			s.SendAndClose(new(pb.Books))
			return s.SendAndClose(new(pb.Books))
		}, 500, failed(codes.Internal, "/resttest.Library/Import answers with one message and sent another")},
		{"with metadata", func(s grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error {
			s.SendHeader(metadata.Pairs("x-header", "h"))
			s.SetTrailer(metadata.Pairs("x-trailer", "t"))
			return s.SendAndClose(new(pb.Books))
		}, 200, "{}"},
	} {
		res := serve(newHandler(t, &library{imports: tt.handler}, rpc.Config{}), request("POST /v1/shelves/1/books:import", "{}"))
		if got := text(t, res); res.StatusCode != tt.code || got != tt.want {
			t.Errorf("%s: %s %s, want %d %s", tt.name, res.Status, got, tt.code, tt.want)
		}
		if tt.code == 200 && (res.Header.Get("X-Header") != "h" || res.Header.Get("Trailer-X-Trailer") != "t") {
			t.Errorf("%s: header is %v", tt.name, res.Header)
		}
	}
}

// A body that cannot be read, or whose client has gone, ends the call.
func TestBodyFails(t *testing.T) {
	for _, line := range []string{"POST /v1/shelves/1/books", "POST /v1/chat", "POST /v1/parts"} {
		for _, tt := range []struct {
			err  error
			want string
		}{
			{errors.New("broken"), failed(codes.InvalidArgument, "the request is cut short or malformed: broken")},
			{&http.MaxBytesError{Limit: 1}, failed(codes.ResourceExhausted, "the body has more than 1 bytes")},
		} {
			r := request(line, "{}")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(" "), iotest.ErrReader(tt.err)))
			r.ContentLength = -1
			if got := text(t, serve(newHandler(t, new(library), rpc.Config{}), r)); got != tt.want {
				t.Errorf("%s: %s, want %s", line, got, tt.want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := request(line, "{}").WithContext(ctx)
		if got := text(t, serve(newHandler(t, new(library), rpc.Config{}), r)); got != failed(codes.Canceled, "context canceled") {
			t.Errorf("%s, cancelled: %s", line, got)
		}
	}
}

// The query holds for each message of a stream, and is parsed once: it may be much longer
// than they are.
func TestQueryOfStream(t *testing.T) {
	var got []*pb.UpdateBookRequest
	h := newHandler(t, &library{imports: func(s grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error {
		got = nil
		for {
			r, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return s.SendAndClose(new(pb.Books))
			}
			if err != nil {
				return err
			}
			got = append(got, r)
		}
	}}, rpc.Config{})
	const path = "POST /v1/shelves/a/books:import?"
	serve(h, request(path+"tags=x&tags=y&note=n", `{"id":1}{"id":2}`))
	if len(got) != 2 {
		t.Fatalf("the handler got %v", got)
	}
	for i, r := range got {
		want := &pb.UpdateBookRequest{Book: &pb.Book{Name: "shelves/a", Id: int64(i + 1)}, Tags: []string{"x", "y"}, Note: "n"}
		if !proto.Equal(r, want) {
			t.Errorf("message %d is %v, want %v", i, r, want)
		}
	}
	const params, messages = 1000, 100
	long := path + strings.Repeat("%75nknown&", params)
	if n := testing.AllocsPerRun(1, func() { serve(h, request(long, strings.Repeat("{}", messages))) }); n > params*messages/2 {
		t.Errorf("%v allocations for %d messages with a query of %d parameters", n, messages, params)
	}
}
