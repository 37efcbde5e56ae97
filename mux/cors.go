package mux

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// preflightAge is how long a browser may remember a preflight, in seconds: two
// hours, the most that Chromium takes.
const preflightAge = "7200"

var varyOrigin = []string{"Origin"} // which nobody changes

// cors lets pages call next, methods by some protocol, as far as the policy says: those of
// this origin, of an allowed one, and no others. methods are those of HTTP that a request
// may have in place of its own. A page of an allowed origin may
// send any header and cookies, and read all headers of an answer; where "*" allows
// it, not with cookies (https://fetch.spec.whatwg.org/#http-cors-protocol).
func (p originPolicy) cors(next http.Handler, methods func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := w.Header(); h["Vary"] == nil {
			h["Vary"] = varyOrigin
		} else {
			h.Add("Vary", "Origin")
		}
		origin := r.Header.Get("Origin")
		if r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != "" {
			p.preflight(w, r, origin, methods(r))
			return
		}
		if err := p.checkHost(r); err != nil {
			p.forbid(w, r, err)
			return
		}
		if origin == "" || !p.allow(w.Header(), origin) {
			next.ServeHTTP(w, r)
			return
		}
		answer := &exposed{ResponseWriter: w}
		next.ServeHTTP(answer, r)
		answer.list() // of one that is a header alone nothing was written
	})
}

// allow writes that pages of origin may read the answer, and reports whether they
// may. Credentials are for origins that the policy names.
func (p originPolicy) allow(h http.Header, origin string) bool {
	norm, err := parseOrigin(origin)
	switch {
	case err == nil && slices.Contains(p.allowed, norm):
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	case p.any():
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		return false
	}
	return true
}

// preflight answers a browser that asks before it sends a request.
func (p originPolicy) preflight(w http.ResponseWriter, r *http.Request, origin, methods string) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	if !p.allow(h, origin) {
		p.forbid(w, r, notAllowed(origin))
		return
	}
	if slices.Contains(strings.Split(methods, ", "), "*") { // which of a request with cookies would mean no other
		methods += ", " + r.Header.Get("Access-Control-Request-Method")
	}
	h.Set("Access-Control-Allow-Methods", methods)
	if names := r.Header["Access-Control-Request-Headers"]; len(names) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(names, ", "))
	}
	h.Set("Access-Control-Max-Age", preflightAge)
	w.WriteHeader(http.StatusNoContent)
}

// checkUnsafe refuses a request that may change something and that a page of
// another origin has made, by what the browser tells of it: pages can send some
// requests anywhere, with the user's credentials. What "*" allows is to come without.
func (p originPolicy) checkUnsafe(r *http.Request) error {
	if p.any() && !hasCredentials(r) {
		return nil
	}
	if p.csrf.Check(r) == nil {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		return notAllowed(origin)
	}
	return errors.New("pages of other sites may not do this; the server allows them with WithAllowedOrigins, or --allow-origin")
}

// hasCredentials tells whether r comes with something that browsers add by
// themselves: a cookie, a client certificate, or a password they have been told once.
func hasCredentials(r *http.Request) bool {
	if len(r.Header["Cookie"]) > 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return true
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return scheme != "" && !strings.EqualFold(scheme, "Bearer")
}

// checkHost refuses a call by a page whose name has been pointed at this machine.
// Browsers say by which origin they send anything, but nothing with a GET or HEAD of the
// same origin, in cleartext at least: so these are refused for the name alone, whoever has
// made them.
func (p originPolicy) checkHost(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if safe := r.Method == http.MethodGet || r.Method == http.MethodHead; origin == "" && !safe || !rebound(r) || p.any() {
		return nil
	}
	if origin == "" {
		if p.hasHost(r.Host) {
			return nil
		}
		return p.strangeHost(r)
	}
	if norm, err := parseOrigin(origin); err == nil && slices.Contains(p.allowed, norm) {
		return nil
	}
	return notAllowed(origin)
}

// hasHost tells whether an origin of this host is allowed, by either scheme: a proxy
// may have terminated TLS.
func (p originPolicy) hasHost(host string) bool {
	return slices.ContainsFunc([]string{"http", "https"}, func(scheme string) bool {
		norm, err := parseOrigin(scheme + "://" + host)
		return err == nil && slices.Contains(p.allowed, norm)
	})
}

// strangeHost refuses r for its Host alone. That also happens to every client of a proxy on
// this machine which passes Host on, while probes that call by address are answered, so the
// first one is worth a warning.
func (p originPolicy) strangeHost(r *http.Request) error {
	host := fmt.Sprintf("%.200s", r.Host)
	p.strange.Do(func() {
		p.log.Warn("a call on a loopback address named a host that is not this machine, which was refused with 403: "+
			"behind a proxy on this machine name its public origin with mux.WithAllowedOrigins (command: --allow-origin)",
			"host", host, "remote", r.RemoteAddr)
	})
	return fmt.Errorf("the Host is %q and the address a loopback one, so a page may have pointed that name at this machine; "+
		"behind a proxy on this machine name its public origin: WithAllowedOrigins(%q), or --allow-origin", host, "https://"+host)
}

func notAllowed(origin string) error {
	if origin == "null" { // of a file, or a frame in a sandbox; it cannot be named
		return fmt.Errorf("pages without an origin may not connect here; only WithAllowedOrigins(\"*\"), or --allow-origin '*', lets them")
	}
	return fmt.Errorf("pages of %.200s may not connect here; the server allows that with WithAllowedOrigins(%.200q), or --allow-origin", origin, origin)
}

// forbid answers 403. A page is not shown why, so the log may be.
func (p originPolicy) forbid(w http.ResponseWriter, r *http.Request, err error) {
	p.log.Debug("page refused", "remote", r.RemoteAddr, "path", fmt.Sprintf("%.200s", r.URL.Path), "reason", err)
	w.Header().Set("Vary", "Origin")
	http.Error(w, "403 forbidden: "+err.Error(), http.StatusForbidden)
}

// exposed is an answer of which a page of another origin may read all headers:
// metadata has any names, and a list of names is the only way that holds with
// credentials.
type exposed struct {
	http.ResponseWriter
	listed bool
}

// Unwrap is for http.ResponseController.
func (w *exposed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *exposed) WriteHeader(code int) {
	w.list()
	w.ResponseWriter.WriteHeader(code)
}

func (w *exposed) Write(p []byte) (int, error) {
	w.list()
	return w.ResponseWriter.Write(p)
}

func (w *exposed) Flush() {
	w.list()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *exposed) list() {
	if w.listed {
		return
	}
	w.listed = true
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.Header())) {
		if !strings.HasPrefix(name, "Access-Control-") && !strings.HasPrefix(name, http.TrailerPrefix) {
			names = append(names, name)
		}
	}
	w.Header().Set("Access-Control-Expose-Headers", strings.Join(names, ", "))
}
