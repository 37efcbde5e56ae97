package wsrpc

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

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

// backoffDelay is the delay after so many failures, one or more.
func backoffDelay(cfg backoff.Config, failures int) time.Duration {
	d := float64(cfg.BaseDelay) * math.Pow(cfg.Multiplier, float64(failures-1))
	d = min(d, float64(cfg.MaxDelay))
	d *= 1 + cfg.Jitter*(2*rand.Float64()-1)
	return time.Duration(max(d, 0))
}
