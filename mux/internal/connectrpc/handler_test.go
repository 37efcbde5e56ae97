package connectrpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/connectrpc"
	"oneport/mux/internal/rpc"
	pb "oneport/proto/echo"
	"oneport/services/echo"
	"oneport/services/greeter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	echoPath    = "/echo.v1.EchoService/Echo"
	expandPath  = "/echo.v1.EchoService/Expand"
	collectPath = "/echo.v1.EchoService/Collect"
	limit       = 1000
)

func newHandler(cfg rpc.Config, register ...func(grpc.ServiceRegistrar)) *connectrpc.Handler {
	reg := rpc.NewRegistry(cfg)
	for _, r := range register {
		r(reg)
	}
	reg.Freeze()
	return connectrpc.New(reg)
}

func services() *connectrpc.Handler {
	return newHandler(rpc.Config{MaxMessageBytes: limit}, echo.Register, greeter.Register)
}

// request makes one that looks as if it had come by HTTP/2 or HTTP/1.1.
func request(major int, method, target, contentType, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.ProtoMajor, r.ProtoMinor = major, 0
	if major == 1 {
		r.ProtoMinor = 1
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Which requests are calls, and which are left to others.
func TestMatch(t *testing.T) {
	h := services()
	versioned := request(1, "POST", "/nope", "application/json", "{}")
	versioned.Header.Set("Connect-Protocol-Version", "1")
	for _, tt := range []struct {
		r    *http.Request
		want bool
	}{
		{request(1, "POST", echoPath, "application/json", ""), true},
		{request(1, "POST", echoPath, "text/plain", ""), true}, // to be told
		{request(1, "GET", echoPath, "", ""), true},
		{request(1, "OPTIONS", echoPath, "", ""), true},
		{request(1, "OPTIONS", "/echo.v1.EchoService/Nope", "", ""), true},
		{request(1, "OPTIONS", "/echo.v1.Nope/Echo", "", ""), false},
		{request(1, "DELETE", echoPath, "", ""), true},
		{request(1, "POST", "/echo.v1.EchoService/Nope", "application/json", ""), true},
		{request(1, "GET", "/echo.v1.EchoService/Nope", "", ""), false},
		{request(1, "POST", "/echo.v1.Nope/Echo", "application/json", ""), false},
		{versioned, false},
		{request(1, "POST", "/", "application/json", ""), false},
		{request(1, "POST", "/upload", "application/json", ""), false},
		{request(1, "GET", "/", "", ""), false},
	} {
		if got := h.Match(tt.r); got != tt.want {
			t.Errorf("Match(%s %s %q) = %v, want %v", tt.r.Method, tt.r.URL, tt.r.Header, got, tt.want)
		}
	}
	preflight, other := request(1, "OPTIONS", "/nope/Nope", "", ""), request(1, "OPTIONS", "/nope/Nope", "", "")
	preflight.Header.Set("Access-Control-Request-Headers", "content-type,x-grpc-web,x-user-agent")
	other.Header.Set("Access-Control-Request-Headers", "content-type")
	for _, tt := range []struct {
		r    *http.Request
		want bool
	}{
		{preflight, true},
		{other, false},
		{versioned, true},
		{request(1, "POST", echoPath, "application/json", ""), false},
		{request(2, "POST", "/nope", "application/grpc", ""), true},
		{request(2, "POST", "/nope", "application/grpc+proto; charset=x", ""), true},
		{request(2, "POST", "/nope", "Application/GRPC-Web-Text", ""), true},
		{request(2, "POST", "/nope", "application/grpc-web+json", ""), true},
		{request(2, "POST", "/nope", "application/connect+json", ""), true},
		{request(2, "POST", "/nope", "application/connect", ""), false},
		{request(2, "POST", "/nope", "application/grpcx", ""), false},
	} {
		if got := connectrpc.IsCall(tt.r); got != tt.want {
			t.Errorf("IsCall(%s %s %q) = %v, want %v", tt.r.Method, tt.r.URL, tt.r.Header, got, tt.want)
		}
	}
}

// What is no call is told why, and what would be one.
func TestRefusals(t *testing.T) {
	h := services()
	for _, tt := range []struct {
		r    *http.Request
		code int
		want string // in the text
	}{
		{request(1, "PUT", echoPath, "application/json", "{}"), 405, "GET it with the parameters encoding=json"},
		{request(1, "GET", collectPath, "", ""), 405, "POST it as application/connect+json"},
		{request(1, "GET", expandPath+"?encoding=json&message={}", "", ""), 405, "streams"},
		{request(1, "POST", echoPath, "", "{}"), 415, "application/json"},
		{request(1, "POST", echoPath, "application/x-www-form-urlencoded", "{}"), 415, "application/json"},
		{request(1, "POST", echoPath, "application/connect+json", ""), 415, "is unary"},
		{request(1, "POST", echoPath, "application/json; charset=latin1", "{}"), 415, "application/json"},
		{request(1, "POST", expandPath, "application/json", "{}"), 415, "application/connect+json"},
		{request(2, "POST", echoPath, "application/grpc+thrift", ""), 415, "application/grpc"},
		{request(1, "POST", expandPath, "application/connect+json", `{"message":"a"}`), 200, "invalid_argument"},
		{request(1, "POST", expandPath, "application/connect+json", `{"message":"a"}`), 200, "comes after 5 bytes"},
		{request(1, "GET", echoPath, "", ""), 415, "encoding=json"},
		{request(1, "POST", echoPath, "application/grpc", ""), 505, "HTTP/2"},
		{request(1, "POST", "/nope", "application/grpc", ""), 505, "HTTP/2"},
		{request(1, "GET", echoPath+"?encoding=json", "", ""), 400, "message"},
		{request(1, "GET", echoPath+"?encoding=json&message={}&connect=v2", "", ""), 400, "v1"},
		{request(1, "POST", "/echo.v1.EchoService/Nope", "application/json", "{}"), 404, "unknown method Nope"},
		{request(1, "POST", echoPath, "application/json", `{"message":1}`), 400, "invalid_argument"},
		{request(1, "GET", echoPath+"?encoding=proto&base64=1&message=!!!", "", ""), 400, "base64"},
		{request(1, "POST", echoPath, "application/proto", "\xff"), 400, "invalid_argument"},
		// A path is what it says, not what somebody might make of it.
		{request(1, "POST", "/echo.v1.EchoService%2FEcho", "application/json", "{}"), 404, "unimplemented"},
		{request(1, "POST", "/echo.v1.EchoService/%45cho", "application/json", "{}"), 404, "unimplemented"},
		{request(1, "POST", "//echo.v1.EchoService/Echo", "application/json", "{}"), 404, "unimplemented"},
		{request(1, "POST", echoPath+"/", "application/json", "{}"), 404, "unimplemented"},
	} {
		res := serve(h, tt.r)
		if got := text(t, res); res.StatusCode != tt.code || !strings.Contains(got, tt.want) {
			t.Errorf("%s %s %q = %d %s, want %d and %q", tt.r.Method, tt.r.URL, tt.r.Header, res.StatusCode, got, tt.code, tt.want)
		}
	}
}

// A method that may have side effects is not called by GET, which any page and any
// cache can make.
func TestGet(t *testing.T) {
	ran := 0
	count := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ran++
		return next(ctx, req)
	}
	// The same handlers by a name of which no .proto file says anything.
	unsafe := pb.EchoService_ServiceDesc
	unsafe.ServiceName = "echo.v1.Unsafe"
	h := newHandler(rpc.Config{UnaryInterceptors: []grpc.UnaryServerInterceptor{count}}, echo.Register, func(r grpc.ServiceRegistrar) {
		echo.Register(registrar(func(_ *grpc.ServiceDesc, impl any) { r.RegisterService(&unsafe, impl) }))
	})
	for _, tt := range []struct {
		target string
		code   int
		ran    int
	}{
		{echoPath + "?encoding=json&message=" + url.QueryEscape(`{"message":"a b"}`), 200, 1},
		{echoPath + "?connect=v1&encoding=proto&base64=1&message=CgNhIGI", 200, 1},
		{"/echo.v1.Unsafe/Echo?encoding=json&message={}", 405, 0},
	} {
		ran = 0
		res := serve(h, request(1, "GET", tt.target, "", ""))
		if got := text(t, res); res.StatusCode != tt.code || ran != tt.ran || tt.code == 200 && !strings.Contains(got, "a b") {
			t.Errorf("GET %s = %d %q, ran %d times; want %d, %d", tt.target, res.StatusCode, got, ran, tt.code, tt.ran)
		}
		if allow := res.Header.Get("Allow"); tt.code == 405 && allow != "POST" {
			t.Errorf("GET %s: Allow is %q, want POST", tt.target, allow)
		}
	}
}

type registrar func(*grpc.ServiceDesc, any)

func (f registrar) RegisterService(desc *grpc.ServiceDesc, impl any) { f(desc, impl) }

func envelope(flags byte, m []byte) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(m))), m...))
}

func zipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

// sized is an EchoRequest of n bytes.
func sized(t *testing.T, n int) []byte {
	t.Helper()
	m := &pb.EchoRequest{Message: strings.Repeat("x", n)}
	m.Message = m.Message[:n-(proto.Size(m)-n)]
	b, err := proto.Marshal(m)
	if err != nil || len(b) != n {
		t.Fatalf("a message of %d bytes, %v, want %d", len(b), err, n)
	}
	return b
}

// status is the code of an answer, wherever its protocol has it.
func status(t *testing.T, res *http.Response) codes.Code {
	t.Helper()
	body := text(t, res)
	switch media := res.Header.Get("Content-Type"); {
	case strings.HasPrefix(media, "application/grpc-web-text"):
		b, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			t.Fatalf("the answer %q is not base64: %v", body, err)
		}
		body = string(b)
	case strings.HasPrefix(media, "application/connect+"):
		i := strings.LastIndex(body, "\x02\x00\x00") // the end of a stream, of less than 64 KiB
		if i < 0 {
			t.Fatalf("the answer %q has no end", body)
		}
		var end struct{ Error json.RawMessage }
		if err := json.Unmarshal([]byte(body[i+5:]), &end); err != nil {
			t.Fatalf("the end of %q: %v", body, err)
		}
		body = string(end.Error)
	}
	for _, h := range []http.Header{res.Header, res.Trailer} {
		if v := h.Get("Grpc-Status"); v != "" {
			var code codes.Code
			fmt.Sscan(v, &code)
			return code
		}
	}
	if _, trailer, ok := strings.Cut(body, "grpc-status: "); ok {
		var code codes.Code
		fmt.Sscan(trailer, &code)
		return code
	}
	var e struct{ Code string }
	if json.Unmarshal([]byte(body), &e) == nil && e.Code != "" {
		var code codes.Code
		if err := json.Unmarshal([]byte(`"`+strings.ToUpper(e.Code)+`"`), &code); err != nil {
			t.Fatalf("code of %q: %v", body, err)
		}
		return code
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the answer %s %q has no code", res.Status, body)
	}
	return codes.OK
}

