package rest

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"oneport/mux/internal/rpc"
)

// newRoute makes a route that calls nothing, of "GET /v1/{name}".
func newRoute(t testing.TB, rule string) *Route {
	t.Helper()
	method, text, _ := strings.Cut(rule, " ")
	tmpl, err := parseTemplate(text)
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	return &Route{Method: &rpc.Method{FullName: "/x.X/" + rule}, HTTPMethod: method, text: text, template: tmpl}
}

func newRouter(t testing.TB, rules []string) *router {
	t.Helper()
	rt := new(router)
	for _, rule := range rules {
		if err := rt.add(newRoute(t, rule)); err != nil {
			t.Fatal(err)
		}
	}
	return rt
}

// route is the rule for a request and what it captures, "" without any.
func (rt *router) route(method, escaped string) string {
	p := new(path)
	if !p.split(escaped) {
		return ""
	}
	r := rt.find(method, p)
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s %s %q", r.HTTPMethod, r.Template(), r.template.captures(nil, p))
}

func TestRouter(t *testing.T) {
	rules := []string{
		"GET /v1/{name=**}", "GET /v1/{name}", "GET /v1/shelves", "GET /v1/{name=shelves/*}", "GET /v1/shelves/{id}/books/{book}",
		"GET /v1/shelves/first", "POST /v1/shelves", "POST /v1/{name=shelves/*}:merge", "POST /v1/{name=**}:merge",
		"POST /v1/{name}", "DELETE /v1/{name=shelves/*}", "HEAD /v1/shelves/first", "* /any/{x}", "GET /any/{y}",
		"GET /files/{path=**}/raw", "GET /files/{path=**}/{kind}/raw", "GET /files/{path=**}", "GET /a%2Fb/{c}", "GET /",
		"GET /v1/{name=shelves/*}:a:b", "GET /v1/shelves/{id}:b",
	}
	for i := range 3 { // whatever their order
		rand.New(rand.NewPCG(1, uint64(i))).Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		rt := newRouter(t, rules)
		for _, tt := range []struct{ method, path, want string }{
			{"GET", "/v1/shelves", `GET /v1/shelves []`},
			{"GET", "/v1/%73helves", `GET /v1/shelves []`},
			{"GET", "/v1/x", `GET /v1/{name} ["x"]`},
			{"GET", "/v1/x/y", `GET /v1/{name=**} ["x/y"]`},
			{"GET", "/v1", `GET /v1/{name=**} [""]`},
			{"GET", "/v1/", `GET /v1/{name=**} [""]`},
			{"GET", "/v1/shelves/", `GET /v1/{name=**} ["shelves/"]`},
			{"GET", "/v1/shelves/first", `GET /v1/shelves/first []`},
			{"HEAD", "/v1/shelves/first", `HEAD /v1/shelves/first []`},
			{"HEAD", "/v1/shelves", `GET /v1/shelves []`},
			{"GET", "/v1/shelves/2", `GET /v1/{name=shelves/*} ["shelves/2"]`},
			{"GET", "/v1/shelves/2/books/3", `GET /v1/shelves/{id}/books/{book} ["2" "3"]`},
			{"GET", "/v1/shelves/2/books", `GET /v1/{name=**} ["shelves/2/books"]`},
			{"POST", "/v1/shelves", `POST /v1/shelves []`},
			{"POST", "/v1/shelves:merge", `POST /v1/{name=**}:merge ["shelves"]`},
			{"POST", "/v1/shelves/1:merge", `POST /v1/{name=shelves/*}:merge ["shelves/1"]`},
			{"POST", "/v1/shelves/1%3Amerge", ``},
			{"POST", "/v1/a:b", `POST /v1/{name} ["a:b"]`},
			{"POST", "/v1/:merge", `POST /v1/{name=**}:merge [""]`},
			{"GET", "/v1/shelves/1:a:b", `GET /v1/{name=shelves/*}:a:b ["shelves/1"]`},
			{"GET", "/v1/shelves/1:c:b", `GET /v1/shelves/{id}:b ["1:c"]`},
			{"DELETE", "/v1/shelves/1", `DELETE /v1/{name=shelves/*} ["shelves/1"]`},
			{"DELETE", "/v1/shelves", ``},
			// One segment is unescaped, of several all but slashes.
			{"GET", "/v1/a%2Fb%20c", `GET /v1/{name} ["a/b c"]`},
			{"GET", "/v1/x/a%2fb%20c%252F", `GET /v1/{name=**} ["x/a%2fb c%2F"]`},
			{"GET", "/v1/shelves/a%2Fb%41", `GET /v1/{name=shelves/*} ["shelves/a%2FbA"]`},
			{"GET", "/a%2fb/c", `GET /a%2Fb/{c} ["c"]`},
			{"GET", "/a/b/c", ``},
			// "*" is for the methods that have no rule of their own.
			{"GET", "/any/1", `GET /any/{y} ["1"]`},
			{"BREW", "/any/1", `* /any/{x} ["1"]`},
			{"HEAD", "/any/1", `GET /any/{y} ["1"]`},
			// What follows "**".
			{"GET", "/files/a/b/raw", `GET /files/{path=**}/{kind}/raw ["a" "b"]`},
			{"GET", "/files/b/raw", `GET /files/{path=**}/{kind}/raw ["" "b"]`},
			{"GET", "/files/raw", `GET /files/{path=**}/raw [""]`},
			{"GET", "/files//raw", `GET /files/{path=**}/raw [""]`},
			{"GET", "/files/a/b", `GET /files/{path=**} ["a/b"]`},
			{"GET", "/files/a//b", `GET /files/{path=**} ["a//b"]`},
			{"GET", "/", `GET / []`},
			{"GET", "//", ``},
			{"GET", "", ``},
			{"OPTIONS", "*", ``},
			// Another place.
			{"GET", "/v1/..", ``},
			{"GET", "/v1/%2e%2E/x", ``},
			{"GET", "/files/./raw", ``},
			{"GET", "/v1/...", `GET /v1/{name} ["..."]`},
			{"POST", "/v1/shelves/..:merge", ``},
			{"POST", "/v1/shelves/%2e:merge", ``},
			{"POST", "/v1/..:merge", `POST /v1/{name} ["..:merge"]`},
			{"POST", "/v1/shelves/...:merge", `POST /v1/{name=shelves/*}:merge ["shelves/..."]`},
		} {
			if got := rt.route(tt.method, tt.path); got != tt.want {
				t.Errorf("%s %s: %s, want %s", tt.method, tt.path, got, tt.want)
			}
		}
		p := new(path)
		p.split("/v1/shelves/first")
		if got, want := rt.methods(p), []string{"DELETE", "GET", "HEAD"}; !slices.Equal(got, want) {
			t.Errorf("methods are %q, want %q", got, want)
		}
	}
}

