package mux

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"oneport/mux/internal/rpc"
)

// Shutdown ends the server without losing a call it has accepted:
//
//  1. The registered health service says NOT_SERVING, /readyz 503, and HTTP/1
//     answers carry "Connection: close".
//  2. The listeners close. Connections that the kernel has passed on, or that
//     the split still looks at, reach their servers; those of HTTP/1 with the
//     request that has begun to come, for which they have 5 s.
//  3. gRPC clients get GOAWAY, HTTP servers wait for their requests, new
//     WebSockets are refused with 503 and open ones close with 1001 after the
//     call they have: all at once. Calls in flight run to their end.
//  4. When ctx ends first, what is left is cut, and the error is that of ctx.
//     Close does the same at once; the error is then ErrServerClosed. The contexts
//     of calls end; clients get UNAVAILABLE, or the end of the connection or stream.
//
// Where a load balancer polls readiness, turn the health service off and wait
// for the balancer to notice before calling Shutdown. Requests that ServeHTTP
// runs for another http.Server are that server's to wait for, first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.start()
	if !s.enter(draining) {
		// Another call of Shutdown or Close is at it.
		select {
		case <-s.closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.unready()
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	defer context.AfterFunc(s.cut, cancel)()
	s.drainSplits(ctx)
	s.between.dismiss(ctx)

	var wg sync.WaitGroup
	var cut atomic.Bool
	drain := func(f func(context.Context) error) {
		wg.Go(func() {
			if f(ctx) != nil {
				cut.Store(true)
			}
		})
	}
	drain(s.stopNative)
	drain(s.sockets.Shutdown)
	for _, hs := range s.httpServers() {
		drain(hs.Shutdown)
	}
	wg.Wait()
	// Last, since the calls that have just ended may have made some of these.
	drain(s.conn.Shutdown)
	wg.Wait()
	closed := s.cut.Err() != nil // by a Close of somebody else
	s.Close()
	switch {
	case closed:
		return ErrServerClosed
	case cut.Load():
		return outer.Err()
	default:
		return nil
	}
}

// stopNative lets native gRPC finish, until ctx ends. It does not wait for
// GracefulStop then, which waits for handlers even if they ignore the end of
// their calls; that goroutine ends with the last of them.
func (s *Server) stopNative(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		s.native.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		s.native.Stop()
		return ctx.Err()
	}
}

// drainSplits stops accepting and returns when every connection that had been
// accepted is with its server.
func (s *Server) drainSplits(ctx context.Context) {
	var wg sync.WaitGroup
	s.mu.Lock()
	for sp := range s.splits {
		wg.Go(func() { sp.drain(ctx) })
	}
	s.mu.Unlock()
	wg.Wait()
}

// flushTime is for net/http to send what sockets on streams of HTTP/2 have written: it
// says that it has when that is in a buffer, and tells no one when it is on its way.
const flushTime = 10 * time.Millisecond

// answerTime is how long calls by HTTP have to end when they are cut, so that their clients
// are told. Those by other ways end with a close frame or with the connection, which clients
// of gRPC take for the same.
const answerTime = 250 * time.Millisecond

// waitAnswered returns when there are no calls by HTTP any more and what they have answered
// is on its way. It polls, as arrivals do.
func (s *Server) waitAnswered() {
	for end := time.Now().Add(answerTime); s.answering.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(flushTime)
}

// Close ends the server at once: listeners, connections and calls. Handlers of calls by
// HTTP have 250 ms to notice, so that their clients are told.
func (s *Server) Close() error {
	s.start()
	s.mu.Lock()
	first := s.state != closing
	s.state = closing
	var open []*split
	for sp := range s.splits {
		open = append(open, sp)
	}
	s.mu.Unlock()
	if !first {
		<-s.closed
		return nil
	}
	answering := s.answering.Load() > 0 // before the cut, of which they are to tell
	s.cutNow(rpc.ErrShutdown)
	s.unready()
	for _, sp := range open {
		sp.close()
	}
	var wg sync.WaitGroup
	wg.Go(s.native.Stop)
	ended := make(chan struct{})
	wg.Go(func() {
		s.sockets.Close()
		if s.streams.Load() {
			time.Sleep(flushTime)
		}
		close(ended)
	})
	answered := make(chan struct{})
	wg.Go(func() {
		if answering {
			s.waitAnswered()
		}
		close(answered)
	})
	for _, hs := range s.httpServers() {
		wg.Go(func() {
			<-answered
			if hs == s.http2 {
				<-ended // some may be its streams, and have a close frame to come
			}
			hs.Close()
		})
	}
	wg.Wait()
	s.tunneling.Wait()
	cut, cancel := context.WithCancel(context.Background())
	cancel()
	s.conn.Shutdown(cut)
	close(s.closed)
	return nil
}

// enter moves the server on to a later state; false if it was there already.
func (s *Server) enter(to state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state >= to {
		return false
	}
	s.state = to
	return true
}

func (s *Server) isRunning() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == running
}
