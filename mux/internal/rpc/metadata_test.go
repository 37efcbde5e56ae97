package rpc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"oneport/mux/internal/rpc"
)

func TestRequestMetadata(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header map[string][]string
		host   string
		want   metadata.MD
	}{
		{"empty", nil, "", metadata.MD{}},
		{"host", nil, "a.example:80", metadata.MD{":authority": {"a.example:80"}}},
		{"host is not a field", map[string][]string{"Host": {"b"}, ":authority": {"c"}}, "a", metadata.MD{":authority": {"a"}}},
		{"upper case", map[string][]string{"X-Trace-ID": {"AbC"}}, "", metadata.MD{"x-trace-id": {"AbC"}}},
		{"duplicates keep their order", map[string][]string{"X": {"b", "a", "b"}}, "", metadata.MD{"x": {"b", "a", "b"}}},
		{"commas stay in text", map[string][]string{"X": {"a, b"}}, "", metadata.MD{"x": {"a, b"}}},
		{"user agent stays", map[string][]string{"User-Agent": {"curl"}}, "", metadata.MD{"user-agent": {"curl"}}},
		{"authorization stays", map[string][]string{"Authorization": {"Bearer x"}}, "", metadata.MD{"authorization": {"Bearer x"}}},
		{"pseudo-header fields", map[string][]string{":path": {"/"}, ":x": {"y"}, "": {"z"}}, "", metadata.MD{}},
		{
			"hop-by-hop",
			map[string][]string{
				"Connection": {"close"}, "Keep-Alive": {"1"}, "Proxy-Authenticate": {"1"}, "Proxy-Authorization": {"1"},
				"Proxy-Connection": {"1"}, "TE": {"trailers"}, "Trailer": {"x"}, "Transfer-Encoding": {"chunked"},
				"Upgrade": {"websocket"}, "HTTP2-Settings": {"x"}, "Content-Length": {"1"}, "Content-Encoding": {"gzip"},
			}, "", metadata.MD{},
		},
		{
			"named by Connection",
			map[string][]string{
				"Connection": {"Upgrade, X-Hop", " x-other ,"}, "X-Hop": {"1"}, "X-Other": {"1"}, "X-End": {"1"},
			}, "", metadata.MD{"x-end": {"1"}},
		},
		{
			"named by connection in lower case",
			map[string][]string{"connection": {"x-hop"}, "x-hop": {"1"}}, "", metadata.MD{},
		},
		{
			"WebSocket handshake",
			map[string][]string{
				"Sec-Websocket-Key": {"1"}, "Sec-WebSocket-Protocol": {"1"}, "Sec-Websocket-Version": {"13"},
				"Sec-Websocket-Extensions": {"1"}, "Sec-Fetch-Site": {"same-origin"},
			}, "", metadata.MD{"sec-fetch-site": {"same-origin"}},
		},
		{
			"reserved by gRPC",
			map[string][]string{
				"Content-Type": {"application/grpc"}, "Grpc-Timeout": {"1S"}, "Grpc-Encoding": {"gzip"}, "Grpc-Message": {"x"},
				"Grpc-Message-Type": {"x"}, "Grpc-Status": {"0"}, "Grpc-Previous-Rpc-Attempts": {"1"},
			}, "", metadata.MD{"grpc-previous-rpc-attempts": {"1"}},
		},
		{
			"of the Connect protocol",
			map[string][]string{
				"Connect-Protocol-Version": {"1"}, "Connect-Timeout-Ms": {"1"}, "Connect-Content-Encoding": {"gzip"},
				"Connect-Accept-Encoding": {"gzip"}, "Connect-Other": {"1"},
			}, "", metadata.MD{"connect-other": {"1"}},
		},
		{
			"binary",
			map[string][]string{
				"Padded-Bin": {"AAE="}, "Bare-Bin": {"AAE"}, "Full-Bin": {"AAEC"}, "Empty-Bin": {""},
				"Several-Bin": {"AAE=", "Ag,Aw==, BA"}, "-Bin": {"AA"}, "Bin": {"AA"},
			}, "",
			metadata.MD{
				"padded-bin": {"\x00\x01"}, "bare-bin": {"\x00\x01"}, "full-bin": {"\x00\x01\x02"}, "empty-bin": {""},
				"several-bin": {"\x00\x01", "\x02", "\x03", "\x04"}, "-bin": {"\x00"}, "bin": {"AA"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rpc.RequestMetadata(tt.header, tt.host)
			if err != nil {
				t.Fatalf("RequestMetadata(%q) = %v", tt.header, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("RequestMetadata(%q) (-want +got):\n%s", tt.header, diff)
			}
		})
	}
}

func TestRequestMetadataBadBase64(t *testing.T) {
	for _, value := range []string{"!", "A", "AAE==", "AA=E", "AA=,AA", "AA AA", strings.Repeat("?", 1<<20)} {
		_, err := rpc.RequestMetadata(map[string][]string{"X-Key-Bin": {"AA", value}}, "")
		s := status.Convert(err)
		if s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "x-key-bin") || len(s.Message()) > 200 {
			t.Errorf("value %.20q: %.300v, want INVALID_ARGUMENT, the key, no long text", value, err)
		}
	}
}

