package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// difference is one that is meant to be there. It says what ours is then, since anything
// would do otherwise: by what grpc-gateway answers to this request or to another that means
// the same, or by the request itself.
type difference struct {
	name   string
	reason string
	is     func(c comparison) bool
}

// comparison is a request and the answers of both.
type comparison struct {
	request
	ours, theirs answer

	send func(request) comparison // another request
}

// explain returns the first difference that is that of two answers.
func (c comparison) explain() *difference {
	for _, d := range differences() {
		if d.is(c) {
			return &d
		}
	}
	return nil
}

// like tells whether ours is what it is for another request, and that what it has to be,
// once both went through edit. The other one has to be nearer to what grpc-gateway takes,
// or there would be no end.
func (c comparison) like(r request, edit func(*answer)) bool {
	if reflect.DeepEqual(r, c.request) {
		return false
	}
	other := c.send(r)
	if !other.ours.equal(other.theirs) && other.explain() == nil {
		return false
	}
	ours := c.ours
	if edit != nil {
		ours.body, other.ours.body = clone(ours.body), clone(other.ours.body)
		edit(&ours)
		edit(&other.ours)
	}
	return ours.equal(other.ours)
}

// clone copies JSON values.
func clone(v any) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = clone(v[i])
		}
		return c
	case map[string]any:
		c := make(map[string]any)
		for name := range v {
			c[name] = clone(v[name])
		}
		return c
	}
	return v
}

// replace replaces within all strings of the body.
func (a *answer) replace(oldnew ...string) {
	b, err := json.Marshal(a.body)
	if err != nil {
		panic(err) // it is of JSON
	}
	d := json.NewDecoder(strings.NewReader(strings.NewReplacer(oldnew...).Replace(string(b))))
	d.UseNumber()
	a.body = nil
	if err := d.Decode(&a.body); err != nil {
		a.body = err.Error()
	}
}

// fails tells whether an answer is an error that the handler has not made, with a status
// of HTTP: without details, but for the field that is wrong, which its text names as well.
func (a answer) fails(status int) bool {
	text, _ := a.only()["message"].(string)
	details, ok := a.only()["details"].([]any)
	if a.status != status || a.contentType != "application/json" || text == "" || !ok {
		return false
	}
	return !slices.ContainsFunc(details, func(d any) bool {
		violations, _ := message(d)["fieldViolations"].([]any)
		if message(d)["@type"] != "type.googleapis.com/google.rpc.BadRequest" || len(violations) != 1 {
			return true
		}
		v := message(violations[0])
		return !strings.Contains(text, fmt.Sprint(v["field"])) || !strings.HasSuffix(text, fmt.Sprintf(": %v", v["description"]))
	})
}

// refuses is fails with a code of gRPC and a word of the text.
func (a answer) refuses(status, code int, word string) bool {
	text, _ := a.only()["message"].(string)
	return a.fails(status) && a.only()["code"] == json.Number(fmt.Sprint(code)) && strings.Contains(text, word)
}

// nowhere tells whether ours is the answer for a path that is nobody's.
func (c comparison) nowhere() bool {
	return c.ours.status == 404 && c.ours.contentType == "text/plain" && (strings.HasPrefix(c.ours.text, "404 page not found") || c.method == "HEAD")
}

// stream is what a stream has in lines, in whichever of our forms it is; nil if it is in none.
func (c comparison) stream() []any {
	switch c.ours.contentType {
	case "application/x-ndjson":
		values, _ := c.ours.body.([]any)
		return values
	case "application/json":
		if c.has("Accept: application/json") {
			return arrayValues(c.ours.text)
		}
	case "text/event-stream":
		if c.has("Accept: text/event-stream") {
			return eventValues(c.ours.text)
		}
	}
	return nil
}

// arrayValues has those of an array that ends, or that an error ends.
func arrayValues(text string) []any {
	complete := strings.HasSuffix(text, "]\n")
	if !complete {
		text += "]"
	}
	lines := []any{}
	values, _ := jsonValues([]byte(text)).([]any)
	if len(values) != 1 {
		return nil
	}
	array, ok := values[0].([]any)
	if !ok || !complete && len(array) == 0 {
		return nil
	}
	for i, v := range array {
		if m, ok := v.(map[string]any); ok && !complete && i == len(array)-1 {
			if m["error"] == nil {
				return nil
			}
			return append(lines, m)
		}
		lines = append(lines, map[string]any{"result": v})
	}
	return lines
}

