package openapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux/internal/openapi"
	"oneport/mux/internal/openapi/openapitest"
	"oneport/mux/internal/rest"
	"oneport/mux/internal/rest/resttest"
	"oneport/mux/internal/rpc"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHandler describes services, and returns the routes it was given too.
func newHandler(t testing.TB, cfg openapi.Config, opts protojson.MarshalOptions, services ...*grpc.ServiceDesc) (*openapi.Handler, []*rest.Route) {
	t.Helper()
	cfg.Registry = rpc.NewRegistry(rpc.Config{JSON: opts})
	h := rest.New(cfg.Registry)
	for _, sd := range services {
		cfg.Registry.RegisterService(sd, nil)
		if err := h.Add(sd.ServiceName); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Registry.Freeze()
	cfg.Routes = h.Routes()
	if cfg.Title == "" {
		cfg.Title, cfg.Version = "test", "1"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return openapi.New(cfg), cfg.Routes
}

// comments reads what scripts/gen has written.
func comments(t testing.TB, file string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(b, set); err != nil {
		t.Fatal(err)
	}
	return set
}

const things = "openapitest/descriptors.binpb"

func get(t testing.TB, h http.HandlerFunc, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	for _, field := range header {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h(w, r)
	return w
}

// The documents of two services that have all there is to describe. An independent
// validator looks at these files, and at JSON of their messages: see scripts/openapi.
func TestDocument(t *testing.T) {
	for _, d := range openapitest.Documents {
		t.Run(d.Name, func(t *testing.T) {
			var cfg openapi.Config
			if d.Comments != "" {
				cfg.Comments = comments(t, d.Comments)
			}
			h, routes := newHandler(t, cfg, d.JSON, d.Service)
			text := get(t, h.Document).Body.Bytes()
			golden(t, d.Name+".json", text)
			checkDocument(t, text, routes)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// checkDocument checks what holds for every document: references lead somewhere, each
// rule is one operation, and no two paths are the same but for names.
func checkDocument(t *testing.T, text []byte, routes []*rest.Route) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	operations, shapes := make(map[string]int), make(map[string]bool)
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && lookup(doc, ref) == nil {
				t.Errorf("%s: %s leads nowhere", at, ref)
			}
			if id, ok := v["operationId"].(string); ok {
				operations[id]++
			}
			for name, e := range v {
				walk(at+"/"+name, e)
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprint(at, "/", i), e)
			}
		}
	}
	walk("", doc)
	for path := range doc["paths"].(map[string]any) {
		var shape strings.Builder
		for i, s := range strings.Split(path, "{") {
			if i > 0 {
				_, s, _ = strings.Cut(s, "}")
				shape.WriteString("{}")
			}
			shape.WriteString(s)
		}
		if shapes[shape.String()] {
			t.Errorf("the path %s is there twice", path)
		}
		shapes[shape.String()] = true
	}
	n := make(map[string]int)
	for _, r := range routes {
		id := string(r.Descriptor.FullName())
		if n[id]++; n[id] > 1 {
			id = fmt.Sprint(id, ".", n[id])
		}
		if operations[id] != 1 {
			t.Errorf("%s %s is there %d times as %s, want once", r.HTTPMethod, r.Template(), operations[id], id)
		}
		delete(operations, id)
	}
	for id, n := range operations {
		if n != 1 {
			t.Errorf("the operation %s is there %d times", id, n)
		}
	}
}

// lookup follows a reference within a document.
func lookup(doc any, ref string) any {
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	return doc
}

// The set describes the services without anything else: each file after its imports, and
// with comments where there are some of the same file.
func TestDescriptors(t *testing.T) {
	h, _ := newHandler(t, openapi.Config{Comments: comments(t, things)}, protojson.MarshalOptions{}, &openapitest.Things_ServiceDesc)
	res := get(t, h.Descriptors)
	if got := res.Header().Get("Content-Type"); got != "application/protobuf" {
		t.Errorf("Content-Type = %q", got)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(res.Body.Bytes(), set); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range set.File {
		for _, imported := range f.Dependency {
			if !seen[imported] {
				t.Errorf("%s comes before its import %s", f.GetName(), imported)
			}
		}
		if seen[f.GetName()] {
			t.Errorf("%s is there twice", f.GetName())
		}
		seen[f.GetName()] = true
		own := strings.HasPrefix(f.GetName(), "openapitest/")
		if has := len(f.GetSourceCodeInfo().GetLocation()) > 0; has != own {
			t.Errorf("%s has source info: %v, want %v", f.GetName(), has, own)
		}
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("openapitest.Things.Get")
	if err != nil {
		t.Fatal(err)
	}
	if got := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments; !strings.Contains(got, "one segment") {
		t.Errorf("the comment of Get is %q", got)
	}
}

// Comments of another version of a file would be at the wrong places.
func TestOtherComments(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*descriptorpb.FileDescriptorProto)
		kept   bool
	}{
		{"another name", func(f *descriptorpb.FileDescriptorProto) { f.Name = new("proto/" + f.GetName()) }, false},
		{"the same", func(*descriptorpb.FileDescriptorProto) {}, true},
		{"other options", func(f *descriptorpb.FileDescriptorProto) {
			f.Options.GoPackage = new("x")
			f.Service[0].Method[0].Options = nil
		}, true},
		{"no JSON names", func(f *descriptorpb.FileDescriptorProto) { f.MessageType[0].Field[0].JsonName = nil }, true},
		{"from buf", func(f *descriptorpb.FileDescriptorProto) { f.ProtoReflect().SetUnknown([]byte{0xd2, 0xf6, 0x03, 0}) }, true},
		{"a field less", func(f *descriptorpb.FileDescriptorProto) { f.MessageType[0].Field = f.MessageType[0].Field[1:] }, false},
		{"another order", func(f *descriptorpb.FileDescriptorProto) {
			m := f.Service[0].Method
			m[0], m[1] = m[1], m[0]
		}, false},
	} {
		set := comments(t, things)
		for _, f := range set.File {
			if f.GetName() == "openapitest/things.proto" {
				tt.change(f)
			}
			if f.GetName() == "google/protobuf/duration.proto" {
				f.MessageType = nil // as of another compiler, which nobody can help
			}
		}
		var log strings.Builder
		h, _ := newHandler(t, openapi.Config{Comments: set, Log: slog.New(slog.NewTextHandler(&log, nil))},
			protojson.MarshalOptions{}, &openapitest.Things_ServiceDesc)
		text := get(t, h.Document).Body.String()
		if kept := strings.Contains(text, "Get has one segment"); kept != tt.kept {
			t.Errorf("%s: comments kept: %v, want %v", tt.name, kept, tt.kept)
		}
		if !strings.Contains(text, "Old is of proto2") {
			t.Errorf("%s: comments of another file are gone", tt.name)
		}
		if warned := strings.Contains(log.String(), "openapitest/things.proto"); warned == tt.kept {
			t.Errorf("%s: log %q", tt.name, log.String())
		}
		if strings.Contains(log.String(), "file=google/") {
			t.Errorf("%s: the log complains of what is the compiler's: %q", tt.name, log.String())
		}
	}
}

// gRPC's own services are in the set, but not in the document; what has no descriptor is
// in neither.
func TestInfrastructure(t *testing.T) {
	unknown := &grpc.ServiceDesc{ServiceName: "unknown.Service", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Method"}}}
	h, _ := newHandler(t, openapi.Config{}, protojson.MarshalOptions{}, &healthpb.Health_ServiceDesc, unknown)
	var doc struct {
		Paths map[string]any
		Tags  []any
	}
	if err := json.Unmarshal(get(t, h.Document).Body.Bytes(), &doc); err != nil || len(doc.Paths) != 0 || len(doc.Tags) != 0 {
		t.Errorf("the document has paths %v and tags %v, err %v; want none", doc.Paths, doc.Tags, err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(get(t, h.Descriptors).Body.Bytes(), set); err != nil || len(set.File) != 1 || set.File[0].GetPackage() != "grpc.health.v1" {
		t.Errorf("the set is %v, %v; want the file of health", set, err)
	}
}

// Many clients ask again and again: they are told that nothing has changed.
func TestCaching(t *testing.T) {
	h, _ := newHandler(t, openapi.Config{}, protojson.MarshalOptions{}, &openapitest.Things_ServiceDesc)
	for name, page := range map[string]http.HandlerFunc{"document": h.Document, "descriptors": h.Descriptors} {
		plain := get(t, page)
		zipped := get(t, page, "Accept-Encoding: br, gzip")
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(text, plain.Body.Bytes()) {
			t.Errorf("%s in gzip is %d bytes, %v; want the %d without", name, len(text), err, plain.Body.Len())
		}
		tag, zippedTag := plain.Header().Get("ETag"), zipped.Header().Get("ETag")
		if tag == zippedTag || !strings.HasPrefix(tag, `"`) || !strings.HasPrefix(zippedTag, `"`) {
			t.Errorf("%s: ETag %s, in gzip %s; want two that are strong", name, tag, zippedTag)
		}
		for _, tt := range []struct {
			header []string
			want   int
		}{
			{[]string{"If-None-Match: " + tag}, 304},
			{[]string{"If-None-Match: " + zippedTag, "Accept-Encoding: gzip"}, 304},
			{[]string{"If-None-Match: " + zippedTag}, 200},
			{[]string{"If-None-Match: \"x\""}, 200},
			{[]string{"Accept-Encoding: gzip;q=0"}, 200},
		} {
			res := get(t, page, tt.header...)
			if h := res.Header(); res.Code != tt.want || res.Code == 304 && res.Body.Len() > 0 || h.Get("Cache-Control") != "no-cache" ||
				h.Get("Vary") != "Accept-Encoding" || res.Code == 200 && (h.Get("Content-Encoding") != "" || h.Get("ETag") != tag) {
				t.Errorf("%s with %q = %d %v, want %d", name, tt.header, res.Code, h, tt.want)
			}
		}
	}
}

// A message in which there are many others has more fields than a list can show.
func TestManyParameters(t *testing.T) {
	const fields, most = 15, 200
	set := &descriptorpb.FileDescriptorProto{Name: new("many.proto"), Package: new("many"), Syntax: new("proto3"),
		Dependency: []string{"google/api/annotations.proto"}}
	for i := range 5 { // each has fields of the next type
		m := &descriptorpb.DescriptorProto{Name: new(fmt.Sprint("M", i))}
		for j := range fields {
			f := &descriptorpb.FieldDescriptorProto{Name: new(fmt.Sprint("f", j)), Number: new(int32(j + 1)),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}
			if i < 4 && j > 0 {
				f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(fmt.Sprint(".many.M", i+1))
			}
			m.Field = append(m.Field, f)
		}
		set.MessageType = append(set.MessageType, m)
	}
	opts := new(descriptorpb.MethodOptions)
	proto.SetExtension(opts, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/many"}})
	set.Service = []*descriptorpb.ServiceDescriptorProto{{Name: new("Many"), Method: []*descriptorpb.MethodDescriptorProto{
		{Name: new("Get"), InputType: new(".many.M0"), OutputType: new(".many.M4"), Options: opts}}}}
	if _, err := protoregistry.GlobalFiles.FindFileByPath("many.proto"); err != nil { // with -count it is
		file, err := protodesc.NewFile(set, protoregistry.GlobalFiles)
		if err != nil {
			t.Fatal(err)
		}
		if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
			t.Fatal(err)
		}
	}
	h, _ := newHandler(t, openapi.Config{}, protojson.MarshalOptions{},
		&grpc.ServiceDesc{ServiceName: "many.Many", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Get"}}})
	text := get(t, h.Document).Body.String()
	if n := strings.Count(text, `"in": "query"`); n != most {
		t.Errorf("%d parameters, want %d", n, most)
	}
	if !strings.Contains(text, `"name": "f0"`) || !strings.Contains(text, `"name": "f14.f0"`) {
		t.Error("the outer fields are not among them")
	}
	if !strings.Contains(text, "than are listed here") {
		t.Error("nothing tells of the others")
	}
}

// A request for each path of a document, made of that path alone, comes to the method of
// the operation.
func TestPathsLeadToMethods(t *testing.T) {
	impls := map[string]any{"library": resttest.UnimplementedLibraryServer{}, "things": openapitest.UnimplementedThingsServer{}}
	for _, d := range openapitest.Documents {
		impl, ok := impls[d.Name]
		if !ok {
			continue
		}
		reg := rpc.NewRegistry(rpc.Config{})
		reg.RegisterService(d.Service, impl)
		h := rest.New(reg)
		if err := h.Add(d.Service.ServiceName); err != nil {
			t.Fatal(err)
		}
		reg.Freeze()
		var doc struct {
			Paths map[string]map[string]json.RawMessage
		}
		page := openapi.New(openapi.Config{Registry: reg, Routes: h.Routes(), Log: slog.Default()})
		if err := json.Unmarshal(get(t, page.Document).Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		n := 0
		check := func(method, path string, text json.RawMessage) {
			var op operation
			if err := json.Unmarshal(text, &op); err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, op.fill(path), nil))
			name := strings.Split(strings.TrimPrefix(op.OperationID, d.Service.ServiceName+"."), ".")[0]
			want := fmt.Sprintf("method %s not implemented", name)
			if w.Code != 501 || method != "HEAD" && !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s %s, as %s, gives %d %s, want 501 with %q", method, op.fill(path), op.OperationID, w.Code, w.Body, want)
			}
			n++
		}
		for path, item := range doc.Paths {
			if strings.HasPrefix(path, "/"+d.Service.ServiceName+"/") {
				continue // for Connect
			}
			for verb, text := range item {
				if verb != "x-oai-additionalOperations" {
					check(strings.ToUpper(verb), path, text)
					continue
				}
				var others map[string]json.RawMessage
				if err := json.Unmarshal(text, &others); err != nil {
					t.Fatal(err)
				}
				for method, text := range others {
					check(method, path, text)
				}
			}
		}
		if n != len(h.Routes()) {
			t.Errorf("%s: %d operations for %d routes", d.Name, n, len(h.Routes()))
		}
	}
}

type operation struct {
	OperationID string
	Parameters  []struct {
		Name, In string
		Schema   struct {
			Ref string `json:"$ref"`
		}
	}
}

// fill puts a value for each parameter into a path.
func (o operation) fill(path string) string {
	for _, p := range o.Parameters {
		value := "1"
		if p.Schema.Ref == "#/components/schemas/google.protobuf.Timestamp" {
			value = "2020-01-02T03:04:05Z"
		}
		if p.In == "path" {
			path = strings.ReplaceAll(path, "{"+p.Name+"}", value)
		}
	}
	return path
}