// What one key has in two cases is joined, and not in memory that is the header's.
func TestRequestMetadataJoins(t *testing.T) {
	memory := []string{"1", "of another field"}
	md, err := rpc.RequestMetadata(map[string][]string{"X": memory[:1], "x": {"2"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(md["x"])); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("values are %q, want those of both", got)
	}
	if memory[1] != "of another field" {
		t.Errorf("the header became %q", memory)
	}
}

func TestAddHeader(t *testing.T) {
	got := make(map[string][]string)
	rpc.AddHeader(func(key, value string) { got[key] = append(got[key], value) }, metadata.MD{
		"key": {"b", "a"}, "one-bin": {"\x00\x01"}, "two-bin": {"", "\xff"},
		"connection": {"close"}, "keep-alive": {"1"}, "proxy-connection": {"1"}, "te": {"x"}, "trailer": {"x"},
		"transfer-encoding": {"chunked"}, "upgrade": {"x"}, "content-length": {"1"},
		"access-control-allow-origin": {"*"},
	})
	want := map[string][]string{"key": {"b", "a"}, "one-bin": {"AAE"}, "two-bin": {"", "/w"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("AddHeader (-want +got):\n%s", diff)
	}
	back, err := rpc.RequestMetadata(got, "")
	if err != nil || back["one-bin"][0] != "\x00\x01" {
		t.Errorf("read again: %q, %v", back, err)
	}
}

func FuzzRequestMetadata(f *testing.F) {
	f.Add("X-Key", "value", "Connection", "x-key", "host")
	f.Add("X-Bin", "AAE=,AA", "x-bin", "AA", "")
	f.Add("", "", ":authority", "a", "b")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, host string) {
		header := map[string][]string{k1: {v1}, k2: {v2}}
		md, err := rpc.RequestMetadata(header, host)
		if err != nil {
			if n := len(status.Convert(err).Message()); status.Code(err) != codes.InvalidArgument || n > 1000 {
				t.Fatalf("%q: code %v with a text of %d bytes", header, status.Code(err), n)
			}
			return
		}
		for key, values := range md {
			switch {
			case key != strings.ToLower(key), key == "", key == "grpc-timeout", key == "connection":
				t.Fatalf("%q: metadata has the key %q", header, key)
			case key[0] == ':' && (key != ":authority" || len(values) != 1 || values[0] != host):
				t.Fatalf("%q: metadata has %q: %q", header, key, values)
			}
		}
	})
}

func TestOverlayMetadata(t *testing.T) {
	base := metadata.MD{"a": {"1"}, "b": {"2"}, ":authority": {"x"}, "user-agent": {"u"}}
	for _, tt := range []struct {
		md, want metadata.MD
		text     string // of the error
	}{
		{md: nil, want: base},
		{md: metadata.MD{"b": {"3", "4"}, "c-bin": {"\x00"}},
			want: metadata.MD{"a": {"1"}, "b": {"3", "4"}, "c-bin": {"\x00"}, ":authority": {"x"}, "user-agent": {"u"}}},
		{md: metadata.MD{":authority": {"y"}, "user-agent": {"v"}, "grpc-timeout": {"1S"}}, want: base},
		{md: metadata.MD{"Upper": {"1"}}, text: "Upper"},
		{md: metadata.MD{"a": {"\n"}}, text: "non-printable"},
		{md: metadata.MD{"": {"1"}}, text: "empty key"},
	} {
		got, err := rpc.OverlayMetadata(base, tt.md)
		if tt.text != "" {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%q: %v, want INVALID_ARGUMENT with %q", tt.md, err, tt.text)
			}
			continue
		}
		if err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%q over base = %q, %v, want %q", tt.md, got, err, tt.want)
		}
	}
	if len(base["b"]) != 1 || len(base) != 4 {
		t.Errorf("base was changed: %q", base)
	}
}
