package openapi

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object with its members in order.
type object []member

type member struct {
	name  string
	value any // object, list, or what encoding/json takes
}

type list []any

// set adds a member or replaces the one of that name.
func (o *object) set(name string, value any) {
	for i := range *o {
		if (*o)[i].name == name {
			(*o)[i].value = value
			return
		}
	}
	*o = append(*o, member{name, value})
}

func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// appendJSON appends v for people to read. indent is that of the line that it begins on.
func appendJSON(b []byte, v any, indent string) []byte {
	inner := indent + "  "
	switch v := v.(type) {
	case object:
		if len(v) == 0 {
			return append(b, "{}"...)
		}
		b = append(b, '{')
		for i, m := range v {
			b = appendComma(b, i, inner)
			b = appendJSON(b, m.name, inner)
			b = append(b, ": "...)
			b = appendJSON(b, m.value, inner)
		}
		return append(append(b, "\n"+indent...), '}')
	case list:
		if len(v) == 0 {
			return append(b, "[]"...)
		}
		b = append(b, '[')
		for i, e := range v {
			b = appendComma(b, i, inner)
			b = appendJSON(b, e, inner)
		}
		return append(append(b, "\n"+indent...), ']')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings, numbers and booleans have no errors
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

func appendComma(b []byte, i int, indent string) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return append(append(b, '\n'), indent...)
}
