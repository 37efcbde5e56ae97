package openapi

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemas makes JSON Schemas of messages and enums as protojson writes them
// (https://protobuf.dev/programming-guides/json). What it reads besides is not in them:
// numbers as text and text as numbers, numbers of enum values, null for any field, and
// names of fields in either spelling.
type schemas struct {
	json     protojson.MarshalOptions
	comments comments

	components map[protoreflect.FullName]object // by name; nil while one is to be made
	todo       []protoreflect.Descriptor
}

// ref is a reference to the schema of a message or an enum.
func (s *schemas) ref(d protoreflect.Descriptor) object {
	if _, ok := s.components[d.FullName()]; !ok {
		s.components[d.FullName()] = nil
		s.todo = append(s.todo, d)
	}
	return object{{"$ref", "#/components/schemas/" + string(d.FullName())}}
}

// all makes what was referred to, and what that refers to, and returns it by name.
func (s *schemas) all() object {
	for len(s.todo) > 0 {
		d := s.todo[0]
		s.todo = s.todo[1:]
		s.components[d.FullName()] = s.component(d)
	}
	all := object{}
	for name, c := range s.components {
		all = append(all, member{string(name), c})
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return all
}

func (s *schemas) component(d protoreflect.Descriptor) object {
	if c := s.wellKnown(d); c != nil {
		return c
	}
	switch d := d.(type) {
	case protoreflect.EnumDescriptor:
		return s.enum(d)
	case protoreflect.MessageDescriptor:
		return s.message(d, nil)
	}
	panic(fmt.Sprintf("openapi: no schema for a %T", d))
}

// message is the schema of a message, without the fields for which omit reports true.
func (s *schemas) message(md protoreflect.MessageDescriptor, omit func(protoreflect.FieldDescriptor) bool) object {
	var notes []string
	for i := range md.Oneofs().Len() {
		of := md.Oneofs().Get(i)
		if of.IsSynthetic() {
			continue
		}
		var names []string
		for j := range of.Fields().Len() {
			names = append(names, "`"+s.name(of.Fields().Get(j))+"`")
		}
		note := fmt.Sprintf("At most one of %s is set. %s", strings.Join(names, ", "), s.comments.of(of))
		notes = append(notes, strings.TrimSpace(note))
	}
	o := object{{"type", "object"}}
	o = describe(o, append([]string{s.comments.of(md)}, notes...)...)
	props, required := object{}, list{}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if omit != nil && omit(fd) {
			continue
		}
		props = append(props, member{s.name(fd), s.field(fd)})
		if fd.Cardinality() == protoreflect.Required {
			required = append(required, s.name(fd))
		}
	}
	if len(props) > 0 {
		o = append(o, member{"properties", props})
	}
	if len(required) > 0 {
		o = append(o, member{"required", required})
	}
	return deprecate(o, md)
}

// name is that of a field in JSON.
func (s *schemas) name(fd protoreflect.FieldDescriptor) string {
	if s.json.UseProtoNames {
		return fd.TextName()
	}
	return fd.JSONName()
}

// field is the schema of a property.
func (s *schemas) field(fd protoreflect.FieldDescriptor) object {
	o := s.value(fd)
	if s.json.EmitUnpopulated && fd.HasPresence() && fd.ContainingOneof() == nil {
		o = nullable(o)
	}
	comment := s.comments.of(fd)
	switch {
	case hasBehavior(fd, annotations.FieldBehavior_REQUIRED):
		// Not "required" of JSON Schema: in an answer it is not there if it has its
		// default value.
		comment = strings.TrimSpace("Required. " + strings.TrimPrefix(comment, "Required. "))
	case isOutput(fd):
		o.set("readOnly", true)
	case hasBehavior(fd, annotations.FieldBehavior_INPUT_ONLY):
		o.set("writeOnly", true)
	}
	return deprecate(describe(o, comment), fd)
}

func isOutput(fd protoreflect.FieldDescriptor) bool {
	return hasBehavior(fd, annotations.FieldBehavior_OUTPUT_ONLY)
}

func hasBehavior(fd protoreflect.FieldDescriptor, b annotations.FieldBehavior) bool {
	all, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(all, b)
}

// value is the schema of what a field holds.
func (s *schemas) value(fd protoreflect.FieldDescriptor) object {
	switch {
	case fd.IsMap():
		o := object{{"type", "object"}}
		switch key := fd.MapKey().Kind(); key {
		case protoreflect.StringKind:
		case protoreflect.BoolKind:
			o = append(o, member{"propertyNames", object{{"enum", list{"true", "false"}}}})
		default:
			o = append(o, member{"propertyNames", object{{"pattern", "^-?[0-9]+$"}}})
		}
		return append(o, member{"additionalProperties", s.single(fd.MapValue())})
	case fd.IsList():
		return object{{"type", "array"}, {"items", s.single(fd)}}
	}
	return s.single(fd)
}

// single is the schema of one value of a field.
func (s *schemas) single(fd protoreflect.FieldDescriptor) object {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return s.ref(fd.Message())
	case protoreflect.EnumKind:
		return s.ref(fd.Enum())
	}
	return scalar(fd.Kind())
}

