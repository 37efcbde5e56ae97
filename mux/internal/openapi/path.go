package openapi

import (
	"fmt"
	"slices"
	"strings"

	"oneport/mux/internal/rest"
)

// path is a path template as OpenAPI has it: a parameter is one segment of it, while a
// variable of google.api.http may capture several, with literals between them.
type path struct {
	parts []part
	verb  string
}

// part is a segment: a literal, or a parameter.
type part struct {
	literal string
	param   string // its name, "" for a literal
	base    string // the same without number
	deep    bool   // the parameter is any number of segments
	of      *rest.Var
}

// pathOf translates a template. A parameter that is all of a variable has its name; one
// that is a part has that of the literal before it, as the flat paths of Google's
// discovery documents have: {name=shelves/*} is shelves/{shelvesId}.
func pathOf(r *rest.Route) path {
	segments, verb := r.Segments()
	p := path{verb: verb}
	for i, s := range segments {
		if !s.Wild {
			p.parts = append(p.parts, part{literal: s.Text, of: s.Var})
			continue
		}
		name := "segment"
		if s.Var != nil {
			name = s.Var.Path
			if i > 0 && segments[i-1].Var == s.Var && !segments[i-1].Wild {
				name = identifier(segments[i-1].Text) + "Id"
			}
		}
		p.parts = append(p.parts, part{param: p.free(name), base: name, deep: s.Deep, of: s.Var})
	}
	return p
}

// identifier makes a name of a literal.
func identifier(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			return c
		}
		return '_'
	}, s)
}

// free is name, with a number if p has a parameter of that name.
func (p path) free(name string) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(p.parts, func(o part) bool { return o.param == name })
	}
	free := name
	for i := 2; taken(free); i++ {
		free = fmt.Sprint(name, i)
	}
	return free
}

// String is the path as a key of the document.
func (p path) String() string { return p.format(func(name string) string { return name }) }

// shape is the same for paths that differ in the names of parameters only, of which a
// document can have but one.
func (p path) shape() string { return p.format(func(string) string { return "" }) }

func (p path) format(name func(string) string) string {
	text := join(p.parts, name)
	if p.verb != "" {
		text += ":" + p.verb
	}
	return "/" + text
}

func join(parts []part, name func(string) string) string {
	var texts []string
	for _, s := range parts {
		if s.param != "" {
			texts = append(texts, "{"+name(s.param)+"}")
		} else {
			texts = append(texts, s.literal)
		}
	}
	return strings.Join(texts, "/")
}

// value writes what a variable captures, with the names of parameters.
func (p path) value(v *rest.Var) string {
	var parts []part
	for _, s := range p.parts {
		if s.of == v {
			parts = append(parts, s)
		}
	}
	return join(parts, func(name string) string { return name })
}

// widen shows a parameter that is any number of segments as one more. It reports false if
// there is none.
func (p *path) widen() bool {
	i := p.deep()
	if i < 0 {
		return false
	}
	p.parts = slices.Clone(p.parts)
	rest := p.parts[i]
	rest.param = p.free(rest.base)
	p.parts[i].deep = false
	p.parts = slices.Insert(p.parts, i+1, rest)
	return true
}

// deep is where p has a parameter that is any number of segments, -1 for nowhere.
func (p path) deep() int { return slices.IndexFunc(p.parts, func(s part) bool { return s.deep }) }
