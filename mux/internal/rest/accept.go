package rest

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// form is how an answer is written.
type form uint8

const (
	whole  form = iota // one message in JSON
	ndjson             // a stream as lines of JSON
	events             // a stream as server-sent events
	array              // a stream as one JSON array
	raw                // bytes of google.api.HttpBody, of one message or a stream
)

// mediaTypes are those of the forms.
var mediaTypes = [...]string{whole: typeJSON, ndjson: "application/x-ndjson", events: "text/event-stream", array: typeJSON,
	raw: "application/octet-stream"} // where the message does not say

// contentTypes are the same as values of a header field, which nobody changes.
var contentTypes = func() (values [len(mediaTypes)][]string) {
	for f, t := range mediaTypes {
		values[f] = []string{t}
	}
	return values
}()

const typeJSON = "application/json"

// formOf chooses the form of an answer: for a stream by the Accept header (RFC 9110
// §12.5.1), lines where it leaves the choice; else there is only one. A header that has none
// of the forms is disregarded, as the RFC allows: a 406 would help nobody who asks with what a
// browser's address bar or a library sends by default.
func (r *Route) formOf(header http.Header) form {
	switch {
	case r.output:
		return raw
	case !r.Method.ServerStreams:
		return whole
	}
	accept := header["Accept"]
	if len(accept) == 0 || len(accept) == 1 && accept[0] == "*/*" {
		return ndjson
	}
	ranges := parseAccept(accept)
	best, chosen := (preference{}), ndjson
	for _, f := range []form{ndjson, events, array} {
		p := ranges.of(mediaTypes[f])
		if f == ndjson {
			p = max2(p, max2(ranges.of("application/ndjson"), ranges.of("application/jsonl")))
		}
		if p.better(best) {
			best, chosen = p, f
		}
	}
	return chosen
}

// preference for a media type: its weight, then how exactly it was named.
type preference struct {
	weight float64
	exact  int // 1 for */*, 2 for type/*, 3 for itself
}

func (p preference) better(o preference) bool {
	if p.weight != o.weight {
		return p.weight > o.weight
	}
	return p.weight > 0 && p.exact > o.exact
}

func max2(a, b preference) preference {
	if b.better(a) {
		return b
	}
	return a
}

// accepted are the ranges of an Accept header with their weights.
type accepted map[string]float64

func parseAccept(values []string) accepted {
	ranges := make(accepted)
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			name, weight := parseWeighted(item)
			if name != "" {
				ranges[name] = weight
			}
		}
	}
	return ranges
}

// of is the preference for a media type, by the most exact range that has it.
func (a accepted) of(media string) preference {
	major, _, _ := strings.Cut(media, "/")
	for i, name := range []string{media, major + "/*", "*/*"} {
		if w, ok := a[name]; ok {
			return preference{w, 3 - i}
		}
	}
	return preference{}
}

// parseWeighted parses one element of an Accept or Accept-Encoding header.
func parseWeighted(item string) (name string, weight float64) {
	name, params, _ := strings.Cut(item, ";")
	weight = 1
	for param := range strings.SplitSeq(params, ";") {
		key, val, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(key, "q") {
			if q, err := strconv.ParseFloat(val, 64); err == nil && q >= 0 && q <= 1 {
				weight = q
			}
		}
	}
	return strings.ToLower(strings.TrimSpace(name)), weight
}

// AcceptsGzip tells whether the client takes answers in gzip and has said so.
func AcceptsGzip(header http.Header) bool {
	for _, v := range header["Accept-Encoding"] {
		if !strings.Contains(v, "gzip") {
			continue
		}
		for item := range strings.SplitSeq(v, ",") {
			if name, weight := parseWeighted(item); (name == "gzip" || name == "x-gzip") && weight > 0 {
				return true
			}
		}
	}
	return false
}

// isJSON tells whether a body of this content type is JSON in UTF-8, or for a stream
// lines of it.
func isJSON(contentType string, stream bool) bool {
	if contentType == typeJSON {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8") {
		return false
	}
	if stream && isLines(media) {
		return true
	}
	return media == typeJSON || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")
}

func isLines(media string) bool {
	switch media {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return true
	}
	return false
}

// Streams tells whether the body of r may be a stream, whose client may fall silent between
// two messages for as long as it likes.
func Streams(r *http.Request) bool {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return isLines(strings.ToLower(strings.TrimSpace(media)))
}