// The limit is on messages as they are after decompression, and little more than
// it is ever decompressed.
func TestMessageLimit(t *testing.T) {
	h := services()
	bomb := zipped(make([]byte, 64<<20)) // 64 KiB
	for _, tt := range []struct {
		name    string
		message []byte
		gzip    bool
		want    codes.Code
	}{
		{"n", sized(t, limit), false, codes.OK},
		{"n+1", sized(t, limit+1), false, codes.ResourceExhausted},
		{"n, compressed", zipped(sized(t, limit)), true, codes.OK},
		{"n+1, compressed", zipped(sized(t, limit+1)), true, codes.ResourceExhausted},
		{"bomb", bomb[:limit], true, codes.ResourceExhausted},
		{"not gzip", []byte("x"), true, codes.InvalidArgument},
	} {
		flags := byte(0)
		if tt.gzip {
			flags = 1
		}
		enveloped := envelope(flags, tt.message)
		get := url.Values{"encoding": {"proto"}, "base64": {"1"}, "message": {base64.RawURLEncoding.EncodeToString(tt.message)}}
		if tt.gzip {
			get.Set("compression", "gzip")
		}
		for _, p := range []struct {
			name, encoding string
			r              *http.Request
			malformed      codes.Code // INTERNAL as grpc-go has it
		}{
			{"Connect", "Content-Encoding", request(2, "POST", echoPath, "application/proto", string(tt.message)), codes.InvalidArgument},
			{"Connect GET", "", request(2, "GET", echoPath+"?"+get.Encode(), "", ""), codes.InvalidArgument},
			{"Connect stream", "Connect-Content-Encoding", request(2, "POST", expandPath, "application/connect+proto", enveloped), codes.InvalidArgument},
			{"Connect stream, second message", "Connect-Content-Encoding",
				request(2, "POST", collectPath, "application/connect+proto", envelope(0, nil)+enveloped), codes.InvalidArgument},
			{"gRPC", "Grpc-Encoding", request(2, "POST", echoPath, "application/grpc", enveloped), codes.Internal},
			{"gRPC-Web", "Grpc-Encoding", request(2, "POST", echoPath, "application/grpc-web", enveloped), codes.Internal},
			{"gRPC-Web text", "Grpc-Encoding",
				request(2, "POST", echoPath, "application/grpc-web-text", base64.StdEncoding.EncodeToString([]byte(enveloped))), codes.Internal},
		} {
			if tt.gzip && p.encoding != "" {
				p.r.Header.Set(p.encoding, "gzip")
			}
			want := tt.want
			if want == codes.InvalidArgument {
				want = p.malformed
			}
			if got := status(t, serve(h, p.r)); got != want {
				t.Errorf("%s, %s: %v, want %v", tt.name, p.name, got, want)
			}
		}
	}
}

