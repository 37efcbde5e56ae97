package mux

import (
	"crypto/tls"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"regexp"
	"strings"

	"oneport/mux/wsrpc"
)

// welcome tells what this port speaks, in lines that can be pasted into a
// shell: as text, or as a page for those who ask for HTML.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	roads := s.roads(address(r))
	services, paths := s.services(), s.paths()
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'")
		if err := welcomePage.Execute(w, map[string]any{"Roads": roads, "Services": services, "Paths": paths}); err != nil {
			s.log.Debug("welcome page not sent", "err", err)
		}
		return
	}
	var b strings.Builder
	b.WriteString("oneport: one port, every protocol\n")
	for _, road := range roads {
		fmt.Fprintf(&b, "\n%s\n", road.Name)
		for _, line := range road.Lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	fmt.Fprintf(&b, "\nservices\n  %s\n", strings.Join(services, "\n  "))
	if len(paths) > 0 {
		fmt.Fprintf(&b, "\nREST\n  %s\n", strings.Join(paths, "\n  "))
	}
	plain(w, http.StatusOK, b.String())
}

//go:embed welcome.html
var welcomeHTML string

var welcomePage = template.Must(template.New("welcome").Parse(welcomeHTML))

// road is one way to reach the server, with lines to try it.
type road struct {
	Name  string
	Lines []string
}

// roads lists the ways that this server is open on, with the method to try.
func (s *Server) roads(addr string) []road {
	sample := s.sample()
	method, message := sample.method, sample.message
	var roads []road
	add := func(secure bool, grpcurl, curl, http, http2, ws, wscat string) {
		name := "cleartext"
		if secure {
			name = "TLS (a development certificate needs its CA, or these flags)"
		}
		lines := []string{
			fmt.Sprintf("curl %s%s://%s/", curl, http, addr),
			fmt.Sprintf("curl %s%s %s://%s/healthz", curl, http2, http, addr),
		}
		if s.cfg.openAPI {
			lines = append(lines, fmt.Sprintf("curl %s%s://%s/openapi.json", curl, http, addr))
		}
		if s.reg.Reflects() { // without it grpcurl needs the .proto files
			lines = append(lines, fmt.Sprintf("grpcurl %s %s list", grpcurl, addr))
			if method != "" {
				lines = append(lines, fmt.Sprintf("grpcurl %s -d '%s' %s %s", grpcurl, message, addr, method))
			}
		}
		if method != "" {
			if sample.path != "" {
				lines = append(lines, fmt.Sprintf("curl %s-H 'Content-Type: application/json' -d '%s' %s://%s%s", curl, message, http, addr, sample.path))
			}
			lines = append(lines,
				fmt.Sprintf("curl %s-H 'Content-Type: application/json' -d '%s' %s://%s/%s", curl, message, http, addr, method),
				fmt.Sprintf("npx -y wscat@6.1.0 %s-c %s://%s/grpc-ws/%s -x '%s' -w 1", wscat, ws, addr, method, message),
				fmt.Sprintf(`npx -y wscat@6.1.0 %s-s %s -c %s://%s%s -x '{"call":1,"open":{"method":"%s"},"message":%s}' -w 1`,
					wscat, wsrpc.Subprotocol, ws, addr, wsrpc.Path, method, message))
		}
		lines = append(lines, fmt.Sprintf("npx -y wscat@6.1.0 %s-c %s://%s/ws -x hello -w 1", wscat, ws, addr))
		roads = append(roads, road{name, lines})
	}
	if s.cfg.cleartext {
		add(false, "-plaintext", "", "http", "--http2-prior-knowledge", "ws", "")
	}
	if s.cfg.tls != nil {
		grpcurl, other := "-insecure", ""
		if auth := s.cfg.tls.ClientAuth; auth == tls.RequireAnyClientCert || auth == tls.RequireAndVerifyClientCert {
			grpcurl, other = "-insecure -cert client.pem -key client-key.pem", "--cert client.pem --key client-key.pem "
		}
		add(true, grpcurl, "-k "+other, "https", "--http2", "wss", "-n "+other)
	}
	return roads
}

// shownPaths is how many paths of REST the welcome has room for.
const shownPaths = 5

// pickPaths lists paths of REST, for a server that describes itself: to others it does not tell
// them either.
func (s *Server) pickPaths() (paths []string) {
	if !s.cfg.openAPI {
		return nil
	}
	for _, r := range s.rest.Routes() {
		paths = append(paths, r.HTTPMethod+" "+r.Template())
	}
	if more := len(paths) - shownPaths; more > 0 {
		paths = append(paths[:shownPaths], fmt.Sprintf("and %d more, see /openapi.json", more))
	}
	return paths
}

// sample is a call to show: of a method, and of the path where all of its message can be
// posted, if there is one.
type sample struct{ method, path, message string }

// pickSample picks a unary method to show, and a request for it: the Greeter
// where there is one, else the first of the program's own.
func (s *Server) pickSample() sample {
	if _, err := s.reg.Lookup("/helloworld.Greeter/SayHello"); err == nil {
		return s.newSample("helloworld.Greeter/SayHello", `{"name":"you"}`)
	}
	infos := s.reg.GetServiceInfo()
	for _, name := range s.reg.Services() {
		if strings.HasPrefix(name, "grpc.") {
			continue
		}
		for _, m := range infos[name].Methods {
			if !m.IsClientStream && !m.IsServerStream {
				return s.newSample(name+"/"+m.Name, "{}")
			}
		}
	}
	return sample{}
}

func (s *Server) newSample(method, message string) sample {
	for _, r := range s.rest.Routes() {
		if r.Method.FullName == "/"+method && r.HTTPMethod == http.MethodPost && r.WholeBody && plainPath.MatchString(r.Template()) {
			return sample{method, r.Template(), message}
		}
	}
	return sample{method, "", message}
}

// plainPath is a template without variables that is safe to paste into a shell.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+(:[A-Za-z0-9._-]+)?$`)

// address is the host and port by which the client has reached this server. What
// would not be safe to paste into a shell is replaced by the local address.
func address(r *http.Request) string {
	if plainHost.MatchString(r.Host) {
		return r.Host
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a.String()
	}
	return "localhost"
}

var plainHost = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)
