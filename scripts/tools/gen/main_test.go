package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// write makes a directory that holds files, by name, and returns its path, which ends in "proto".
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "proto")
	for name, text := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read returns the files below dir, by name.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, name)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRun(t *testing.T) {
	dir := write(t, map[string]string{
		"a/a.proto": `syntax = "proto3";
package a;
import "b/b.proto";
import "google/protobuf/duration.proto";
option go_package = "example.com/a";
// S has a comment.
service S { rpc M(b.B) returns (google.protobuf.Duration); }
`,
		"b/b.proto": `syntax = "proto3";
package b;
option go_package = "example.com/b";
message B { string s = 1; }
`,
		"a/note.txt": "not ours",
	})
	if err := run(t.Context(), dir, target{}); err != nil {
		t.Fatal(err)
	}
	first := read(t, dir)
	want := []string{"a/a.pb.go", "a/a.proto", "a/a_grpc.pb.go", "a/note.txt", "b/b.pb.go", "b/b.proto"}
	if got := slices.Sorted(maps.Keys(first)); !slices.Equal(got, want) {
		t.Errorf("files = %q, want %q", got, want)
	}
	if !strings.Contains(first["a/a_grpc.pb.go"], "// S has a comment.") {
		t.Error("the comment of the service is not in a_grpc.pb.go")
	}

	if err := run(t.Context(), dir, target{}); err != nil {
		t.Fatal(err)
	}
	if second := read(t, dir); !maps.Equal(first, second) {
		t.Error("a second run gave other files")
	}
}

// The files of google.api need not be in the directory, and nothing is generated for them.
func TestGoogleAPI(t *testing.T) {
	dir := write(t, map[string]string{"a/a.proto": `syntax = "proto3";
package a;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
option go_package = "example.com/a";
service S { rpc M(google.api.HttpBody) returns (google.api.HttpBody) { option (google.api.http) = { post: "/m" body: "*" }; } }
`})
	if err := run(t.Context(), dir, target{}); err != nil {
		t.Fatal(err)
	}
	files := read(t, dir)
	want := []string{"a/a.pb.go", "a/a.proto", "a/a_grpc.pb.go"}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("files = %q, want %q", got, want)
	}
	if !strings.Contains(files["a/a.pb.go"], "google.golang.org/genproto/googleapis/api/annotations") {
		t.Error("a.pb.go does not import what has the option")
	}
}

// TestGateway generates for grpc-gateway, which is all that is written then.
func TestGateway(t *testing.T) {
	sources := map[string]string{"a/a.proto": `syntax = "proto3";
package a;
import "google/api/annotations.proto";
option go_package = "example.com/a";
service S { rpc M(N) returns (N) { option (google.api.http) = { get: "/m" }; } }
message N {}
`}
	dir := write(t, sources)
	for _, tt := range []struct {
		importPath string
		want       []string
		text       string // in the last of them
	}{
		{"", []string{"a/a.pb.gw.go"}, `"example.com/a"`},
		{"example.org/b", []string{"a/a.pb.go", "a/a.pb.gw.go", "a/a_grpc.pb.go"}, "\npackage a\n"},
	} {
		out := t.TempDir()
		if err := run(t.Context(), dir, target{gateway: out, importPath: tt.importPath}); err != nil {
			t.Fatal(err)
		}
		files := read(t, out)
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, tt.want) {
			t.Errorf("-import %q: files = %q, want %q", tt.importPath, got, tt.want)
		}
		if last := tt.want[len(tt.want)-1]; !strings.Contains(files[last], tt.text) {
			t.Errorf("-import %q: %q is not in %s", tt.importPath, tt.text, last)
		}
	}
	if got := read(t, dir); !maps.Equal(got, sources) {
		t.Errorf("files = %q, want none but the sources", slices.Sorted(maps.Keys(got)))
	}
}

// TestDescriptorSet makes every descriptor from the set alone, as a program would that has
// nothing else.
func TestDescriptorSet(t *testing.T) {
	sources := map[string]string{
		"a/a.proto": `syntax = "proto3";
package a;
import "b/b.proto";
service S { rpc M(b.B) returns (b.B) { option idempotency_level = NO_SIDE_EFFECTS; } }
`,
		"b/b.proto": `syntax = "proto3";
package b;
import "google/protobuf/duration.proto";
message B { google.protobuf.Duration d = 1; }
`,
	}
	dir := write(t, sources)
	name := filepath.Join(t.TempDir(), "set")
	if err := run(t.Context(), dir, target{set: name}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(b, set); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range set.File {
		names = append(names, f.GetName())
	}
	want := []string{"google/protobuf/duration.proto", "b/b.proto", "a/a.proto"}
	if !slices.Equal(names, want) {
		t.Errorf("files = %q, want %q: each once, after what it imports", names, want)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.FindDescriptorByName("a.S.M")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel(); got != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		t.Errorf("idempotency_level = %v, want NO_SIDE_EFFECTS", got)
	}
	if got := read(t, dir); !maps.Equal(got, sources) {
		t.Errorf("files = %q, want none but the sources", slices.Sorted(maps.Keys(got)))
	}
}

func TestRunFaults(t *testing.T) {
	const good = "syntax = \"proto3\";\npackage a;\noption go_package = \"example.com/a\";\nmessage M {}\n"
	tests := []struct {
		name  string
		files map[string]string
		want  []string // what the lines of the error begin with
	}{
		{"syntax", map[string]string{"a/a.proto": good, "b/b.proto": "syntax = \"proto3\";\nmessage {\n"}, []string{"proto/b/b.proto:2:9: "}},
		{"unknown type", map[string]string{"a/a.proto": good + "message N { X x = 1; }\n"}, []string{"proto/a/a.proto:5:13: "}},
		{"two files", map[string]string{"a/a.proto": good + "message M {}\n", "b/b.proto": "syntax = \"proto3\";\nmessage N { X x = 1; }\n"},
			[]string{"proto/a/a.proto:5:9: ", "proto/b/b.proto:2:13: "}},
		{"missing import", map[string]string{"a/a.proto": "syntax = \"proto3\";\nimport \"c/c.proto\";\n"}, []string{"proto/a/a.proto:2:8: "}},
		{"no go_package", map[string]string{"a/a.proto": "syntax = \"proto3\";\n"}, []string{"gen: protoc-gen-go: "}},
		{"no file", map[string]string{"a.proto": good}, []string{"gen: no */*.proto in "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, tt.files)
			err := run(t.Context(), dir, target{})
			if err == nil {
				t.Fatal("run = nil, want an error")
			}
			lines := strings.Split(err.Error(), "\n")
			slices.Sort(lines) // files are compiled side by side
			if !slices.EqualFunc(lines, tt.want, strings.HasPrefix) {
				t.Errorf("run = %q, want lines that begin with %q", lines, tt.want)
			}
			if got := read(t, dir); !maps.Equal(got, tt.files) {
				t.Errorf("files = %q, want none but the sources", slices.Sorted(maps.Keys(got)))
			}
		})
	}
}
