package rest

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/prototext"

	pb "oneport/mux/internal/rest/resttest"
	"oneport/mux/internal/rpc"
)

// The error for a rule names the method, the rule, and the column in the template or the
// attribute that is wrong.
func TestRuleErrors(t *testing.T) {
	const of = "google.api.http of /resttest.Library/"
	for _, tt := range []struct{ method, rule, want string }{
		{"GetBook", `get: "/v1/{name=**}"`, ""},
		{"GetBook", `get: "/v1/{author.teacher.born}/{subtitle}/{due_at}/{mask}/{genre}/{cover}"`, ""},
		{"GetBook", `get: "/v1/{name"`, of + `GetBook: rule GET "/v1/{name": column 10: the variable name has no closing }`},
		{"GetBook", `get: "/v1/{title}"`, of + `GetBook: rule GET "/v1/{title}": column 6: resttest.Book has no field "title"`},
		{"GetBook", `get: "/v1/x/{author.x}"`, of + `GetBook: rule GET "/v1/x/{author.x}": column 8: resttest.Author has no field "x"`},
		{"GetBook", `get: "/{name.x}"`, of + `GetBook: rule GET "/{name.x}": column 3: name.x: name is not a message`},
		{"GetBook", `get: "/{tags}"`, of + `GetBook: rule GET "/{tags}": column 3: tags: tags is repeated, which no path can set`},
		{"GetBook", `get: "/{labels}"`, of + `GetBook: rule GET "/{labels}": column 3: labels: labels is repeated, which no path can set`},
		{"GetBook", `get: "/{editors.name}"`, of + `GetBook: rule GET "/{editors.name}": column 3: editors.name: editors is repeated, which no path can set`},
		{"GetBook", `get: "/{author}"`, of + `GetBook: rule GET "/{author}": column 3: author is a resttest.Author, which no path can set`},
		{"GetBook", `get: "/{paper}/{id}/{bits}"`, of + `GetBook: rule GET "/{paper}/{id}/{bits}": column 16: paper and bits are of one oneof, kind, which has one of them`},
		{"GetBook", `get: "/{spoken.name}/{paper}"`, of + `GetBook: rule GET "/{spoken.name}/{paper}": column 17: spoken and paper are of one oneof, kind, which has one of them`},
		{"GetBook", `get: "/{spoken.name}/{spoken.teacher.born}/{note}"`, ""},
		{"UpdateBook", `get: "/{book.paper}/{book.bits}"`, of + `UpdateBook: rule GET "/{book.paper}/{book.bits}": column 16: paper and bits are of one oneof, kind, which has one of them`},
		{"GetBook", `post: "/{id}/{bits}" body: "spoken"`, of + `GetBook: rule POST "/{id}/{bits}": column 8: body: spoken and bits are of one oneof, kind, which has one of them`},
		{"GetBook", `post: "/{spoken.name}" body: "spoken"`, ""},
		{"GetBook", `post: "/{bits}" body: "*"`, ""},
		{"GetBook", `get: ""`, of + `GetBook: rule GET "": column 1: a template begins with /`},
		{"GetBook", `body: "*"`, of + `GetBook: rule  "": no HTTP method; want get, put, post, delete, patch or custom`},
		{"GetBook", `custom { kind: "A B" path: "/" }`, of + `GetBook: rule A B "/": custom: column 2: the kind "A B" is no HTTP method`},
		{"GetBook", `custom { path: "/" }`, of + `GetBook: rule  "/": custom: column 1: the kind "" is no HTTP method`},
		{"GetBook", `get: "/a" body: "*"`, of + `GetBook: rule GET "/a": body: GET has none`},
		{"GetBook", `custom { kind: "HEAD" path: "/a" } body: "*"`, of + `GetBook: rule HEAD "/a": body: HEAD has none`},
		{"GetBook", `delete: "/a" body: "*"`, ""},
		{"GetBook", `post: "/a" body: "x"`, of + `GetBook: rule POST "/a": body: column 1: resttest.Book has no field "x"`},
		{"GetBook", `post: "/a" body: "author.name"`, of + `GetBook: rule POST "/a": body: column 7: want a field of resttest.Book, not one within it`},
		{"ListBooks", `get: "/a" response_body: "x"`, of + `ListBooks: rule GET "/a": response_body: column 1: resttest.Books has no field "x"`},
		{"ListBooks", `get: "/a" response_body: "first.name"`, of + `ListBooks: rule GET "/a": response_body: column 6: want a field of resttest.Books, not one within it`},
		{"ListBooks", `get: "/a" response_body: "x.name"`, of + `ListBooks: rule GET "/a": response_body: column 1: resttest.Books has no field "x.name"`},
		{"Import", `post: "/a"`, of + `Import: rule POST "/a": body: a method that takes a stream has it from the body; want "*" or a field`},
		{"Import", `get: "/a"`, of + `Import: rule GET "/a": body: a method that takes a stream has it from the body; want "*" or a field`},
		{"GetBook", `get: "/a" additional_bindings { get: "/b" additional_bindings { get: "/c" } }`,
			of + `GetBook: rule GET "/b": additional_bindings within additional_bindings`},
		{"GetBook", `get: "/a" additional_bindings { get: "b" }`, of + `GetBook: rule GET "b": column 1: a template begins with /`},
	} {
		rule := new(annotations.HttpRule)
		if err := prototext.Unmarshal([]byte(tt.rule), rule); err != nil {
			t.Fatal(err)
		}
		reg := rpc.NewRegistry(rpc.Config{})
		pb.RegisterLibraryServer(reg, pb.UnimplementedLibraryServer{})
		m, err := reg.Lookup("/resttest.Library/" + tt.method)
		if err != nil {
			t.Fatal(err)
		}
		_, err = routesOfRule(m, m.Descriptor(), rule)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s\n gives %s\n want  %s", tt.rule, got, tt.want)
		}
	}
}