// eventValues has those of events that are counted from 1 and end with the status.
func eventValues(text string) []any {
	lines := []any{}
	blocks := strings.Split(text, "\n\n")
	for i, block := range blocks {
		fields, data, _ := strings.Cut(block, "data: ")
		values, _ := jsonValues([]byte(data)).([]any)
		if len(values) != 1 {
			return nil
		}
		last := i == len(blocks)-2 && blocks[i+1] == ""
		status, _ := values[0].(map[string]any)
		switch {
		case !last && fields == fmt.Sprintf("id: %d\n", i+1):
			lines = append(lines, map[string]any{"result": values[0]})
		case last && fields == "event: status\nid: end\n" && status["code"] == json.Number("0"):
			return lines
		case last && fields == "event: status\n" && status["code"] != json.Number("0"):
			return append(lines, map[string]any{"error": values[0]})
		default:
			return nil
		}
	}
	return nil
}

func (r request) contentType() string {
	for _, h := range r.header {
		if t, ok := strings.CutPrefix(h, "Content-Type: "); ok {
			return t
		}
	}
	return ""
}

// isJSON tells whether the body is said to be JSON in UTF-8.
func (r request) isJSON() bool {
	t, params, err := mime.ParseMediaType(r.contentType())
	return err == nil && t == "application/json" && (params["charset"] == "" || params["charset"] == "utf-8")
}

// with returns r with another path and query.
func (r request) with(path, query string) request {
	r.target = path
	if query != "" {
		r.target += "?" + query
	}
	return r
}

// without returns r without the parameters of a query that begin so.
func (r request) without(prefix string) request {
	params := slices.DeleteFunc(strings.Split(r.query(), "&"), func(p string) bool { return strings.HasPrefix(p, prefix) })
	return r.with(r.path(), strings.Join(params, "&"))
}

// replacePath returns r with replacements in its path.
func (r request) replacePath(oldnew ...string) request {
	return r.with(strings.NewReplacer(oldnew...).Replace(r.path()), r.query())
}

// unnamed are fields of a body that a book has not, or not by that name.
var unnamed = regexp.MustCompile(`"unknown":(1|\{"a":\[\{\}\]\}),?|"displayName":"d",?`)

// seen is what the handler sees of the metadata of r.
func (r request) seen() []any {
	var tags []any
	for _, key := range []string{"Test", "Test-Bin", "Authorization", "Accept-Language"} {
		var values []string
		for _, h := range r.header {
			if v, ok := strings.CutPrefix(h, key+": "); ok && key == "Test-Bin" {
				b, _ := base64.RawStdEncoding.DecodeString(v)
				values = append(values, string(b))
			} else if ok {
				values = append(values, v)
			}
		}
		tags = append(tags, fmt.Sprintf("%s %q", strings.ToLower(key), values))
	}
	return tags
}

const wordsOfError = "words of an error"

