package socket

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"
)

// queue gathers the frames of a socket and writes them to its connection in
// order. At most one goroutine at a time, the one that set busy, writes: by flush,
// which runs while there is something to write, or a message too large for the queue.
//
// The queue takes frames until last or abandon; the reason given first is what
// refused writers get.
type queue struct {
	c      *Conn       // that the queue is a part of; its context ends once done is set
	gather func() bool // whether more may soon come to be written; nil means that it is not asked

	mu      sync.Mutex
	turn    chan struct{} // held by the one writer who waits for room; the others queue for it; nil before the first
	freed   chan struct{} // tells that writer to look again; likewise
	buf     *[]byte       // frames that wait, nil if there are none
	busy    bool          // someone writes, and will look at buf again
	urgent  bool          // what waits is to be written without a doze before
	dozing  chan struct{} // closed to end the doze of whoever is busy; nil if there is none
	waiting int           // writers that wait for room or their turn; later ones must not overtake
	done    error         // why no frame is taken any more; set before ctx ends
	broken  bool          // nothing can be written any more
	still   chan struct{} // closed when busy ends; nil if nobody waits for that
}

// limit is how many bytes may wait, control frames apart.
func (q *queue) limit() int { return q.c.server.cfg.QueueBytes }

// buffers holds *[]byte for frames that wait.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// maxGiveWay bounds how often a write gives way, since messages may come without end.
const maxGiveWay = 16

// While one goroutine writes, another that sends without pause adds a few bytes; to spend
// a system call on those each time costs more than all else. So a flush that has written as
// much as may wait, and then finds less than few bytes, dozes: for dozeTime, or until half
// as much waits as may, or anything that was not sent by Write.
//
// The runtime's timers may be a millisecond late when it has nothing else to do, and with
// them what is sent last before a pause.
const (
	few      = 4 << 10
	dozeTime = 50 * time.Microsecond
)

// maxPooled is the capacity above which a buffer is not kept for reuse.
const maxPooled = 128 << 10

func recycle(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// write takes a message. It waits while the queue is full, in the order of
// arrival, until ctx ends. When it returns nil, p may be changed, and the message
// waits or has been written. With here, and unless somebody writes already, the
// caller's goroutine does so instead of one of its own.
func (q *queue) write(ctx context.Context, opcode byte, p []byte, here bool) error {
	size := maxHeader + len(p)
	q.mu.Lock()
	var err error
	if q.waiting > 0 || !q.room(size) {
		err = q.wait(ctx, size)
	}
	if q.done != nil {
		err = q.done
	}
	if err != nil {
		q.mu.Unlock()
		return err
	}
	if size > q.limit() {
		q.busy = true // room has seen to it that nobody else is
		q.mu.Unlock()
		return q.writeAlone(opcode, p)
	}
	q.append(opcode, p)
	if here && !q.busy {
		q.busy = true
		q.mu.Unlock()
		q.flush()
		return nil
	}
	if here || !q.busy || len(*q.buf) > q.limit()/2 {
		q.start()
	}
	q.mu.Unlock()
	return nil
}

// tryWrite is write for a goroutine that must not wait. It reports false, and has done
// nothing, if that would be to wait.
func (q *queue) tryWrite(opcode byte, p []byte) bool {
	size := maxHeader + len(p)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.done != nil:
		return true
	case q.waiting > 0 || size > q.limit() || !q.room(size):
		return false
	}
	q.append(opcode, p)
	q.start()
	return true
}

// room tells whether a writer of size bytes need not wait. A message above the
// limit goes alone. Called with q.mu held.
func (q *queue) room(size int) bool {
	switch {
	case q.done != nil:
		return true
	case size > q.limit():
		return !q.busy
	default:
		return q.buf == nil || len(*q.buf)+size <= q.limit()
	}
}

// wait returns nil when there is room for size bytes. Called with q.mu held; it
// is held again when wait returns.
func (q *queue) wait(ctx context.Context, size int) error {
	q.waiting++
	defer func() { q.waiting-- }()
	q.rouse()
	if q.turn == nil {
		q.turn, q.freed = make(chan struct{}, 1), make(chan struct{}, 1)
	}
	turn, freed := q.turn, q.freed
	q.mu.Unlock()
	select {
	case turn <- struct{}{}: // soon, once ctx has ended: room is never lacking then
		defer func() { <-turn }()
	case <-ctx.Done():
		q.mu.Lock()
		return ctx.Err()
	}
	q.mu.Lock()
	for !q.room(size) {
		q.mu.Unlock()
		select {
		case <-freed:
		case <-q.c.ctx.Done():
		case <-ctx.Done():
			q.mu.Lock()
			return ctx.Err()
		}
		q.mu.Lock()
	}
	return nil
}

// control takes a control frame, or a message like one, full or not: those are few,
// since the peer's pings are rationed, and the reader must not wait for a slow peer
// to be told of its pong. It is false if no frame is taken any more.
func (q *queue) control(opcode byte, p []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.done != nil {
		return false
	}
	q.append(opcode, p)
	q.start()
	return true
}

