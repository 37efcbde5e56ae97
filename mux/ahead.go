package mux

import (
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	aheadAfter = time.Second // in which nobody has read
	aheadStep  = 512         // bytes to read at a time
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

	// turn is full while somebody uses src. It is no mutex, since time does not pass in a
	// bubble of synctest while a goroutine waits for one.
	turn chan struct{}

	mu   sync.Mutex // not held while src is read
	have []byte     // read, and not asked for; guarded by mu
	err  error      // of src, after what there is in have; guarded by mu
}

// newReadAhead returns one that must be stopped.
func newReadAhead(src io.Reader) *readAhead {
	a := &readAhead{src: src, turn: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(aheadAfter, a.look)
	return a
}

func (a *readAhead) Read(p []byte) (int, error) {
	n, ok, err := a.take(p) // before its turn: look may have read this, and wait for more
	if !ok {
		a.turn <- struct{}{}
		if n, ok, err = a.take(p); !ok {
			n, err = a.src.Read(p)
			a.add(nil, err)
		}
		<-a.turn
	}
	if err == nil { // not before the turn is over, which look does not wait for
		a.timer.Reset(aheadAfter)
	}
	return n, err
}

// take is Read for what is there already; ok tells whether there was any.
func (a *readAhead) take(p []byte) (n int, ok bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.have) > 0 {
		n, ok = copy(p, a.have), true
		if a.have = a.have[n:]; len(a.have) > 0 {
			return n, true, nil
		}
		a.have = nil
	}
	return n, ok || a.err != nil, a.err
}

// add notes what was read of src. Its turn is that of the caller.
func (a *readAhead) add(p []byte, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.have, a.err = append(a.have, p...), err
}

// look reads until the handler wants to, or has returned.
func (a *readAhead) look() {
	buf := make([]byte, aheadStep)
	for {
		select {
		case a.turn <- struct{}{}:
		default:
			return
		}
		room := a.room()
		if room > 0 {
			n, err := a.src.Read(buf[:min(room, len(buf))])
			a.add(buf[:n], err)
		}
		<-a.turn
		if room == 0 {
			return
		}
	}
}

// room is how much may be read ahead: nothing after an error.
func (a *readAhead) room() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0
	}
	return aheadBytes - len(a.have)
}

// stop is called when the handler has returned, and for the last time. It has abort end a
// read under way, waits for that, and tells whether there was one.
func (a *readAhead) stop(abort func()) (aborted bool) {
	a.timer.Stop()
	select {
	case a.turn <- struct{}{}:
	default:
		aborted = true
		abort()
		a.turn <- struct{}{}
	}
	a.add(nil, http.ErrBodyReadAfterClose) // so nobody waits for a turn, or reads
	<-a.turn
	return aborted
}