func TestRouterStreamHasNoHead(t *testing.T) {
	rt := newRouter(t, nil)
	r := newRoute(t, "GET /v1/{name}")
	r.Method.ServerStreams = true
	if err := rt.add(r); err != nil {
		t.Fatal(err)
	}
	p := new(path)
	p.split("/v1/x")
	if got := rt.methods(p); !slices.Equal(got, []string{"GET"}) || rt.find("HEAD", p) != nil {
		t.Errorf("methods are %q, HEAD finds %v; want GET alone", got, rt.find("HEAD", p))
	}
}

func TestRouterConflicts(t *testing.T) {
	for _, tt := range []struct {
		a, b   string
		column int // where b conflicts with a, 0 for nowhere
	}{
		{"GET /v1/{a}", "GET /v1/{b}", 5},
		{"GET /v1/{a}", "GET /v1/*", 5},
		{"GET /v1/{a=x/*}", "GET /v1/x/{b}", 7},
		{"GET /v1/{a=**}", "GET /v1/**", 5},
		{"GET /v1/a", "GET /v1/%61", 5},
		{"GET /v1/a:x", "GET /v1/a:x", 7},
		{"* /v1/a", "* /v1/a", 5},
		{"GET /v1/x/{b}", "GET /v1/{a=x/*}", 10},
		{"GET /v1/x/y/{b}", "GET /v1/{a=x/y}/{b=*}", 16},
		{"GET /", "GET /", 1},
		{"GET /v1/{a}", "POST /v1/{b}", 0},
		{"GET /v1/{a}", "* /v1/{b}", 0},
		{"GET /v1/{a}", "GET /v1/{b=**}", 0},
		{"GET /v1/{a}:x", "GET /v1/{b}:y", 0},
		{"GET /v1/{a}:x", "GET /v1/{b}", 0},
	} {
		rt := newRouter(t, []string{tt.a})
		err := rt.add(newRoute(t, tt.b))
		switch want := fmt.Sprintf("column %d: the same requests as rule", tt.column); {
		case (err != nil) != (tt.column > 0):
			t.Errorf("%s beside %s: %v, want a conflict: %v", tt.b, tt.a, err, tt.column > 0)
		case err != nil && !(strings.HasPrefix(err.Error(), want) && strings.Contains(err.Error(), "/x.X/"+tt.a)):
			t.Errorf("%s beside %s: %v, want %s … /x.X/%[2]s", tt.b, tt.a, err, want)
		}
	}
}

