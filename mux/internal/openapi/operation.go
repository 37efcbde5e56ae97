package openapi

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/code"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux/internal/rest"
	"oneport/mux/internal/rpc"
)

// maxQuery bounds the parameters of one operation that are listed: messages within
// messages can have any number of fields.
const maxQuery = 200

// verbs are the HTTP methods that OpenAPI 3.1 has places for.
var verbs = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// addRule adds a rule of google.api.http.
func (d *document) addRule(r rule) {
	method := strings.ToLower(r.HTTPMethod)
	candidates, note := []string{method}, ""
	if method == "*" {
		candidates, note = verbsFor(r.Route), "By any HTTP method."
	}
	it := d.item(&r.path, func(it *item) bool {
		return it.place(candidates) != "" || !slices.Contains(verbs, candidates[0]) && it.others.get(r.HTTPMethod) == nil
	})
	params, more := d.parameters(r)
	if more {
		note = strings.TrimSpace(note + " The query can set more fields than are listed here.")
	}
	op := d.operation(r.Descriptor, r.operationID, note)
	if len(params) > 0 {
		op = append(op, member{"parameters", params})
	}
	if body := d.requestBody(r.Route); body != nil {
		op = append(op, member{"requestBody", body})
	}
	op = append(op, member{"responses", object{{"200", d.answer(r.Route)}, {"default", d.response("Error")}}})
	if verb := it.place(candidates); verb != "" {
		it.operations.set(verb, op)
	} else {
		it.others.set(r.HTTPMethod, op)
	}
}

// place is the first of some HTTP methods that there may be, and is not yet, an operation
// for; "" for none.
func (it *item) place(methods []string) string {
	for _, m := range methods {
		if slices.Contains(verbs, m) && it.operations.get(m) == nil {
			return m
		}
	}
	return ""
}

// verbsFor are the HTTP methods that may stand for all, the likeliest first.
func verbsFor(r *rest.Route) []string {
	if r.WholeBody || r.Body != nil {
		return []string{"post", "put", "patch"}
	}
	return []string{"get", "post", "put", "patch", "delete"}
}

// item finds the path of an operation for which there is a place there, or makes it. p
// becomes that path, with the names of its parameters.
func (d *document) item(p *path, hasPlace func(*item) bool) *item {
	for {
		it, ok := d.items[p.shape()]
		if !ok {
			it = &item{path: *p}
			d.items[p.shape()] = it
			return it
		}
		if hasPlace(it) || !p.widen() {
			for j := range p.parts {
				p.parts[j].param = it.parts[j].param
			}
			return it
		}
	}
}

// operation is what all operations begin with.
func (d *document) operation(md protoreflect.MethodDescriptor, id string, notes ...string) object {
	comment := d.comments.of(md)
	op := object{
		{"operationId", id},
		{"tags", list{string(md.Parent().FullName())}},
		{"summary", summary(comment)},
	}
	if comment == "" {
		op.set("summary", string(md.Name()))
	}
	return deprecate(describe(op, append([]string{comment}, notes...)...), md)
}

// parameters are those in the path and in the query, and whether there are more.
func (d *document) parameters(r rule) (params list, more bool) {
	for _, s := range r.parts {
		if s.param != "" {
			params = append(params, d.pathParameter(r.path, s))
		}
	}
	n := 0
	for fields := range r.Query() {
		if slices.ContainsFunc(fields, isOutput) {
			continue
		}
		if n++; n > maxQuery {
			return params, true
		}
		params = append(params, d.queryParameter(fields))
	}
	return params, false
}

func (d *document) pathParameter(p path, s part) object {
	note := ""
	if s.deep {
		note = "Any number of segments, with slashes between them."
	}
	o := object{{"name", s.param}, {"in", "path"}, {"required", true}}
	if s.of == nil {
		return append(describe(o, note), member{"schema", object{{"type", "string"}}})
	}
	fd := s.of.Fields[len(s.of.Fields)-1]
	if value := p.value(s.of); value != "{"+s.param+"}" {
		note = strings.TrimSpace(fmt.Sprintf("Part of `%s`, which is `%s`. %s", s.of.Path, value, note))
		return append(describe(o, note, d.comments.of(fd)), member{"schema", object{{"type", "string"}}})
	}
	if s.of.Path != s.param { // the path has its name from another rule
		note = strings.TrimSpace(fmt.Sprintf("The field `%s`. %s", s.of.Path, note))
	}
	return append(deprecate(describe(o, d.comments.of(fd), note), fd), d.parameterValue(fd)...)
}

