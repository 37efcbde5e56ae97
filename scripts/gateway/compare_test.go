package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"

	"oneport/mux"
	pb "oneport/scripts/gateway/resttest"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// answer is what came for a request, the body in a form that can be compared.
type answer struct {
	status      int
	contentType string // without parameters
	body        any    // JSON values, in a slice; or the bytes as a string
	metadata    string // of the handler
	text        string // the body as it came, which is not compared
}

// String leaves out of objects what is at its default, which is most of a book.
func (a answer) String() string {
	b, err := json.Marshal(a.body)
	text := fmt.Sprintf("%d %s %s %s", a.status, a.contentType, a.metadata, regexp.MustCompile(`,?"\w+":(null|\[\]|\{\}|""|0|"0"|false|"GENRE_UNSPECIFIED")`).ReplaceAll(b, nil))
	if err != nil {
		return err.Error()
	}
	return text
}

func (a answer) equal(b answer) bool {
	a.text, b.text = "", ""
	return reflect.DeepEqual(a, b)
}

// only is the only value of the body if it is an object, else nil.
func (a answer) only() map[string]any {
	if values, ok := a.body.([]any); ok && len(values) == 1 {
		m, _ := values[0].(map[string]any)
		return m
	}
	return nil
}

// send sends r on a connection of its own.
func send(t *testing.T, addr string, r request) answer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", r.method, strings.ReplaceAll(r.target, " ", "%20"))
	for _, h := range r.header {
		b.WriteString(h + "\r\n")
	}
	if r.body != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n" + r.body)
	if _, err := conn.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.method})
	if err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	a := answer{status: res.StatusCode, body: string(body), text: string(body)}
	a.contentType, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	for _, name := range sortedKeys(res.Header) {
		if strings.HasSuffix(name, "Test") {
			a.metadata += name + ": " + strings.Join(res.Header[name], ", ") + "; "
		}
	}
	if strings.HasSuffix(a.contentType, "json") {
		a.body = jsonValues(body)
	}
	return a
}

// jsonValues are the values that b has one after the other, and what comes after them as a string.
func jsonValues(b []byte) any {
	values := []any{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return values
		}
		if err != nil {
			return append(values, string(b[d.InputOffset():]))
		}
		values = append(values, v)
	}
}

// requests is how many are made.
const requests = 5000

// leastEqual is how many of them have to be answered in the same way to the last value: else
// they have become too odd to show anything.
const leastEqual = 2000

// With another seed there are other requests, and maybe not every difference.
var seed = flag.Uint64("seed", 1, "the `NUMBER` from which TestCompare makes its requests")

// TestCompare sends the same requests to a Server and to what grpc-gateway makes of the same
// .proto file. Status, content type and JSON of the answers are equal, or differ for a
// reason that is known.
func TestCompare(t *testing.T) {
	// What grpc-gateway does by itself.
	s := mux.NewServer(mux.WithJSON(protojson.MarshalOptions{EmitUnpopulated: true}))
	pb.RegisterLibraryServer(s, library{})
	gateway := runtime.NewServeMux()
	if err := pb.RegisterLibraryHandlerClient(context.Background(), gateway, pb.NewLibraryClient(s.Conn())); err != nil {
		t.Fatal(err)
	}
	us, them := httptest.NewServer(s), httptest.NewServer(gateway)
	defer us.Close()
	defer them.Close()

	var compare func(request) comparison
	compare = func(r request) comparison {
		return comparison{r, send(t, us.Listener.Addr().String(), r), send(t, them.Listener.Addr().String(), r), compare}
	}

	g := generator{rand.New(rand.NewPCG(*seed, 0))}
	statuses, found := make(map[int]int), make(map[string]int)
	equal := 0
	for range requests {
		c := compare(g.request())
		statuses[c.theirs.status]++
		if c.ours.equal(c.theirs) {
			equal++
			continue
		}
		if d := c.explain(); d != nil {
			found[d.name]++
			continue
		}
		t.Errorf("%v\n  oneport      %v\n  grpc-gateway %v", c.request, c.ours, c.theirs)
	}
	words := found[wordsOfError]
	t.Logf("of %d requests %d are equal, %d but for the words of an error, %d differ otherwise", requests, equal, words, requests-equal-words)
	t.Logf("by status %v; differences %v", statuses, found)
	if equal < leastEqual {
		t.Errorf("%d answers are equal, want %d", equal, leastEqual)
	}
	for _, d := range differences() {
		if found[d.name] == 0 && *seed == 1 {
			t.Errorf("%q: there is no such difference any more", d.name)
		}
	}
}
