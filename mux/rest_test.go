package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux"
	librarypb "oneport/mux/internal/rest/resttest"
	"oneport/mux/muxtest"
	pb "oneport/proto/echo"
	hellopb "oneport/proto/helloworld"
	"oneport/services/echo"
)

// ask makes a request with header fields of the form "Name: value".
func ask(t *testing.T, c *http.Client, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, muxtest.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range header {
		if name, value, ok := strings.Cut(field, ": "); ok {
			r.Header.Set(name, value)
		}
	}
	return do(t, c, r)
}

// A path of a google.api.http option comes before what is built in and what the program
// has for everything, and after what it has for a path of its own. A method without one
// is there as ever.
func TestRoutes(t *testing.T) {
	s := muxtest.New(t, func(s *mux.Server) {
		services(s)
		s.Handle("/", text("own"))
		s.Handle("GET /v1/echo/mine", text("own echo"))
	})
	const json = "Content-Type: application/json"
	for _, tt := range []struct {
		method, path, body, header string
		code                       int
		want                       string
	}{
		{"GET", "/v1/hello/ada", "", "", 200, `{"message":"Hello ada"}`},
		{"POST", "/v1/hello", `{"name":"ada"}`, json, 200, `{"message":"Hello ada"}`},
		{"HEAD", "/v1/hello/ada", "", "", 200, ``},
		{"DELETE", "/v1/hello/ada", "", "", 405, `{"code":12,"message":"this path takes GET, HEAD","details":[]}`},
		{"OPTIONS", "/v1/hello/ada", "", "", 204, ""},
		{"GET", "/v1/hello/ada/", "", "", 200, "own"},
		{"GET", "/v1/hello", "", "", 405, `{"code":12,"message":"this path takes POST","details":[]}`},
		{"GET", "/v1/hello/", "", "", 200, "own"},
		{"GET", "/v1/echo/mine", "", "", 200, "own echo"},
		{"GET", "/v1/echo/yours", "", "", 200, `{"message":"yours"}`},
		{"GET", "/v1/echo/a%2Fb%3F", "", "", 200, `{"message":"a/b?"}`},
		{"GET", "/v1/echo/hi:expand?count=2", "", "", 200, "{\"result\":{\"message\":\"hi\"}}\n{\"result\":{\"message\":\"hi\"}}\n"},
		{"POST", "/grpc.health.v1.Health/Check", "{}", json, 200, `{"status":"SERVING"}`},
	} {
		for major, c := range map[int]*http.Client{1: s.HTTP1(), 2: s.HTTP2()} {
			res, body := ask(t, c, tt.method, tt.path, tt.body, tt.header)
			if res.StatusCode != tt.code || body != tt.want {
				t.Errorf("HTTP/%d: %s %s = %s %q, want %d %q", major, tt.method, tt.path, res.Status, body, tt.code, tt.want)
			}
		}
	}
}

// A WebSocket is for no rule, though its path is on one; another upgrade may be left out.
func TestRouteUpgrade(t *testing.T) {
	s := mux.NewServer()
	services(s)
	s.Handle("/", text("own"))
	for upgrade, want := range map[string]string{
		"websocket": "own", "WebSocket": "own", "h2c, websocket": "own", "h2c": `{"message":"Hello ada"}`, "websockets": `{"message":"Hello ada"}`,
	} {
		res := serve(s, "GET", "/v1/hello/ada", "", map[string]string{"Connection": "Upgrade", "Upgrade": upgrade})
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
			t.Errorf("Upgrade: %s = %s, %v, want %s", upgrade, got, err, want)
		}
	}
}

