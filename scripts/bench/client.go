package main

import (
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "oneport/proto/echo"
)

const (
	echoMethod     = "/echo.v1.EchoService/Echo"
	expandMethod   = "/echo.v1.EchoService/Expand"
	converseMethod = "/echo.v1.EchoService/Converse"

	subprotocol = "grpc-ws.v1"

	// clientWindow is what a server may send ahead of the client, of a call.
	clientWindow = 256 << 10

	token = "Bearer 6f1b0c2d4e8a4f7391b5d07c2e3a9f64"
)

// requestMetadata goes with each call, beside what the wire itself needs.
var requestMetadata = [][2]string{
	{"authorization", token},
	{"x-request-id", "b9d2c1f0a3e84756"},
	{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
}

// call is a call to be made, and what is to come back.
type call struct {
	method  string
	request []byte // one message
	reply   []byte // each of the messages that come back
	replies int
}

// unaryCall sends a text of size bytes and wants it back.
func unaryCall(size int) (*call, error) {
	return newCall(echoMethod, &pb.EchoRequest{Message: text(size)}, &pb.EchoResponse{Message: text(size)}, 1)
}

// pushCall wants a text of size bytes count times.
func pushCall(size, count int) (*call, error) {
	return newCall(expandMethod, &pb.ExpandRequest{Message: text(size), Count: uint32(count)},
		&pb.ExpandResponse{Message: text(size)}, count)
}

func text(size int) string { return strings.Repeat("0123456789abcdef", size/16+1)[:size] }

func newCall(method string, req, reply proto.Message, replies int) (*call, error) {
	c := &call{method: method, replies: replies}
	var err error
	if c.request, err = proto.Marshal(req); err != nil {
		return nil, err
	}
	c.reply, err = proto.Marshal(reply)
	return c, err
}

// client is a connection that makes the same call again and again. One goroutine uses
// it.
type client interface {
	// start gets a call ready to be sent.
	start()

	// exchange sends what is ready, in one write, and reads once. It returns how
	// many messages have come and how many calls have ended, as they should; any
	// other outcome is an error.
	exchange() (messages, ended int, err error)

	// finish closes the connection and says so, if the wire has a word for that.
	finish() error

	// As in net.Conn.
	SetDeadline(time.Time) error
	Close() error
}

// conn is a connection that is written and read in as few system calls as possible.
type conn struct {
	net.Conn
	out    []byte // is to be written
	in     []byte // has been read, and is to be looked at: part of buffer
	buffer []byte // grows when a read has filled it
	full   bool
}

// Small at first, for thousands of connections that are idle.
const (
	minBuffer = 2 << 10
	maxBuffer = 64 << 10
)

func dial(addr string) (conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	return conn{Conn: c, buffer: make([]byte, minBuffer)}, err
}

func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Write(c.out)
	c.out = c.out[:0]
	return err
}

// fill reads more behind what has not been looked at.
func (c *conn) fill() error {
	if c.full && len(c.buffer) < maxBuffer {
		c.buffer = make([]byte, 2*len(c.buffer))
	}
	kept := copy(c.buffer, c.in)
	if kept == len(c.buffer) {
		return fmt.Errorf("a frame of more than %d bytes", kept)
	}
	n, err := c.Read(c.buffer[kept:])
	c.in = c.buffer[:kept+n]
	c.full = len(c.in) == len(c.buffer)
	return err
}

// drive keeps n calls going until enough, then waits for those that are. It returns
// how many messages have come.
func drive(c client, n int, enough func() bool) (int, error) {
	for range n {
		c.start()
	}
	total := 0
	for n > 0 {
		messages, ended, err := c.exchange()
		if err != nil {
			return total, err
		}
		total += messages
		if enough() {
			n -= ended
			continue
		}
		for range ended {
			c.start()
		}
	}
	return total, nil
}
