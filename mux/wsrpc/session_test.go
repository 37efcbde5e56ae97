package wsrpc

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"oneport/mux/internal/rpc"
	"oneport/mux/internal/socket"
)

// openMethod opens a socket of one method of s.
func openMethod(t testing.TB, s *script, method string) *pipeClient {
	t.Helper()
	reg := rpc.NewRegistry(rpc.Config{})
	s.register(reg)
	p := newPipeClient(t, socket.Config{})
	p.open(Path+"/t/"+method, "", nil, NewHandler(reg, p.sockets).ServeHTTP)
	return p
}

// speaks is a service that answers with what it gets; where no request need come it says
// something first.
var speaks = &script{
	unary: func(_ context.Context, in *text) (*text, error) { return in, nil },
	stream: func(ss grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(ss)
		if name == "/t/Bidi" {
			if err := ss.SendMsg(&text{Value: "first"}); err != nil {
				return err
			}
		}
		m := new(text)
		if err := ss.RecvMsg(m); err != nil {
			return err
		}
		if name != "/t/Client" {
			if err := ss.SendMsg(m); err != nil {
				return err
			}
		}
		<-ss.Context().Done()
		return nil
	},
}

// serving counts the goroutines that run calls of one method.
func serving() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "wsrpc.(*session).serve(")
}

// Where a call begins with a message, the first has 10 s, as in the other forms, and until
// then nothing runs. Where none need come, the call has begun with the socket.
func TestFirstMessageDeadline(t *testing.T) {
	for _, tt := range []struct {
		method string
		begins bool // with the socket
	}{{"Unary", false}, {"Server", false}, {"Client", true}, {"Bidi", true}} {
		for _, late := range []time.Duration{-1, 0} { // of the message
			synctest.Test(t, func(t *testing.T) {
				p := openMethod(t, speaks, tt.method)
				defer p.close()
				synctest.Wait()
				if got := serving() == 1; got != tt.begins {
					t.Errorf("%s: a goroutine for calls before the first message: %v, want %v", tt.method, got, tt.begins)
				}
				if tt.method == "Bidi" {
					p.want("\n\x05first")
				}
				start := time.Now()
				if late == 0 && !tt.begins {
					p.want("websocket: close 4408: no message within 10s")
					if got := time.Since(start); got != 10*time.Second {
						t.Errorf("%s: closed after %v, want 10 s", tt.method, got)
					}
					return
				}
				time.Sleep(10*time.Second + late)
				p.send(`"x"`)
				if tt.method != "Client" {
					p.want(`"x"`)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				p.quiet()
			})
		}
	}
}

// A unary method keeps a goroutine for calls that follow soon, and none for later ones.
func TestIdleMethodKeepsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openMethod(t, speaks, "Unary")
		defer p.close()
		running := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			if got := serving(); got != want {
				t.Errorf("%s: %d goroutines run calls, want %d", when, got, want)
			}
		}
		for n := range 3 {
			message := fmt.Sprintf("%q", fmt.Sprint(n))
			for range 3 {
				p.send(message)
				p.want(message)
				time.Sleep(linger - 1)
				running(1, "a moment after a call")
			}
			time.Sleep(time.Nanosecond)
			running(0, "a while after a call")
			time.Sleep(time.Minute / 4)
		}
		p.send("")
		p.want("websocket: close 1000 (normal)")
	})
}

// A server that drains closes sockets without a call, also those that have had one, and
// others after it.
func TestDrainMethod(t *testing.T) {
	const leaving = "websocket: close 1001 (going away): server is shutting down"
	for _, tt := range []struct {
		name, method string
		before       time.Duration // since an answer; 0: there was no call, -1: one runs
	}{
		{"without a call", "Unary", 0},
		{"without a call", "Server", 0},
		{"while serve lingers", "Unary", linger / 2},
		{"long after a call", "Unary", linger * 2},
		{"in a call", "Unary", -1},
	} {
		t.Run(tt.name+" of "+tt.method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				p := openMethod(t, &script{unary: func(_ context.Context, in *text) (*text, error) {
					<-release
					return in, nil
				}, stream: waits.stream}, tt.method)
				defer p.close()
				switch {
				case tt.before > 0:
					p.send(`"x"`)
					release <- struct{}{}
					p.want(`"x"`)
					time.Sleep(tt.before)
				case tt.before < 0:
					p.send(`"x"`)
				}
				synctest.Wait()
				down := make(chan error, 1)
				go func() { down <- p.sockets.Shutdown(t.Context()) }()
				synctest.Wait()
				if tt.before < 0 {
					p.quiet()
					release <- struct{}{}
					p.want(`"x"`)
				}
				p.want(leaving)
				if err := <-down; err != nil {
					t.Errorf("Shutdown = %v", err)
				}
			})
		})
	}
}
