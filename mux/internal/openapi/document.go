package openapi

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"oneport/mux/internal/rest"
	"oneport/mux/internal/rpc"
)

const about = "Methods of gRPC services, as they are called by HTTP and JSON: " +
	"those with an option google.api.http by the paths that it gives them, " +
	"the others that take and give one message by Connect, at `POST /{service}/{method}`. " +
	"Every method is also there for gRPC, gRPC-Web, Connect and WebSocket. " +
	"A header `Grpc-Timeout`, such as `500m` for milliseconds or `5S`, limits the time that a call " +
	"by the paths of google.api.http may take; by Connect it is `Connect-Timeout-Ms`."

// document makes the OpenAPI document of a server.
type document struct {
	schemas
	items     map[string]*item // by the shape of their path
	tags      list
	responses object
}

// item is a path of the document with its operations.
type item struct {
	path
	operations object // by HTTP method in lower case
	others     object // of HTTP methods that OpenAPI 3.1 has no place for
}

func newDocument(reg *rpc.Registry, routes []*rest.Route, comments comments) *document {
	d := &document{
		schemas: schemas{
			json:       reg.JSONOptions(),
			comments:   comments,
			components: make(map[protoreflect.FullName]object),
		},
		items: make(map[string]*item),
	}
	of := make(map[*rpc.Method][]*rest.Route)
	for _, r := range routes {
		of[r.Method] = append(of[r.Method], r)
	}
	methods := make(map[string]*rpc.Method)
	for _, m := range reg.Methods() {
		methods[m.FullName] = m
	}
	var rules []rule
	for _, name := range reg.Services() {
		sd := serviceOf(name)
		if sd == nil || strings.HasPrefix(name, "grpc.") {
			continue
		}
		var elsewhere []string
		for i := range sd.Methods().Len() {
			md := sd.Methods().Get(i)
			m := methods["/"+name+"/"+string(md.Name())]
			switch routes := of[m]; {
			case m == nil: // the program has registered less than the file says
			case len(routes) > 0:
				for i, r := range routes {
					id := string(md.FullName())
					if i > 0 {
						id = fmt.Sprint(id, ".", i+1)
					}
					rules = append(rules, rule{r, pathOf(r), id})
				}
			case m.Unary():
				d.addConnect(md)
			default:
				elsewhere = append(elsewhere, fmt.Sprintf("`%s` (%s)", md.Name(), kind(m)))
			}
		}
		d.tags = append(d.tags, describe(object{{"name", name}}, d.comments.of(sd), streamsNote(elsewhere)))
	}
	slices.SortStableFunc(rules, compareRules)
	for _, r := range rules {
		d.addRule(r)
	}
	return d
}

// rule is one of google.api.http.
type rule struct {
	*rest.Route
	path
	operationID string
}

// compareRules has those first that are at their path whatever others there are: one for
// all HTTP methods takes what is left, and one with "**" is for longer paths where another
// has "*".
func compareRules(a, b rule) int {
	for _, last := range []func(rule) bool{
		func(r rule) bool { return r.HTTPMethod == "*" },
		func(r rule) bool { return r.path.deep() >= 0 },
	} {
		if last(a) != last(b) {
			if last(a) {
				return 1
			}
			return -1
		}
	}
	return len(b.parts) - len(a.parts)
}

func streamsNote(methods []string) string {
	if len(methods) == 0 {
		return ""
	}
	return "Streams that only the other protocols have: " + strings.Join(methods, ", ") + "."
}

func kind(m *rpc.Method) string {
	switch {
	case m.ClientStreams && m.ServerStreams:
		return "bidi-streaming"
	case m.ClientStreams:
		return "client-streaming"
	}
	return "server-streaming"
}

func serviceOf(name string) protoreflect.ServiceDescriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	sd, _ := d.(protoreflect.ServiceDescriptor)
	return sd
}

// append appends the document as JSON.
func (d *document) append(b []byte, title, version string) []byte {
	paths := object{}
	for _, it := range d.items {
		o := it.operations
		if len(it.others) > 0 {
			o = append(o, member{"x-oai-additionalOperations", it.others})
		}
		paths = append(paths, member{it.String(), o})
	}
	slices.SortFunc(paths, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return append(appendJSON(b, object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", title}, {"version", version}, {"description", about}}},
		{"servers", list{object{{"url", "/"}}}},
		{"tags", d.tags},
		{"paths", paths},
		{"components", object{{"schemas", d.all()}, {"responses", d.responses}}},
	}, ""), '\n')
}
