package rest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"oneport/mux/internal/rest"
	pb "oneport/mux/internal/rest/resttest"
	"oneport/mux/internal/rpc"
	"oneport/services/greeter"
)

// What is no request of a route is told why, and what would be one.
func TestRefusals(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct {
		r     *http.Request
		code  int
		want  string
		field string // "Name: value" of the answer
	}{
		{request("GET /nope", ""), 404, failed(codes.NotFound, "no such path"), ""},
		{request("POST /v1/books/1", ""), 405, failed(codes.Unimplemented, "this path takes GET, HEAD"), "Allow: GET, HEAD, OPTIONS"},
		{request("HEAD /v1/watch/a", ""), 405, failed(codes.Unimplemented, "this path takes GET"), "Allow: GET, OPTIONS"},
		{request("OPTIONS /v1/shelves/1/books/2", ""), 204, "", "Allow: DELETE, GET, HEAD, PATCH, OPTIONS"},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: text/plain"), 415,
			failed(3, `the body has Content-Type \"text/plain\"; send JSON in UTF-8 as application/json (curl -H 'Content-Type: application/json')`), ""},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: "), 415,
			failed(3, `the body has Content-Type \"\"; send JSON in UTF-8 as application/json (curl -H 'Content-Type: application/json')`), ""},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: application/json; charset=latin1"), 415,
			failed(3, `the body has Content-Type \"application/json; charset=latin1\"; send JSON in UTF-8 as application/json (curl -H 'Content-Type: application/json')`), ""},
		{request("POST /v1/chat", "{}", "Content-Type: a/b"), 415,
			failed(3, `the body has Content-Type \"a/b\"; send JSON in UTF-8 as application/x-ndjson (curl -H 'Content-Type: application/x-ndjson')`), ""},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: application/x-ndjson"), 415,
			failed(3, `the body has Content-Type \"application/x-ndjson\"; send JSON in UTF-8 as application/json (curl -H 'Content-Type: application/json')`), ""},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: application/json; charset=UTF-8"), 200, `{"name":"shelves/1"}`, "Content-Type: application/json"},
		{request("POST /v1/shelves/1/books", "{}", "Content-Type: application/merge-patch+json"), 200, `{"name":"shelves/1"}`, ""},
		{request("POST /v1/shelves/1/books", "", "Content-Type: text/plain"), 200, `{"name":"shelves/1"}`, ""},
		{request("POST /v1/shelves/1/books", "{}", "Content-Encoding: br"), 415,
			failed(3, `the body has Content-Encoding \"br\"; send it in gzip or without`), "Accept-Encoding: gzip"},
		{request("POST /v1/shelves/1/books", "{}", "Content-Encoding: gzip"), 400, "", ""},
		{request("GET /v1/books/1", "", "Grpc-Timeout: 1"), 400,
			failed(3, `grpc-timeout \"1\": want 1 to 8 digits and a unit of H, M, S, m, u or n`), ""},
		{request("GET /v1/books/1", "", "X-Bin: !"), 400,
			failed(3, `header \"x-bin\" is not base64: illegal base64 data at input byte 0`), ""},
		// Another's Accept is no reason not to answer.
		{request("GET /v1/books/1", "", "Accept: text/html"), 200, `{"id":"1"}`, "Content-Type: application/json"},
		{request("HEAD /v1/books/1", ""), 200, `{"id":"1"}`, "Content-Length: 10"}, // which net/http keeps to itself
		{request("GET /v1/books/1", ""), 200, `{"id":"1"}`, "X-Content-Type-Options: nosniff"},
	} {
		res := serve(h, tt.r)
		got := text(t, res)
		name, value, _ := strings.Cut(tt.field, ": ")
		if res.StatusCode != tt.code || tt.want != "" && got != tt.want || res.Header.Get(name) != value {
			t.Errorf("%s %s %v\n gives %d %s %v\n want  %d %s %s", tt.r.Method, tt.r.URL, tt.r.Header, res.StatusCode, got, res.Header, tt.code, tt.want, tt.field)
		}
	}
}

