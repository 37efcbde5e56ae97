package socket

import (
	"net"
	"testing"
	"testing/synctest"

	"oneport/mux/internal/socket/sockettest"
)

// testLimit and testFrames are the limits of the server in the conformance cases.
const (
	testLimit  = 1 << 20
	testFrames = 100
)

// The cases run against the server's endpoints, over ws and wss, in package mux. Here
// reads end anywhere in a frame.
func TestOctetByOctet(t *testing.T) {
	for name, kind := range map[string]byte{"text": opText, "binary": opBinary} {
		e := sockettest.Echo("/", kind, testLimit, testFrames)
		for _, c := range sockettest.Cases(e) {
			size := 0
			for _, step := range c.Steps {
				size += len(step.Send)
			}
			if size > 1000 {
				continue
			}
			t.Run(name+" "+c.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // for the second after a breach
					near, far := net.Pipe()
					s := NewServer(Config{MaxMessageBytes: testLimit, MaxFrames: testFrames, Log: quiet})
					client := upgrade(t, s, near, far, echo)
					c.Play(t, sockettest.Octets{Conn: far}, client.reply)
				})
			})
		}
	}
}