// What can be told only of a request is an error for that: a body or a query that sets
// another member of a oneof than the path does.
func TestOneof(t *testing.T) {
	const rules = `post: "/whole/{bits}" body: "*" additional_bindings { get: "/query/{bits}" } additional_bindings { post: "/field" body: "spoken" }`
	h := handlerOf(t, rules)
	for _, tt := range []struct{ line, body, want string }{
		{"POST /whole/1", `{"id":2}`, `{"id":"2","bits":1}`},
		{"POST /whole/1", `{"bits":2}`, `{"bits":1}`}, // the path goes before the body
		{"POST /whole/1", `{"paper":"a"}`, "bits: paper of the same oneof kind is set"},
		{"GET /query/1?id=2", "", `{"id":"2","bits":1}`},
		{"GET /query/1?paper=a", "", "paper: bits of the same oneof kind is set"},
		{"GET /query/1?spoken.name=a", "", "spoken.name: bits of the same oneof kind is set"},
		{"POST /field", `{"name":"a"}`, `{"spoken":{"name":"a"}}`},
		{"POST /field?paper=a", `{"name":"a"}`, "paper: spoken of the same oneof kind is set"},
		{"POST /field?paper=a", ``, "paper: spoken of the same oneof kind is set"}, // it is there, if empty
	} {
		method, target, _ := strings.Cut(tt.line, " ")
		r := httptest.NewRequest(method, target, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Body.String(); !strings.Contains(got, tt.want) || (w.Code == 200) != (tt.want[0] == '{') || w.Code != 200 && w.Code != 400 {
			t.Errorf("%s %s gives %d %s, want %s", tt.line, tt.body, w.Code, got, tt.want)
		}
	}
}

// handlerOf has the rules for a method that gives back the book it gets.
func handlerOf(t *testing.T, rules string) *Handler {
	t.Helper()
	rule := new(annotations.HttpRule)
	if err := prototext.Unmarshal([]byte(rules), rule); err != nil {
		t.Fatal(err)
	}
	reg := rpc.NewRegistry(rpc.Config{})
	pb.RegisterLibraryServer(reg, mirror{})
	m, err := reg.Lookup("/resttest.Library/GetBook")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := routesOfRule(m, m.Descriptor(), rule)
	if err != nil {
		t.Fatal(err)
	}
	h := New(reg)
	for _, r := range routes {
		if err := h.router.add(r); err != nil {
			t.Fatal(err)
		}
	}
	reg.Freeze()
	return h
}

type mirror struct{ pb.UnimplementedLibraryServer }

func (mirror) GetBook(_ context.Context, b *pb.Book) (*pb.Book, error) { return b, nil }