// An envelope that only claims to be large is refused when that is known, not when
// its sender has had enough.
func TestDeclaredLength(t *testing.T) {
	h := services()
	for _, contentType := range []string{"application/grpc", "application/grpc-web+proto"} {
		r := request(2, "POST", echoPath, contentType, "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("\x00\xff\xff\xff\xff"), neverEnds{t}))
		if got := status(t, serve(h, r)); got != codes.ResourceExhausted {
			t.Errorf("%s: %v, want ResourceExhausted", contentType, got)
		}
	}
}

type neverEnds struct{ t *testing.T }

func (n neverEnds) Read([]byte) (int, error) {
	n.t.Error("the message was read")
	return 0, io.EOF
}

// Large answers are compressed for those who take it; gRPC has its own custom.
func TestCompression(t *testing.T) {
	h := newHandler(rpc.Config{}, echo.Register)
	for _, tt := range []struct {
		contentType, accept, encoding string
		size                          int
		compressed                    bool
	}{
		{"application/proto", "Accept-Encoding", "Content-Encoding", 1023, false},
		{"application/proto", "Accept-Encoding", "Content-Encoding", 1024, true},
		{"application/proto", "Nothing", "Content-Encoding", 1024, false},
		{"application/grpc-web", "Grpc-Accept-Encoding", "Grpc-Encoding", 1024, true},
		{"application/grpc", "Grpc-Accept-Encoding", "Grpc-Encoding", 1024, false},
		{"application/grpc", "Grpc-Encoding", "Grpc-Encoding", 1024, true},
	} {
		body := string(sized(t, tt.size))
		if tt.encoding == "Grpc-Encoding" {
			body = envelope(0, []byte(body))
		}
		r := request(2, "POST", echoPath, tt.contentType, body)
		r.Header.Set(tt.accept, "gzip")
		res := serve(h, r)
		got := text(t, res)
		small := len(got) < 500
		if small != tt.compressed || (res.Header.Get(tt.encoding) == "gzip") != tt.compressed {
			t.Errorf("%s of %d bytes with %s: %d bytes, %s %q; want compressed: %v", tt.contentType, tt.size, tt.accept,
				len(got), tt.encoding, res.Header.Get(tt.encoding), tt.compressed)
		}
	}
}

func TestUnknownCompression(t *testing.T) {
	h := services()
	for contentType, name := range map[string]string{"application/json": "Content-Encoding", "application/grpc": "Grpc-Encoding", "application/grpc-web": "Grpc-Encoding"} {
		r := request(2, "POST", echoPath, contentType, "")
		r.Header.Set(name, "br")
		if got := status(t, serve(h, r)); got != codes.Unimplemented {
			t.Errorf("%s in br: %v, want Unimplemented", contentType, got)
		}
	}
}

// Every protocol says in its own words that there is no such method.
func TestUnknownMethod(t *testing.T) {
	h := services()
	for _, contentType := range []string{"application/json", "application/proto", "application/grpc", "application/grpc+json", "application/grpc-web"} {
		for _, path := range []string{"/echo.v1.EchoService/Nope", "/nope.Nope/Nope", "/", "/a/b/c"} {
			if got := status(t, serve(h, request(2, "POST", path, contentType, ""))); got != codes.Unimplemented {
				t.Errorf("%s %s: %v, want Unimplemented", contentType, path, got)
			}
		}
	}
	res := serve(h, request(2, "POST", "/nope.Nope/Nope", "application/connect+json", ""))
	if got := text(t, res); res.StatusCode != 200 || !strings.Contains(got, `"code":"unimplemented"`) {
		t.Errorf("application/connect+json: %s %q, want unimplemented at the end of the stream", res.Status, got)
	}
	res = serve(h, request(2, "POST", "/nope.Nope/Nope", "application/grpc-web-text", ""))
	if ct := res.Header.Get("Content-Type"); ct != "application/grpc-web-text" || status(t, res) != codes.Unimplemented {
		t.Errorf("application/grpc-web-text: %q, want Unimplemented in the same", ct)
	}
}

// Without a service there is nobody to ask, and still an answer.
func TestNoServices(t *testing.T) {
	if got := status(t, serve(newHandler(rpc.Config{}), request(2, "POST", echoPath, "application/grpc", ""))); got != codes.Unimplemented {
		t.Errorf("status is %v, want Unimplemented", got)
	}
}

// A unary answer is one piece, so that it costs one write.
func TestUnaryIsOneWrite(t *testing.T) {
	h := services()
	for contentType, body := range map[string]string{
		"application/json": `{"message":"hi"}`, "application/grpc-web": envelope(0, []byte("\x0a\x02hi")), "application/grpc": envelope(0, []byte("\x0a\x02hi")),
	} {
		w := &flushes{ResponseRecorder: httptest.NewRecorder()}
		h.ServeHTTP(w, request(2, "POST", echoPath, contentType, body))
		if w.n > 0 || !strings.Contains(w.Body.String(), "hi") {
			t.Errorf("%s: %d flushes of %q, want none", contentType, w.n, w.Body)
		}
	}
	w := &flushes{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(w, request(2, "POST", expandPath, "application/grpc-web", envelope(0, []byte("\x0a\x02hi\x10\x03"))))
	if w.n < 3 {
		t.Errorf("a stream of 3 messages was flushed %d times, want each", w.n)
	}
}

type flushes struct {
	*httptest.ResponseRecorder
	n int
}

func (f *flushes) Flush() { f.n++ }
