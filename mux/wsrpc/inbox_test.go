package wsrpc

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"oneport/mux/internal/socket"
)

func sized(n int) *socket.Message { return &socket.Message{Data: make([]byte, n)} }

// The inbox takes messages up to its limits and not one more; one message of any
// size always fits into an empty one.
func TestInboxLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first []int // sizes of what waits
		next  int
		fits  bool
	}{
		{"one large", nil, 4 << 20, true},
		{"to the byte", []int{inboxBytes - 10}, 10, true},
		{"a byte more", []int{inboxBytes - 10}, 11, false},
		{"behind a large one", []int{4 << 20}, 0, false},
		{"to the message", make([]int, inboxMessages-1), 0, true},
		{"a message more", make([]int, inboxMessages), 0, false},
	} {
		b := newInbox()
		for _, n := range tt.first {
			if !b.tryPut(sized(n)) {
				t.Fatalf("%s: no room for %d bytes", tt.name, n)
			}
		}
		if got := b.tryPut(sized(tt.next)); got != tt.fits {
			t.Errorf("%s: %d bytes more fit: %v, want %v", tt.name, tt.next, got, tt.fits)
		}
	}
}

// What counts beside is the memory of the buffers.
func TestInboxMemory(t *testing.T) {
	const each = 128 << 10
	b := newInbox()
	for i := range inboxMemory/each + 1 {
		m := &socket.Message{Data: make([]byte, 1, each)}
		if got, want := b.tryPut(m), i < inboxMemory/each; got != want {
			t.Errorf("message %d in a buffer of %d bytes fits: %v, want %v", i, each, got, want)
		}
	}
	if _, ok, err := b.take(); !ok || err != nil {
		t.Fatal("nothing to take")
	}
	if !b.tryPut(&socket.Message{Data: make([]byte, 1, each)}) {
		t.Error("no room for as much as was taken")
	}
}

func TestInboxWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		ctx, cancel := context.WithCancel(t.Context())
		full, last := sized(inboxBytes), sized(1)
		if !b.put(ctx, full) {
			t.Fatal("no room in an empty inbox")
		}
		done := make(chan bool, 1)
		go func() { done <- b.put(ctx, last) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("put did not wait for room")
		}
		if m, ok, err := b.take(); m != full || !ok || err != nil {
			t.Errorf("take = %v, %v, %v", m, ok, err)
		}
		if !<-done {
			t.Error("put gave up")
		}
		go func() { done <- b.put(ctx, full) }()
		synctest.Wait()
		cancel()
		if <-done {
			t.Error("put found room where there is none")
		}
		b.close()
		b.close()
		if m, ok, err := b.take(); m != last || !ok || err != nil {
			t.Errorf("take after close = %v, %v, %v, want what waits", m, ok, err)
		}
		if _, ok, err := b.take(); ok || !errors.Is(err, io.EOF) {
			t.Errorf("take of nothing after close = %v, %v, want io.EOF", ok, err)
		}
	})
}
