// Command samples writes JSON of messages, made at random, for a validator to hold against
// the schemas of the documents in testdata. It is run in the directory of package openapi,
// and writes lines of {"document":"library","schema":"resttest.Book","value":…}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"oneport/mux/internal/openapi/openapitest"
	"oneport/mux/internal/rpc"
)

// each is how many messages there are of each schema.
const each = 50

func main() {
	out := bufio.NewWriter(os.Stdout)
	for _, d := range openapitest.Documents {
		if err := write(out, d); err != nil {
			log.Fatalf("samples: %s: %v", d.Name, err)
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatalf("samples: %v", err)
	}
}

func write(out *bufio.Writer, d openapitest.Document) error {
	text, err := os.ReadFile(filepath.Join("testdata", d.Name+".json"))
	if err != nil {
		return err
	}
	var doc struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	random, codec := rand.New(rand.NewPCG(1, 2)), rpc.NewJSON(d.JSON)
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) { // so that each run gives the same
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil {
			continue // an enum, which messages have
		}
		for range each {
			m := mt.New()
			openapitest.Fill(random, m, 3)
			value, err := codec.Append(nil, m.Interface())
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(out, "{\"document\":%q,\"schema\":%q,\"value\":%s}\n", d.Name, name, value)
		}
	}
	return nil
}
