package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rpc"
	echopb "oneport/proto/echo"
	"oneport/services/echo"
	"oneport/services/greeter"
)

func TestRegisterPanics(t *testing.T) {
	register := func(r *rpc.Registry) { echo.Register(r) }
	wrongImpl := func(r *rpc.Registry) { r.RegisterService(&echopb.EchoService_ServiceDesc, "a string") }
	for _, tt := range []struct {
		name  string
		steps []func(*rpc.Registry)
		want  string
	}{
		{"duplicate", []func(*rpc.Registry){register, register}, "registered twice"},
		{"wrong type", []func(*rpc.Registry){wrongImpl}, "string does not implement echo.EchoServiceServer"},
		{"after Freeze", []func(*rpc.Registry){(*rpc.Registry).Freeze, register}, "the server has started"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg := rpc.NewRegistry(rpc.Config{})
			defer func() {
				got := fmt.Sprint(recover())
				if !strings.Contains(got, tt.want) || !strings.Contains(got, "echo.v1.EchoService") {
					t.Errorf("panic %q, want the service's name and %q", got, tt.want)
				}
			}()
			for _, step := range tt.steps {
				step(reg)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	reg := newRegistry(rpc.Config{}, echo.Register)
	for _, tt := range []struct {
		method                              string
		unary, clientStreams, serverStreams bool
	}{
		{"Echo", true, false, false},
		{"Expand", false, false, true},
		{"Collect", false, true, false},
		{"Converse", false, true, true},
	} {
		name := "/echo.v1.EchoService/" + tt.method
		m := lookup(t, reg, name)
		if m.FullName != name || m.Unary() != tt.unary || m.ClientStreams != tt.clientStreams || m.ServerStreams != tt.serverStreams {
			t.Errorf("%s: name %s, unary %t, client streams %t, server streams %t", name, m.FullName, m.Unary(), m.ClientStreams, m.ServerStreams)
		}
	}
}

// What a client is told about a name that does not exist is what grpc-go says.
func TestLookupUnknown(t *testing.T) {
	onRoads(t, rpc.Config{}, echo.Register, func(t *testing.T, cc grpc.ClientConnInterface) {
		for _, tt := range []struct{ name, want string }{
			{"/echo.v1.EchoService/Missing", "unknown method Missing for service echo.v1.EchoService"},
			{"/echo.v1.EchoService/", "unknown method  for service echo.v1.EchoService"},
			{"/echo.v1.Missing/Echo", "unknown service echo.v1.Missing"},
			{"/a/b/c", "unknown service a/b"},
			{"//c", "unknown service "},
			{"/echo.v1.EchoService", "malformed method name"},
			{"/", "malformed method name"},
		} {
			err := cc.Invoke(t.Context(), tt.name, new(emptypb.Empty), new(emptypb.Empty))
			if s := status.Convert(err); s.Code() != codes.Unimplemented || !strings.HasPrefix(s.Message(), tt.want) {
				t.Errorf("%q: %v, want UNIMPLEMENTED %s", tt.name, err, tt.want)
			}
		}
	})
}

func TestLookupBoundsNames(t *testing.T) {
	reg := newRegistry(rpc.Config{}, echo.Register)
	long := strings.Repeat("\xffé", 1<<20)
	for _, name := range []string{"", "a", "a/b", long, "/" + long, "/" + long + "/x", "/echo.v1.EchoService/" + long} {
		_, err := reg.Lookup(name)
		s := status.Convert(err)
		if s.Code() != codes.Unimplemented || len(s.Message()) > 2000 || !utf8.ValidString(s.Message()) {
			t.Errorf("Lookup(%.40q): code %v, %d bytes, valid UTF-8 %t; want UNIMPLEMENTED, at most 2000, true",
				name, s.Code(), len(s.Message()), utf8.ValidString(s.Message()))
		}
	}
}

// Reflection shows the same over both.
func TestServiceInfo(t *testing.T) {
	reg := newRegistry(rpc.Config{}, func(r grpc.ServiceRegistrar) {
		echo.Register(r)
		greeter.Register(r)
		new(script).register(r)
	})
	srv := grpc.NewServer()
	reg.RegisterOn(srv)
	got, want := reg.GetServiceInfo(), srv.GetServiceInfo()
	for _, infos := range []map[string]grpc.ServiceInfo{got, want} {
		for _, info := range infos { // grpc-go's order is that of a map
			slices.SortFunc(info.Methods, func(a, b grpc.MethodInfo) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("service info differs from grpc.Server's (-want +got):\n%s", diff)
	}
	if len(got) != 3 {
		t.Errorf("%d services, want 3", len(got))
	}
}

// curious is a registrar that asks the Registry while being given a service.
type curious struct {
	reg   *rpc.Registry
	names []string
}

func (c *curious) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if c.reg.Impl(desc.ServiceName) != impl {
		panic("another impl")
	}
	c.reg.Freeze() // takes the lock for writing
	c.names = append(c.names, desc.ServiceName)
}

func TestRegisterOn(t *testing.T) {
	reg := newRegistry(rpc.Config{}, func(r grpc.ServiceRegistrar) {
		new(script).register(r)
		echo.Register(r)
	})
	c := &curious{reg: reg}
	reg.RegisterOn(c)
	want := []string{"echo.v1.EchoService", "test.Script"}
	if !slices.Equal(c.names, want) || !slices.Equal(reg.Services(), want) {
		t.Errorf("registered %q, Services() = %q, want %q", c.names, reg.Services(), want)
	}
}

func TestMethods(t *testing.T) {
	reg := newRegistry(rpc.Config{}, new(script).register)
	var got []string
	for _, m := range reg.Methods() {
		got = append(got, m.FullName)
	}
	slices.Sort(got)
	if want := []string{scriptBidi, scriptClient, scriptServer, scriptUnary}; !slices.Equal(got, want) {
		t.Errorf("Methods() = %q, want %q", got, want)
	}
}

func TestFreeze(t *testing.T) {
	reg := newRegistry(rpc.Config{}, echo.Register)
	if reg.Frozen() {
		t.Error("a new Registry is frozen")
	}
	reg.Freeze()
	reg.Freeze()
	if !reg.Frozen() {
		t.Error("Freeze did not freeze")
	}
}

func TestImpl(t *testing.T) {
	s := new(script)
	reg := newRegistry(rpc.Config{}, s.register)
	if got := reg.Impl("test.Script"); got != s {
		t.Errorf("Impl(test.Script) = %v, want what was registered", got)
	}
	if got := reg.Impl("test.Missing"); got != nil {
		t.Errorf("Impl(test.Missing) = %v, want nil", got)
	}
}

func TestMaxMessageBytes(t *testing.T) {
	for _, tt := range []struct{ config, want int }{{0, 4 << 20}, {100, 100}} {
		if got := rpc.NewRegistry(rpc.Config{MaxMessageBytes: tt.config}).MaxMessageBytes(); got != tt.want {
			t.Errorf("Config %d: MaxMessageBytes() = %d, want %d", tt.config, got, tt.want)
		}
	}
}

// Interceptors run in the order of Config, around the handler, on both roads.
func TestInterceptorOrder(t *testing.T) {
	var order []string
	unary := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			order = append(order, name+" "+info.FullMethod)
			return handler(ctx, req)
		}
	}
	stream := func(name string) grpc.StreamServerInterceptor {
		return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			order = append(order, fmt.Sprintf("%s %s %t %t", name, info.FullMethod, info.IsClientStream, info.IsServerStream))
			return handler(srv, ss)
		}
	}
	s := &script{
		unary:  func(context.Context, *text) (*text, error) { order = append(order, "handler"); return new(text), nil },
		stream: func(grpc.ServerStream) error { order = append(order, "handler"); return nil },
	}
	for n := range 4 {
		var cfg rpc.Config
		var wantUnary, wantStream []string
		for i := range n {
			name := fmt.Sprint(i)
			cfg.UnaryInterceptors = append(cfg.UnaryInterceptors, unary(name))
			cfg.StreamInterceptors = append(cfg.StreamInterceptors, stream(name))
			wantUnary = append(wantUnary, name+" "+scriptUnary)
			wantStream = append(wantStream, name+" "+scriptBidi+" true true")
		}
		onRoads(t, cfg, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
			order = nil
			if err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text)); err != nil {
				t.Fatal(err)
			}
			if want := append(slices.Clone(wantUnary), "handler"); !slices.Equal(order, want) {
				t.Errorf("unary: %q, want %q", order, want)
			}
			order = nil
			if _, err := streamCall(t, cc, bothStream, scriptBidi); err != nil {
				t.Fatal(err)
			}
			if want := append(slices.Clone(wantStream), "handler"); !slices.Equal(order, want) {
				t.Errorf("stream: %q, want %q", order, want)
			}
		})
	}
}
