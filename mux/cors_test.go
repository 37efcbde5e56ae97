package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux"
	pb "oneport/proto/echo"
	"oneport/services/echo"
)

const echoPath = "/echo.v1.EchoService/Echo"

// corsServers are one for each policy, with a handler of the program beside the
// calls. They are used by ServeHTTP alone.
func corsServers(t *testing.T) map[string]*mux.Server {
	servers := make(map[string]*mux.Server)
	for name, opts := range map[string][]mux.Option{
		"":       nil,
		"listed": {mux.WithAllowedOrigins("https://app.example.com", "HTTP://Other.Example.com:80")},
		"any":    {mux.WithAllowedOrigins("*")},
		"both":   {mux.WithAllowedOrigins("*", "https://app.example.com")},
	} {
		s := mux.NewServer(opts...)
		pb.RegisterEchoServiceServer(s, tellingEcho{})
		s.Handle("/form", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		t.Cleanup(func() { s.Close() })
		servers[name] = s
	}
	return servers
}

// tellingEcho sends metadata with its answer.
type tellingEcho struct {
	pb.UnimplementedEchoServiceServer
}

func (tellingEcho) Echo(ctx context.Context, req *pb.EchoRequest) (*pb.EchoResponse, error) {
	if req.GetMessage() == "fail" {
		return nil, status.Error(codes.FailedPrecondition, "failed")
	}
	err := grpc.SetHeader(ctx, metadata.Pairs("x-header", "1"))
	if err == nil {
		err = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "2"))
	}
	return &pb.EchoResponse{Message: req.GetMessage()}, err
}

