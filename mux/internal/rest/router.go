package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// path is the path of a request, cut at its slashes.
type path struct {
	raw      []string // as the request has them; of the last, without the verb
	segments []string // unescaped
	last     string   // the last of raw, with the verb

	few [8]string // where raw begins
}

// paths holds *path, since each request needs some for a moment.
var paths = sync.Pool{New: func() any { return new(path) }}

// newPath returns the path of r, to be released, or nil if it is on no route, whatever
// those are.
func newPath(r *http.Request) *path {
	p := paths.Get().(*path)
	if !p.split(r.URL.EscapedPath()) {
		p.release()
		return nil
	}
	return p
}

func (p *path) release() {
	*p = path{}
	paths.Put(p)
}

// split cuts an escaped path. It reports false for one that is on no route, whatever those
// are.
func (p *path) split(escaped string) bool {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok || rest == "" {
		return ok
	}
	p.raw = p.few[:0]
	for s := range strings.SplitSeq(rest, "/") {
		p.raw = append(p.raw, s)
	}
	p.last = p.raw[len(p.raw)-1]
	p.segments = p.raw
	if strings.Contains(rest, "%") {
		p.segments = make([]string, len(p.raw))
		for i, s := range p.raw {
			p.segments[i] = unescape(s)
		}
	}
	return !slices.ContainsFunc(p.segments, dots)
}

// setVerb takes ":verb" away from the last segment, and nothing for an empty verb. It
// reports false if the path does not end so, or with "..:verb", which is no place.
func (p *path) setVerb(verb string) bool {
	n := len(p.raw)
	if verb == "" {
		if n > 0 && p.raw[n-1] != p.last {
			p.raw[n-1], p.segments[n-1] = p.last, unescape(p.last)
		}
		return true
	}
	text, ok := strings.CutSuffix(p.last, verb)
	if !ok || n == 0 {
		return false
	}
	text, ok = strings.CutSuffix(text, ":")
	segment := unescape(text)
	if !ok || dots(segment) {
		return false
	}
	p.raw[n-1], p.segments[n-1] = text, segment
	return true
}

// router finds the route of a request. Which one it is does not depend on the order in
// which they were added. Of those whose template fits the path and that take the method:
//
//   - one with a verb goes before one without, a longer verb before a shorter;
//   - then, from left to right, a literal before "*" and "*" before "**";
//   - of two that have "**" at the same place, the one with more segments after it;
//   - one for the method before one for all ("*"), and for HEAD, one for HEAD before one
//     for GET.
//
// It is safe for concurrent use once all routes are there.
type router struct {
	root  node
	verbs []string // of all templates, the longest first; "" among them
}

// node is where the templates with the same segments so far go on.
type node struct {
	literals map[string]*node
	wildcard *node
	deep     *node
	routes   map[string][]*Route // of the templates that end here, by verb
}

// add adds a route, unless another one has the same method and a template that fits
// exactly the same paths. The error has the column of the end: there the last chance to
// differ is.
func (rt *router) add(r *Route) error {
	n := &rt.root
	for _, s := range r.template.segments {
		next := &n.wildcard
		switch s.kind {
		case literal:
			if n.literals == nil {
				n.literals = make(map[string]*node)
			}
			child := n.literals[s.text]
			next = &child
			if child == nil {
				child = new(node)
				n.literals[s.text] = child
			}
		case deep:
			next = &n.deep
		}
		if *next == nil {
			*next = new(node)
		}
		n = *next
	}
	verb := r.template.verb
	for _, o := range n.routes[verb] {
		if o.HTTPMethod == r.HTTPMethod {
			return &templateError{r.template.last, fmt.Sprintf("the same requests as rule %s %q of %s", o.HTTPMethod, o.text, o.Method.FullName)}
		}
	}
	if n.routes == nil {
		n.routes = make(map[string][]*Route)
	}
	n.routes[verb] = append(n.routes[verb], r)
	if !slices.Contains(rt.verbs, verb) {
		rt.verbs = append(rt.verbs, verb)
		slices.SortFunc(rt.verbs, func(a, b string) int {
			if len(a) != len(b) {
				return len(b) - len(a)
			}
			return strings.Compare(a, b)
		})
	}
	return nil
}

// find returns the route of a request and has its verb taken away from p, or nil.
func (rt *router) find(method string, p *path) *Route {
	var found *Route
	rt.walk(p, func(routes []*Route) bool {
		found = choose(routes, method)
		return found != nil
	})
	return found
}

// choose takes the route for an HTTP method of those with one template.
func choose(routes []*Route, method string) *Route {
	want := []string{method, "*"}
	if method == http.MethodHead {
		want = []string{method, http.MethodGet, "*"}
	}
	for _, m := range want {
		for _, r := range routes {
			if r.HTTPMethod == m && (method != http.MethodHead || r.takesHead()) {
				return r
			}
		}
	}
	return nil
}

// takesHead tells whether a HEAD may run the method for the header of its answer, which
// of a stream has no end.
func (r *Route) takesHead() bool { return r.HTTPMethod == http.MethodHead || !r.Method.ServerStreams }

// fits tells whether there is a route for p, by whatever HTTP method.
func (rt *router) fits(p *path) bool {
	fits := false
	rt.walk(p, func([]*Route) bool {
		fits = true
		return true
	})
	return fits
}

// methods returns the HTTP methods that the routes of a path take, sorted.
func (rt *router) methods(p *path) []string {
	var methods []string
	rt.walk(p, func(routes []*Route) bool {
		for _, r := range routes {
			methods = append(methods, r.HTTPMethod)
			if r.HTTPMethod == http.MethodGet && r.takesHead() {
				methods = append(methods, http.MethodHead)
			}
		}
		return false
	})
	slices.Sort(methods)
	return slices.Compact(methods)
}

// walk calls f for the routes of each template that fits p, in order of preference, until
// f returns true.
func (rt *router) walk(p *path, f func([]*Route) bool) {
	for _, verb := range rt.verbs {
		if p.setVerb(verb) && rt.root.walk(p.segments, verb, f) {
			return
		}
	}
}

func (n *node) walk(segments []string, verb string, f func([]*Route) bool) bool {
	if len(segments) == 0 {
		if routes := n.routes[verb]; len(routes) > 0 && f(routes) {
			return true
		}
	} else {
		if next := n.literals[segments[0]]; next != nil && next.walk(segments[1:], verb, f) {
			return true
		}
		if n.wildcard != nil && segments[0] != "" && n.wildcard.walk(segments[1:], verb, f) {
			return true
		}
	}
	if n.deep == nil {
		return false
	}
	// What follows "**" has a fixed number of segments, so the fewer it takes the longer
	// the template.
	for i := range len(segments) + 1 {
		if n.deep.walk(segments[i:], verb, f) {
			return true
		}
	}
	return false
}
