package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	codepb "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

// liar is an error whose status says OK.
type liar struct{}

func (liar) Error() string              { return "liar" }
func (liar) GRPCStatus() *status.Status { return status.New(codes.OK, "") }

// hollow is an error without the status it promises.
type hollow struct{}

func (hollow) Error() string              { return "hollow" }
func (hollow) GRPCStatus() *status.Status { return nil }

// A request that cannot be read is the client's fault, in a way that depends on why.
func TestReadError(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	slow := &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	const malformed = "the request is cut short or malformed: "
	for _, tt := range []struct {
		err     error
		code    codes.Code
		message string
	}{
		{io.ErrUnexpectedEOF, codes.InvalidArgument, malformed + "unexpected EOF"},
		{errors.New("\xff"), codes.InvalidArgument, malformed + "?"},
		{errors.New(strings.Repeat("x", 1000)), codes.InvalidArgument, malformed + strings.Repeat("x", 200) + "…"},
		{reset, codes.Canceled, "the client has gone before the end of its request"},
		{fmt.Errorf("read: %w", net.ErrClosed), codes.Canceled, "the client has gone before the end of its request"},
		{io.ErrClosedPipe, codes.Canceled, "the client has gone before the end of its request"},
		{errors.New("client disconnected"), codes.Canceled, "the client has gone before the end of its request"}, // net/http, as its context ends
		{slow, codes.DeadlineExceeded, "the rest of the request has not come in time"},
		{status.Error(codes.NotFound, "no a"), codes.NotFound, "no a"},
	} {
		if st := status.Convert(rpc.ReadError(tt.err)); st.Code() != tt.code || st.Message() != tt.message {
			t.Errorf("%.50v gives %v: %s, want %v: %s", tt.err, st.Code(), st.Message(), tt.code, tt.message)
		}
	}
}

func TestHandlerErrors(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "no a").WithDetails(&errdetails.ErrorInfo{Reason: "R"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		err     error
		code    codes.Code
		message string
		details int
	}{
		{"nil", nil, codes.OK, "", 0},
		{"status", status.Error(codes.NotFound, "no a"), codes.NotFound, "no a", 0},
		{"details", detailed.Err(), codes.NotFound, "no a", 1},
		{"wrapped status", fmt.Errorf("find: %w", detailed.Err()), codes.NotFound, "find: rpc error: code = NotFound desc = no a", 1},
		{"unknown code", status.Error(200, "odd"), 200, "odd", 0},
		{"plain", errors.New("plain"), codes.Unknown, "plain", 0},
		{"EOF", io.EOF, codes.Unknown, "EOF", 0},
		{"cancelled", context.Canceled, codes.Canceled, "context canceled", 0},
		{"deadline", context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded", 0},
		{"wrapped cancelled", fmt.Errorf("db: %w", context.Canceled), codes.Canceled, "db: context canceled", 0},
		{"wrapped deadline", fmt.Errorf("db: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "db: context deadline exceeded", 0},
		{"status nil", hollow{}, codes.Unknown, "hollow", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{
				unary:  func(context.Context, *text) (*text, error) { return new(text), tt.err },
				stream: func(ss grpc.ServerStream) error { return tt.err },
			}
			check := func(t *testing.T, got error) {
				t.Helper()
				if s := status.Convert(got); s.Code() != tt.code || s.Message() != tt.message || len(s.Details()) != tt.details {
					t.Errorf("handler returned %v: %v with %d details, want %v %q with %d",
						tt.err, got, len(s.Details()), tt.code, tt.message, tt.details)
				}
			}
			onRoads(t, rpc.Config{}, s.register, func(t *testing.T, cc grpc.ClientConnInterface) {
				check(t, cc.Invoke(t.Context(), scriptUnary, new(text), new(text)))
				_, err := streamCall(t, cc, bothStream, scriptBidi)
				check(t, err)
			})
		})
	}
}

// An error is not success, even where grpc-go would let it pass for one.
func TestHandlerErrorWithStatusOK(t *testing.T) {
	for _, lie := range []error{liar{}, fmt.Errorf("a %w", liar{})} {
		s := &script{unary: func(context.Context, *text) (*text, error) { return new(text), lie }}
		cc := rpc.NewConn(newRegistry(rpc.Config{}, s.register))
		err := cc.Invoke(t.Context(), scriptUnary, new(text), new(text))
		if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != lie.Error() {
			t.Errorf("handler returned %q: %v, want UNKNOWN %q", lie, err, lie)
		}
	}
}

// What has become of the context is the outcome, whatever the handler returns.
func TestEndedContextIsTheOutcome(t *testing.T) {
	for _, returned := range []error{nil, errors.New("plain"), status.Error(codes.NotFound, "")} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
			cancel()
			<-ctx.Done()
			return new(text), returned
		}}
		reg := newRegistry(rpc.Config{}, s.register)
		_, err := lookup(t, reg, scriptUnary).Serve(ctx, newCall(), new(wire))
		if status.Code(err) != codes.Canceled {
			t.Errorf("handler returned %v in a cancelled call: %v, want CANCELLED", returned, err)
		}
	}
}

