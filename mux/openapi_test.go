package mux_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux"
	"oneport/mux/muxtest"
	protos "oneport/proto"
)

// A server describes itself if the program has said so, with comments if it has them, and
// the program's own pages come first.
func TestOpenAPI(t *testing.T) {
	own := func(s *mux.Server) {
		services(s)
		s.Handle("/openapi.json", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{}`)) }))
	}
	for _, tt := range []struct {
		name     string
		register func(*mux.Server)
		opts     []mux.Option
		status   int
		summary  string // of a method
		files    bool
	}{
		{"not asked for", services, nil, 404, "", false},
		{"with comments", services, []mux.Option{mux.WithOpenAPI(protos.Descriptors)}, 200, "SayHello greets the caller by name", true},
		{"without comments", services, []mux.Option{mux.WithOpenAPI(nil)}, 200, "SayHello", true},
		{"a page of the program", own, []mux.Option{mux.WithOpenAPI(nil)}, 200, "", true},
	} {
		s := muxtest.New(t, tt.register, tt.opts...)
		res, text := get(t, s.HTTP1(), muxtest.URL+"/openapi.json")
		var doc struct {
			Paths map[string]map[string]struct{ Summary string }
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil && tt.status == 200 {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := doc.Paths["/v1/hello/{name}"]["get"].Summary; res.StatusCode != tt.status || got != tt.summary {
			t.Errorf("%s: /openapi.json = %s with summary %q, want %d with %q", tt.name, res.Status, got, tt.status, tt.summary)
		}
		res, text = get(t, s.HTTP2(), muxtest.URL+"/descriptors.binpb")
		set := new(descriptorpb.FileDescriptorSet)
		if err := proto.Unmarshal([]byte(text), set); tt.files && (err != nil || len(set.File) == 0) || (res.StatusCode == 200) != tt.files {
			t.Errorf("%s: /descriptors.binpb = %s with %d files, %v; want some: %v", tt.name, res.Status, len(set.File), err, tt.files)
		}
	}
}

// Pages of allowed origins may read the description, and nobody may do anything else.
func TestOpenAPIMethods(t *testing.T) {
	s := mux.NewServer(mux.WithOpenAPI(nil), mux.WithAllowedOrigins("https://docs.example"))
	for _, path := range []string{"/openapi.json", "/descriptors.binpb"} {
		for _, tt := range []struct {
			method, origin string
			status         int
			allowed        string
		}{
			{"GET", "", 200, ""},
			{"HEAD", "", 200, ""},
			{"GET", "https://docs.example", 200, "https://docs.example"},
			{"GET", "https://other.example", 200, ""},
			{"POST", "", 405, ""},
		} {
			header := map[string]string{}
			if tt.origin != "" {
				header["Origin"] = tt.origin
			}
			res := serve(s, tt.method, path, "", header)
			if got := res.Header.Get("Access-Control-Allow-Origin"); res.StatusCode != tt.status || got != tt.allowed {
				t.Errorf("%s %s from %q = %s, readable by %q; want %d, %q", tt.method, path, tt.origin, res.Status, got, tt.status, tt.allowed)
			}
		}
	}
}

// What is no descriptor set, or has nothing that is wanted of one, would only be noticed
// by readers.
func TestOpenAPIRefusesOthers(t *testing.T) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(protos.Descriptors, set); err != nil {
		t.Fatal(err)
	}
	for _, f := range set.File {
		f.SourceCodeInfo = nil
	}
	bare, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		set  []byte
		want string // in the panic
	}{
		{nil, ""},
		{protos.Descriptors, ""},
		{[]byte("openapi: 3.1.0"), "buf build"},
		{bare, "--include_source_info"},
	} {
		func() {
			defer func() {
				text, _ := recover().(string)
				if !strings.Contains(text, tt.want) || (text == "") != (tt.want == "") {
					t.Errorf("WithOpenAPI(%.20q…) panics with %q, want %q in it", tt.set, text, tt.want)
				}
			}()
			mux.WithOpenAPI(tt.set)
		}()
	}
}
