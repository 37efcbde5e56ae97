package muxtest

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// What package net promises of connections, on those in memory.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l := newListener()
		accepted := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		c1, err = l.dial(t.Context())
		c2 = <-accepted
		stop = func() {
			c1.Close()
			c2.Close()
			l.Close()
		}
		return c1, c2, stop, err
	})
}
