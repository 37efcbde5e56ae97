package mux

import (
	"io"
	"slices"
	"time"
)

const (
	aheadAfter = time.Second // in which nobody has read
	aheadFirst = 512         // bytes to begin with
	aheadBytes = 64 << 10    // at most
)

// readAhead is a body over HTTP/1 that is read on while its handler does something else.
// net/http learns by reading that a client has gone, and reads by itself after the end of
// the body only: a handler that waits for other things, in the middle of the messages of
// its client, would wait for ever. A client that has gone and left more than aheadBytes is
// not noticed even so, until somebody reads or writes.
type readAhead struct {
	src   io.Reader
	timer *time.Timer // calls look

	// turn is full while somebody uses src and what follows. It is no mutex, since time
	// does not pass in a bubble of synctest while a goroutine waits for one.
	turn chan struct{}
	have []byte // read, and not asked for
	err  error  // of src, after what there is in have
}

// newReadAhead returns one that must be stopped.
func newReadAhead(src io.Reader) *readAhead {
	a := &readAhead{src: src, turn: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(aheadAfter, a.look)
	return a
}

func (a *readAhead) Read(p []byte) (n int, err error) {
	a.turn <- struct{}{}
	switch {
	case len(a.have) > 0:
		n = copy(p, a.have)
		if a.have = a.have[n:]; len(a.have) == 0 {
			a.have, err = nil, a.err
		}
	case a.err == nil:
		n, a.err = a.src.Read(p)
		err = a.err
	default:
		err = a.err
	}
	done := a.done()
	<-a.turn
	if !done { // not before the turn is over, which look does not wait for
		a.timer.Reset(aheadAfter)
	}
	return n, err
}

// look reads until the handler wants to, or has returned.
func (a *readAhead) look() {
	for {
		select {
		case a.turn <- struct{}{}:
		default:
			return
		}
		done := a.done()
		if !done {
			end := len(a.have)
			room := min(max(end, aheadFirst), aheadBytes-end)
			a.have = slices.Grow(a.have, room)
			var n int
			n, a.err = a.src.Read(a.have[end : end+room])
			a.have = a.have[:end+n]
		}
		<-a.turn
		if done {
			return
		}
	}
}

// done tells whether there is nothing to read ahead, or no room for it.
func (a *readAhead) done() bool { return a.err != nil || len(a.have) == aheadBytes }

// stop is called when the handler has returned, and for the last time. It has abort end a
// read under way, waits for that, and tells whether there was one.
func (a *readAhead) stop(abort func()) (aborted bool) {
	a.timer.Stop()
	select {
	case a.turn <- struct{}{}:
		return false
	default:
	}
	abort()
	a.turn <- struct{}{}
	return true
}