func TestMatch(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct {
		r    *http.Request
		want bool
	}{
		{request("GET /v1/books", ""), true},
		{request("PUT /v1/books", ""), true}, // to be told
		{request("OPTIONS /v1/books", ""), true},
		{request("GET /", ""), false},
		{request("GET /v1/../v1/books", ""), false},
		{request("POST /resttest.Library/Hidden", "{}"), false},
	} {
		if got := h.Match(tt.r); got != tt.want {
			t.Errorf("Match(%s %s %v) = %v, want %v", tt.r.Method, tt.r.URL, tt.r.Header, got, tt.want)
		}
	}
	if got, want := h.Methods(request("GET /v1/shelves/1/books", "")), "POST"; got != want {
		t.Errorf("Methods = %q, want %q", got, want)
	}
}

// A rule that cannot be, and two for the same requests, are errors that say which.
func TestAdd(t *testing.T) {
	reg := rpc.NewRegistry(rpc.Config{})
	pb.RegisterLibraryServer(reg, new(library))
	greeter.Register(reg)
	// The handlers under a name of which no .proto file says anything.
	unknown := pb.Library_ServiceDesc
	unknown.ServiceName = "resttest.Unknown"
	reg.RegisterService(&unknown, new(library))
	h := rest.New(reg)
	if err := h.Add("resttest.Unknown"); err != nil || len(h.Routes()) != 0 {
		t.Errorf("Add of a service without descriptors: %v, %d routes", err, len(h.Routes()))
	}
	if err := h.Add("resttest.Library"); err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, r := range h.Routes() {
		body := "-"
		switch {
		case r.WholeBody:
			body = "*"
		case r.Body != nil:
			body = string(r.Body.Name())
		}
		rules = append(rules, fmt.Sprintf("%s %s %s %s", r.Descriptor.Name(), r.HTTPMethod, r.Template(), body))
		for _, v := range r.Vars {
			if want := "{" + v.Path + "=" + v.Pattern + "}"; !strings.Contains(r.Template(), strings.TrimSuffix(want, "=*}")) {
				t.Errorf("%s has no %s", r.Template(), want)
			}
		}
	}
	if want := "UpdateBook PATCH /v1/{book.name=shelves/*/books/*} book"; !slices.Contains(rules, want) {
		t.Errorf("routes are\n%s\nwant among them\n%s", strings.Join(rules, "\n"), want)
	}
	err := h.Add("resttest.Library")
	want := `google.api.http of /resttest.Library/Chat: rule POST "/v1/chat": column 5: the same requests as rule POST "/v1/chat" of /resttest.Library/Chat`
	if err == nil || err.Error() != want {
		t.Errorf("Add again: %v, want %s", err, want)
	}
}

// Errors are google.rpc.Status in JSON, with the status of HTTP for their code.
func TestErrors(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "no <\"é\">").WithDetails(&errdetails.ErrorInfo{Reason: "R"})
	if err != nil {
		t.Fatal(err)
	}
	strange := status.New(codes.Aborted, "a").Proto()
	strange.Details = []*anypb.Any{{TypeUrl: "example.com/x.Nope", Value: []byte{1, 2}}, {TypeUrl: "type.googleapis.com/google.rpc.ErrorInfo", Value: []byte{0xff}}}
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{status.Error(codes.PermissionDenied, "no"), 403, failed(7, "no")},
		{detailed.Err(), 404, `{"code":5,"message":"no <\"é\">","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"R"}]}`},
		{status.ErrorProto(strange), 409, `{"code":10,"message":"a","details":[{"@type":"example.com/x.Nope","value":"AQI="},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","value":"/w=="}]}`},
		{io.ErrClosedPipe, 500, failed(2, "io: read/write on closed pipe")},
		{context.DeadlineExceeded, 504, failed(4, "context deadline exceeded")},
		{status.Error(99, "strange"), 500, failed(99, "strange")},
	} {
		h := newHandler(t, &library{getBook: func(ctx context.Context, b *pb.Book) (*pb.Book, error) {
			grpc.SetHeader(ctx, metadata.Pairs("x-header", "h"))
			grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
			return nil, tt.err
		}}, rpc.Config{})
		res := serve(h, request("GET /v1/books/1", ""))
		if got := text(t, res); got != tt.want || res.StatusCode != tt.code || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v gives %d %s %v, want %d %s", tt.err, res.StatusCode, got, res.Header, tt.code, tt.want)
		}
		if res.Header.Get("X-Header") != "h" || res.Header.Get("Trailer-X-Trailer") != "t" {
			t.Errorf("%v: header is %v, want metadata in it", tt.err, res.Header)
		}
	}
}

