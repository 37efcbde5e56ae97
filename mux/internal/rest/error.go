package rest

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"oneport/mux/internal/rpc"
)

// appendStatus appends st as the JSON of google.rpc.Status, with all of its fields; those
// of its details are as the codec has them.
func appendStatus(b []byte, codec rpc.Codec, st *spb.Status) []byte {
	b = append(b, `{"code":`...)
	b = strconv.AppendInt(b, int64(st.GetCode()), 10)
	b = append(b, `,"message":`...)
	b = appendString(b, st.GetMessage())
	b = append(b, `,"details":[`...)
	for i, d := range st.GetDetails() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendDetail(b, codec, d)
	}
	return append(b, "]}"...)
}

// appendDetail appends a detail as the JSON of google.protobuf.Any. One of a type that
// this program does not know, or that is malformed, keeps its bytes, in base64.
func appendDetail(b []byte, codec rpc.Codec, d *anypb.Any) []byte {
	if out, err := codec.Append(b, d); err == nil {
		return out
	}
	b = append(b, `{"@type":`...)
	b = appendString(b, d.GetTypeUrl())
	b = append(b, `,"value":"`...)
	b = base64.StdEncoding.AppendEncode(b, d.GetValue())
	return append(b, `"}`...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	var buf strings.Builder
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string is never refused
	return append(b, strings.TrimSuffix(buf.String(), "\n")...)
}
