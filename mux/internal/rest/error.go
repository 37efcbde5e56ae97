package rest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"oneport/mux/internal/rpc"
)

// bindError is INVALID_ARGUMENT for a path or a query, with the field if it is one.
func bindError(err error) error {
	st := status.New(codes.InvalidArgument, err.Error())
	if field, ok := errors.AsType[*fieldError](err); ok {
		return withViolation(st, field.path, field.err.Error())
	}
	return st.Err()
}

// withViolation adds to st which field of the request is wrong, as a google.rpc.BadRequest
// (AIP-193): by the names that the client has used, so that it finds them again.
func withViolation(st *status.Status, field, description string) error {
	detailed, err := st.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: fmt.Sprintf("%.200s", field), Description: fmt.Sprintf("%.200s", description)}}})
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

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