// A handler that ends its goroutine leaves nothing behind that writes.
func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &library{watch: func(*pb.Book, grpc.ServerStreamingServer[pb.Book]) error {
			runtime.Goexit()
			return nil
		}}, rpc.Config{})
		w := httptest.NewRecorder()
		gone := make(chan bool)
		go func() {
			defer close(gone)
			h.ServeHTTP(w, request("GET /v1/watch/a", "", "Accept: text/event-stream"))
		}()
		<-gone
		time.Sleep(time.Minute)
		if w.Body.Len() > 0 {
			t.Errorf("%q was written", w.Body)
		}
	})
}

func TestMetadata(t *testing.T) {
	var got metadata.MD
	var deadline time.Duration
	h := newHandler(t, &library{getBook: func(ctx context.Context, b *pb.Book) (*pb.Book, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		if d, ok := ctx.Deadline(); ok {
			deadline = time.Until(d)
		}
		grpc.SetHeader(ctx, metadata.Pairs("x-header", "1", "x-bin", "\xff", "access-control-allow-origin", "*", "content-length", "5"))
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "2"))
		return b, nil
	}}, rpc.Config{})
	res := serve(h, request("GET /v1/books/1", "", "X-A: b", "Connection: X-Hop", "X-Hop: 1", "Content-Type: x/y", "Grpc-Timeout: 1H", "X-B-Bin: /w"))
	want := metadata.MD{"x-a": {"b"}, "x-b-bin": {"\xff"}, ":authority": {"example.com"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("metadata is %v, want %v", got, want)
	}
	if deadline <= 59*time.Minute || deadline > time.Hour {
		t.Errorf("the deadline is in %v, want in an hour", deadline)
	}
	for name, want := range map[string]string{"X-Header": "1", "X-Bin": "/w", "Trailer-X-Trailer": "2", "Access-Control-Allow-Origin": "", "Content-Length": "10"} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestJSONOptions(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{JSON: protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true}})
	got := text(t, serve(h, request("GET /v1/authors/x/2/2020-02-03T04:05:06Z", "")))
	if want := `{"author":{"name":"authors/x"},"genre":2,"due_at":"2020-02-03T04:05:06Z"}`; got != want {
		t.Errorf("answer is %s, want %s", got, want)
	}
	for query, want := range map[string]string{"": "0", "?pages=1": "2"} {
		if got := text(t, serve(h, request("GET /v1/books:genre"+query, ""))); got != want {
			t.Errorf("a field alone, %q: %s, want %s", query, got, want)
		}
	}
	h = newHandler(t, new(library), rpc.Config{JSON: protojson.MarshalOptions{EmitUnpopulated: true}})
	got = text(t, serve(h, request("GET /v1/books:first?pages=1", "")))
	if !strings.HasPrefix(got, `{"name":"a","id":"0","author":null,"genre":"GENRE_UNSPECIFIED","tags":[],`) {
		t.Errorf("answer is %s, want also what is not set", got)
	}
}

// They hold for the details of an error as well.
func TestJSONOptionsOfDetails(t *testing.T) {
	st, err := status.New(codes.NotFound, "no").WithDetails(&errdetails.ErrorInfo{Reason: "R"})
	if err != nil {
		t.Fatal(err)
	}
	l := &library{getBook: func(context.Context, *pb.Book) (*pb.Book, error) { return nil, st.Err() }}
	h := newHandler(t, l, rpc.Config{JSON: protojson.MarshalOptions{EmitUnpopulated: true}})
	got := text(t, serve(h, request("GET /v1/books/1", "")))
	want := `{"code":5,"message":"no","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"R","domain":"","metadata":{}}]}`
	if got != want {
		t.Errorf("answer is %s, want %s", got, want)
	}
}

