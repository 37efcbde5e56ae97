package gateway_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// difference is one that is meant to be there.
type difference struct {
	name   string
	reason string
	is     func(r request, ours, theirs answer) bool
}

// explain returns the first difference that is that of two answers.
func explain(r request, ours, theirs answer) *difference {
	for i := range differences {
		if differences[i].is(r, ours, theirs) {
			return &differences[i]
		}
	}
	return nil
}

// fails tells whether an answer is an error that the handler has not made, with a status
// of HTTP: without details, but for the field that is wrong.
func (a answer) fails(status int) bool {
	details, ok := a.only()["details"].([]any)
	return a.status == status && ok && !slices.ContainsFunc(details, func(d any) bool {
		return message(d)["@type"] != "type.googleapis.com/google.rpc.BadRequest"
	})
}

// last is the last value of the body if it is an object, else nil.
func (a answer) last() map[string]any {
	values, _ := a.body.([]any)
	if len(values) == 0 {
		return nil
	}
	m, _ := values[len(values)-1].(map[string]any)
	return m
}

func (r request) contentType() string {
	for _, h := range r.header {
		if t, ok := strings.CutPrefix(h, "Content-Type: "); ok {
			return t
		}
	}
	return ""
}

// slashed is the body with / for %2F.
func slashed(a answer) string {
	b, err := json.Marshal(a.body)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer("%2F", "/", "%2f", "/").Replace(string(b))
}

