package mux

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"oneport/mux/internal/openapi"
	"oneport/mux/internal/socket"
)

// pages are the built-in HTTP pages, and the answer to what nobody else takes.
func (s *Server) pages() http.Handler {
	pages := http.NewServeMux()
	pages.Handle("/{$}", readOnly(s.welcome))
	pages.Handle("/healthz", readOnly(healthz))
	pages.Handle("/readyz", readOnly(s.readyz))
	if s.cfg.openAPI {
		title, version := program()
		d := openapi.New(openapi.Config{
			Registry: s.reg,
			Routes:   s.rest.Routes(),
			Comments: s.cfg.descriptors,
			Title:    title,
			Version:  version,
			Log:      s.log,
		})
		pages.Handle("/openapi.json", s.origins.cors(readOnly(d.Document), pageMethods))
		pages.Handle("/descriptors.binpb", s.origins.cors(readOnly(d.Descriptors), pageMethods))
	}
	pages.Handle("/", s.nothing())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if socket.Asks(r) { // clients mostly show no more of the answer than its status
			s.log.Debug("websocket refused", "remote", r.RemoteAddr, "path", fmt.Sprintf("%.200s", r.URL.Path), "reason", "no WebSocket is at this path")
		}
		pages.ServeHTTP(w, r)
	})
}

// nothing answers where no page and no handler is: with the 405 of the program's ServeMux, or
// with a 404 that names the way on.
func (s *Server) nothing() http.Handler {
	text := "404 page not found"
	if !s.hasHandler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}}) {
		text += "; / says what is here"
	}
	if s.cfg.openAPI {
		text += "; /openapi.json has all methods and paths"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.ServeHTTP(&notFound{ResponseWriter: w, text: text + "\n"}, r)
	})
}

// notFound gives a 404 another text.
type notFound struct {
	http.ResponseWriter
	text  string
	wrote bool
}

func (w *notFound) WriteHeader(code int) {
	if code != http.StatusNotFound {
		w.ResponseWriter.WriteHeader(code)
		return
	}
	w.wrote = true
	plain(w.ResponseWriter, code, w.text)
}

func (w *notFound) Write(p []byte) (int, error) {
	if w.wrote {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// program is the name of this program, and its version as the go command knows it.
func program() (name, version string) {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "" || info.Main.Version == "" {
		return "gRPC services", "(unknown)"
	}
	return path.Base(info.Path), info.Main.Version
}

// pageMethods are the HTTP methods of the pages.
func pageMethods(*http.Request) string { return "GET, HEAD" }

// readOnly answers other methods with 405. A method in the pattern would not:
// the catch-all matches what such a pattern does not.
func readOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", pageMethods(r))
			plain(w, http.StatusMethodNotAllowed, "405 this page is for GET and HEAD only\n")
			return
		}
		h(w, r)
	})
}

// healthz says that the process answers: for a liveness probe, so it does not
// look at whether the server is ready or draining.
func healthz(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

// readyz says whether new clients should be sent here: not while draining, and
// only if the registered gRPC health service, where there is one, calls the
// server as a whole SERVING.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.isReady(r.Context()) {
		plain(w, http.StatusOK, "ready\n")
		return
	}
	w.Header().Set("Retry-After", "5")
	plain(w, http.StatusServiceUnavailable, "not ready\n")
}

func (s *Server) isReady(ctx context.Context) bool {
	up := s.isRunning()
	health, ok := s.reg.Impl(healthpb.Health_ServiceDesc.ServiceName).(healthpb.HealthServer)
	if !up || !ok {
		return up
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
	return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// unready turns the registered health service off, if it can be: grpc-go's has
// this method.
func (s *Server) unready() {
	if h, ok := s.reg.Impl(healthpb.Health_ServiceDesc.ServiceName).(interface{ Shutdown() }); ok {
		h.Shutdown()
	}
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write([]byte(text))
}
