package rpc

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// pushed pushes a message of size bytes and tells whether it fitted at once.
func pushed(t *testing.T, p *pipe, size int) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.push(ctx, make([]byte, size)) }()
	synctest.Wait()
	select {
	case err := <-done:
		cancel()
		if err != nil {
			t.Fatalf("push of %d bytes = %v", size, err)
		}
		return true
	default:
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("push of %d bytes = %v after cancel, want context.Canceled", size, err)
		}
		return false
	}
}

func TestPipeBound(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second int
		want          bool
	}{
		{"full to the byte", pipeBytes/2 - messageOverhead, pipeBytes/2 - messageOverhead, true},
		{"one byte too many", pipeBytes/2 - messageOverhead, pipeBytes/2 - messageOverhead + 1, false},
		{"any message into an empty pipe", 2 * pipeBytes, 0, false},
		{"an empty message counts", pipeBytes - messageOverhead, 0, false},
		{"room for an empty message", pipeBytes - 2*messageOverhead, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe()
				if !pushed(t, p, tt.first) {
					t.Fatalf("%d bytes did not fit into an empty pipe", tt.first)
				}
				if got := pushed(t, p, tt.second); got != tt.want {
					t.Errorf("after %d bytes, %d bytes fit: %t, want %t", tt.first, tt.second, got, tt.want)
				}
			})
		})
	}
}

func TestPipeBoundsEmptyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		n := 0
		for pushed(t, p, 0) {
			n++
		}
		if want := pipeBytes / messageOverhead; n != want {
			t.Errorf("%d empty messages fit, want %d", n, want)
		}
		if _, err := p.pop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !pushed(t, p, 0) || pushed(t, p, 0) {
			t.Error("after one pop, not exactly one more fits")
		}
	})
}

// A pusher that waits goes on once there is room, and messages keep their order.
func TestPipeWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		const messages = 100
		go func() {
			for i := range messages {
				b := make([]byte, pipeBytes/3)
				b[0] = byte(i)
				if err := p.push(t.Context(), b); err != nil {
					t.Errorf("push %d = %v", i, err)
				}
			}
			p.end()
		}()
		for i := range messages {
			synctest.Wait()
			b, err := p.pop(t.Context())
			if err != nil || b[0] != byte(i) {
				t.Fatalf("pop %d = %d, %v", i, b[0], err)
			}
		}
		if _, err := p.pop(t.Context()); err != io.EOF {
			t.Errorf("pop after the last = %v, want io.EOF", err)
		}
	})
}

func TestPipeEnd(t *testing.T) {
	p := newPipe()
	for _, b := range [][]byte{{1}, nil, {2}} {
		if err := p.push(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	p.end()
	p.end()
	if err := p.push(t.Context(), nil); err != io.EOF {
		t.Errorf("push after end = %v, want io.EOF", err)
	}
	for _, want := range []int{1, 0, 1} {
		if b, err := p.pop(t.Context()); len(b) != want || err != nil {
			t.Errorf("pop = %d bytes, %v, want %d, nil", len(b), err, want)
		}
	}
	for range 2 {
		if _, err := p.pop(t.Context()); err != io.EOF {
			t.Errorf("pop of a drained pipe = %v, want io.EOF", err)
		}
	}
}

func TestPipeEndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		popped, full := newPipe(), newPipe()
		errs := make(chan error, 2)
		go func() { _, err := popped.pop(t.Context()); errs <- err }()
		if !pushed(t, full, pipeBytes) {
			t.Fatal("no room in an empty pipe")
		}
		go func() { errs <- full.push(t.Context(), nil) }()
		synctest.Wait()
		popped.end()
		full.end()
		for range 2 {
			if err := <-errs; err != io.EOF {
				t.Errorf("a waiting side got %v from end, want io.EOF", err)
			}
		}
	})
}

func TestPipeContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 1)
		go func() { _, err := p.pop(ctx); errs <- err }()
		synctest.Wait()
		cancel()
		if err := <-errs; err != context.Canceled {
			t.Errorf("pop = %v after cancel, want context.Canceled", err)
		}
		if err := p.push(ctx, nil); err != context.Canceled {
			t.Errorf("push with an ended context = %v, want context.Canceled", err)
		}
		if err := p.push(t.Context(), []byte{1}); err != nil {
			t.Fatal(err)
		}
		if b, err := p.pop(ctx); len(b) != 1 || err != nil {
			t.Errorf("pop = %v, %v with an ended context, want what was there", b, err)
		}
	})
}