func serve(s http.Handler, method, path, body string, header map[string]string) *http.Response {
	r := httptest.NewRequest(method, "http://example.com"+path, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// A browser asks before a page of another origin may call, and lets it read the
// answer if the server says so. An origin is never allowed because it asks, unless
// it comes without credentials.
func TestCORS(t *testing.T) {
	const named, wildcard, none = "named", "*", ""
	servers := corsServers(t)
	for _, tt := range []struct {
		server, origin, want string
	}{
		{"", "https://app.example.com", none},
		{"", "null", none},
		{"listed", "https://app.example.com", named},
		{"listed", "http://other.example.com", named},
		{"listed", "http://app.example.com", none},
		{"listed", "https://app.example.com:8443", none},
		{"listed", "https://app.example.com.evil.example", none},
		{"listed", "null", none},
		{"any", "https://app.example.com", wildcard},
		{"any", "null", wildcard},
		{"both", "https://app.example.com", named},
		{"both", "http://elsewhere.example", wildcard},
	} {
		for _, contentType := range []string{"application/json", "application/grpc-web-text"} {
			name := fmt.Sprintf("%q %s %s", tt.server, tt.origin, contentType)
			s := servers[tt.server]
			check := func(what string, res *http.Response) {
				t.Helper()
				origin, credentials := res.Header.Get("Access-Control-Allow-Origin"), res.Header.Get("Access-Control-Allow-Credentials")
				want, wantCredentials := tt.want, ""
				if want == named {
					want, wantCredentials = tt.origin, "true"
				}
				if origin != want || credentials != wantCredentials {
					t.Errorf("%s: %s: allowed are %q, credentials %q; want %q, %q", name, what, origin, credentials, want, wantCredentials)
				}
				if !slices.Contains(res.Header["Vary"], "Origin") {
					t.Errorf("%s: %s: Vary is %q, want Origin", name, what, res.Header["Vary"])
				}
			}
			res := serve(s, "OPTIONS", echoPath, "", map[string]string{
				"Origin": tt.origin, "Access-Control-Request-Method": "POST",
				"Access-Control-Request-Headers": "content-type,connect-protocol-version,x-key-bin",
			})
			check("preflight", res)
			wantCode, wantHeaders := http.StatusNoContent, "content-type,connect-protocol-version,x-key-bin"
			if tt.want == none {
				wantCode, wantHeaders = http.StatusForbidden, ""
			}
			if got := res.Header.Get("Access-Control-Allow-Headers"); res.StatusCode != wantCode || got != wantHeaders {
				t.Errorf("%s: preflight = %s, headers %q, want %d, %q", name, res.Status, got, wantCode, wantHeaders)
			}
			if methods := res.Header.Get("Access-Control-Allow-Methods"); (methods == "GET, POST") != (tt.want != none) {
				t.Errorf("%s: preflight allows the methods %q", name, methods)
			}

			body := map[string]string{"application/json": "{}", "application/grpc-web-text": "AAAAAAA="}[contentType]
			res = serve(s, "POST", echoPath, body, map[string]string{
				"Origin": tt.origin, "Content-Type": contentType, "Sec-Fetch-Site": "cross-site"})
			check("call", res)
			exposed := strings.Split(res.Header.Get("Access-Control-Expose-Headers"), ", ")
			switch {
			case tt.want == none && res.StatusCode != http.StatusForbidden:
				t.Errorf("%s: call = %s, want 403", name, res.Status)
			case tt.want != none && (res.StatusCode != http.StatusOK || !slices.Contains(exposed, "X-Header")):
				t.Errorf("%s: call = %s, exposes %q, want 200 and X-Header", name, res.Status, exposed)
			case tt.want != none && contentType == "application/json" && !slices.Contains(exposed, "Trailer-X-Trailer"):
				t.Errorf("%s: call exposes %q, want Trailer-X-Trailer", name, exposed)
			}
		}
	}
}

// An answer without a message has its status in the header, where a gRPC-Web client
// looks for it.
func TestCORSExposesStatus(t *testing.T) {
	s := corsServers(t)["listed"]
	for _, tt := range []struct{ path, body, code string }{
		{"/echo.v1.EchoService/Nope", "", "12"},
		{echoPath, "\x00\x00\x00\x00\x06\x0a\x04fail", "9"},
	} {
		res := serve(s, "POST", tt.path, tt.body, map[string]string{
			"Origin": "https://app.example.com", "Content-Type": "application/grpc-web"})
		exposed := res.Header.Get("Access-Control-Expose-Headers")
		if got := res.Header.Get("Grpc-Status"); got != tt.code || !strings.Contains(exposed, "Grpc-Status") || !strings.Contains(exposed, "Grpc-Message") {
			t.Errorf("%s: status %q, exposed %q, want %s and the names of the status", tt.path, got, exposed, tt.code)
		}
	}
}

// An OPTIONS request that no browser has made is one of a method that calls do not
// have.
func TestOptionsIsNoPreflight(t *testing.T) {
	s := corsServers(t)["listed"]
	for _, header := range []map[string]string{nil, {"Origin": "https://app.example.com"}, {"Access-Control-Request-Method": "POST"}} {
		if res := serve(s, "OPTIONS", echoPath, "", header); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, POST" {
			t.Errorf("OPTIONS with %v = %s, Allow %q, want 405 and GET, POST", header, res.Status, res.Header.Get("Allow"))
		}
	}
}

// What a page of another origin can send without a preflight reaches neither calls
// nor the handlers of the program. "*" lets it, but not with the user's cookies or
// certificate.
func TestCSRF(t *testing.T) {
	servers := corsServers(t)
	const app, self = "https://app.example.com", "http://example.com"
	for _, tt := range []struct {
		server, method, origin, site string
		cookie, certificate          bool
		allowed                      bool
		authorization                string
	}{
		{"", "POST", "", "", true, true, true, ""}, // a program
		{"", "POST", self, "same-origin", true, false, true, ""},
		{"", "POST", self, "", true, false, true, ""}, // an older browser
		{"", "POST", "https://example.com", "same-origin", true, false, true, ""},
		{"", "POST", app, "cross-site", false, false, false, ""},
		{"", "POST", app, "same-site", false, false, false, ""},
		{"", "POST", app, "", false, false, false, ""},
		{"", "POST", "null", "cross-site", false, false, false, ""},
		{"", "POST", "", "cross-site", false, false, false, ""},
		{"", "PUT", app, "cross-site", false, false, false, ""},
		{"", "GET", app, "cross-site", true, false, true, ""},
		{"listed", "POST", app, "cross-site", true, true, true, ""},
		{"listed", "POST", "http://other.example.com", "", true, false, true, ""},
		{"listed", "POST", "http://elsewhere.example", "cross-site", false, false, false, ""},
		{"any", "POST", app, "cross-site", false, false, true, ""},
		{"any", "POST", app, "cross-site", true, false, false, ""},
		{"any", "POST", app, "cross-site", false, true, false, ""},
		{"any", "POST", self, "same-origin", true, true, true, ""},
		{"any", "POST", app, "cross-site", false, false, false, "Basic dTpw"},
		{"any", "POST", app, "cross-site", false, false, true, "bearer x"},
		{"listed", "POST", app, "cross-site", false, false, true, "Basic dTpw"},
		{"both", "POST", app, "cross-site", true, true, true, ""},
	} {
		r := httptest.NewRequest(tt.method, self+"/form", nil)
		for name, v := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Site": tt.site, "Authorization": tt.authorization} {
			if v != "" {
				r.Header.Set(name, v)
			}
		}
		if tt.cookie {
			r.Header.Set("Cookie", "a=b")
		}
		if tt.certificate {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		}
		w := httptest.NewRecorder()
		servers[tt.server].ServeHTTP(w, r)
		if got := w.Code == http.StatusOK; got != tt.allowed {
			t.Errorf("%+v = %d %s, want allowed: %v", tt, w.Code, w.Body, tt.allowed)
		}
		if text := w.Body.String(); !tt.allowed && !strings.Contains(text, "WithAllowedOrigins") {
			t.Errorf("%+v: the refusal is %q, want it to name the option", tt, text)
		}
	}
}

