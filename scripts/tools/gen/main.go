// Command gen regenerates the Go beside every .proto file of a directory, in pure Go: the
// files are compiled by bufbuild/protocompile and the result is handed to protoc-gen-go and
// protoc-gen-go-grpc, at the versions that go.mod pins, as protoc would.
//
// Usage, in the directory of this module:
//
//	go run ./gen [-descriptor_set_out FILE] [-gateway OUT [-import PATH]] DIR
//
// Every DIR/*/*.proto is compiled, under its name relative to DIR, which is also how one file
// imports another; the files of google.api, such as google/api/annotations.proto, are there
// as well. Nothing is written unless all of them compile, and nothing is removed. With
// the flag no Go is generated: the compiled files and all that they import go to FILE, as a
// google.protobuf.FileDescriptorSet, for programs that learn of a service at run time.
//
// With -gateway, OUT gets what protoc-gen-grpc-gateway makes of the files, in packages that
// import those of the files' go_package; with -import as well these are there too, and
// nothing else is needed: all Go of a file is in the one package PATH/dir.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins are the generators, by the names under which `go tool` runs them.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

const gatewayPlugin = "protoc-gen-grpc-gateway"

// target is what becomes of the files.
type target struct {
	set        string // file for their descriptors, "" for Go
	gateway    string // directory for Go with grpc-gateway, "" for Go without, beside the files
	importPath string // of that directory, "" if there is to be nothing else in it
}

func main() {
	var to target
	flag.StringVar(&to.set, "descriptor_set_out", "", "write a FileDescriptorSet to `FILE` and generate nothing")
	flag.StringVar(&to.gateway, "gateway", "", "generate for grpc-gateway, to the directory `OUT`")
	flag.StringVar(&to.importPath, "import", "", "with -gateway: generate all Go, in packages below `PATH`")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run ./gen [-descriptor_set_out FILE] [-gateway OUT [-import PATH]] DIR")
	}
	flag.Parse()
	if flag.NArg() != 1 || to.importPath != "" && to.gateway == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), flag.Arg(0), to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run makes of every file in dir what is to be made of it.
func run(ctx context.Context, dir string, to target) error {
	names, err := fs.Glob(os.DirFS(dir), "*/*.proto") // sorted, so the output does not vary
	if err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	if len(names) == 0 {
		return fmt.Errorf("gen: no */*.proto in %s", dir)
	}
	files, err := compile(ctx, dir, names)
	if err != nil {
		return err
	}
	if to.set != "" {
		return writeDescriptors(to.set, files)
	}
	out, err := to.generate(ctx, files)
	if err != nil {
		return err
	}
	if to.gateway != "" {
		dir = to.gateway
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	defer root.Close()
	for _, f := range out {
		name := filepath.FromSlash(f.GetName())
		if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return fmt.Errorf("gen: %w", err)
		}
		if err := root.WriteFile(name, []byte(f.GetContent()), 0o644); err != nil {
			return fmt.Errorf("gen: %w", err)
		}
	}
	return nil
}

// generate runs the plugins on files.
func (to *target) generate(ctx context.Context, files linker.Files) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	plugins, parameter := plugins, "paths=source_relative"
	switch {
	case to.gateway == "":
	case to.importPath == "":
		plugins = []string{gatewayPlugin}
		parameter += ",standalone=true"
	default:
		plugins = append(slices.Clone(plugins), gatewayPlugin)
		for _, f := range files {
			parameter += fmt.Sprintf(",M%s=%s", f.Path(), path.Join(to.importPath, path.Dir(f.Path())))
		}
	}
	var out []*pluginpb.CodeGeneratorResponse_File
	for _, p := range plugins {
		generated, err := generate(ctx, p, parameter, files)
		if err != nil {
			return nil, err
		}
		out = append(out, generated...)
	}
	return out, nil
}

