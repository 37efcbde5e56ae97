package mux_test

import (
	"testing"

	"oneport/mux"
)

// A nil would be found by the first call, and not on every road alike.
func TestNilOptions(t *testing.T) {
	for name, option := range map[string]func(){
		"WithUnaryInterceptor":  func() { mux.WithUnaryInterceptor(nil) },
		"WithStreamInterceptor": func() { mux.WithStreamInterceptor(nil) },
		"WithStatsHandler":      func() { mux.WithStatsHandler(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s(nil) does not panic", name)
				}
			}()
			option()
		}()
	}
}
