package rest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"oneport/mux/internal/rpc"
)

// What requests say comes to the handler, which gives it back.
func TestBinding(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	for _, tt := range []struct{ line, body, want string }{
		// Paths.
		{"GET /v1/shelves/1/books/2", "", `{"name":"shelves/1/books/2"}`},
		{"GET /v1/shelves/a%2Fb/books/%C3%A9", "", `{"name":"shelves/a%2Fb/books/é"}`},
		{"GET /v1/books/7", "", `{"id":"7"}`},
		{"GET /v1/books/-9223372036854775808", "", `{"id":"-9223372036854775808"}`},
		{"GET /v1/authors/x/NOVEL/2020-02-30T00:00:00Z", "", invalid("due_at", `\"2020-02-30T00:00:00Z\" is not a time such as 2006-01-02T15:04:05Z`)},
		{"GET /v1/authors/x/2/2020-02-03T04:05:06.7Z", "", `{"author":{"name":"authors/x"},"genre":"POEM","dueAt":"2020-02-03T04:05:06.700Z"}`},
		{"SEARCH /v1/books?id=1", "", `{"id":"1"}`},
		{"REPORT /v1/any/1", "", `{"id":"1"}`},
		{"GET /v1/books/x", "", invalid("id", `\"x\" is not an integer of 64 bits`)},
		{"GET /v1/books/1.0", "", invalid("id", `\"1.0\" is not an integer of 64 bits`)},
		{"DELETE /v1/shelves/1/books/2", "", `{}`},

		// Bodies.
		{"POST /v1/shelves/1/books", `{"name":"x","id":"3","unknown":1}`, `{"name":"shelves/1","id":"3"}`},
		{"POST /v1/shelves/1/books", ``, `{"name":"shelves/1"}`},
		{"POST /v1/shelves/1/books?id=4", `{}`, `{"name":"shelves/1"}`},
		{"POST /v1/a/b:merge", `{"author":{"born":1}}`, `{"name":"a/b","author":{"born":1}}`},
		{"PATCH /v1/shelves/1/books/2?updateMask=displayName,author.born&note=n&book.id=4", `{"id":3,"name":"x"}`,
			`{"book":{"name":"shelves/1/books/2","id":"3"},"updateMask":"displayName,author.born","note":"n"}`},
		{"PATCH /v1/shelves/1/books/2?update_mask=display_name", ``,
			`{"book":{"name":"shelves/1/books/2"},"updateMask":"displayName"}`},
		{"PUT /v1/books/5/tags", `["a","b"]`, `{"book":{"id":"5"},"tags":["a","b"]}`},
		{"PUT /v1/books/5/labels", ` {"a":"b"} `, `{"book":{"id":"5"},"labels":{"a":"b"}}`},
		{"PUT /v1/books/5/note", `"n"`, `{"book":{"id":"5"},"note":"n"}`},
		{"PUT /v1/books/5/note", `"n","tags":["a"]`, invalidIn("body", "note", "line 1, column 4", `invalid character ',' after top-level value`)},
		{"PUT /v1/books/5/note", "\n\"n", invalidIn("body", "note", "line 2, column 3", `unexpected end of JSON input`)},
		{"POST /v1/shelves/1/books", "{\n", failed(3, `body (line 2, column 1): unexpected EOF`)},
		{"PUT /v1/books/5/note", `"n"},"x":{"a":1`, invalidIn("body", "note", "line 1, column 4", `invalid character '}' after top-level value`)},
		{"POST /v1/shelves/1/books", `{"author":{"teacher":{"born":"x"}}}`,
			invalidIn("body", "author.teacher.born", "line 1, column 30", `invalid value for int32: \"x\"`)},
		{"POST /v1/shelves/1/books", "{\"name\":\"é\",\n \"editors\":[{},{\"born\":1},\n{\"born\":[]}]}",
			invalidIn("body", "editors[2].born", "line 3, column 9", `invalid value for int32: [`)},
		{"PATCH /v1/shelves/1/books/2", `{"author":{"born":"x"}}`,
			invalidIn("body", "book.author.born", "line 1, column 19", `invalid value for int32: \"x\"`)},
		{"POST /v1/shelves/1/books", `{"genre":"PLAY"}`, `{"name":"shelves/1"}`}, // unknown names are ignored, of values too
		{"POST /v1/shelves/1/books", `{"genres":["NOVEL","PLAY","POEM"],"genre":7}`, `{"name":"shelves/1","genre":7,"genres":["NOVEL","POEM"]}`},
		{"POST /v1/shelves/1/books", `{"id":1,"id":2}`, invalidIn("body", "id", "line 1, column 9", `duplicate field \"id\"`)},
		{"POST /v1/shelves/1/books", `{"id":1`, failed(3, `body (line 1, column 8): unexpected EOF`)},
		{"POST /v1/shelves/1/books", `[]`, failed(3, `body (line 1, column 1): syntax error: unexpected token [`)},
		{"PUT /v1/books/5/tags", `["a",1]`, invalidIn("body", "tags[1]", "line 1, column 6", `invalid value for string: 1`)},
		{"PUT /v1/books/5/tags", "[\"é\",\n\"b\", 1]", invalidIn("body", "tags[2]", "line 2, column 6", `invalid value for string: 1`)},
		{"PUT /v1/books/5/tags", `"a"`, invalidIn("body", "tags", "line 1, column 1", `syntax error: unexpected token \"a\"`)},
		{"PUT /v1/books/5/labels", `{"a":1}`, invalidIn("body", "labels.a", "line 1, column 6", `invalid value for string: 1`)},
		{"PATCH /v1/shelves/1/books/2", `{"editors":[{},{"born":{}}]}`, invalidIn("body", "book.editors[1].born", "line 1, column 24", `invalid value for int32: {`)},
		{"PATCH /v1/shelves/1/books/2", `[]`, invalidIn("body", "book", "line 1, column 1", `syntax error: unexpected token [`)},
		{"POST /v1/shelves/1/books", `{"name":"\ud800"}`, invalidIn("body", "name", "line 1, column 10", `half of a surrogate pair`)},
		{"PATCH /v1/shelves/1/books/2", `{"tags":["\u00e9","\ud800a"]}`, invalidIn("body", "book.tags[1]", "line 1, column 20", `half of a surrogate pair`)},
		{"PUT /v1/books/5/tags", `["\ud800"]`, invalidIn("body", "tags[0]", "line 1, column 3", `half of a surrogate pair`)},
		{"POST /v1/shelves/1/books", `{"author":` + strings.Repeat(`{"teacher":`, 100) + "{}" + strings.Repeat("}", 101), failed(3, `body: exceeded max recursion depth`)},

		// Answers.
		{"GET /v1/books?pages=2", "", `[{"name":"a"},{"name":"a"}]`},
		{"GET /v1/books", "", `[]`},
		{"GET /v1/books:count?pages=1", "", `"1"`},
		{"GET /v1/books:count", "", `"0"`},
		{"GET /v1/books:names?pages=1", "", `{"a":"A"}`},
		{"GET /v1/books:names", "", `{}`},
		{"GET /v1/books:first?pages=1", "", `{"name":"a"}`},
		{"GET /v1/books:first", "", `{}`},
		{"GET /v1/books:genre?pages=1", "", `"POEM"`},
		{"GET /v1/books:genre", "", `"GENRE_UNSPECIFIED"`},
	} {
		got := text(t, serve(h, request(tt.line, tt.body)))
		if got != tt.want {
			t.Errorf("%s %s\n gives %s\n want  %s", tt.line, tt.body, got, tt.want)
		}
	}
}