// A page whose name somebody has pointed at this machine is of its origin to the
// browser; its calls are refused all the same.
func TestCallFromReboundName(t *testing.T) {
	for _, tt := range []struct {
		method, host, origin string
		origins              []string
		want                 int
	}{
		{"POST", "evil.example", "http://evil.example:PORT", nil, 403},
		{"POST", "evil.example", "", nil, 200}, // a program: browsers name the origin of a POST
		{"POST", "evil.example", "http://evil.example:PORT", []string{"*"}, 200},
		{"POST", "dev.example", "https://dev.example", []string{"https://dev.example"}, 200},
		{"POST", "localhost", "http://localhost:PORT", nil, 200},
		{"POST", "127.0.0.1", "http://127.0.0.1:PORT", nil, 200},
		// A browser need not say anything with a GET.
		{"GET", "evil.example", "", nil, 403},
		{"GET", "evil.example", "", []string{"https://other.example"}, 403},
		{"GET", "evil.example", "", []string{"*"}, 200},
		{"GET", "dev.example", "", []string{"https://dev.example:PORT"}, 200}, // TLS ends in front
		{"GET", "localhost", "", nil, 200},
		{"GET", "127.0.0.1", "", nil, 200},
	} {
		p := corsPort(t, tt.origins)
		_, number, _ := strings.Cut(p.addr, ":")
		var body io.Reader = strings.NewReader("{}")
		target := "http://" + p.addr + echoPath
		if tt.method == "GET" {
			body, target = nil, target+"?encoding=json&message={}"
		}
		req, err := http.NewRequestWithContext(t.Context(), tt.method, target, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host + ":" + number
		req.Header.Set("Content-Type", "application/json")
		if tt.origin != "" {
			req.Header.Set("Origin", strings.ReplaceAll(tt.origin, "PORT", number))
		}
		if res, text := do(t, p.http(1), req); res.StatusCode != tt.want {
			t.Errorf("%s, host %s, origin %q, allowed %q: %s %s, want %d", tt.method, tt.host, tt.origin, tt.origins, res.Status, text, tt.want)
		}
	}
}

// corsPort starts a server that allows origins, in which PORT stands for its own.
func corsPort(t *testing.T, origins []string) *port {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(ln.Addr().String(), ":")
	for i, o := range origins {
		origins[i] = strings.ReplaceAll(o, "PORT", number)
	}
	s := mux.NewServer(mux.WithAllowedOrigins(origins...), mux.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))))
	echo.Register(s)
	return serveOn(t, ln, s, nil)
}

// A WebSocket client mostly shows no more of an answer than its status; who runs the server
// may look why it was refused.
func TestRefusedWebSocketIsLogged(t *testing.T) {
	for path, want := range map[string]string{
		"/nothing":                       "no WebSocket is at this path",
		"/":                              "no WebSocket is at this path",
		"/ws":                            "Sec-WebSocket-Version must be 13",
		"/grpc-ws-tunnel":                "Sec-WebSocket-Version must be 13",
		"/grpc-ws/echo.v1.EchoService/X": "unknown method X",
		"/echo.v1.EchoService/Echo":      "needs the subprotocol grpc-websockets",
	} {
		var log bytes.Buffer
		s := mux.NewServer(mux.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
		echo.Register(s)
		serve(s, "GET", path, "", map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"})
		if got := log.String(); strings.Count(got, "websocket refused") != 1 || !strings.Contains(got, " path="+path+" ") || !strings.Contains(got, want) {
			t.Errorf("%s: logged %q, want one line with %q", path, got, want)
		}
		s.Close()
	}
}

// A page is not shown why it was refused; who runs the server may be.
func TestRefusedPageIsLogged(t *testing.T) {
	var log bytes.Buffer
	s := mux.NewServer(mux.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	echo.Register(s)
	defer s.Close()
	for method, path := range map[string]string{"POST": echoPath, "OPTIONS": "/echo.v1.EchoService/Nope", "GET": "/ws"} {
		log.Reset()
		res := serve(s, method, path, "", map[string]string{"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"})
		if got := log.String(); res.StatusCode != http.StatusForbidden || !strings.Contains(got, path) || !strings.Contains(got, "--allow-origin") {
			t.Errorf("%s %s: %s, logged %q; want 403, path and cure", method, path, res.Status, got)
		}
	}
}