// scalar is the schema of a scalar, with the formats of the OpenAPI format registry.
func scalar(kind protoreflect.Kind) object {
	switch kind {
	case protoreflect.BoolKind:
		return object{{"type", "boolean"}}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return object{{"type", "integer"}, {"format", "int32"}}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return object{{"type", "integer"}, {"format", "uint32"}, {"minimum", 0}}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return object{{"type", "string"}, {"format", "int64"}}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{{"type", "string"}, {"format", "uint64"}}
	case protoreflect.FloatKind:
		return float("float")
	case protoreflect.DoubleKind:
		return float("double")
	case protoreflect.StringKind:
		return object{{"type", "string"}}
	case protoreflect.BytesKind:
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	}
	panic(fmt.Sprintf("openapi: no schema for %v", kind))
}

func float(format string) object {
	return object{{"anyOf", list{
		object{{"type", "number"}, {"format", format}},
		object{{"type", "string"}, {"enum", list{"NaN", "Infinity", "-Infinity"}}},
	}}}
}

// enum is the schema of an enum.
func (s *schemas) enum(ed protoreflect.EnumDescriptor) object {
	var values list
	var notes []string
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		var value any = string(v.Name())
		if s.json.UseEnumNumbers {
			value = int(v.Number())
		}
		if !slices.Contains(values, value) { // an alias has the same number
			values = append(values, value)
		}
		var about []string
		if s.json.UseEnumNumbers {
			about = append(about, string(v.Name()))
		}
		if comment := s.comments.of(v); comment != "" {
			about = append(about, strings.Join(strings.Fields(comment), " "))
		}
		if isDeprecated(v) {
			about = append(about, "Deprecated.")
		}
		if len(about) > 0 {
			notes = append(notes, fmt.Sprintf("- `%v`: %s", value, strings.Join(about, " ")))
		}
	}
	o := object{{"type", "string"}, {"enum", values}}
	if s.json.UseEnumNumbers {
		o[0].value = "integer"
	}
	return deprecate(describe(o, s.comments.of(ed), strings.Join(notes, "\n")), ed)
}

// wellKnown is the schema of a type whose JSON is not that of its fields, nil for others.
func (s *schemas) wellKnown(d protoreflect.Descriptor) object {
	switch d.FullName() {
	case "google.protobuf.Any":
		return object{{"type", "object"},
			{"description", "A message of any type, which `@type` names. " +
				"Its fields are beside that; where its JSON is no object, it is in `value`."},
			{"properties", object{{"@type", object{{"type", "string"}}}}}}
	case "google.protobuf.Timestamp":
		return object{{"type", "string"}, {"format", "date-time"}}
	case "google.protobuf.Duration":
		return object{{"type", "string"}, {"description", "Seconds, such as `1.5s`."}, {"pattern", `^-?[0-9]+(\.[0-9]{1,9})?s$`}}
	case "google.protobuf.FieldMask":
		return object{{"type", "string"}, {"description", "Paths of fields with commas between them, such as `name,author.name`."}}
	case "google.protobuf.Struct":
		return object{{"type", "object"}, {"description", "Any JSON object."}, {"additionalProperties", true}}
	case "google.protobuf.Value":
		return object{{"description", "Any JSON."}}
	case "google.protobuf.ListValue":
		return object{{"type", "array"}, {"description", "Any JSON array."}, {"items", object{}}}
	case "google.protobuf.NullValue":
		return object{{"type", "null"}}
	}
	if md, ok := d.(protoreflect.MessageDescriptor); ok && isWrapper(md) {
		return nullable(scalar(md.Fields().ByName("value").Kind()))
	}
	return nil
}

// isWrapper tells whether md is a message of google/protobuf/wrappers.proto.
func isWrapper(md protoreflect.MessageDescriptor) bool {
	return md.ParentFile().Path() == "google/protobuf/wrappers.proto"
}

// nullable lets null through as well.
func nullable(o object) object {
	null := object{{"type", "null"}}
	if t, ok := o.get("type").(string); ok {
		o.set("type", list{t, "null"})
		return o
	}
	if of, ok := o.get("anyOf").(list); ok {
		o.set("anyOf", append(of, null))
		return o
	}
	return object{{"anyOf", list{o, null}}}
}

// describe adds a description of the paragraphs that are not empty, if there is one.
func describe(o object, paragraphs ...string) object {
	paragraphs = slices.DeleteFunc(paragraphs, func(p string) bool { return p == "" })
	if len(paragraphs) == 0 {
		return o
	}
	return append(o, member{"description", strings.Join(paragraphs, "\n\n")})
}

// deprecate marks what the .proto file does.
func deprecate(o object, d protoreflect.Descriptor) object {
	if isDeprecated(d) {
		return append(o, member{"deprecated", true})
	}
	return o
}

func isDeprecated(d protoreflect.Descriptor) bool {
	opts, ok := d.Options().(interface{ GetDeprecated() bool })
	return ok && opts.GetDeprecated()
}
