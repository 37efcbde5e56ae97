package wsrpc

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// State is READY while calls can be made, CONNECTING during an attempt to connect
// again, TRANSIENT_FAILURE between two, and SHUTDOWN after Close.
func (c *ClientConn) State() connectivity.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// WaitForStateChange waits until the state is another than the given one. It is false
// if ctx has ended first.
func (c *ClientConn) WaitForStateChange(ctx context.Context, state connectivity.State) bool {
	for {
		c.mu.Lock()
		now, changed := c.state, c.changed
		c.mu.Unlock()
		if now != state {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (c *ClientConn) setState(state connectivity.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setStateLocked(state)
}

// setStateLocked does nothing after Close. Called with c.mu held.
func (c *ClientConn) setStateLocked(state connectivity.State) {
	if c.closed || c.state == state {
		return
	}
	c.state = state
	close(c.changed)
	c.changed = make(chan struct{})
}

// reconnect makes the next socket. It is started by left, and ended by success or
// Close.
func (c *ClientConn) reconnect() {
	for {
		c.mu.Lock()
		failures, pause := c.failures, c.pause
		c.pause = 0
		c.mu.Unlock()
		if failures > 0 {
			pause = max(pause, backoffDelay(c.opts.Backoff, failures))
		}
		if pause > 0 {
			c.setState(connectivity.TransientFailure)
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-c.ctx.Done():
				t.Stop()
				return
			}
			c.setState(connectivity.Connecting)
		}
		ctx, cancel := context.WithTimeout(c.ctx, clientConnectTimeout)
		s, err := c.connect(ctx)
		cancel()
		if err == nil {
			c.install(s)
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.failures++
		c.lost = err
		c.mu.Unlock()
	}
}

// pauseAfter is the time until a server that has closed with this code is to be asked
// again, at least.
func pauseAfter(code int) time.Duration {
	if code == websocket.CloseTryAgainLater {
		return 5 * time.Second
	}
	return 0
}

// mayRepeat tells whether a socket that is opened at once may end by this close code
// again: something is wrong with a peer, the network is not.
func mayRepeat(code int) bool {
	switch code {
	case websocket.CloseProtocolError, websocket.CloseUnsupportedData, websocket.CloseInvalidFramePayloadData,
		websocket.ClosePolicyViolation, websocket.CloseMessageTooBig, websocket.CloseInternalServerErr,
		websocket.CloseTryAgainLater, closeUnauthenticated, closePermissionDenied:
		return true
	}
	return false
}

// backoffDelay is the delay after so many failures, one or more.
func backoffDelay(cfg backoff.Config, failures int) time.Duration {
	d := float64(cfg.BaseDelay) * math.Pow(cfg.Multiplier, float64(failures-1))
	d = min(d, float64(cfg.MaxDelay))
	d *= 1 + cfg.Jitter*(2*rand.Float64()-1)
	return time.Duration(max(d, 0))
}