func TestQuery(t *testing.T) {
	h := newHandler(t, new(library), rpc.Config{})
	const malformed = "\x00"
	for _, tt := range []struct{ query, want, err string }{
		{"", `{}`, ""},
		{"&&", `{}`, ""},
		{"nope=1&x.y=2&id.x=3&labels.key=1", `{}`, "labels.key: labels is repeated; a query cannot set what is in it"},
		{"nope=1&x.y=2&id.x=3&name[a", `{}`, ""},
		{"name=a+b%26c", `{"name":"a b&c"}`, ""},
		{"name=", `{}`, ""},
		{"name", `{}`, ""},
		{"name=a=b", `{"name":"a=b"}`, ""},
		{"name=%ff", ``, `name: is not UTF-8`},
		{"name=%zz", ``, `the query is malformed: \"name=%zz\"`},
		{"name=a&name=b", ``, `name: is there twice`},
		{"shownAs=a", `{"shownAs":"a"}`, ""},
		{"display_name=a", `{"shownAs":"a"}`, ""},
		{"display_name=a&shownAs=b", ``, "shownAs: is there twice"},
		{"displayName=a", `{}`, ""},
		{"note=", `{"note":""}`, ""},

		{"id=1", `{"id":"1"}`, ""},
		{"id=9223372036854775808", ``, `id: \"9223372036854775808\" is not an integer of 64 bits`},
		{"id=", ``, `id: \"\" is not an integer of 64 bits`},
		{"pages=4294967295", `{"pages":4294967295}`, ""},
		{"pages=4294967296", ``, `pages: \"4294967296\" is not an unsigned integer of 32 bits`},
		{"pages=-1", ``, `pages: \"-1\" is not an unsigned integer of 32 bits`},
		{"words=18446744073709551615&delta=-5&serial=6", `{"words":"18446744073709551615","delta":-5,"serial":"6"}`, ""},
		{"words=-1", ``, `words: \"-1\" is not an unsigned integer of 64 bits`},
		{"delta=2147483648", ``, `delta: \"2147483648\" is not an integer of 32 bits`},
		{"weight=1e3&price=-0.5", `{"weight":1000,"price":-0.5}`, ""},
		{"weight=NaN&price=-Infinity", `{"weight":"NaN","price":"-Infinity"}`, ""},
		{"weight=nan", ``, `weight: \"nan\" is not a number`},
		{"weight=0x1p4", ``, `weight: \"0x1p4\" is not a number`},
		{"weight=1_000", ``, `weight: \"1_000\" is not a number`},
		{"weight=", ``, `weight: \"\" is not a number`},
		{"price=1e40", ``, `price: \"1e40\" is not a number`},
		{"new=true", `{"new":true}`, ""},
		{"new=1", `{"new":true}`, ""},
		{"new=no", ``, `new: \"no\" is not true or false`},
		{"cover=aGk_&seal=aGk/", `{"cover":"aGk/","seal":"aGk/"}`, ""},
		{"cover=aA&seal=aA%3D%3D", `{"cover":"aA==","seal":"aA=="}`, ""},
		{"cover=a", ``, `cover: \"a\" is not base64`},
		{"genre=NOVEL", `{"genre":"NOVEL"}`, ""},
		{"genre=2", `{"genre":"POEM"}`, ""},
		{"genre=3", ``, `genre: \"3\" is no value of resttest.Genre`},
		{"genre=novel", ``, `genre: \"novel\" is no value of resttest.Genre`},

		{"tags=a&tags=b&tags=", `{"tags":["a","b",""]}`, ""},
		{"genres=NOVEL&genres=2", `{"genres":["NOVEL","POEM"]}`, ""},
		{"genres=NOVEL&genres=x", ``, `genres: \"x\" is no value of resttest.Genre`},
		{"editions=2020-01-01T00:00:00Z", `{"editions":["2020-01-01T00:00:00Z"]}`, ""},
		{"editors=x", ``, `editors: is a resttest.Author, which has no text; name a field of it`},
		{"editors.name=x", ``, `editors.name: editors is repeated; a query cannot set what is in it`},
		{"author=x", ``, `author: is a resttest.Author, which has no text; name a field of it`},
		{"author.name=x&author.teacher.name=y&author.teacher.teacher.born=1",
			`{"author":{"name":"x","teacher":{"name":"y","teacher":{"born":1}}}}`, ""},
		{"author.teacher.born=x", ``, `author.teacher.born: \"x\" is not an integer of 32 bits`},
		{"author" + strings.Repeat(".teacher", 98) + ".born=1", ``, malformed},
		{"author" + strings.Repeat(".teacher", 99) + ".born=1", `{}`, ""}, // no such field, as if there were none so deep

		{"labels[a]=1&labels[b%5D]=2", `{"labels":{"a":1,"b]":2}}`, ""},
		{"labels[a]=1&labels[a]=2", ``, `labels[a]: is there twice`},
		{"labels[a]=x", ``, `labels[a]: \"x\" is not an integer of 32 bits`},
		{"times[%ff]=1s", ``, `times[?]: \"\\xff\" is not true or false`},
		{"labels=x", ``, `labels: is a map; write labels[key]=value`},
		{"name[a]=x", ``, `name[a]: is not a map`},
		{"chapters[x]=x", ``, `chapters[x]: \"x\" is not an integer of 32 bits`},
		{"chapters[1]=x", ``, `chapters[1]: is a resttest.Author, which has no text; name a field of it`},
		{"times[true]=1m&times[1]=2m", ``, `times[1]: is there twice`},
		{"times[true]=1m&times[false]=2m", `{"times":{"false":"120s","true":"60s"}}`, ""},
		{"times[true]=1m", `{"times":{"true":"60s"}}`, ""},

		{"due_at=2020-01-02T03:04:05%2B01:00", `{"dueAt":"2020-01-02T02:04:05Z"}`, ""},
		{"due_at=yesterday", ``, `due_at: \"yesterday\" is not a time such as 2006-01-02T15:04:05Z`},
		{"loan=1.5s", `{"loan":"1.500s"}`, ""},
		{"loan=-1m30s", `{"loan":"-90s"}`, ""},
		{"loan=315576000000s", `{"loan":"315576000000s"}`, ""},
		{"loan=315576000001s", ``, `loan: \"315576000001s\" is not a duration such as 1.5s`},
		{"loan=5", ``, `loan: \"5\" is not a duration such as 1.5s`},
		{"mask=a,b.cD", `{"mask":"a,b.cD"}`, ""},
		{"mask=a,display_name", `{"mask":"a,displayName"}`, ""},
		{"mask=", `{"mask":""}`, ""},
		{"mask=a,", ``, `mask: \"\" is no path of fields`},
		{"mask=0", ``, `mask: \"0\" is no path of fields`},
		{"subtitle=x&copies=2&lent=false", `{"subtitle":"x","copies":"2","lent":false}`, ""},
		{"score=1.5&rating=2&rank=-3&edition=4&isbn=5", `{"score":1.5,"rating":2,"rank":-3,"edition":4,"isbn":"5"}`, ""},
		{"copies=x", ``, `copies: \"x\" is not an integer of 64 bits`},
		{"copies.value=3", `{"copies":"3"}`, ""},
		{`extra={"a":[1]}&any="x"&list=[1]`, `{"extra":{"a":[1]},"any":"x","list":[1]}`, ""},
		{"any=", ``, `any: \"\" is not JSON for it`},
		{"extra=[]", ``, `extra: \"[]\" is not JSON for it`},
		{"nothing=", `{"nothing":{}}`, ""},
		{"nothing={}", `{"nothing":{}}`, ""},
		{"nothing=1", ``, `nothing: \"1\" is not {}`},

		{"paper=a", `{"paper":"a"}`, ""},
		{"paper=a&bits=1", ``, `bits: paper of the same oneof kind is set`},
		{"paper=a&spoken.name=x", ``, `spoken.name: paper of the same oneof kind is set`},
		{"spoken.name=a&spoken.born=1", `{"spoken":{"name":"a","born":1}}`, ""},
		{"bits=0", `{"bits":0}`, ""},
		{"bits=0&bits=1", ``, `bits: is there twice`},
	} {
		r := request("SEARCH /v1/books", "")
		r.URL = &url.URL{Path: "/v1/books", RawQuery: tt.query}
		res := serve(h, r)
		got, want := text(t, res), tt.want
		code := http.StatusOK
		if tt.err == malformed {
			if res.StatusCode != code {
				t.Errorf("%s: %s", tt.query, got)
			}
			continue
		}
		if tt.err != "" {
			want, code = failed(codes.InvalidArgument, tt.err), http.StatusBadRequest
			if field, description, _ := strings.Cut(tt.err, ": "); field != "the query is malformed" {
				want = invalid(field, description)
			}
		}
		if got != want || res.StatusCode != code {
			t.Errorf("%s\n gives %d %s\n want  %d %s", tt.query, res.StatusCode, got, code, want)
		}
	}
}