// differences are in the order in which they are looked for.
func differences() []difference {
	return []difference{
		{
			name:   wordsOfError,
			reason: "the field is named, and what would be right; google.rpc.BadRequest among the details has it for programs",
			is: func(c comparison) bool {
				return c.ours.fails(c.theirs.status) && c.theirs.fails(c.ours.status) && c.ours.only()["code"] == c.theirs.only()["code"]
			},
		},
		{
			name:   "no path of a rule",
			reason: "it is the program's, or of one of its pages; http.ServeMux, which answers then, redirects from // and /./",
			is: func(c comparison) bool {
				clean := !strings.Contains(c.path(), "//") && !strings.Contains(c.path(), "/.")
				return c.nowhere() && (c.theirs.status == 404 || c.theirs.status == 501) ||
					c.ours.status == 307 && !clean ||
					slices.Contains([]string{"*", "/", "/%2F"}, c.path()) && c.ours.contentType != "application/json" && (c.theirs.status == 404 || c.theirs.status == 400)
			},
		},
		{
			name:   "empty segment",
			reason: "is none: * takes one, and a path with / at its end is another one than without",
			is: func(c comparison) bool {
				return strings.HasSuffix(c.path(), "/") && c.nowhere()
			},
		},
		{
			name:   "verb behind an empty segment",
			reason: "** takes any, and so the last one can be empty",
			is: func(c comparison) bool {
				return c.theirs.fails(404) && c.like(c.replacePath("/:", "/ZZ:"), func(a *answer) { a.replace("ZZ", "") })
			},
		},
		{
			name:   "HTTP method of no rule",
			reason: "405 with Allow is what HTTP has for it, RFC 9110 section 15.5.6",
			is: func(c comparison) bool {
				if c.method == "HEAD" && c.ours.status == 405 && c.ours.text == "" {
					r := c.request
					r.method = "GET"
					get := c.send(r).ours
					return c.theirs.status == 501 && (get.status == 405 || c.what == "Watch" || strings.HasPrefix(c.path(), "/v1/parts"))
				}
				return c.ours.refuses(405, 12, "this path takes ") && c.theirs.status == 501
			},
		},
		{
			name:   "HEAD",
			reason: "it is there wherever GET is, RFC 9110 section 9.1",
			is: func(c comparison) bool {
				if c.method != "HEAD" || c.theirs.status != 501 {
					return false
				}
				r := c.request
				r.method = "GET"
				return c.ours.text == "" && c.like(r, func(a *answer) { a.body = nil })
			},
		},
		{
			name:   "OPTIONS",
			reason: "it tells the methods of a path",
			is: func(c comparison) bool {
				return c.method == "OPTIONS" && c.ours.status == 204 && c.ours.text == "" && c.theirs.status == 501
			},
		},
		{
			name:   "custom kind *",
			reason: "it stands for all methods, as google/api/http.proto has it",
			is: func(c comparison) bool {
				r := c.replacePath("/any/", "/books/")
				r.method = "GET"
				return strings.Contains(c.path(), "/any/") && c.theirs.fails(501) && c.like(r, nil)
			},
		},
		{
			name:   "%2F",
			reason: "it is part of a segment, which * takes, and is a slash then; in a variable of many segments it stays as it is (google/api/http.proto), else it could not be told from one",
			is: func(c comparison) bool {
				segments := strings.Split(c.path(), "/")
				for i, segment := range segments {
					upper, lower := "ZU", "ZL"
					if c.what == "Watch" || i >= 3 && (segments[2] == "books" || segments[2] == "any") || i >= 4 && segments[2] == "authors" {
						upper, lower = "ZS", "ZS" // of a variable of one segment
					}
					segments[i] = strings.NewReplacer("%2F", upper, "%2f", lower).Replace(segment)
				}
				return c.like(c.with(strings.Join(segments, "/"), c.query()), func(a *answer) { a.replace("ZU", "%2F", "ZL", "%2f", "ZS", "/") })
			},
		},
		{
			name:   "not UTF-8",
			reason: "no string of protobuf may be so",
			is: func(c comparison) bool {
				return strings.Contains(strings.ToUpper(c.target), "%FF") &&
					(c.ours.refuses(400, 3, "UTF-8") || c.ours.refuses(400, 3, "") && c.theirs.status == 500 && strings.Contains(c.theirs.text, "failed to marshal error message"))
			},
		},
		{
			name:   "content type of a body",
			reason: "415 for what is not JSON, which a page of another origin could send unasked",
			is: func(c comparison) bool {
				return c.ours.refuses(415, 3, "Content-Type") && !c.isJSON()
			},
		},
		{
			name:   "NDJSON is called so",
			reason: "a stream of values is not JSON, and who asks for JSON gets an array",
			is: func(c comparison) bool {
				c.theirs.contentType = c.ours.contentType
				return c.ours.contentType == "application/x-ndjson" && c.ours.equal(c.theirs)
			},
		},
		{
			name:   "stream without messages",
			reason: "has a content type like every stream",
			is: func(c comparison) bool {
				lines := c.stream()
				empty := lines != nil && len(lines) == 0 || strings.HasPrefix(c.path(), "/v1/parts") && c.ours.contentType == "application/octet-stream" && c.ours.text == ""
				return c.ours.status == 200 && empty && c.theirs.status == 200 && c.theirs.contentType == "" && c.theirs.text == ""
			},
		},
		{
			name:   "stream as an array or as events",
			reason: "grpc-gateway has lines only",
			is: func(c comparison) bool {
				return c.ours.contentType != "application/x-ndjson" && c.ours.status == 200 && c.theirs.status == 200 && c.ours.metadata == c.theirs.metadata &&
					reflect.DeepEqual(any(c.stream()), c.theirs.body)
			},
		},
		{
			name:   "error before the first message of a stream",
			reason: "is an error as any other: the status of HTTP is still to be had",
			is: func(c comparison) bool {
				c.theirs.body = []any{c.theirs.only()["error"]}
				return c.ours.equal(c.theirs)
			},
		},
		{
			name:   "parts of a body",
			reason: "are sent as they are; grpc-gateway has a line feed after each",
			is: func(c comparison) bool {
				text, ok := c.theirs.body.(string)
				c.theirs.body = strings.ReplaceAll(text, "\n", "")
				return ok && c.what == "DownloadParts" && c.ours.equal(c.theirs)
			},
		},
		{
			name:   "google.api.HttpBody of a request",
			reason: "is the body as it is, as that of an answer; grpc-gateway wants it in JSON",
			is: func(c comparison) bool {
				want := make(map[string]any)
				if c.body != "" {
					want["data"] = base64.StdEncoding.EncodeToString([]byte(c.body))
				}
				content := message(c.ours.only()["content"])
				switch c.what {
				case "Convert":
					return c.ours.status == 200 && c.ours.contentType == "text/x-converted" && c.ours.text == "x"+c.body
				case "UploadParts":
					return c.ours.status == 200 && reflect.DeepEqual(content, want)
				case "Upload":
					if ct := c.contentType(); ct != "" {
						want["contentType"] = ct
					}
					// In a path of many segments a slash is not unescaped.
					path, err := url.PathUnescape(strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(strings.TrimPrefix(c.path(), "/v1/files/")))
					return err == nil && c.ours.status == 200 && c.ours.only()["path"] == path && reflect.DeepEqual(content, want)
				}
				return false
			},
		},
		{
			name:   "number of 64 bits alone in response_body",
			reason: "is a string in the JSON of protobuf, wherever it is",
			is: func(c comparison) bool {
				ours, _ := c.ours.body.([]any)
				theirs, _ := c.theirs.body.([]any)
				return strings.HasSuffix(c.path(), "/books:count") && c.ours.status == 200 && c.theirs.status == 200 && len(ours) == 1 && len(theirs) == 1 &&
					reflect.TypeOf(ours[0]) == reflect.TypeFor[string]() && theirs[0] == json.Number(ours[0].(string))
			},
		},
		{
			name:   "update_mask of a PATCH",
			reason: "grpc-gateway makes it of the names in the body, if there is none; here it stays empty, which stands for all that is there (AIP-134)",
			is: func(c comparison) bool {
				text, _ := c.theirs.only()["message"].(string)
				if c.theirs.fails(400) && strings.HasPrefix(text, "could not find field ") {
					r := c.request
					r.body = strings.ReplaceAll(unnamed.ReplaceAllString(r.body, ""), ",}", "}")
					return c.like(r, nil)
				}
				ours, theirs := clone(c.ours.body), clone(c.theirs.body)
				c.ours.body, c.theirs.body = ours, theirs
				if c.method != "PATCH" || c.ours.only() == nil || c.ours.only()["updateMask"] != nil || c.theirs.only()["updateMask"] == nil {
					return false
				}
				c.theirs.only()["updateMask"] = nil
				return c.ours.equal(c.theirs)
			},
		},
		{
			name:   "parameter that leads through a field that is no message",
			reason: "is of no field, and is passed over as the others of no field",
			is: func(c comparison) bool {
				return c.theirs.fails(400) && c.like(c.without("name.x="), nil)
			},
		},
		{
			name:   "metadata in bytes that is not base64",
			reason: "a header is metadata under its own name here, so it is read; grpc-gateway takes those only that begin with Grpc-Metadata-, and that name as such",
			is: func(c comparison) bool {
				return c.ours.refuses(400, 3, "is not base64") && (c.has("Test-Bin: !") || c.has("Grpc-Metadata-Test-Bin: !"))
			},
		},
		{
			name:   "bad message in a stream",
			reason: "is INVALID_ARGUMENT; grpc-gateway ends the stream as if it were the end",
			is: func(c comparison) bool {
				lines := c.stream()
				if c.what != "Chat" || c.theirs.status != 200 {
					return false
				}
				if c.ours.refuses(400, 3, "message 1") {
					return c.theirs.text == ""
				}
				if c.ours.status != 200 || len(lines) == 0 {
					return false
				}
				failure, _ := lines[len(lines)-1].(map[string]any)
				last := answer{status: 200, contentType: "application/json", body: []any{failure["error"]}}
				theirs, _ := c.theirs.body.([]any)
				return last.refuses(200, 3, fmt.Sprint("message ", len(lines))) && slices.EqualFunc(lines[:len(lines)-1], theirs, func(a, b any) bool { return reflect.DeepEqual(a, b) })
			},
		},
		{
			name:   "parameter of no field of a message",
			reason: "leaves nothing behind; grpc-gateway makes the message, empty",
			is: func(c comparison) bool {
				return c.like(c.without("author.unknown="), nil)
			},
		},
		{
			name:   "map without a key",
			reason: "is refused; grpc-gateway takes two values for key and value",
			is: func(c comparison) bool {
				return c.ours.refuses(400, 3, "is a map") && strings.Contains(c.query(), "labels=")
			},
		},
		{
			name:   "paths of a FieldMask",
			reason: "are taken as JSON has them and as protobuf has, and others are refused; grpc-gateway hands on what it cannot write then",
			is: func(c comparison) bool {
				if regexp.MustCompile(`(?i)mask=(a\+b|1)`).MatchString(c.query()) {
					return c.ours.refuses(400, 3, "is no path of fields")
				}
				return c.theirs.fails(500) && c.like(c.with(c.path(), strings.ReplaceAll(c.query(), "mask=displayName", "mask=display_name")), nil)
			},
		},
		{
			name:   "duration of more than 292 years",
			reason: "is one up to 10000 years, as in JSON",
			is: func(c comparison) bool {
				const long = "315576000000s"
				return c.theirs.fails(400) && c.like(c.with(c.path(), strings.ReplaceAll(c.query(), long, "31557601s")), func(a *answer) { a.replace("31557601s", long) })
			},
		},
		{
			name:   "semicolon in a query",
			reason: "is a character as any other, as browsers have it",
			is: func(c comparison) bool {
				return c.theirs.fails(400) && c.like(c.with(c.path(), strings.ReplaceAll(c.query(), ";", "%3B")), nil)
			},
		},
		{
			name:   "more in the body than a message",
			reason: "is refused; grpc-gateway does not look at it",
			is: func(c comparison) bool {
				return c.ours.refuses(400, 3, "") && (strings.HasSuffix(c.body, "}}") || strings.HasSuffix(c.body, "}x") || strings.Contains(c.body, "}{"))
			},
		},
		{
			name:   "metadata",
			reason: "is every header that HTTP does not keep for itself, under its own name; grpc-gateway takes those only that begin with Grpc-Metadata-, without that, and puts grpcgateway- before others. In an answer it has these names as well, and Grpc-Trailer- for what is Trailer- here",
			is: func(c comparison) bool {
				ours, theirs := clone(c.ours.body), clone(c.theirs.body)
				c.ours.body, c.theirs.body = ours, theirs
				if !strings.Contains(c.query(), "note=metadata") || c.ours.only() == nil || c.theirs.only() == nil {
					return false
				}
				seen := c.ours.only()["tags"]
				c.theirs.only()["tags"] = seen
				right := reflect.DeepEqual(seen, any(c.seen())) && c.ours.metadata == "Test: header; Trailer-Test: trailer; " &&
					c.theirs.metadata == "Grpc-Metadata-Test: header; "
				c.theirs.metadata = c.ours.metadata
				return right && c.ours.equal(c.theirs)
			},
		},
		{
			name:   "ListValue in a query",
			reason: "is JSON, as a Value and a Struct are",
			is: func(c comparison) bool {
				if !strings.Contains(c.query(), "list=%5B1%5D") || !c.theirs.fails(400) || c.what == "GetBook" && !strings.Contains(c.ours.text, `"list":[1]`) {
					return false
				}
				return c.like(c.without("list="), func(a *answer) { a.replace(`"list":[1]`, `"list":null`) })
			},
		},
	}
}

// message has what is not at its default in v, if that is an object.
func message(v any) map[string]any {
	set := make(map[string]any)
	m, _ := v.(map[string]any)
	for name, value := range m {
		if value != nil && value != "" && value != json.Number("0") && !reflect.DeepEqual(value, []any{}) {
			set[name] = value
		}
	}
	return set
}