// A google.api.HttpBody is the body itself, either way.
func TestHTTPBody(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct {
		r           *http.Request
		contentType string
		want        string
	}{
		{request("GET /v1/files/a/b", ""), "text/x-a/b", "of a/b"},
		{request("PUT /v1/files/a/b?fail_after=1", "{]", "Content-Type: image/x"), "application/json",
			`{"path":"a/b","content":{"contentType":"image/x","data":"e10="},"failAfter":1}`},
		{request("PUT /v1/files/a", ""), "application/json", `{"path":"a","content":{}}`},
		{request("POST /v1/convert", "yz", "Content-Type: text/y"), "text/y+x", "xyz"},
		{request("POST /v1/parts", strings.Repeat("ab", 50_000), "Content-Type: text/y"), "application/json", ""},
		{request("GET /v1/parts/abc", ""), "text/x-parts", "abc"},
		{request("GET /v1/parts/", ""), "application/octet-stream", ""},
	} {
		res := serve(h, tt.r)
		got := text(t, res)
		if res.StatusCode != 200 || tt.want != "" && got != tt.want || res.Header.Get("Content-Type") != tt.contentType {
			t.Errorf("%s %s gives %s %.200s %q, want %s %q", tt.r.Method, tt.r.URL, res.Status, got, res.Header["Content-Type"], tt.want, tt.contentType)
		}
		if tt.r.URL.Path == "/v1/parts" {
			if file := new(pb.File); protojson.Unmarshal([]byte(got), file) != nil || len(file.GetContent().GetData()) != 100_000 {
				t.Errorf("100000 bytes in parts came as %d", len(file.GetContent().GetData()))
			}
		}
	}
}

func zipped(b string) string {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write([]byte(b))
	z.Close()
	return buf.String()
}

// The limit is on a message as it is after decompression, and little more than it is ever
// decompressed or read.
func TestMessageLimit(t *testing.T) {
	const limit = 1000
	h := newHandler(t, new(library), rpc.Config{MaxMessageBytes: limit})
	sized := func(n int) string { return `{"note":"` + strings.Repeat("x", n-len(`{"note":""}`)) + `"}` }
	bomb := zipped(strings.Repeat(" ", 64<<20))
	tooLarge := failed(codes.ResourceExhausted, "body: more than 1000 bytes")
	for _, tt := range []struct {
		name, body string
		zip        bool
		code       int
	}{
		{"n", sized(limit), false, 200},
		{"n+1", sized(limit + 1), false, 429},
		{"n, compressed", zipped(sized(limit)), true, 200},
		{"n+1, compressed", zipped(sized(limit + 1)), true, 429},
		{"bomb", bomb, true, 429},
	} {
		for _, path := range []string{"/v1/shelves/a/books", "/v1/chat"} {
			r := request("POST "+path, tt.body)
			if tt.zip {
				r.Header.Set("Content-Encoding", "gzip")
			}
			res := serve(h, r)
			got := text(t, res)
			want := tooLarge
			if path == "/v1/chat" {
				want = failed(codes.ResourceExhausted, "message 1: more than 1000 bytes")
				if tt.name == "bomb" {
					want = failed(codes.ResourceExhausted, "there are more than 1000 blanks before message 1")
				}
			}
			if res.StatusCode != tt.code || tt.code == 429 && got != want {
				t.Errorf("%s at %s: %s %.100s, want %d", tt.name, path, res.Status, got, tt.code)
			}
		}
	}
	// No limit is beyond that of an int.
	boundless := newHandler(t, new(library), rpc.Config{MaxMessageBytes: math.MaxInt})
	if res := serve(boundless, request("POST /v1/shelves/a/books", sized(limit))); res.StatusCode != 200 {
		t.Errorf("a limit of %d: %s %.100s", math.MaxInt, res.Status, text(t, res))
	}
	// What comes after the limit is not read.
	r := httptest.NewRequest("POST", "/v1/shelves/a/books", io.MultiReader(strings.NewReader(sized(limit+1)), neverRead{t}))
	r.Header.Set("Content-Type", "application/json")
	if res := serve(h, r); res.StatusCode != 429 {
		t.Errorf("n+1 and more: %s", res.Status)
	}
	// A stream as such may be longer.
	lines := strings.Repeat(sized(limit)+"\n", 50)
	if res := serve(h, request("POST /v1/chat", lines)); res.StatusCode != 200 || strings.Count(text(t, res), "\n") != 50 {
		t.Errorf("50 messages of the limit: %s", res.Status)
	}
}