func (d *document) queryParameter(fields []protoreflect.FieldDescriptor) object {
	var names []string
	for _, fd := range fields {
		names = append(names, d.name(fd))
	}
	last := fields[len(fields)-1]
	o := object{{"name", strings.Join(names, ".")}, {"in", "query"}}
	required := true
	for _, fd := range fields {
		required = required && hasBehavior(fd, annotations.FieldBehavior_REQUIRED)
	}
	if required {
		o = append(o, member{"required", true})
	}
	return append(deprecate(describe(o, d.comments.of(last)), last), d.parameterValue(last)...)
}

// parameterValue says how a field is written as a parameter.
func (d *document) parameterValue(fd protoreflect.FieldDescriptor) object {
	switch {
	case fd.IsMap(): // name[key]=value
		schema := d.value(fd)
		schema.set("additionalProperties", d.text(fd.MapValue()))
		return object{{"style", "deepObject"}, {"explode", true}, {"schema", schema}}
	case fd.IsList():
		return object{{"schema", object{{"type", "array"}, {"items", d.text(fd)}}}}
	}
	return object{{"schema", d.text(fd)}}
}

// text is the schema of one value of a field without the quotes of JSON.
func (d *document) text(fd protoreflect.FieldDescriptor) object {
	if fd.Enum() != nil && fd.Enum().FullName() == "google.protobuf.NullValue" {
		return object{{"type", "string"}, {"enum", list{"NULL_VALUE"}}}
	}
	md := fd.Message()
	if md == nil {
		return d.single(fd)
	}
	if isWrapper(md) {
		return scalar(md.Fields().ByName("value").Kind())
	}
	switch md.FullName() {
	case "google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.Empty":
		return object{{"type", "string"}, {"contentMediaType", "application/json"}, {"contentSchema", d.ref(md)}}
	}
	return d.ref(md)
}

// requestBody is nil for a rule without body.
func (d *document) requestBody(r *rest.Route) object {
	if !r.WholeBody && r.Body == nil {
		return nil
	}
	body := object{}
	if raw, _ := r.Raw(); raw {
		return append(body, member{"content", object{{"*/*", object{}}}})
	}
	schema, required := d.bodySchema(r)
	media := "application/json"
	if r.Method.ClientStreams {
		media = "application/x-ndjson"
		body = append(body, member{"description", "The messages as lines of JSON. The schema is that of one."})
	}
	if required {
		body = append(body, member{"required", true})
	}
	return append(body, member{"content", object{{media, object{{"schema", schema}}}}})
}

// bodySchema is the schema of a body, and tells whether there is something in it that is
// required.
func (d *document) bodySchema(r *rest.Route) (schema object, required bool) {
	md, depth := r.Descriptor.Input(), 0
	if r.Body != nil {
		required = hasBehavior(r.Body, annotations.FieldBehavior_REQUIRED)
		if md, depth = r.Body.Message(), 1; md == nil || r.Body.Cardinality() == protoreflect.Repeated {
			return d.field(r.Body), required
		}
	}
	// What the path sets is not in the body.
	omit := func(fd protoreflect.FieldDescriptor) bool {
		return slices.ContainsFunc(r.Vars, func(v rest.Var) bool {
			return len(v.Fields) == depth+1 && v.Fields[depth] == fd && (depth == 0 || v.Fields[0] == r.Body)
		})
	}
	needed, omits := list{}, false
	for i := range md.Fields().Len() {
		switch fd := md.Fields().Get(i); {
		case omit(fd):
			omits = true
		case hasBehavior(fd, annotations.FieldBehavior_REQUIRED):
			needed = append(needed, d.name(fd))
		}
	}
	if omits {
		schema = d.message(md, omit)
		if old, ok := schema.get("required").(list); ok {
			needed = append(old, needed...)
		}
	} else {
		schema = d.ref(md)
	}
	if len(needed) > 0 {
		schema.set("required", needed)
		required = true
	}
	return schema, required
}