// A call that its server cuts says so, unless it has ended for another reason before.
func TestShutdownIsTheOutcome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begun func(call *rpc.Call, cut func()) // before the handler
		run   func(call *rpc.Call, cut func()) // in it
		want  error
	}{
		{"cut", nil, func(_ *rpc.Call, cut func()) { cut() }, rpc.ErrShutdown},
		{"late", func(_ *rpc.Call, cut func()) { cut() }, nil, rpc.ErrShutdown},
		{"cancelled, then cut", nil, func(call *rpc.Call, cut func()) { call.Cancel(); cut() }, status.FromContextError(context.Canceled).Err()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cut := func() { cancel(rpc.ErrShutdown) }
			call := newCall()
			s := &script{unary: func(ctx context.Context, _ *text) (*text, error) {
				tt.run(call, cut)
				return nil, ctx.Err()
			}}
			reg := newRegistry(rpc.Config{}, s.register)
			if tt.begun != nil {
				tt.begun(call, cut)
			}
			if _, err := lookup(t, reg, scriptUnary).Serve(ctx, call, new(wire)); !errors.Is(err, tt.want) {
				t.Errorf("the outcome is %v, want %v", err, tt.want)
			}
		})
	}
}

func TestPanic(t *testing.T) {
	const secret = "secret value"
	idPattern := regexp.MustCompile(`^internal error \(id ([A-Z2-7]{8})\)$`)
	boom := func() { panic(secret) }
	quiet := &script{
		unary:  func(context.Context, *text) (*text, error) { return new(text), nil },
		stream: func(grpc.ServerStream) error { return nil },
	}
	loud := &script{
		unary:  func(context.Context, *text) (*text, error) { boom(); return nil, nil },
		stream: func(grpc.ServerStream) error { boom(); return nil },
	}
	unary := func(t *testing.T, cc grpc.ClientConnInterface) error {
		return cc.Invoke(t.Context(), scriptUnary, new(text), new(text))
	}
	stream := func(t *testing.T, cc grpc.ClientConnInterface) error {
		_, err := streamCall(t, cc, bothStream, scriptBidi)
		return err
	}
	for _, tt := range []struct {
		name    string
		service *script
		cfg     rpc.Config
		method  string
		call    func(*testing.T, grpc.ClientConnInterface) error
	}{
		{"unary handler", loud, rpc.Config{}, scriptUnary, unary},
		{"stream handler", loud, rpc.Config{}, scriptBidi, stream},
		{"unary interceptor", quiet, rpc.Config{UnaryInterceptors: []grpc.UnaryServerInterceptor{
			func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				boom()
				return nil, nil
			},
		}}, scriptUnary, unary},
		{"stream interceptor", quiet, rpc.Config{StreamInterceptors: []grpc.StreamServerInterceptor{
			func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error { boom(); return nil },
		}}, scriptBidi, stream},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			tt.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			onRoads(t, tt.cfg, tt.service.register, func(t *testing.T, cc grpc.ClientConnInterface) {
				log.Reset()
				err := tt.call(t, cc)
				s := status.Convert(err)
				id := idPattern.FindStringSubmatch(s.Message())
				if s.Code() != codes.Internal || id == nil || len(s.Details()) > 0 {
					t.Fatalf("the client got %v, want INTERNAL with an id and nothing else", err)
				}
				for _, want := range []string{secret, "id=" + id[1], "method=" + tt.method, "status_test.go"} {
					if !strings.Contains(log.String(), want) {
						t.Errorf("the log lacks %q:\n%s", want, log.String())
					}
				}
				if err := tt.call(t, cc); status.Convert(err).Message() == s.Message() {
					t.Errorf("two panics have the same text %q", s.Message())
				}
			})
		})
	}
}

// The table of Connect ("Error Codes" in its protocol), which grpc-gateway has too.
func TestHTTPStatus(t *testing.T) {
	want := []int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 500, 500}
	for code, want := range want {
		if got := rpc.HTTPStatus(codes.Code(code)); got != want {
			t.Errorf("%v is %d, want %d", codes.Code(code), got, want)
		}
	}
}

// README.md has the same table, by the status and then by the number of the code.
func TestHTTPStatusInReadme(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[int][]string)
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		of[rpc.HTTPStatus(code)] = append(of[rpc.HTTPStatus(code)], fmt.Sprintf("`%s`", codepb.Code(code)))
	}
	var table []string
	for _, httpStatus := range slices.Sorted(maps.Keys(of)) {
		table = append(table, fmt.Sprintf("%d %s", httpStatus, strings.Join(of[httpStatus], ", ")))
	}
	want := ": " + strings.Join(table, "; ") + "."
	if !strings.Contains(strings.Join(strings.Fields(string(readme)), " "), want) {
		t.Errorf("README.md has not%s", want)
	}
}
