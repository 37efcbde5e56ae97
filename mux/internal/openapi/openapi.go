package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"oneport/mux/internal/rest"
	"oneport/mux/internal/rpc"
)

// Config says what is described.
type Config struct {
	Registry *rpc.Registry // frozen
	Routes   []*rest.Route // of its methods

	// Comments is a set of files with source info, from which comments are taken. Nil
	// means none.
	Comments *descriptorpb.FileDescriptorSet

	Title, Version string // of the document
	Log            *slog.Logger
}

// Handler serves the description of a server, made when it is first asked for.
type Handler struct {
	document, descriptors func() (*page, error)
}

// New returns a Handler.
func New(cfg Config) *Handler {
	files := sync.OnceValue(func() *descriptorpb.FileDescriptorSet {
		return filesOf(cfg.Registry.Services(), cfg.Comments, cfg.Log)
	})
	return &Handler{
		document: sync.OnceValues(func() (*page, error) {
			comments, err := newComments(files())
			if err != nil {
				return nil, err
			}
			d := newDocument(cfg.Registry, cfg.Routes, comments)
			return newPage("application/json", d.append(nil, cfg.Title, cfg.Version))
		}),
		descriptors: sync.OnceValues(func() (*page, error) {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(files())
			if err != nil {
				return nil, err
			}
			return newPage("application/protobuf", b)
		}),
	}
}

// Document answers GET and HEAD with the OpenAPI document.
func (h *Handler) Document(w http.ResponseWriter, r *http.Request) { serve(w, r, h.document) }

// Descriptors answers GET and HEAD with a google.protobuf.FileDescriptorSet.
func (h *Handler) Descriptors(w http.ResponseWriter, r *http.Request) { serve(w, r, h.descriptors) }

func serve(w http.ResponseWriter, r *http.Request, get func() (*page, error)) {
	p, err := get()
	if err != nil {
		http.Error(w, fmt.Sprintf("500 this server cannot describe itself: %v", err), http.StatusInternalServerError)
		return
	}
	p.ServeHTTP(w, r)
}

// page is an answer that does not change.
type page struct {
	contentType   string
	plain, zipped []byte
	tag           string // that tells it from another
}

func newPage(contentType string, text []byte) (*page, error) {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return &page{contentType, text, buf.Bytes(), base64.RawURLEncoding.EncodeToString(sum[:12])}, nil
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", p.contentType)
	h.Set("Cache-Control", "no-cache") // but with the tag
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	text, tag := p.plain, p.tag
	if rest.AcceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		text, tag = p.zipped, p.tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}
