package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "oneport/scripts/gateway/resttest"
)

// library gives back what it is asked, so that an answer tells what the request has become.
// A note of "fail N" asks for an error, one of "metadata" for the metadata.
type library struct{ pb.UnimplementedLibraryServer }

// judge does what the note of a book asks for.
func judge(ctx context.Context, b *pb.Book) error {
	if n, ok := strings.CutPrefix(b.GetNote(), "fail "); ok {
		code, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			return err
		}
		st, err := status.New(codes.Code(code), "größer als 100 %,\n\"so\"").WithDetails(
			&errdetails.ErrorInfo{Reason: "WHY", Domain: "a.example", Metadata: map[string]string{"k": "v"}},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: "bad"}}})
		if err != nil {
			return err
		}
		return st.Err()
	}
	if b.GetNote() == "metadata" {
		md, _ := metadata.FromIncomingContext(ctx)
		b.Tags = nil
		for _, key := range []string{"test", "test-bin", "authorization", "accept-language"} {
			b.Tags = append(b.Tags, fmt.Sprintf("%s %q", key, md[key]))
		}
		return errors.Join(grpc.SetHeader(ctx, metadata.Pairs("test", "header")), grpc.SetTrailer(ctx, metadata.Pairs("test", "trailer")))
	}
	return nil
}

func (library) GetBook(ctx context.Context, b *pb.Book) (*pb.Book, error) { return b, judge(ctx, b) }

func (library) CreateBook(ctx context.Context, b *pb.Book) (*pb.Book, error) { return b, judge(ctx, b) }

func (library) MergeBooks(ctx context.Context, b *pb.Book) (*pb.Book, error) { return b, judge(ctx, b) }

func (library) DeleteBook(ctx context.Context, b *pb.Book) (*emptypb.Empty, error) {
	return new(emptypb.Empty), judge(ctx, b)
}

func (library) UpdateBook(ctx context.Context, r *pb.UpdateBookRequest) (*pb.UpdateBookRequest, error) {
	return r, judge(ctx, r.GetBook())
}

// ListBooks lists as many books as the request has pages, ten at most.
func (library) ListBooks(ctx context.Context, b *pb.Book) (*pb.Books, error) {
	books := new(pb.Books)
	for i := range min(b.GetPages(), 10) {
		books.Books = append(books.Books, &pb.Book{Name: "a", Id: int64(i)})
		books.Total++
		books.Names = map[string]string{"a": "A"}
		books.First = books.Books[0]
		books.Genre = pb.Genre_POEM
	}
	return books, judge(ctx, b)
}

func (library) Download(_ context.Context, f *pb.File) (*httpbody.HttpBody, error) {
	return &httpbody.HttpBody{ContentType: "text/x-file", Data: []byte("of " + f.GetPath())}, nil
}

func (library) DownloadParts(f *pb.File, s grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	for i := range len(f.GetPath()) {
		if err := s.Send(&httpbody.HttpBody{ContentType: "text/x-parts", Data: []byte(f.GetPath()[i : i+1])}); err != nil {
			return err
		}
	}
	return nil
}

func (library) Upload(_ context.Context, f *pb.File) (*pb.File, error) { return f, nil }

func (library) Convert(_ context.Context, b *httpbody.HttpBody) (*pb.File, error) {
	return &pb.File{Content: &httpbody.HttpBody{ContentType: "text/x-converted", Data: append([]byte("x"), b.GetData()...)}}, nil
}

func (library) UploadParts(s grpc.ClientStreamingServer[httpbody.HttpBody, pb.File]) error {
	all := new(httpbody.HttpBody)
	for {
		b, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.File{Content: all})
		}
		if err != nil {
			return err
		}
		all.Data = append(all.Data, b.GetData()...)
	}
}

// Watch sends the book as many times as it has pages, ten at most, and does what the note
// asks for after that.
func (library) Watch(b *pb.Book, s grpc.ServerStreamingServer[pb.Book]) error {
	for range min(b.GetPages(), 10) {
		if err := s.Send(b); err != nil {
			return err
		}
	}
	return judge(s.Context(), b)
}

func (library) Chat(s grpc.BidiStreamingServer[pb.Book, pb.Book]) error {
	for {
		b, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := judge(s.Context(), b); err != nil {
			return err
		}
		if err := s.Send(b); err != nil {
			return err
		}
	}
}
