package rest

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Segment is one part of a path template between slashes.
type Segment struct {
	Text string // as in a path, escaped; "*" or "**" for a wildcard
	Wild bool
	Deep bool // any number of segments
	Var  *Var // of the route, that captures it; nil for none
}

// Segments returns the segments of the template, and its verb without the colon.
func (r *Route) Segments() (segments []Segment, verb string) {
	for i, s := range r.template.segments {
		seg := Segment{Text: s.String(), Wild: s.kind != literal, Deep: s.kind == deep}
		for j, v := range r.template.vars {
			if v.start <= i && i < v.end {
				seg.Var = &r.Vars[j]
			}
		}
		segments = append(segments, seg)
	}
	return segments, r.template.verb
}

// Raw tells whether body and answer are bytes of a google.api.HttpBody, not JSON.
func (r *Route) Raw() (body, answer bool) { return r.input, r.output }

// Query returns the fields that a query can set, each with those that lead to it, the
// outer ones first. Messages within one of their own type have no end and are left out.
func (r *Route) Query() iter.Seq[[]protoreflect.FieldDescriptor] {
	return func(yield func([]protoreflect.FieldDescriptor) bool) {
		if r.WholeBody {
			return
		}
		for within := [][]protoreflect.FieldDescriptor{nil}; len(within) > 0; within = within[1:] {
			outer := within[0]
			md := r.Descriptor.Input()
			if len(outer) > 0 {
				md = outer[len(outer)-1].Message()
			}
			for i := range md.Fields().Len() {
				fd := md.Fields().Get(i)
				path := append(slices.Clip(outer), fd)
				switch {
				case path[0] == r.Body:
				case hasParameter(fd):
					if !r.boundElsewhere(path) && !yield(path) {
						return
					}
				case single(fd) != nil && !r.recurs(path):
					within = append(within, path)
				}
			}
		}
	}
}

// hasParameter tells whether a field has text as one parameter, or its elements do.
func hasParameter(fd protoreflect.FieldDescriptor) bool {
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	return fd.Message() == nil || hasText(fd.Message())
}

// recurs tells whether the last of fields is a message within another of its type.
func (r *Route) recurs(fields []protoreflect.FieldDescriptor) bool {
	last := fields[len(fields)-1]
	return last.Message() == r.Descriptor.Input() ||
		slices.ContainsFunc(fields[:len(fields)-1], func(fd protoreflect.FieldDescriptor) bool { return fd.Message() == last.Message() })
}