// answer is the response of a call that is OK.
func (d *document) answer(r *rest.Route) object {
	_, raw := r.Raw()
	streams := r.Method.ServerStreams
	switch {
	case raw && streams:
		return object{
			{"description", "OK. The bytes of all messages, one after the other."},
			{"content", object{{"*/*", object{}}}}}
	case raw:
		return object{{"description", "OK"}, {"content", object{{"*/*", object{}}}}}
	}
	schema := d.ref(r.Descriptor.Output())
	if fd := r.ResponseBody; fd != nil {
		schema = d.value(fd)
		if fd.Message() == nil && fd.HasPresence() {
			schema = nullable(schema) // where it is not set
		}
	}
	if !streams {
		return object{{"description", "OK"}, {"content", jsonContent(schema)}}
	}
	line := object{{"type", "object"}, {"properties", object{
		{"result", schema}, {"error", d.ref((*spb.Status)(nil).ProtoReflect().Descriptor())}}}}
	return object{
		{"description", streamNote},
		{"content", object{
			{"application/x-ndjson", object{{"schema", line}}},
			{"text/event-stream", object{{"schema", schema}}},
			{"application/json", object{{"schema", object{{"type", "array"}, {"items", schema}}}}},
		}},
	}
}

const streamNote = "OK so far. A stream of messages, as the Accept header chooses: " +
	"lines of JSON, of which the schema here is that of one, with an error as the last line; " +
	"server-sent events, of which it is that of the data of one, with the status in a last event named `status`; " +
	"or one JSON array, which a stream that fails does not close."

func jsonContent(schema object) object {
	return object{{"application/json", object{{"schema", schema}}}}
}

// addConnect adds a unary method without a rule.
func (d *document) addConnect(md protoreflect.MethodDescriptor) {
	note := ""
	opts, _ := md.Options().(*descriptorpb.MethodOptions)
	if opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		note = "It can be called by GET as well, with the parameters `encoding=json` and `message`, which is the JSON of the body."
	}
	op := d.operation(md, string(md.FullName()), note)
	op = append(op,
		member{"requestBody", object{{"required", true}, {"content", jsonContent(d.ref(md.Input()))}}},
		member{"responses", object{
			{"200", object{{"description", "OK"}, {"content", jsonContent(d.ref(md.Output()))}}},
			{"default", d.response("ConnectError")}}})
	p := path{parts: []part{{literal: string(md.Parent().FullName())}, {literal: string(md.Name())}}}
	it := d.item(&p, func(it *item) bool { return it.place([]string{"post"}) != "" })
	it.operations.set("post", op)
}

// response is a reference to one that operations share.
func (d *document) response(name string) object {
	if d.responses.get(name) == nil {
		schema := d.ref((*spb.Status)(nil).ProtoReflect().Descriptor())
		if name == "ConnectError" {
			schema = connectError()
		}
		d.responses = append(d.responses, member{name, object{{"description", errorTable()}, {"content", jsonContent(schema)}}})
	}
	return object{{"$ref", "#/components/responses/" + name}}
}

// connectError is the schema of an error of Connect
// (https://connectrpc.com/docs/protocol#error-end-stream).
func connectError() object {
	var names list
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		names = append(names, connectCode(c))
	}
	str := object{{"type", "string"}}
	return object{{"type", "object"}, {"required", list{"code"}}, {"properties", object{
		{"code", object{{"type", "string"}, {"enum", names}}},
		{"message", str},
		{"details", object{{"type", "array"}, {"items", object{{"type", "object"}, {"properties", object{
			{"type", object{{"type", "string"}, {"description", "The full name of a message."}}},
			{"value", object{{"type", "string"}, {"description", "The message in protobuf, in base64 without padding."}}},
			{"debug", object{{"description", "The message in JSON."}}},
		}}}}}},
	}}}
}

// errorTable tells of the status of HTTP for each code.
func errorTable() string {
	var b strings.Builder
	b.WriteString("The call has failed. The codes of gRPC and the status of HTTP that each has:\n")
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		fmt.Fprintf(&b, "\n- %d `%s`: %d", c, code.Code(c), rpc.HTTPStatus(c))
	}
	return b.String()
}

// connectCode is the name of a code: "not_found".
func connectCode(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}