type neverRead struct{ t *testing.T }

func (n neverRead) Read([]byte) (int, error) {
	n.t.Error("the body was read on")
	return 0, io.EOF
}

// Large answers are compressed for those who take it.
func TestCompression(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct {
		size       int
		accept     string
		compressed bool
	}{
		{1023, "gzip", false},
		{1024, "gzip", true},
		{1024, "br, gzip;q=0.5", true},
		{1024, "gzip;q=0", false},
		{1024, "br", false},
		{1024, "", false},
	} {
		for _, path := range []string{"/v1/shelves/a/books", "/v1/chat"} {
			want := `{"name":"shelves/a","note":"`
			overhead := len(want + `"}`)
			if path == "/v1/chat" {
				want = `{"result":` + `{"name":"shelves/a","note":"`
				overhead = len(want + `"}}` + "\n")
			}
			note := strings.Repeat("x", tt.size-overhead)
			res := serve(h, request("POST "+path, `{"name":"shelves/a","note":"`+note+`"}`, "Accept-Encoding: "+tt.accept))
			got := text(t, res)
			if encoded := res.Header.Get("Content-Encoding") == "gzip"; encoded != tt.compressed || encoded && len(got) > 500 {
				t.Errorf("%d bytes of %s for %q: %d bytes, Content-Encoding %q, want compressed: %v", tt.size, path, tt.accept, len(got), res.Header.Get("Content-Encoding"), tt.compressed)
			}
			if tt.compressed {
				z, err := gzip.NewReader(strings.NewReader(got))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(z)
				if err != nil {
					t.Error(err)
				}
				got = string(b)
			}
			if !strings.HasPrefix(got, want+note) || !slices.Contains(res.Header["Vary"], "Accept-Encoding") {
				t.Errorf("answer is %.50s…, Vary %q", got, res.Header["Vary"])
			}
		}
	}
}

// An answer that cannot be written is INTERNAL, and has what it would have had besides.
func TestUnwritableAnswer(t *testing.T) {
	h := newHandler(t, &library{getBook: func(ctx context.Context, b *pb.Book) (*pb.Book, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		return &pb.Book{Name: "\xff"}, nil
	}}, rpc.Config{})
	res := serve(h, request("GET /v1/books/1", ""))
	if got := text(t, res); res.StatusCode != 500 || !strings.Contains(got, "answer cannot be encoded") {
		t.Errorf("answer is %s %s", res.Status, got)
	}
	if got := res.Header["Trailer-X-Trailer"]; !slices.Equal(got, []string{"t"}) {
		t.Errorf("trailer is %q, want it once", got)
	}
}

// A handler that takes or gives other messages than its .proto file says is INTERNAL.
func TestForeignMessages(t *testing.T) {
	desc := pb.Library_ServiceDesc
	desc.Methods = []grpc.MethodDesc{{MethodName: "GetBook", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		m := new(pb.Author)
		return m, dec(m)
	}}, {MethodName: "ListBooks", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return new(pb.Author), dec(new(pb.Book))
	}}}
	desc.Streams = nil
	reg := rpc.NewRegistry(rpc.Config{})
	reg.RegisterService(&desc, new(library))
	h := rest.New(reg)
	if err := h.Add(desc.ServiceName); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/v1/books/1", "/v1/books"} {
		if res := serve(h, request("GET "+target, "")); res.StatusCode != 500 || !strings.Contains(text(t, res), ".proto file says") {
			t.Errorf("%s: %s", target, res.Status)
		}
	}
}
