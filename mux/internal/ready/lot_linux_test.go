package ready

import (
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// woken is a Parked that counts.
type woken chan struct{}

func (w woken) Wake() { w <- struct{}{} }

func (w woken) want(t *testing.T, what string) {
	t.Helper()
	select {
	case <-w:
	case <-time.After(time.Minute):
		t.Fatalf("not woken by %s", what)
	}
}

// tcp returns the two ends of a connection.
func tcp(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*net.TCPConn), a.(*net.TCPConn)
}

func TestLot(t *testing.T) {
	var l Lot
	w := make(woken, 9)
	park := func(c *net.TCPConn) Ticket {
		t.Helper()
		ticket, err := l.Park(c, w)
		if err != nil || ticket == 0 {
			t.Fatalf("Park = %d, %v", ticket, err)
		}
		return ticket
	}
	for _, company := range []bool{false, true} { // whether the lot stays open in between
		near, far := tcp(t)
		other, _ := tcp(t)
		var ticket Ticket
		if company {
			ticket = park(other)
		}
		first := park(near)
		if len(w) > 0 {
			t.Error("woken by nothing")
		}
		far.Write([]byte("a"))
		w.want(t, "data")
		park(near)
		w.want(t, "data that was not read")
		near.Read(make([]byte, 1))

		second := park(near)
		l.Leave(first)
		if len(w) > 0 {
			t.Error("woken by Leave of an earlier stay")
		}
		l.Leave(second)
		w.want(t, "Leave")
		l.Leave(second)
		far.Write([]byte("b")) // which the lot still looks out for
		third, _ := tcp(t)
		l.Leave(park(third))
		w.want(t, "Leave")
		if len(w) > 0 {
			t.Error("woken twice, or after a stay")
		}
		near.Read(make([]byte, 1))

		park(near)
		far.CloseWrite()
		w.want(t, "the end of the stream")

		if company {
			other.Close()
			l.Leave(ticket)
			w.want(t, "Leave of a closed connection")
		}
		near.Close()
		if ticket, err := l.Park(near, w); err == nil {
			t.Errorf("Park of a closed connection = %d, nil", ticket)
		}
	}
}

func TestLotOfMany(t *testing.T) {
	var l Lot
	w := make(woken, 300) // more than are woken at once
	var far []*net.TCPConn
	for range cap(w) {
		a, b := tcp(t)
		if _, err := l.Park(a, w); err != nil {
			t.Fatal(err)
		}
		far = append(far, b)
	}
	for _, c := range far {
		c.Write([]byte("a"))
	}
	for range far {
		w.want(t, "data")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.parked) > 0 || l.epoll != nil {
		t.Errorf("%d are parked still, epoll %v", len(l.parked), l.epoll)
	}
}