// A query, and what a path or a body has, makes no handler panic, and what comes through
// is a message that can be encoded.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"name=a", "author.teacher.born=1&tags=a&tags=b", "labels[a]=1", "times[true]=1m&chapters[1]=x", "mask=a,b.cD",
		`any={"a":[1]}&extra={}&list=[]`, "paper=a&bits=1", "due_at=2020-01-02T03:04:05Z&loan=1.5s", "name=%ff", "a%5Bb", "copies.value=3&copies=4"} {
		f.Add(s, "x", "{}")
	}
	f.Add("note=a", "1", `{"id":1,"author":{"born":"x"}}`)
	h := newHandler(f, new(library), rpc.Config{})
	f.Fuzz(func(t *testing.T, query, segment, body string) {
		for _, r := range []*http.Request{
			request("SEARCH /v1/books", ""), request("GET /v1/books/x", ""), request("PATCH /v1/shelves/1/books/2", body), request("POST /v1/shelves/1/books", body),
			request("POST /v1/chat", body),
		} {
			r.URL.RawQuery = query
			if r.Method == "GET" {
				r.URL.Path = "/v1/books/" + segment
			}
			res := serve(h, r)
			b := text(t, res)
			if strings.Contains(b, "FieldMask.paths contains irreversible value") {
				continue // such as "a__b", which has no JSON
			}
			if res.StatusCode != 200 && res.StatusCode != 400 && (res.StatusCode != 404 || r.Method != "GET") {
				t.Fatalf("%s %s %q: %s %s", r.Method, r.URL, body, res.Status, b)
			}
			if r.URL.Path != "/v1/chat" && !json.Valid([]byte(b)) {
				t.Fatalf("%s %s %q: %s", r.Method, r.URL, body, b)
			}
		}
	})
}
