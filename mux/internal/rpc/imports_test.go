package rpc_test

import (
	"go/build"
	"strings"
	"testing"
)

// The core serves every protocol, so it knows none: no HTTP, no WebSocket, no
// splitter of connections, and nothing of this module.
func TestImports(t *testing.T) {
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		for _, bad := range []string{"net/http", "github.com/", "golang.org/x/net", "oneport"} {
			if strings.HasPrefix(path, bad) {
				t.Errorf("the package imports %s", path)
			}
		}
	}
	if len(pkg.Imports) < 10 {
		t.Errorf("only the imports %q were found", pkg.Imports)
	}
}
