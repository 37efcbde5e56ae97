package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
)

// request is what is sent, byte for byte, but for Host and Content-Length.
type request struct {
	method string
	target string
	header []string // "Name: value"
	body   string
	what   string // which method it is for
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %q %q", r.method, r.target, r.header, r.body)
}

func (r request) path() string { path, _, _ := strings.Cut(r.target, "?"); return path }

func (r request) query() string { _, query, _ := strings.Cut(r.target, "?"); return query }

// has tells whether a header field is among those of r.
func (r request) has(field string) bool {
	for _, h := range r.header {
		if strings.HasPrefix(h, field) {
			return true
		}
	}
	return false
}

// generator makes requests, most of them valid and some not.
type generator struct{ *rand.Rand }

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

// once in n times it is true.
func (g generator) once(n int) bool { return g.IntN(n) == 0 }

func (g generator) request() request {
	r := g.route()
	switch g.IntN(30) {
	case 0:
		r.method = pick(g, "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "SEARCH")
	case 1:
		r.target += pick(g, "/", "//", "/more", ":verb", ":", "%2F", "%")
	case 2:
		r.target = strings.Replace(r.target, "/v1/", pick(g, "//v1/", "/v1//", "/V1/", "/v2/", "/v1/./", "/v1/../v1/", "/%76%31/"), 1)
	}
	if !strings.Contains(r.target, "?") && !g.once(3) {
		r.target += g.query(r.what)
	}
	if g.once(8) {
		r.header = append(r.header, pick(g, "Test: a", "Grpc-Metadata-Test: a", "Grpc-Metadata-Test-Bin: AAE", "Test-Bin: AAE", "Authorization: Bearer x",
			"Accept-Language: de", "Grpc-Timeout: 10S", "Grpc-Timeout: 10", "Grpc-Timeout: 1x", "Test-Bin: !", "Grpc-Metadata-Test-Bin: !"))
	}
	if g.once(10) {
		r.header = append(r.header, "Accept: "+pick(g, "application/json", "*/*", "text/html, */*;q=0.5", "text/event-stream", "application/x-ndjson", "image/png"))
	}
	return r
}

// route makes a request that is on a route.
func (g generator) route() request {
	switch g.IntN(24) {
	case 0, 1:
		return request{method: "GET", target: "/v1/shelves/" + g.segment() + "/books/" + g.segment(), what: "GetBook"}
	case 2, 3, 4, 5, 20:
		return request{method: "GET", target: "/v1/books/" + g.number(), what: "GetBook"}
	case 6:
		return request{method: "GET", target: "/v1/authors/" + g.segment() + "/" + g.value("genre") + "/" + g.value("due_at"), what: "GetBook"}
	case 7:
		return pick(g, request{method: "SEARCH", target: "/v1/books", what: "GetBook"},
			request{method: pick(g, "GET", "POST", "LOCK"), target: "/v1/any/" + g.number(), what: "GetBook"})
	case 8, 9:
		r := request{method: "GET", target: "/v1/books" + pick(g, "", ":count", ":names", ":first", ":genre"), what: "ListBooks"}
		if !g.once(3) {
			r.target += "?pages=" + pick(g, "1", "3", "0", "-1")
		}
		return r
	case 10, 11, 12:
		return g.withJSON(request{method: "POST", target: "/v1/shelves/" + g.segment() + "/books", what: "CreateBook"}, g.book())
	case 13:
		return g.withJSON(request{method: "PATCH", target: "/v1/shelves/" + g.segment() + "/books/" + g.segment(), what: "UpdateBook"}, g.book())
	case 14:
		field := pick(g, "tags", "labels", "note")
		return g.withJSON(request{method: "PUT", target: "/v1/books/" + g.number() + "/" + field, what: "UpdateBook"},
			pick(g, `["a","b"]`, `{"a":"b"}`, `"a"`, `[]`, `{}`, `null`, `1`))
	case 15:
		return g.withJSON(request{method: "POST", target: "/v1/" + g.deep() + ":merge", what: "MergeBooks"}, g.book())
	case 16:
		return request{method: "DELETE", target: "/v1/shelves/" + g.segment() + "/books/" + g.segment(), what: "DeleteBook"}
	case 17:
		if g.once(2) {
			return pick(g, request{method: "GET", target: "/v1/files/" + g.deep(), what: "Download"},
				request{method: "GET", target: "/v1/parts/" + g.deep(), what: "DownloadParts"})
		}
		return g.withJSON(pick(g, request{method: "PUT", target: "/v1/files/" + g.deep(), what: "Upload"},
			request{method: "POST", target: "/v1/convert", what: "Convert"},
			request{method: "POST", target: "/v1/parts", what: "UploadParts"}),
			pick(g, `{"content_type":"text/plain","data":"YWJj"}`, "abc", ""))
	case 18:
		return request{method: "GET", target: "/v1/watch/" + g.segment() + "?pages=" + pick(g, "0", "2", "3") + pick(g, "", "", "&note=fail%205"), what: "Watch"}
	case 19:
		return g.withJSON(request{method: "POST", target: "/v1/watch", what: "Watch"}, pick(g, `{"pages":2,"tags":["a"]}`, `{"pages":2}`, `{"pages":1,"note":"fail 9"}`))
	case 21:
		return g.withJSON(request{method: "POST", target: "/v1/chat", what: "Chat"},
			pick(g, `{"name":"a"}`+"\n"+`{"name":"b"}`, `{"name":"a"}{"note":"fail 10"}`, g.book(), ""))
	case 22:
		return request{method: "GET", target: "/v1/books/1?note=" + pick(g, "metadata", fmt.Sprintf("fail%%20%d", g.IntN(18))), what: "GetBook"}
	default:
		if !g.once(4) {
			return g.route()
		}
		return request{method: pick(g, "GET", "POST"), target: pick(g, "/v1/nothing", "/", "/v1", "/v1/books/1/2/3", "*"), what: "nothing"}
	}
}

func (g generator) segment() string {
	if g.once(3) {
		return "a"
	}
	return pick(g, "a", "b1", "gr%C3%BC%C3%9F", "a%20b", "a+b", "a%2Fb", "a%2fb", "a:b", "a%3Ab", "a%252Fb", "%25", "a.b", "a;b=c", "~a", "a=b", "-", "%41", "a%3Fb", "%00", "%FF", "a,b", "a@b", "a&b", "")
}

func (g generator) deep() string {
	s := g.segment()
	for range g.IntN(3) {
		s += "/" + g.segment()
	}
	return s
}

func (g generator) number() string {
	if !g.once(6) {
		return "1"
	}
	return pick(g, "1", "42", "-7", "9223372036854775807", "9223372036854775808", "1.5", "x", "0x10", "%31", "+1", "1e3", "01", " ")
}

// values are parameters for fields of a book, valid and not: the first most often.
var values = map[string][]string{
	"name":                        {"a", "", "a b", "ü", "\xff"},
	"id":                          {"1", "-1", "9223372036854775807", "9223372036854775808", "x", "", "1.0"},
	"author.name":                 {"a", ""},
	"author.born":                 {"1900", "2147483648", "x"},
	"author.teacher.teacher.name": {"deep"},
	"author":                      {"a", "{}"},
	"genre":                       {"NOVEL", "POEM", "1", "2", "7", "novel", "", "GENRE_UNSPECIFIED"},
	"tags":                        {"a", "b", "a,b", ""},
	"labels":                      {"1", "2"},
	"labels[a]":                   {"1", "x"},
	"labels[]":                    {"1"},
	"labels[a":                    {"1"},
	"due_at":                      {"2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05+01:00", "2024-01-02", "x", "", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"},
	"loan":                        {"1s", "315576000000s", "315576000000s", "1.5s", "-1s", "1m30s", "3", "x", "", "1h", "315576000000s", "99999999999999s"},
	"mask":                        {"name", "name,author.name", "displayName", "display_name", "", "a b"},
	"subtitle":                    {"a", ""},
	"copies":                      {"1", "x", ""},
	"lent":                        {"true", "false", "1", "T", "yes", ""},
	"new":                         {"true", "false", "0", "TRUE", "no"},
	"cover":                       {"YWJj", "YQ==", "YQ", "_-8=", "/+8=", "!", ""},
	"weight":                      {"1.5", "1e3", "NaN", "Infinity", "-Infinity", "inf", "0x1p4", "x", "", "1e999", "1_0"},
	"price":                       {"1.5", "1e40", "NaN", "x"},
	"pages":                       {"1", "-1", "4294967295", "4294967296"},
	"words":                       {"1", "18446744073709551615", "18446744073709551616"},
	"genres":                      {"NOVEL", "2", "x"},
	"editors":                     {"a"},
	"editors.name":                {"a"},
	"editions":                    {"2024-01-02T03:04:05Z", "x"},
	"chapters[1]":                 {"a"},
	"times[true]":                 {"1s", "x"},
	"times[x]":                    {"1s"},
	"paper":                       {"a"},
	"bits":                        {"1", "x"},
	"spoken.name":                 {"a"},
	"note":                        {"a", ""},
	"extra":                       {`{"a":1}`, "x", "[]"},
	"any":                         {"1", `"a"`, "null", "a", `{"a":[1,true]}`},
	"seal":                        {"YQ==", "!"},
	"score":                       {"1.5", "NaN", "x"},
	"rating":                      {"1.5", "x"},
	"rank":                        {"-1", "x"},
	"edition":                     {"1", "-1"},
	"isbn":                        {"1", "-1"},
	"nothing":                     {"", "{}", "x"},
	"list":                        {"[1]", "x"},
	"delta":                       {"-1", "x"},
	"serial":                      {"1", "-1"},
	"display_name":                {"a"},
	"shownAs":                     {"a"},
	"dueAt":                       {"2024-01-02T03:04:05Z"},
	"unknown":                     {"a"},
	"author.unknown":              {"a"},
	"name.x":                      {"a"},
	"tags[0]":                     {"a"},
	"":                            {"a", ""},
}

// valueNames are the keys of values, in an order that stays, and rightNames those of them
// that a query can set.
var (
	valueNames = sortedKeys(values)
	rightNames = slices.DeleteFunc(sortedKeys(values), func(name string) bool {
		return slices.Contains([]string{"author", "labels[]", "labels[a", "times[x]", "chapters[1]", "editors", "editors.name", "name.x"}, name)
	})
)

func (g generator) value(name string) string {
	return url.PathEscape(g.valueOf(name))
}

func (g generator) valueOf(name string) string {
	if g.once(5) {
		return pick(g, values[name]...)
	}
	return values[name][0]
}

func (g generator) query(what string) string {
	if what == "nothing" {
		return ""
	}
	var params []string
	for range g.IntN(4) {
		name := pick(g, rightNames...)
		if g.once(4) {
			name = pick(g, valueNames...)
		}
		key := url.QueryEscape(name)
		if what == "UpdateBook" {
			key = pick(g, "update_mask", "updateMask", "tags", "labels[a]", "note", "book.id", "book.tags", "book", "book.name")
			params = append(params, key+"="+pick(g, "a", "name", "1"))
			continue
		}
		params = append(params, key+"="+url.QueryEscape(g.valueOf(name)))
		if g.once(16) {
			params = append(params, key+"="+url.QueryEscape(g.valueOf(name)))
		}
	}
	if g.once(25) {
		params = append(params, pick(g, "%zz", "a=%", "&&", "name", "=", "name=a;id=1", "a%00=b", "loan=315576000000s", "loan=315576000000s", "labels=a"))
	}
	if len(params) == 0 {
		return ""
	}
	return "?" + strings.Join(params, "&")
}

// book is the JSON of a book.
func (g generator) book() string {
	if g.once(12) {
		return pick(g, "", "{", "{}", "null", "[]", "1", `"a"`, `{"name":"a"} `, `{"name":"a"}}`, `{"name":"a"}{"name":"b"}`, `{"name":"a",}`, `{name:"a"}`,
			"\xff", "{\"name\":\"\xff\"}", `{"name":"\ud800"}`, " \n{}\n", "\xef\xbb\xbf{}", `{"name":"a","name":"b"}`, "{}x")
	}
	var fields []string
	for range g.IntN(5) {
		if g.once(12) {
			fields = append(fields, pick(g, `"id":5.5`, `"id":"x"`, `"author":{"born":"x"}`, `"tags":"a"`, `"tags":[1]`, `"labels":{"a":"x"}`, `"due_at":"x"`, `"loan":"1m"`, `"mask":"due_at"`, `"new":"true"`, `"cover":"!"`, `"pages":-1`, `"price":1e39`))
			continue
		}
		fields = append(fields, pick(g, `"name":"n"`, `"id":"5"`, `"id":5`, `"id":5.0`, `"id":1e2`, `"author":{"name":"a","born":1}`, `"author":null`, `"author":{"teacher":{"name":"t"}}`,
			`"genre":"POEM"`, `"genre":2`, `"genre":7`, `"genre":"x"`, `"tags":["a","b"]`, `"tags":null`, `"labels":{"a":1}`,
			`"due_at":"2024-01-02T03:04:05Z"`, `"dueAt":"2024-01-02T03:04:05Z"`, `"loan":"1.5s"`, `"mask":"name,dueAt"`,
			`"subtitle":"s"`, `"subtitle":null`, `"copies":"3"`, `"lent":true`, `"new":true`, `"cover":"YWJj"`, `"weight":1.5`, `"weight":"NaN"`, `"weight":"1.5"`,
			`"pages":3`, `"words":"18446744073709551615"`, `"genres":["NOVEL",2]`, `"editors":[{"name":"a"}]`, `"editions":["2024-01-02T03:04:05Z"]`, `"chapters":{"1":{"name":"c"}}`, `"times":{"true":"1s"}`,
			`"paper":"p"`, `"bits":1`, `"spoken":{"name":"s"}`, `"note":"x"`, `"extra":{"a":[1,null]}`, `"any":null`, `"any":[1,"a"]`, `"nothing":{}`, `"list":[1]`,
			`"unknown":1`, `"unknown":{"a":[{}]}`, `"display_name":"d"`, `"shownAs":"d"`, `"displayName":"d"`, `"price":1.25`, `"note":"fail 5"`))
	}
	return "{" + strings.Join(fields, ",") + "}"
}

func (g generator) withJSON(r request, body string) request {
	r.body = body
	if !g.once(12) {
		r.header = append(r.header, "Content-Type: "+pick(g, "application/json", "application/json", "application/json; charset=utf-8"))
	} else if g.once(2) {
		r.header = append(r.header, "Content-Type: "+pick(g, "text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "application/json; charset=latin1", "x", "application/merge-patch+json"))
	}
	return r
}