// The policy for pages is that for calls, with the HTTP methods that a path has.
func TestRouteOrigins(t *testing.T) {
	servers := corsServers(t)
	const app, self = "https://app.example.com", "http://example.com"
	preflight := map[string]string{"Origin": app, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
	for _, tt := range []struct {
		server, path, methods string
	}{
		{"listed", "/v1/echo/x", "GET, HEAD"},
		{"listed", "/v1/echo", "POST"},
		{"any", "/v1/echo", "POST"},
		{"", "/v1/echo", ""},
	} {
		res := serve(servers[tt.server], "OPTIONS", tt.path, "", preflight)
		if got := res.Header.Get("Access-Control-Allow-Methods"); got != tt.methods || (res.StatusCode == 204) != (tt.methods != "") {
			t.Errorf("%q: preflight for %s = %s, methods %q, want %q", tt.server, tt.path, res.Status, got, tt.methods)
		}
	}
	for _, tt := range []struct {
		server, method, path, origin string
		code                         int
		allow                        string
	}{
		{"listed", "GET", "/v1/echo/x", app, 200, app},
		{"listed", "POST", "/v1/echo", app, 200, app},
		{"listed", "POST", "/v1/echo", "https://evil.example", 403, ""},
		{"listed", "GET", "/v1/echo/x", "https://evil.example", 200, ""}, // whose page cannot read it
		{"", "POST", "/v1/echo", self, 200, ""},
		{"", "POST", "/v1/echo", app, 403, ""},
		{"any", "POST", "/v1/echo", app, 200, "*"},
	} {
		body := ""
		header := map[string]string{"Origin": tt.origin, "Content-Type": "application/json"}
		if tt.method == "POST" {
			body = `{"message":"x"}`
		}
		res := serve(servers[tt.server], tt.method, tt.path, body, header)
		if got := res.Header.Get("Access-Control-Allow-Origin"); res.StatusCode != tt.code || got != tt.allow || !slices.Contains(res.Header["Vary"], "Origin") {
			t.Errorf("%q: %s %s of %s = %s, allowed %q, Vary %q; want %d, %q", tt.server, tt.method, tt.path, tt.origin, res.Status, got, res.Header["Vary"], tt.code, tt.allow)
		}
		exposed := res.Header.Get("Access-Control-Expose-Headers")
		if tt.allow != "" && !(strings.Contains(exposed, "X-Header") && strings.Contains(exposed, "Trailer-X-Trailer")) {
			t.Errorf("%q: %s %s of %s exposes %q", tt.server, tt.method, tt.path, tt.origin, exposed)
		}
	}
}

// To a page that sends cookies "*" is a method of that name, so a path that takes all
// methods names the one that is asked for.
func TestPreflightOfAllMethods(t *testing.T) {
	const app = "https://app.example.com"
	s := mux.NewServer(mux.WithAllowedOrigins(app))
	librarypb.RegisterLibraryServer(s, librarypb.UnimplementedLibraryServer{})
	t.Cleanup(func() { s.Close() })
	res := serve(s, "OPTIONS", "/v1/any/1", "", map[string]string{"Origin": app, "Access-Control-Request-Method": "PUT"})
	if got := res.Header.Get("Access-Control-Allow-Methods"); res.StatusCode != 204 || got != "*, PUT" {
		t.Errorf("preflight for PUT = %s, methods %q, want *, PUT", res.Status, got)
	}
}

// Two methods for the same requests are a mistake that registration tells of.
func TestRouteConflict(t *testing.T) {
	clash := ruled(t, "Clash", &pb.EchoService_ServiceDesc, "Echo", &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/v1/{message=echo/*}"}})
	s := mux.NewServer()
	echo.Register(s)
	defer func() {
		want := `mux: register mux_test.Clash: google.api.http of /mux_test.Clash/Echo: rule GET "/v1/{message=echo/*}": ` +
			`column 19: the same requests as rule GET "/v1/echo/{message}" of /echo.v1.EchoService/Echo`
		if got := fmt.Sprint(recover()); got != want {
			t.Errorf("panic %q, want %q", got, want)
		}
	}()
	s.RegisterService(clash, pb.UnimplementedEchoServiceServer{})
}

// ruled is a service of the name mux_test.NAME, with one method of another service and this
// rule for it.
func ruled(t *testing.T, name string, of *grpc.ServiceDesc, method string, rule *annotations.HttpRule) *grpc.ServiceDesc {
	t.Helper()
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(of.ServiceName + "." + method))
	if err != nil {
		t.Fatal(err)
	}
	m := protodesc.ToMethodDescriptorProto(found.(protoreflect.MethodDescriptor))
	m.Options = new(descriptorpb.MethodOptions)
	proto.SetExtension(m.Options, annotations.E_Http, rule)
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("mux_test/" + name), Package: proto.String("mux_test"), Dependency: []string{found.ParentFile().Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: &name, Method: []*descriptorpb.MethodDescriptorProto{m}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := protoregistry.GlobalFiles.FindFileByPath(fd.Path()); err != nil { // else from an earlier run, and the same
		if err := protoregistry.GlobalFiles.RegisterFile(fd); err != nil {
			t.Fatal(err)
		}
	}
	i := slices.IndexFunc(of.Methods, func(d grpc.MethodDesc) bool { return d.MethodName == method })
	return &grpc.ServiceDesc{ServiceName: "mux_test." + name, HandlerType: of.HandlerType, Methods: of.Methods[i : i+1]}
}

type nameEcho struct {
	pb.UnimplementedEchoServiceServer
}

func (nameEcho) Echo(_ context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	return &pb.EchoResponse{Message: req.Message}, nil
}

// A variable is not meant for the pages that probes and others count on.
func TestPagesBeforeRoutes(t *testing.T) {
	desc := ruled(t, "Names", &pb.EchoService_ServiceDesc, "Echo", &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/{message}"}})
	for _, openAPI := range []bool{false, true} {
		var opts []mux.Option
		if openAPI {
			opts = append(opts, mux.WithOpenAPI(nil))
		}
		s := muxtest.New(t, func(s *mux.Server) { s.RegisterService(desc, nameEcho{}) }, opts...)
		for path, page := range map[string]bool{
			"/healthz": true, "/readyz": true, "/ws": true, "/openapi.json": openAPI, "/descriptors.binpb": openAPI,
			"/other": false, "/healthz2": false,
		} {
			_, body := ask(t, s.HTTP1(), "GET", path, "")
			if got := body == `{"message":"`+path[1:]+`"}`; got == page {
				t.Errorf("with OpenAPI %t: GET %s = %.100q, want a page: %t", openAPI, path, body, page)
			}
		}
	}
}

// bookless tells what a handler sees of the field that is the body.
type bookless struct {
	librarypb.UnimplementedLibraryServer
}

func (bookless) UpdateBook(_ context.Context, req *librarypb.UpdateBookRequest) (*librarypb.UpdateBookRequest, error) {
	return &librarypb.UpdateBookRequest{Note: fmt.Sprint(req.Book != nil)}, nil
}

// A field that is the body is there without a body as well, since grpc-gateway has it so.
func TestFieldWithoutBody(t *testing.T) {
	desc := ruled(t, "Books", &librarypb.Library_ServiceDesc, "UpdateBook", &annotations.HttpRule{
		Pattern: &annotations.HttpRule_Post{Post: "/v1/bookless"}, Body: "book"})
	s := muxtest.New(t, func(s *mux.Server) { s.RegisterService(desc, bookless{}) })
	if _, got := ask(t, s.HTTP1(), "POST", "/v1/bookless", ""); got != `{"note":"true"}` {
		t.Errorf("without a body: %s", got)
	}
}

// The options for JSON hold wherever there is JSON.
func TestWithJSON(t *testing.T) {
	s := muxtest.New(t, services, mux.WithJSON(protojson.MarshalOptions{EmitUnpopulated: true, Multiline: true}))
	const want = `{"messages":[]}`
	if _, got := ask(t, s.HTTP1(), "POST", "/v1/echo:collect", "", "Content-Type: application/json"); got != want {
		t.Errorf("REST: %s, want %s", got, want)
	}
	_, got := ask(t, s.HTTP2(), "POST", "/echo.v1.EchoService/Collect", "", "Content-Type: application/connect+json")
	if !strings.Contains(got, want) {
		t.Errorf("Connect: %q, want %s in it", got, want)
	}
	for path, header := range map[string]http.Header{
		"/grpc-ws/echo.v1.EchoService/Collect": nil,
		"/grpc-ws":                             {"Sec-Websocket-Protocol": {"grpc-ws.v1"}},
	} {
		ws := s.WebSocket(path, header)
		messages := []string{""}
		if header != nil {
			messages = []string{`{"call":1,"open":{"method":"echo.v1.EchoService/Collect"}}`, `{"call":1,"halfClose":true}`}
		}
		for _, m := range messages {
			if err := ws.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		for !strings.Contains(got, "messages") {
			_, b, err := ws.ReadMessage()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			got = string(b)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s in it", path, got, want)
		}
	}
}

// endless is a stream without an end that counts what it sends.
type endless struct {
	pb.UnimplementedEchoServiceServer
	sent  atomic.Int64
	ended chan error
}

func (e *endless) Expand(req *pb.ExpandRequest, stream grpc.ServerStreamingServer[pb.ExpandResponse]) error {
	for {
		if err := stream.Send(&pb.ExpandResponse{Message: strings.Repeat("x", 1<<10)}); err != nil {
			e.ended <- stream.Context().Err()
			return err
		}
		e.sent.Add(1)
	}
}

// A client that reads nothing stops the handler, and one that has gone ends it.
func TestStreamBackPressure(t *testing.T) {
	for _, accept := range []string{"application/x-ndjson", "text/event-stream", "application/json"} {
		for _, major := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/HTTP%d", accept, major), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := &endless{ended: make(chan error, 1)}
					s := muxtest.New(t, func(s *mux.Server) { pb.RegisterEchoServiceServer(s, e) })
					c := s.HTTP1()
					if major == 2 {
						c = s.HTTP2()
					}
					ctx, cancel := context.WithCancel(t.Context())
					r, err := http.NewRequestWithContext(ctx, "GET", muxtest.URL+"/v1/echo/x:expand", nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Accept", accept)
					r.Header.Set("Accept-Encoding", "identity")
					res, err := c.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					before := e.sent.Load()
					time.Sleep(time.Hour) // as long as it likes
					if after := e.sent.Load(); after != before || before > 16<<10 {
						t.Errorf("%d messages of 1 KiB were sent, then %d, though nobody reads", before, after)
					}
					if _, err := io.CopyN(io.Discard, res.Body, 8<<20); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if after := e.sent.Load(); after == before {
						t.Error("the handler sends no more, though its client reads again")
					}
					cancel()
					synctest.Wait()
					select {
					case err := <-e.ended:
						if err != context.Canceled {
							t.Errorf("the handler's context ended with %v", err)
						}
					default:
						t.Error("the handler goes on though its client has gone")
					}
				})
			})
		}
	}
}

// eventStream reads what an EventSource would, up to n messages or the end of the stream.
func eventStream(t *testing.T, c *http.Client, path, last string, n int) (res *http.Response, data []string, id string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", muxtest.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	res, err = c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	id = last
	for lines := bufio.NewScanner(res.Body); lines.Scan() && len(data) < n; {
		if v, ok := bytes.CutPrefix(lines.Bytes(), []byte("id: ")); ok {
			id = string(v)
		}
		if v, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			data = append(data, string(v))
		}
	}
	return res, data, id
}

// A stream that was cut goes on after the last event that came, and after its end the
// client is told not to ask again.
func TestEventSourceResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, services)
		const path = "/v1/echo/hi:expand?count=5&interval=1s"
		const hi = `{"message":"hi"}`
		_, first, id := eventStream(t, s.HTTP2(), path, "", 2)
		if !slices.Equal(first, []string{hi, hi}) || id != "2" {
			t.Errorf("first: %q, id %s", first, id)
		}
		_, rest, id := eventStream(t, s.HTTP2(), path, id, 100)
		if !slices.Equal(rest, []string{hi, hi, hi, `{"code":0,"message":"","details":[]}`}) || id != "end" {
			t.Errorf("then: %q, id %s, want the other three and the end", rest, id)
		}
		if res, _, _ := eventStream(t, s.HTTP2(), path, id, 100); res.StatusCode != http.StatusNoContent {
			t.Errorf("after the end: %s, want 204", res.Status)
		}
	})
}

// A client over HTTP/1 that has sent a bad stream, or not all of it, does not have its
// next request taken for a part of that.
func TestNextRequestAfterRefusal(t *testing.T) {
	s := muxtest.New(t, services)
	c := s.HTTP1()
	for _, path := range []string{"/v1/echo:collect", "/v1/echo:converse", "/v1/echo"} {
		for _, body := range []string{"x", `{"message":1}` + strings.Repeat("\n{}", 100_000), strings.Repeat(" ", 1<<20) + "{"} {
			res, text := ask(t, c, "POST", path, body, "Content-Type: application/json")
			if res.StatusCode != 400 {
				t.Errorf("%s: %s %.100s, want 400", path, res.Status, text)
			}
			if res, text := ask(t, c, "GET", "/v1/hello/ada", ""); res.StatusCode != 200 || text != `{"message":"Hello ada"}` {
				t.Errorf("the request after it: %s %.100s", res.Status, text)
			}
		}
	}
}

// The body of an unary request may be slow, and is given up when nothing comes of it.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := muxtest.New(t, func(s *mux.Server) { hellopb.RegisterGreeterServer(s, hellopb.UnimplementedGreeterServer{}) })
		body, send := io.Pipe()
		defer send.Close()
		r, err := http.NewRequestWithContext(t.Context(), "POST", muxtest.URL+"/v1/hello", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		start := time.Now()
		go send.Write([]byte(`{"na`))
		res, err := s.HTTP1().Do(r)
		if err == nil {
			res.Body.Close()
		}
		if got := time.Since(start); got < 30*time.Second || got > 31*time.Second {
			t.Errorf("a body that stands still ends after %v, want 30 s", got)
		}
	})
}

// A request by ServeHTTP alone, without a connection of this server, is answered as well.
func TestRouteWithoutConnection(t *testing.T) {
	s := mux.NewServer()
	services(s)
	t.Cleanup(func() { s.Close() })
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/v1/hello/ada", nil))
	if w.Body.String() != `{"message":"Hello ada"}` {
		t.Errorf("answer is %s", w.Body)
	}
}