// The route chosen is that of a matcher which tries every template as a regular
// expression, and prefers by comparing them.
func FuzzRouter(f *testing.F) {
	f.Add("GET /v1/{a}\nGET /v1/b\nGET /v1/**", "/v1/b")
	f.Add("GET /**/b\nGET /**/*/b\nGET /*/**", "/a/a/b")
	f.Add("GET /{a=**}:x\nGET /*/b:x:x\nGET /a/*", "/a/b:x:x")
	f.Add("GET /a/**/b/*\nGET /a/*/**/c\nGET /*/b/**:b", "/a/b/b/c:b")
	f.Add("GET /a/**\nGET /a\nGET /\nGET /**", "/a/")
	f.Add("GET /%2F/{a=b/*}\nGET /*/b/%62", "/%2f/%62/b")
	f.Add("GET /{a=**}:x\nGET /{a}", "/%2E.:x")
	f.Add("GET /{a}", "/%2E:")
	f.Fuzz(func(t *testing.T, rules, escaped string) {
		if u, err := url.ParseRequestURI(escaped); err == nil && u.EscapedPath() == escaped {
			checkRouter(t, strings.Split(rules, "\n"), escaped)
		}
	})
}

// The same of templates and paths that have much in common, so that many fit.
func TestRouterProperty(t *testing.T) {
	segments := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "a", "b", "%61", "*", "{*}", "{a/*}", "{*/b}", "**", "{**}", "{a/**}"}), 0, 5)
	verbs := rapid.SampledFrom([]string{"", "", "", ":x", ":x:x", ":y"})
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "a", "b", "b", "%61", "c", "", "a:x", "%2F", ".."}), 0, 6)
	rapid.Check(t, func(t *rapid.T) {
		var rules []string
		for range rapid.IntRange(2, 8).Draw(t, "rules") {
			rule := "GET "
			for i, s := range segments.Draw(t, "segments") {
				if in, ok := strings.CutPrefix(s, "{"); ok {
					s = fmt.Sprintf("{v%d=%s", i, in)
				}
				rule += "/" + s
			}
			rules = append(rules, rule+verbs.Draw(t, "verb"))
		}
		for range 30 {
			checkRouter(t, rules, "/"+strings.Join(parts.Draw(t, "parts"), "/")+verbs.Draw(t, "verb"))
		}
	})
}

// checkRouter compares the route for a GET with that of the other matcher.
func checkRouter(t interface{ Fatalf(string, ...any) }, rules []string, escaped string) {
	rt := new(router)
	var routes []*Route
	for _, rule := range rules[:min(len(rules), 8)] {
		method, text, _ := strings.Cut(rule, " ")
		tmpl, err := parseTemplate(text)
		if err != nil || len(tmpl.segments) > 8 || method == "*" {
			continue
		}
		r := &Route{Method: new(rpc.Method), HTTPMethod: method, text: text, template: tmpl}
		if rt.add(r) == nil {
			routes = append(routes, r)
		}
	}
	p := new(path)
	if !p.split(escaped) || len(p.raw) > 12 {
		return
	}
	slices.SortFunc(routes, prefer)
	want := "none"
	for _, r := range routes {
		last := p.last
		if verb := r.template.verb; verb != "" {
			last, _ = strings.CutSuffix(last, ":"+verb)
		}
		if r.HTTPMethod == "GET" && expression(r.template).MatchString(escaped) && !dots(unescape(last)) {
			want = r.Template()
			break
		}
	}
	got := "none"
	if r := rt.find("GET", p); r != nil {
		got = r.Template()
		for i, c := range r.template.captures(nil, p) {
			if v := r.template.vars[i]; v.end == v.start+1 && r.template.segments[v.start].kind == wildcard && c == "" {
				t.Fatalf("%s by %s: %s is empty", escaped, got, v.path)
			}
		}
	}
	if got != want {
		t.Fatalf("%s among %q: %s, want %s", escaped, rules, got, want)
	}
}

// prefer orders templates, of which both may fit a path.
func prefer(a, b *Route) int {
	if n := len(b.template.verb) - len(a.template.verb); n != 0 {
		return n
	}
	as, bs := a.template.segments, b.template.segments
	for i := range min(len(as), len(bs)) {
		if n := int(as[i].kind) - int(bs[i].kind); n != 0 {
			return n
		}
		if as[i].kind == deep && len(as) != len(bs) {
			return len(bs) - len(as)
		}
	}
	return len(as) - len(bs) // the longer goes on with "**", which is empty then
}

// expression fits the escaped paths that t does.
func expression(t *template) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	if len(t.segments) == 0 {
		b.WriteString("/")
	}
	for i, s := range t.segments {
		switch s.kind {
		case literal:
			b.WriteString("/")
			for i := range len(s.text) {
				c := s.text[i]
				fmt.Fprintf(&b, "(%s|(?i:%%%02x))", regexp.QuoteMeta(string(rune(c))), c)
			}
		case wildcard:
			b.WriteString("/[^/]+")
		case deep:
			if i == 0 && len(t.segments) == 1 {
				b.WriteString("/[^\x00]*") // "/" has no segments
			} else {
				b.WriteString("(/[^/]*)*")
			}
		}
	}
	if t.verb != "" {
		b.WriteString(":" + regexp.QuoteMeta(t.verb))
	}
	return regexp.MustCompile(b.String() + "$")
}
