package rest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"oneport/mux/internal/rest"
	pb "oneport/mux/internal/rest/resttest"
	"oneport/mux/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// library gives back what it is asked.
type library struct {
	pb.UnimplementedLibraryServer

	getBook func(context.Context, *pb.Book) (*pb.Book, error)                      // nil: the request
	watch   func(*pb.Book, grpc.ServerStreamingServer[pb.Book]) error              // nil: see Watch
	upload  func(grpc.ClientStreamingServer[httpbody.HttpBody, pb.File]) error     // nil: see UploadParts
	imports func(grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error // nil: see Import
	chat    func(grpc.BidiStreamingServer[pb.Book, pb.Book]) error                 // nil: see Chat
	parts   func(*pb.File, grpc.ServerStreamingServer[httpbody.HttpBody]) error    // nil: see DownloadParts
	list    func(context.Context, *pb.Book) (*pb.Books, error)                     // nil: see ListBooks
}

func (l *library) GetBook(ctx context.Context, b *pb.Book) (*pb.Book, error) {
	if l.getBook != nil {
		return l.getBook(ctx, b)
	}
	return b, nil
}

func (*library) CreateBook(_ context.Context, b *pb.Book) (*pb.Book, error) { return b, nil }

func (*library) MergeBooks(_ context.Context, b *pb.Book) (*pb.Book, error) { return b, nil }

func (*library) DeleteBook(context.Context, *pb.Book) (*emptypb.Empty, error) {
	return new(emptypb.Empty), nil
}

func (*library) UpdateBook(_ context.Context, r *pb.UpdateBookRequest) (*pb.UpdateBookRequest, error) {
	return r, nil
}

// ListBooks lists as many books as pages are asked for.
func (l *library) ListBooks(ctx context.Context, b *pb.Book) (*pb.Books, error) {
	if l.list != nil {
		return l.list(ctx, b)
	}
	books := new(pb.Books)
	for range b.GetPages() {
		books.Books = append(books.Books, &pb.Book{Name: "a"})
		books.Total++
		books.Names = map[string]string{"a": "A"}
		books.First = books.Books[0]
		books.Genre = pb.Genre_POEM
	}
	return books, nil
}

func (*library) Download(_ context.Context, f *pb.File) (*httpbody.HttpBody, error) {
	return &httpbody.HttpBody{ContentType: "text/x-" + f.GetPath(), Data: []byte("of " + f.GetPath())}, nil
}

// DownloadParts sends the path byte by byte, and fails after so many if asked to.
func (l *library) DownloadParts(f *pb.File, s grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	if l.parts != nil {
		return l.parts(f, s)
	}
	for i := range len(f.GetPath()) {
		if i > 0 && i == int(f.GetFailAfter()) {
			return status.Error(codes.DataLoss, "lost")
		}
		if err := s.Send(&httpbody.HttpBody{ContentType: "text/x-parts", Data: []byte(f.GetPath()[i : i+1])}); err != nil {
			return err
		}
	}
	return nil
}

func (*library) Upload(_ context.Context, f *pb.File) (*pb.File, error) { return f, nil }

func (*library) Convert(_ context.Context, b *httpbody.HttpBody) (*pb.File, error) {
	return &pb.File{Content: &httpbody.HttpBody{ContentType: b.GetContentType() + "+x", Data: append([]byte("x"), b.GetData()...)}}, nil
}

// UploadParts puts the parts together again.
func (l *library) UploadParts(s grpc.ClientStreamingServer[httpbody.HttpBody, pb.File]) error {
	if l.upload != nil {
		return l.upload(s)
	}
	all := new(httpbody.HttpBody)
	for {
		b, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.File{Content: all})
		}
		if err != nil {
			return err
		}
		all.ContentType = b.GetContentType()
		all.Data = append(all.Data, b.GetData()...)
	}
}

// Watch sends the book as many times as it has pages, then fails if it has a note.
func (l *library) Watch(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
	if l.watch != nil {
		return l.watch(b, s)
	}
	for i := range b.GetPages() {
		if err := s.Send(&pb.Book{Name: b.GetName(), Id: int64(i + 1), Tags: b.GetTags()}); err != nil {
			return err
		}
	}
	if b.Note != nil {
		return status.Error(codes.Aborted, b.GetNote())
	}
	return nil
}

// Import lists the books of all requests.
func (l *library) Import(s grpc.ClientStreamingServer[pb.UpdateBookRequest, pb.Books]) error {
	if l.imports != nil {
		return l.imports(s)
	}
	books := new(pb.Books)
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(books)
		}
		if err != nil {
			return err
		}
		books.Books = append(books.Books, r.GetBook())
	}
}

// Chat answers each message as it comes.
func (l *library) Chat(s grpc.BidiStreamingServer[pb.Book, pb.Book]) error {
	if l.chat != nil {
		return l.chat(s)
	}
	for {
		b, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(b); err != nil {
			return err
		}
	}
}

// newHandler makes a Handler for l, and the limit for its messages is small.
func newHandler(t testing.TB, l *library, cfg rpc.Config) *rest.Handler {
	t.Helper()
	reg := rpc.NewRegistry(cfg)
	pb.RegisterLibraryServer(reg, l)
	h := rest.New(reg)
	if err := h.Add(pb.Library_ServiceDesc.ServiceName); err != nil {
		t.Fatal(err)
	}
	reg.Freeze()
	return h
}

// request makes one of "GET /v1/books", with a JSON body if that is not "", and header
// fields of the form "Name: value".
func request(line, body string, header ...string) *http.Request {
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, target, nil)
	if body != "" {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	for _, field := range header {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Set(name, value)
	}
	return r
}

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// failed is the answer for an error.
func failed(code codes.Code, message string) string {
	return fmt.Sprintf(`{"code":%d,"message":"%s","details":[]}`, code, message)
}

// invalid is the answer for a parameter that is wrong.
func invalid(field, description string) string {
	return violation(field+": "+description, field, description)
}

// invalidIn is the answer for a value of the body or of one of its messages.
func invalidIn(name, field, position, description string) string {
	return violation(name+": "+field+" ("+position+"): "+description, field, description)
}

func violation(message, field, description string) string {
	return fmt.Sprintf(`{"code":3,"message":"%s","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"%s","description":"%s"}]}]}`,
		message, field, description)
}
