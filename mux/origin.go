package mux

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/peer"
)

// originPolicy decides which web pages may reach this server across origins
// (RFC 6454): by WebSocket here, by HTTP in cors.go. Browsers let any page open a
// WebSocket anywhere and send cookies along; the Origin header is the only thing
// that tells whose page it is.
type originPolicy struct {
	allowed []string // normalised by parseOrigin, or "*"
	csrf    *http.CrossOriginProtection
	log     *slog.Logger
	strange *sync.Once // warns of the first call that strangeHost refuses
}

func newOriginPolicy(origins []string, log *slog.Logger) originPolicy {
	p := originPolicy{csrf: http.NewCrossOriginProtection(), log: log, strange: new(sync.Once)}
	for _, o := range origins {
		if norm, err := parseOrigin(o); err == nil {
			o = norm
			// What parseOrigin takes this does.
			_ = p.csrf.AddTrustedOrigin(o)
		}
		p.allowed = append(p.allowed, o)
	}
	return p
}

// any tells whether all origins are allowed.
func (p originPolicy) any() bool { return slices.Contains(p.allowed, "*") }

// check returns nil if the page that sent r may do so: it is of this very
// origin (scheme, host and port) or of an allowed one, or r comes from a program
// and not from a page. The error is safe for the client and names the cure.
func (p originPolicy) check(r *http.Request) error {
	values := r.Header["Origin"]
	if len(values) == 0 {
		if len(r.Header["Cookie"]) > 0 {
			return fmt.Errorf("a request with a cookie needs an Origin header")
		}
		return nil
	}
	if p.any() {
		return nil
	}
	origin, err := parseOrigin(values[0])
	if err != nil || len(values) > 1 {
		return fmt.Errorf("the Origin header is not one origin such as https://example.com")
	}
	if self, err := parseOrigin(scheme(r) + "://" + r.Host); err == nil && self == origin && !rebound(r) {
		return nil
	}
	if slices.Contains(p.allowed, origin) {
		return nil
	}
	return notAllowed(origin)
}

// guard lets a request through to next if the policy does, else answers 403.
func (p originPolicy) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.check(r); err != nil {
			p.forbid(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rebound tells whether r may come from a page whose name somebody has pointed at
// this machine, to have it pass for this server's own: the connection is to a
// loopback address, but the host is neither an address, nor a name that always
// means it (RFC 6761 §6.3), nor this machine's own. Browsers always name one.
func rebound(r *http.Request) bool {
	// In the order of what they cost: os.Hostname asks the kernel.
	u := url.URL{Host: strings.ToLower(r.Host)}
	host := u.Hostname()
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	p, ok := peer.FromContext(r.Context())
	if !ok || p.LocalAddr == nil {
		return false
	}
	local, err := netip.ParseAddrPort(p.LocalAddr.String())
	if err != nil || !local.Addr().Unmap().IsLoopback() {
		return false
	}
	own, _ := os.Hostname()
	return host != strings.ToLower(own)
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// parseOrigin checks and normalises a serialised origin (RFC 6454 §6.2): lower
// case, without the default port of its scheme.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Hostname() == "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("%.200q is not an origin: want scheme://host or scheme://host:port", s)
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r == '*' || r > '~' }) {
		return "", fmt.Errorf("%.200q is no origin that a browser sends: it has no wildcards, and a name beyond ASCII in its xn-- form", s)
	}
	sch, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch sch {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return sch + "://" + strings.TrimSuffix(host, ":"), nil
}