// compile compiles the named files, which are relative to dir. A fault in them gives an error
// with a line for each that was found, which begins with file:line:column, the file as seen from
// the parent of dir. Warnings go to standard error in the same form.
func compile(ctx context.Context, dir string, names []string) (linker.Files, error) {
	text := func(e reporter.ErrorWithPos) string { return filepath.Base(dir) + "/" + e.Error() }
	var faults []string
	c := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{dir}}, protocompile.ResolverFunc(linkedIn)}),
		SourceInfoMode: protocompile.SourceInfoStandard, // comments reach the generated code
		Reporter: reporter.NewReporter(
			func(e reporter.ErrorWithPos) error { faults = append(faults, text(e)); return nil },
			func(e reporter.ErrorWithPos) { fmt.Fprintln(os.Stderr, text(e)) },
		),
	}
	files, err := c.Compile(ctx, names...)
	if e, ok := errors.AsType[reporter.ErrorWithPos](err); ok {
		faults = append(faults, text(e)) // an import that is not found is returned, not reported
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("gen: %w", err)
	}
	return files, nil
}

// linkedIn finds a file in this program itself, which has those of google.api.
func linkedIn(name string) (protocompile.SearchResult, error) {
	f, err := protoregistry.GlobalFiles.FindFileByPath(name)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	return protocompile.SearchResult{Desc: f}, nil
}

// generate runs one plugin on files and returns what it would write, with names relative to
// the directory that files are relative to, or that which stands for it. The request names no protoc version, for there is
// none: the generated header then says "(unknown)", on every machine.
func generate(ctx context.Context, plugin, parameter string, files linker.Files) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	req := &pluginpb.CodeGeneratorRequest{Parameter: proto.String(parameter)}
	for _, f := range files {
		req.FileToGenerate = append(req.FileToGenerate, f.Path())
		req.ProtoFile = appendFile(req.ProtoFile, f)
	}
	in, err := proto.Marshal(req)
	if err == nil && plugin == gatewayPlugin {
		in, err = withoutRefused(in)
	}
	if err != nil {
		return nil, fmt.Errorf("gen: %s: %w", plugin, err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("gen: %s: %w", plugin, err)
	}
	res := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(out, res); err != nil {
		return nil, fmt.Errorf("gen: %s: %w", plugin, err)
	}
	if res.Error != nil {
		return nil, fmt.Errorf("gen: %s: %s", plugin, res.GetError())
	}
	return res.File, nil
}

// withoutRefused takes from a request the rules for which grpc-gateway makes no Go at all:
// those of methods that take a stream and have variables in the path.
func withoutRefused(in []byte) ([]byte, error) {
	req := new(pluginpb.CodeGeneratorRequest)
	if err := proto.Unmarshal(in, req); err != nil {
		return nil, err
	}
	for _, f := range req.ProtoFile {
		for _, s := range f.Service {
			for _, m := range s.Method {
				rule, _ := proto.GetExtension(m.Options, annotations.E_Http).(*annotations.HttpRule)
				for _, r := range append(rule.GetAdditionalBindings(), rule) {
					path := r.GetPost() + r.GetPut() + r.GetPatch() + r.GetCustom().GetPath()
					if m.GetClientStreaming() && strings.Contains(path, "{") {
						proto.ClearExtension(m.Options, annotations.E_Http)
					}
				}
			}
		}
	}
	return proto.Marshal(req)
}

// writeDescriptors writes the descriptors of files and of what they import to the file name.
func writeDescriptors(name string, files linker.Files) error {
	set := new(descriptorpb.FileDescriptorSet)
	for _, f := range files {
		set.File = appendFile(set.File, f)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(set) // so that it can be compared
	if err == nil {
		err = os.WriteFile(name, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	return nil
}

// appendFile appends f to list, after the files that it imports, as a plugin expects them,
// unless it is there already.
func appendFile(list []*descriptorpb.FileDescriptorProto, f protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	seen := func(p *descriptorpb.FileDescriptorProto) bool { return p.GetName() == f.Path() }
	if slices.ContainsFunc(list, seen) {
		return list
	}
	imports := f.Imports()
	for i := range imports.Len() {
		list = appendFile(list, imports.Get(i).FileDescriptor)
	}
	return append(list, protoutil.ProtoFromFileDescriptor(f))
}