var differences = []difference{
	{
		name:   "words of an error",
		reason: "the field is named, and what would be right; google.rpc.BadRequest among the details has it for programs",
		is: func(r request, ours, theirs answer) bool {
			return ours.fails(theirs.status) && theirs.fails(ours.status) && ours.only()["code"] == theirs.only()["code"]
		},
	},
	{
		name:   "no path of a rule",
		reason: "it is the program's, or of one of its pages; http.ServeMux, which answers then, redirects from // and /./",
		is: func(r request, ours, theirs answer) bool {
			clean := !strings.Contains(r.path(), "//") && !strings.Contains(r.path(), "/.")
			return ours.status == 404 && ours.contentType == "text/plain" && (theirs.status == 404 || theirs.status == 501) ||
				ours.status == 307 && !clean ||
				(r.target == "*" || r.path() == "/") && ours.contentType != "application/json" && (theirs.status == 404 || theirs.status == 400)
		},
	},
	{
		name:   "empty segment",
		reason: "is none: * takes one, and a path with / at its end is another one than without",
		is: func(r request, ours, theirs answer) bool {
			return strings.HasSuffix(r.path(), "/") && ours.status == 404 && ours.contentType == "text/plain"
		},
	},
	{
		name:   "verb behind an empty segment",
		reason: "** takes any, and so the last one can be empty",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.path(), "/:") && theirs.fails(404)
		},
	},
	{
		name:   "HTTP method of no rule",
		reason: "405 with Allow is what HTTP has for it, RFC 9110 section 15.5.6",
		is: func(r request, ours, theirs answer) bool {
			return ours.status == 405 && theirs.status == 501
		},
	},
	{
		name:   "HEAD",
		reason: "it is there wherever GET is, RFC 9110 section 9.1",
		is: func(r request, ours, theirs answer) bool {
			return r.method == "HEAD" && theirs.status == 501
		},
	},
	{
		name:   "OPTIONS",
		reason: "it tells the methods of a path",
		is: func(r request, ours, theirs answer) bool {
			return r.method == "OPTIONS" && ours.status == 204 && theirs.status == 501
		},
	},
	{
		name:   "custom kind *",
		reason: "it stands for all methods, as google/api/http.proto has it",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.path(), "/any/") && theirs.fails(501)
		},
	},
	{
		name:   "%2F",
		reason: "it is part of a segment, and * takes a segment",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(strings.ToUpper(r.path()), "%2F") && (theirs.status == 404 || ours.status == 404 && ours.contentType == "text/plain")
		},
	},
	{
		name:   "%2F in a variable of many segments",
		reason: "google/api/http.proto leaves it as it is there, else it could not be told from a slash",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(strings.ToUpper(r.path()), "%2F") && ours.status == theirs.status && slashed(ours) == slashed(theirs)
		},
	},
	{
		name:   "not UTF-8",
		reason: "no string of protobuf may be so",
		is: func(r request, ours, theirs answer) bool {
			return ours.fails(400) && strings.Contains(strings.ToUpper(r.target), "%FF")
		},
	},
	{
		name:   "content type of a body",
		reason: "415 for what is not JSON, which a page of another origin could send unasked",
		is: func(r request, ours, theirs answer) bool {
			return ours.status == 415 && r.contentType() != "application/json"
		},
	},
	{
		name:   "NDJSON is called so",
		reason: "a stream of values is not JSON, and who asks for JSON gets an array",
		is: func(r request, ours, theirs answer) bool {
			theirs.contentType = ours.contentType
			return ours.contentType == "application/x-ndjson" && reflect.DeepEqual(ours, theirs)
		},
	},
	{
		name:   "stream without messages",
		reason: "has a content type like every stream",
		is: func(r request, ours, theirs answer) bool {
			return ours.status == 200 && reflect.DeepEqual(ours.body, []any{}) && theirs.contentType == "" && theirs.body == ""
		},
	},
	{
		name:   "stream as an array or as events",
		reason: "grpc-gateway has lines only",
		is: func(r request, ours, theirs answer) bool {
			streams := r.what == "Watch" || r.what == "Chat"
			return streams && (r.has("Accept: application/json") && ours.contentType == "application/json" ||
				r.has("Accept: text/event-stream") && ours.contentType == "text/event-stream")
		},
	},
	{
		name:   "error before the first message of a stream",
		reason: "is an error as any other: the status of HTTP is still to be had",
		is: func(r request, ours, theirs answer) bool {
			theirs.body = []any{theirs.only()["error"]}
			return reflect.DeepEqual(ours, theirs)
		},
	},
	{
		name:   "parts of a body",
		reason: "are sent as they are; grpc-gateway has a line feed after each",
		is: func(r request, ours, theirs answer) bool {
			text, ok := theirs.body.(string)
			theirs.body = strings.ReplaceAll(text, "\n", "")
			return ok && r.what == "DownloadParts" && slashed(ours) == slashed(theirs)
		},
	},
	{
		name:   "google.api.HttpBody of a request",
		reason: "is the body as it is, as that of an answer; grpc-gateway wants it in JSON",
		is: func(r request, ours, theirs answer) bool {
			return (r.what == "Upload" || r.what == "UploadParts" || r.what == "Convert") && ours.status == 200 && (theirs.fails(400) || theirs.status == 200)
		},
	},
	{
		name:   "number of 64 bits alone in response_body",
		reason: "is a string in the JSON of protobuf, wherever it is",
		is: func(r request, ours, theirs answer) bool {
			return strings.HasSuffix(r.path(), "/books:count") && ours.status == 200 && theirs.status == 200
		},
	},
	{
		name:   "update_mask of a PATCH",
		reason: "grpc-gateway makes it of the names in the body, if there is none; here it stays empty, which stands for all that is there (AIP-134)",
		is: func(r request, ours, theirs answer) bool {
			message, _ := theirs.only()["message"].(string)
			return r.method == "PATCH" && (ours.status == 200 && theirs.status == 200 && ours.only()["updateMask"] == nil && theirs.only()["updateMask"] != nil ||
				theirs.fails(400) && strings.HasPrefix(message, "could not find field "))
		},
	},
	{
		name:   "parameter that leads through a field that is no message",
		reason: "is of no field, and is passed over as the others of no field",
		is: func(r request, ours, theirs answer) bool {
			return theirs.fails(400) && strings.Contains(r.query(), "name.x=")
		},
	},
	{
		name:   "metadata in bytes that is not base64",
		reason: "a header is metadata under its own name here, so it is read; grpc-gateway takes those only that begin with Grpc-Metadata-, and that name as such",
		is: func(r request, ours, theirs answer) bool {
			return ours.fails(400) && (r.has("Test-Bin: !") || r.has("Grpc-Metadata-Test-Bin: !"))
		},
	},
	{
		name:   "bad message in a stream",
		reason: "is INVALID_ARGUMENT; grpc-gateway ends the stream as if it were the end",
		is: func(r request, ours, theirs answer) bool {
			last := answer{status: ours.status, body: []any{ours.last()["error"]}}
			return r.what == "Chat" && (ours.fails(400) || last.fails(200)) && theirs.status == 200
		},
	},
	{
		name:   "parameter of no field of a message",
		reason: "leaves nothing behind; grpc-gateway makes the message, empty",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.query(), "author.unknown=") && ours.only()["author"] == nil && len(message(theirs.only()["author"])) == 0
		},
	},
	{
		name:   "map without a key",
		reason: "is refused; grpc-gateway takes two values for key and value",
		is: func(r request, ours, theirs answer) bool {
			return ours.fails(400) && strings.Contains(r.query(), "labels=")
		},
	},
	{
		name:   "paths of a FieldMask",
		reason: "are taken as JSON has them and as protobuf has, and others are refused; grpc-gateway hands on what it cannot write then",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(strings.ToLower(r.query()), "mask=") && (ours.fails(400) || theirs.fails(500))
		},
	},
	{
		name:   "duration of more than 292 years",
		reason: "is one up to 10000 years, as in JSON",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.query(), "loan=315576000000s") && theirs.fails(400)
		},
	},
	{
		name:   "semicolon in a query",
		reason: "is a character as any other, as browsers have it",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.query(), ";") && theirs.fails(400)
		},
	},
	{
		name:   "more in the body than a message",
		reason: "is refused; grpc-gateway does not look at it",
		is: func(r request, ours, theirs answer) bool {
			return ours.fails(400) && (strings.HasSuffix(r.body, "}}") || strings.HasSuffix(r.body, "}x") || strings.Contains(r.body, "}{"))
		},
	},
	{
		name:   "metadata",
		reason: "is every header that HTTP does not keep for itself, under its own name; grpc-gateway takes those only that begin with Grpc-Metadata-, without that, and puts grpcgateway- before others. In an answer it has these names as well, and Grpc-Trailer- for what is Trailer- here",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.query(), "note=metadata") && ours.status == 200 && theirs.status == 200
		},
	},
	{
		name:   "ListValue in a query",
		reason: "is JSON, as a Value and a Struct are",
		is: func(r request, ours, theirs answer) bool {
			return strings.Contains(r.query(), "list=") && theirs.fails(400)
		},
	},
}

// message is v if that is an object.
func message(v any) map[string]any {
	m, _ := v.(map[string]any)
	for name, value := range m {
		if value == nil || value == "" || value == json.Number("0") {
			delete(m, name)
		}
	}
	return m
}
