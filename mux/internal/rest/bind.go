package rest

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"oneport/mux/internal/rpc"
)

// maxDepth bounds the nesting that a client can ask for.
const maxDepth = rpc.MaxJSONDepth

// fieldError says which field of the request is wrong.
type fieldError struct {
	path string // as the client wrote it, or as the template has it; UTF-8
	err  error
}

func (e *fieldError) Error() string { return fmt.Sprintf("%.200s: %v", e.path, e.err) }

// bindPath sets the fields that the path has captured.
func (r *Route) bindPath(m protoreflect.Message, captured []string) error {
	for i, v := range r.Vars {
		fd := v.Fields[len(v.Fields)-1]
		msg, err := descend(m, v.Fields)
		if err != nil {
			return &fieldError{v.Path, err}
		}
		val, err := parseValue(fd, captured[i], func() protoreflect.Value { return msg.NewField(fd) })
		if err != nil {
			return &fieldError{v.Path, err}
		}
		msg.Set(fd, val)
	}
	return nil
}

// descend returns the message in m in which the last of fields is to be set. The error says
// of which oneof another member is there already, from the body or another parameter.
func descend(m protoreflect.Message, fields []protoreflect.FieldDescriptor) (protoreflect.Message, error) {
	for i, fd := range fields {
		if of := fd.ContainingOneof(); of != nil {
			if other := m.WhichOneof(of); other != nil && other != fd {
				return nil, fmt.Errorf("%s of the same oneof %s is set", other.Name(), of.Name())
			}
		}
		if i < len(fields)-1 {
			m = m.Mutable(fd).Message()
		}
	}
	return m, nil
}

// bindQuery sets the fields that a query names, in its order. Parameters of no field are
// ignored, as unknown fields of JSON are; so are those of fields that come from elsewhere.
func (r *Route) bindQuery(m protoreflect.Message, query string) error {
	if query == "" || r.WholeBody {
		return nil
	}
	q := queryBinder{route: r, seen: make(map[string]bool)}
	for param := range strings.SplitSeq(query, "&") {
		if param == "" {
			continue
		}
		key, val, _ := strings.Cut(param, "=")
		key, err := url.QueryUnescape(key)
		if err == nil {
			val, err = url.QueryUnescape(val)
		}
		if err != nil {
			return fmt.Errorf("the query is malformed: %.100q", param)
		}
		if err := q.bind(m, key, val); err != nil {
			return &fieldError{strings.ToValidUTF8(key, "?"), err}
		}
	}
	return nil
}

type queryBinder struct {
	route *Route
	seen  map[string]bool // fields that can be set only once
}

// bind sets the field of m that key names: by names of fields as in protobuf or in JSON
// with dots between them, and for an entry of a map with its key in brackets after them.
func (q *queryBinder) bind(m protoreflect.Message, key, text string) error {
	names, mapKey, ofMap := strings.Cut(key, "[")
	if ofMap {
		var ok bool
		if mapKey, ok = strings.CutSuffix(mapKey, "]"); !ok {
			return nil
		}
	}
	fields := resolve(m.Descriptor(), names)
	if fields == nil || q.route.boundElsewhere(fields) {
		return nil
	}
	last := len(fields) - 1
	fd := fields[last]
	for _, f := range fields[:last] {
		if f.Cardinality() == protoreflect.Repeated {
			return fmt.Errorf("%s is repeated; a query cannot set what is in it", f.Name())
		}
	}
	switch {
	case ofMap && !fd.IsMap():
		return errors.New("is not a map")
	case !ofMap && fd.IsMap():
		return fmt.Errorf("is a map; write %s[key]=value", key)
	}
	if !fd.IsList() && !fd.IsMap() {
		path := fieldPath(fields)
		if q.seen[path] {
			return errTwice
		}
		q.seen[path] = true
	}
	m, err := descend(m, fields)
	if err != nil {
		return err
	}
	switch {
	case ofMap:
		entries := m.Mutable(fd).Map()
		k, err := parseValue(fd.MapKey(), mapKey, nil)
		if err != nil {
			return err
		}
		if entries.Has(k.MapKey()) { // however it was written
			return errTwice
		}
		v, err := parseValue(fd.MapValue(), text, entries.NewValue)
		if err != nil {
			return err
		}
		entries.Set(k.MapKey(), v)
	case fd.IsList():
		list := m.Mutable(fd).List()
		v, err := parseValue(fd, text, list.NewElement)
		if err != nil {
			return err
		}
		list.Append(v)
	default:
		v, err := parseValue(fd, text, func() protoreflect.Value { return m.NewField(fd) })
		if err != nil {
			return err
		}
		m.Set(fd, v)
	}
	return nil
}

var errTwice = errors.New("is there twice")

// resolve finds the fields that lead to one, nil if there is no such field.
func resolve(md protoreflect.MessageDescriptor, names string) []protoreflect.FieldDescriptor {
	var fields []protoreflect.FieldDescriptor
	for name := range strings.SplitSeq(names, ".") {
		if md == nil || len(fields) == maxDepth {
			return nil
		}
		fd := md.Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			if fd = md.Fields().ByJSONName(name); fd == nil {
				return nil
			}
		}
		fields = append(fields, fd)
		md = fd.Message()
	}
	return fields
}

func fieldPath(fields []protoreflect.FieldDescriptor) string {
	var b strings.Builder
	for i, fd := range fields {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(string(fd.Name()))
	}
	return b.String()
}

// boundElsewhere tells whether the body or the path sets a field, one around it or one
// within it.
func (r *Route) boundElsewhere(fields []protoreflect.FieldDescriptor) bool {
	if r.Body != nil && fields[0] == r.Body {
		return true
	}
	for _, v := range r.Vars {
		same := true
		for i := range min(len(fields), len(v.Fields)) {
			same = same && fields[i] == v.Fields[i]
		}
		if same {
			return true
		}
	}
	return false
}
