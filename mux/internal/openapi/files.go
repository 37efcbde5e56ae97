package openapi

import (
	"log/slog"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// filesOf returns the files of the services and all that they import, each after its
// imports. Those that given has as well get their comments from there, since generated
// code has none. A service that is not among protoregistry.GlobalFiles is left out.
func filesOf(services []string, given *descriptorpb.FileDescriptorSet, log *slog.Logger) *descriptorpb.FileDescriptorSet {
	commented := make(map[string]*descriptorpb.FileDescriptorProto)
	for _, f := range given.GetFile() {
		commented[f.GetName()] = f
	}
	set := new(descriptorpb.FileDescriptorSet)
	seen := make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if f.IsPlaceholder() || seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		file := protodesc.ToFileDescriptorProto(f)
		if g := commented[f.Path()]; g != nil && declareTheSame(file, g) {
			file.SourceCodeInfo = g.SourceCodeInfo
		} else if g != nil && !strings.HasPrefix(f.Path(), "google/protobuf/") { // those come with each compiler
			log.Warn("mux.WithOpenAPI has been given another version of a file than this program has; its comments are left out",
				"file", f.Path())
		}
		set.File = append(set.File, file)
	}
	var want []string
	for _, name := range services {
		if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
			add(d.ParentFile())
			want = append(want, d.ParentFile().Path())
		}
	}
	if len(commented) > 0 && !slices.ContainsFunc(want, func(path string) bool { return commented[path] != nil }) {
		log.Warn("mux.WithOpenAPI has been given no file of a service; files must have the names that generated code has",
			"given", slices.Sorted(maps.Keys(commented)), "want", want)
	}
	return set
}

// declareTheSame tells whether comments of one file are at the same places in another:
// they are stored by index. Options do not count, some of which are not kept in generated
// code.
func declareTheSame(a, b *descriptorpb.FileDescriptorProto) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	strip(a.ProtoReflect())
	strip(b.ProtoReflect())
	return proto.Equal(a, b)
}

func strip(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Name() == "options", fd.Name() == "source_code_info", fd.Name() == "json_name":
			m.Clear(fd)
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				strip(v.List().Get(i).Message())
			}
		case fd.Message() != nil:
			strip(v.Message())
		}
		return true
	})
}

// comments finds the comments of what files declare.
type comments struct{ files *protoregistry.Files }

func newComments(set *descriptorpb.FileDescriptorSet) (comments, error) {
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
	return comments{files}, err
}

// of returns the comment of a declaration as Markdown, "" if it has none: the one before
// it, else the one behind it.
func (c comments) of(d protoreflect.Descriptor) string {
	d, err := c.files.FindDescriptorByName(d.FullName())
	if err != nil {
		return ""
	}
	loc := d.ParentFile().SourceLocations().ByDescriptor(d)
	text := loc.LeadingComments
	if strings.TrimSpace(text) == "" {
		text = loc.TrailingComments
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(strings.TrimPrefix(line, " "), " \t\r")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// summary is the first sentence of a comment, in one line and without its full stop.
func summary(comment string) string {
	text, _, _ := strings.Cut(comment, "\n\n")
	text = strings.Join(strings.Fields(text), " ")
	text, _, _ = strings.Cut(text, ". ")
	return strings.TrimSuffix(text, ".")
}
