package rpc_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"

	"oneport/mux/internal/rpc"
)

// The context of a call is as one of package context, whether or not somebody has
// waited for it before it ends.
func TestCallContext(t *testing.T) {
	for _, tt := range []struct {
		name            string
		parent, timeout time.Duration // seconds, as the others; zero: none
		cancelled       bool          // the parent, by hand
		end             time.Duration // when Cancel is called; zero: never
		at              time.Duration // when it has ended
		want            error
	}{
		{name: "none", at: 0, want: nil},
		{name: "cancel", end: 1, at: 1, want: context.Canceled},
		{name: "timeout", timeout: 2, at: 2, want: context.DeadlineExceeded},
		{name: "timeout before cancel", timeout: 2, end: 3, at: 3, want: context.DeadlineExceeded},
		{name: "cancel before timeout", timeout: 3, end: 2, at: 4, want: context.Canceled},
		{name: "deadline of the parent", parent: 2, timeout: 3, at: 2, want: context.DeadlineExceeded},
		{name: "timeout before the parent's", parent: 3, timeout: 2, at: 2, want: context.DeadlineExceeded},
		{name: "parent cancelled", cancelled: true, timeout: 3, at: 0, want: context.Canceled},
	} {
		for _, watched := range []string{"before", "after", "not"} {
			t.Run(tt.name+"/watched "+watched, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancel(t.Context())
					defer cancel()
					var deadline time.Time
					if tt.parent > 0 {
						deadline = time.Now().Add(tt.parent * time.Second)
						parent, cancel = context.WithDeadline(parent, deadline)
						defer cancel()
					}
					if tt.cancelled {
						cancel()
					}
					call := &rpc.Call{Peer: new(peer.Peer), Timeout: tt.timeout * time.Second}
					call.Begin(parent)
					ctx := call.Context()
					if own := time.Now().Add(tt.timeout * time.Second); tt.timeout > 0 && (deadline.IsZero() || own.Before(deadline)) {
						deadline = own
					}
					if got, ok := ctx.Deadline(); !got.Equal(deadline) || ok == deadline.IsZero() {
						t.Errorf("Deadline = %v, %t, want %v", got, ok, deadline)
					}
					var child context.Context
					derive := func() {
						before := runtime.NumGoroutine()
						child, cancel = context.WithCancel(ctx)
						t.Cleanup(cancel)
						if after := runtime.NumGoroutine(); after > before { // those of others may just end
							t.Errorf("a derived context costs %d goroutines", after-before)
						}
					}
					if watched == "before" {
						derive()
					}
					step := time.Duration(0)
					for ; step < tt.at; step++ {
						if tt.end > 0 && step == tt.end {
							call.Cancel()
						}
						time.Sleep(time.Second)
					}
					if tt.end > 0 && step == tt.end {
						call.Cancel()
					}
					synctest.Wait()
					if watched == "after" {
						derive()
						synctest.Wait()
					}
					if watched != "not" {
						if child.Err() != tt.want || context.Cause(child) != tt.want {
							t.Errorf("a child's Err = %v, cause %v, want %v", child.Err(), context.Cause(child), tt.want)
						}
						select {
						case <-ctx.Done():
							if tt.want == nil {
								t.Error("Done is closed")
							}
						default:
							if tt.want != nil {
								t.Error("Done is open")
							}
						}
					}
					for range 2 { // the error stays
						if err := ctx.Err(); err != tt.want {
							t.Errorf("Err = %v, want %v", err, tt.want)
						}
						if tt.want != nil {
							call.Cancel()
							cancel()
						}
					}
				})
			})
		}
	}
}

// The cause of the parent's end is that of the call's.
func TestCallContextCause(t *testing.T) {
	why := errors.New("why")
	parent, cancel := context.WithCancelCause(t.Context())
	call := &rpc.Call{Peer: new(peer.Peer)}
	call.Begin(parent)
	ran := make(chan struct{})
	stop := context.AfterFunc(call.Context(), func() { close(ran) })
	cancel(why)
	<-ran
	if err := context.Cause(call.Context()); err != why || stop() {
		t.Errorf("Cause = %v, want %v", err, why)
	}
}

// An error that was told stays, though the parent ends for another reason before the
// context is first waited for.
func TestCallContextKeepsError(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		end     func(*rpc.Call)
		want    error
	}{
		{"timeout", time.Second, func(*rpc.Call) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		{"cancel", 0, (*rpc.Call).Cancel, context.Canceled},
		{"cancel before timeout", time.Second, (*rpc.Call).Cancel, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancelCause(t.Context())
				call := &rpc.Call{Peer: new(peer.Peer), Timeout: tt.timeout}
				call.Begin(parent)
				ctx := call.Context()
				tt.end(call)
				if err := ctx.Err(); err != tt.want {
					t.Fatalf("Err = %v, want %v", err, tt.want)
				}
				cancel(errors.New("later"))
				<-ctx.Done()
				if err, cause := ctx.Err(), context.Cause(ctx); err != tt.want || cause != tt.want {
					t.Errorf("Err = %v, cause %v, want %v", err, cause, tt.want)
				}
			})
		})
	}
}

// What is limited is so while the context ends, and not after stop.
func TestDuring(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	limited := make(chan bool, 2)
	stop := rpc.During(ctx, func() { limited <- true })
	if stop() {
		t.Error("stop says that limit was called; the context had not ended")
	}
	stop = rpc.During(ctx, func() { limited <- true })
	cancel()
	<-limited
	if !stop() || len(limited) > 0 {
		t.Errorf("stop says that limit was not called, or it was called %d times more", len(limited))
	}
}
