//go:build unix

package certs

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A named pipe stands for a disk that does not answer.
func TestFilesSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		captureLog(t)
		d := newPairDir(t)
		d.put(d.named("a"))
		cfg := d.files()

		cert, key := d.named("b")
		write(t, d.key, key)
		if err := os.Remove(d.cert); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(d.cert, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(every)
		var wg sync.WaitGroup
		wg.Go(func() { wantName(t, "the one that looks", cfg, "b") })
		pipe, err := os.OpenFile(d.cert, os.O_WRONLY, 0) // returns when there is a reader
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			wantName(t, "the others", cfg, "a")
		}
		if _, err := pipe.Write(cert); err != nil {
			t.Error(err)
		}
		pipe.Close()
		wg.Wait()
		wantName(t, "afterwards", cfg, "b")
	})
}
