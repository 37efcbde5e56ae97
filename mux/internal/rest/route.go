package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"oneport/mux/internal/rpc"
)

// Route is one HTTP rule of a method: the requests that call it, and where their parts
// go. It is not changed once it is there.
type Route struct {
	Method     *rpc.Method
	Descriptor protoreflect.MethodDescriptor
	HTTPMethod string // "*" stands for all

	// Vars are the fields that the path sets, in the order of the template.
	Vars []Var

	// WholeBody tells that the body is the request message, but for what the path sets.
	// Else Body is the field that it is, nil if the rule has none; the other fields come
	// from the query then.
	WholeBody bool
	Body      protoreflect.FieldDescriptor

	// ResponseBody is the field that the answer shows, nil for all of the message.
	ResponseBody protoreflect.FieldDescriptor

	text     string // the template as the rule has it
	template *template
	input    bool // the body is a google.api.HttpBody, not JSON
	output   bool // likewise the answer
}

// Var is a variable of a path template.
type Var struct {
	Path    string // of the field, dotted
	Pattern string // what it captures, such as "*" or "shelves/*"
	Fields  []protoreflect.FieldDescriptor
}

// Template is the path template, in a canonical form.
func (r *Route) Template() string { return r.template.String() }

// routesOf makes the routes of a method from its google.api.http option: none where there
// is no option, or no descriptor. The error names method, rule and what is wrong with it.
func routesOf(m *rpc.Method) ([]*Route, error) {
	d := m.Descriptor()
	if d == nil || !proto.HasExtension(d.Options(), annotations.E_Http) {
		return nil, nil
	}
	rule, _ := proto.GetExtension(d.Options(), annotations.E_Http).(*annotations.HttpRule)
	return routesOfRule(m, d, rule)
}

func routesOfRule(m *rpc.Method, d protoreflect.MethodDescriptor, rule *annotations.HttpRule) ([]*Route, error) {
	var routes []*Route
	for i, rule := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		r := &Route{Method: m, Descriptor: d}
		r.HTTPMethod, r.text = pattern(rule)
		err := r.compile(rule)
		if err == nil && i > 0 && len(rule.GetAdditionalBindings()) > 0 {
			err = errors.New("additional_bindings within additional_bindings")
		}
		if err != nil {
			return nil, ruleError(m, r.HTTPMethod, r.text, err)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

func ruleError(m *rpc.Method, method, template string, err error) error {
	return fmt.Errorf("google.api.http of %s: rule %s %q: %w", m.FullName, method, template, err)
}

// pattern returns the HTTP method and the template of a rule.
func pattern(rule *annotations.HttpRule) (method, template string) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, p.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, p.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, p.Post
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, p.Delete
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, p.Patch
	case *annotations.HttpRule_Custom:
		return p.Custom.GetKind(), p.Custom.GetPath()
	}
	return "", ""
}

func (r *Route) compile(rule *annotations.HttpRule) (err error) {
	if rule.GetPattern() == nil {
		return errors.New("no HTTP method; want get, put, post, delete, patch or custom")
	}
	if i := notMethod(r.HTTPMethod); i >= 0 {
		return fmt.Errorf("custom: column %d: the kind %q is no HTTP method", i+1, r.HTTPMethod)
	}
	if r.template, err = parseTemplate(r.text); err != nil {
		return err
	}
	in, out := r.Descriptor.Input(), r.Descriptor.Output()
	for _, v := range r.template.vars {
		fields, err := variableFields(in, v.path)
		if err != nil {
			return &templateError{v.column, err.Error()}
		}
		for _, o := range r.Vars {
			if err := rivals(o.Fields, fields); err != nil {
				return &templateError{v.column, err.Error()}
			}
		}
		r.Vars = append(r.Vars, Var{v.path, r.template.pattern(v), fields})
	}
	body := in
	switch name := rule.GetBody(); name {
	case "":
		body = nil
	case "*":
		r.WholeBody = true
	default:
		if r.Body, err = fieldOf(in, name); err != nil {
			return fmt.Errorf("body: %w", err)
		}
		body = single(r.Body)
		for i, v := range r.Vars {
			if err := rivals([]protoreflect.FieldDescriptor{r.Body}, v.Fields); err != nil {
				return &templateError{r.template.vars[i].column, "body: " + err.Error()}
			}
		}
	}
	switch hasBody := r.WholeBody || r.Body != nil; {
	case hasBody && (r.HTTPMethod == http.MethodGet || r.HTTPMethod == http.MethodHead):
		return fmt.Errorf("body: %s has none", r.HTTPMethod)
	case !hasBody && r.Method.ClientStreams:
		return errors.New(`body: a method that takes a stream has it from the body; want "*" or a field`)
	}
	answer := out
	if name := rule.GetResponseBody(); name != "" {
		if r.ResponseBody, err = fieldOf(out, name); err != nil {
			return fmt.Errorf("response_body: %w", err)
		}
		answer = single(r.ResponseBody)
	}
	r.input, r.output = isHTTPBody(body), isHTTPBody(answer)
	return nil
}

// fieldOf finds the field that body or response_body names. The error has the column there.
func fieldOf(md protoreflect.MessageDescriptor, name string) (protoreflect.FieldDescriptor, error) {
	if fd := md.Fields().ByName(protoreflect.Name(name)); fd != nil {
		return fd, nil
	}
	first, _, dotted := strings.Cut(name, ".")
	if dotted && md.Fields().ByName(protoreflect.Name(first)) != nil {
		return nil, fmt.Errorf("column %d: want a field of %s, not one within it", len(first)+1, md.FullName())
	}
	return nil, fmt.Errorf("column 1: %s has no field %q", md.FullName(), name)
}

// rivals refuses two fields of a request that cannot both be set, since they or those around
// them are of one oneof.
func rivals(a, b []protoreflect.FieldDescriptor) error {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		if of := a[i].ContainingOneof(); of != nil && of == b[i].ContainingOneof() {
			return fmt.Errorf("%s and %s are of one oneof, %s, which has one of them", a[i].Name(), b[i].Name(), of.Name())
		}
		return nil
	}
	return nil
}

// single is the message of a field that is one, else nil.
func single(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.Cardinality() == protoreflect.Repeated {
		return nil
	}
	return fd.Message()
}

func isHTTPBody(md protoreflect.MessageDescriptor) bool {
	return md != nil && md.FullName() == "google.api.HttpBody"
}

// notMethod returns where s is not "*" or a token of RFC 9110 §5.6.2, -1 if it is one.
func notMethod(s string) int {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return i
		}
	}
	if s == "" {
		return 0
	}
	return -1
}

// variableFields finds the field that a path sets.
func variableFields(md protoreflect.MessageDescriptor, path string) ([]protoreflect.FieldDescriptor, error) {
	var fields []protoreflect.FieldDescriptor
	for name := range strings.SplitSeq(path, ".") {
		if md == nil {
			return nil, fmt.Errorf("%s: %s is not a message", path, fields[len(fields)-1].Name())
		}
		fd := md.Fields().ByName(protoreflect.Name(name))
		switch {
		case fd == nil:
			return nil, fmt.Errorf("%s has no field %q", md.FullName(), name)
		case fd.Cardinality() == protoreflect.Repeated:
			return nil, fmt.Errorf("%s: %s is repeated, which no path can set", path, name)
		}
		fields = append(fields, fd)
		md = fd.Message()
	}
	if md != nil && !hasText(md) {
		return nil, fmt.Errorf("%s is a %s, which no path can set", path, md.FullName())
	}
	return fields, nil
}