// last takes a close frame, after which no other is taken, and before it a binary
// message unless that is nil, full or not. It is false if that was so before.
func (q *queue) last(message, p []byte, why error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.done != nil {
		return false
	}
	if message != nil {
		q.append(byte(Binary), message)
	}
	q.append(opClose, p)
	q.start()
	q.done = why
	return true
}

// abandon drops what waits, for the connection is of no more use. It returns why
// no frame is taken any more.
func (q *queue) abandon(why error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.done == nil {
		q.done = why
	}
	q.broken = true
	if q.buf != nil {
		recycle(q.buf)
		q.buf = nil
	}
	q.rouse()
	return q.done
}

// settle waits until nobody writes. It is called once, after last or abandon.
func (q *queue) settle() {
	q.mu.Lock()
	if !q.busy {
		q.mu.Unlock()
		return
	}
	q.still = make(chan struct{})
	q.mu.Unlock()
	<-q.still
}

// append adds a frame to those that wait. Called with q.mu held.
func (q *queue) append(opcode byte, p []byte) {
	if q.buf == nil {
		q.buf = buffers.Get().(*[]byte)
	}
	*q.buf = append(appendHeader(*q.buf, opcode, len(p)), p...)
}

// start sees to it that what waits is written, without a doze before. Called with q.mu held.
func (q *queue) start() {
	q.urgent = true
	if q.busy {
		q.rouse()
		return
	}
	q.busy = true
	go q.flush()
}

// flush writes what waits until nothing does. It returns then, or after a failed
// write, at the latest after the timeout. Where more may soon come, it lets the other
// goroutines go first: a system call costs as much as many small calls of a handler.
func (q *queue) flush() {
	for sent := 0; ; {
		switch {
		case q.gather == nil:
		case q.gather():
			q.giveWay()
		case sent >= q.limit():
			q.doze()
		}
		q.mu.Lock()
		out := q.buf
		if out == nil {
			q.rest()
			return
		}
		q.buf, q.urgent = nil, false
		q.free()
		q.mu.Unlock()
		sent += len(*out)
		err := q.send(*out)
		recycle(out)
		if err != nil {
			q.c.writeFailed(err)
		}
	}
}

// giveWay lets the goroutines go first that are about to add to what waits, again as
// long as they do.
func (q *queue) giveWay() {
	size := -1
	for range maxGiveWay {
		q.mu.Lock()
		now := 0
		if q.buf != nil {
			now = len(*q.buf)
		}
		q.mu.Unlock()
		if now == size {
			return
		}
		size = now
		runtime.Gosched()
		if !q.gather() {
			return
		}
	}
}

// doze waits for more to be written if only a few bytes are, and nobody waits.
func (q *queue) doze() {
	q.mu.Lock()
	if q.buf == nil || len(*q.buf) >= few || q.urgent || q.waiting > 0 {
		q.mu.Unlock()
		return
	}
	roused := make(chan struct{})
	q.dozing = roused
	q.mu.Unlock()
	t := time.NewTimer(dozeTime)
	defer t.Stop()
	select {
	case <-roused:
	case <-t.C:
		q.mu.Lock()
		q.dozing = nil
		q.mu.Unlock()
	}
}

// rouse ends a doze. Called with q.mu held.
func (q *queue) rouse() {
	if q.dozing != nil {
		close(q.dozing)
		q.dozing = nil
	}
}

// writeAlone writes one message from the buffer of its sender, who has set busy.
func (q *queue) writeAlone(opcode byte, p []byte) error {
	first := min(len(p), q.limit())
	q.deadline()
	frame := net.Buffers{appendHeader(nil, opcode, len(p)), p[:first]}
	_, err := frame.WriteTo(q.c.wire.Conn)
	for p = p[first:]; len(p) > 0 && err == nil; {
		n := min(len(p), q.limit())
		err = q.send(p[:n])
		p = p[n:]
	}
	if err != nil {
		q.c.writeFailed(err)
	}
	q.mu.Lock()
	if err != nil {
		err = q.done
	}
	if q.buf != nil {
		q.mu.Unlock()
		go q.flush()
	} else {
		q.rest()
	}
	return err
}

func (q *queue) send(p []byte) error {
	q.deadline()
	_, err := q.c.wire.Conn.Write(p)
	return err
}

func (q *queue) deadline() {
	q.c.wire.Conn.SetWriteDeadline(time.Now().Add(q.c.server.cfg.WriteTimeout))
}

// rest ends busy. Called with q.mu held, which it releases.
func (q *queue) rest() {
	if q.done != nil && !q.broken {
		// Nobody can begin to write any more, so busy may stay for a moment:
		// whoever settles shall find flushed to have been called.
		q.mu.Unlock()
		q.c.flushed()
		q.mu.Lock()
	}
	q.busy = false
	q.free()
	if q.still != nil {
		close(q.still)
	}
	q.mu.Unlock()
}

// free wakes the writer who waits for room, if there is one. Called with q.mu held.
func (q *queue) free() {
	select {
	case q.freed <- struct{}{}:
	default:
	}
}
