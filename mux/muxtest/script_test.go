package muxtest_test

import (
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"
)

// script is a call to be made: what the client sends, and what the handler does.
type script struct {
	Timeout  time.Duration // zero for none
	Metadata metadata.MD
	Requests []string
	TooLarge bool // the last request

	Header      metadata.MD
	SendHeader  bool // before the answers
	AnswerFirst bool // before the requests are read
	Answers     []string
	Trailer     metadata.MD
	Status      *spb.Status
}

// draw makes a script for a call of this kind.
func (k kind) draw(t *rapid.T) *script {
	s := &script{
		Metadata: drawMetadata.Draw(t, "metadata"),
		Header:   drawMetadata.Draw(t, "header"),
		Trailer:  drawMetadata.Draw(t, "trailer"),
		Status:   drawStatus.Draw(t, "status"),
	}
	if rapid.Bool().Draw(t, "has timeout") {
		s.Timeout = drawTimeout.Draw(t, "timeout")
	}
	requests, answers := 1, 1
	if k.clientStreams {
		requests = rapid.IntRange(0, 4).Draw(t, "requests")
	}
	if k.serverStreams {
		answers = rapid.IntRange(0, 4).Draw(t, "answers")
	}
	for range requests {
		s.Requests = append(s.Requests, drawText.Draw(t, "request"))
	}
	for range answers {
		s.Answers = append(s.Answers, drawText.Draw(t, "answer"))
	}
	s.SendHeader = rapid.Bool().Draw(t, "send header")
	s.AnswerFirst = k.clientStreams && k.serverStreams && rapid.Bool().Draw(t, "answer first")
	if requests > 0 && rapid.IntRange(0, 19).Draw(t, "too large") == 19 {
		s.TooLarge = true
		s.Requests[requests-1] = strings.Repeat("x", messageLimit-rapid.IntRange(-5, binaryOverhead-1).Draw(t, "above the limit"))
	}
	return s
}

// A text of one-byte characters makes a message that is so much longer.
const (
	binaryOverhead = 3                     // a tag and two bytes of length
	jsonOverhead   = len(`{"message":""}`) // without escapes
)

// drawText makes texts for messages: mostly short ones, of which some are repeated
// up to a few KiB, and some of the length at which a message just fits, in every
// encoding. None is above the limit.
var drawText = rapid.Custom(func(t *rapid.T) string {
	text := rapid.StringN(0, 20, -1).Draw(t, "text")
	switch rapid.IntRange(0, 9).Draw(t, "size") {
	case 8:
		// JSON makes six bytes of a control character, of one.
		most := (messageLimit - jsonOverhead) / 6 / max(len(text), 1)
		text = strings.Repeat(text, rapid.IntRange(1, most).Draw(t, "repeated"))
	case 9:
		text = strings.Repeat("x", messageLimit-jsonOverhead-rapid.IntRange(0, 20).Draw(t, "below the limit"))
	}
	return text
})

// drawTimeout makes timeouts from a millisecond, which is the least that Connect
// knows, to a day.
var drawTimeout = rapid.Custom(func(t *rapid.T) time.Duration {
	unit := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Hour}).Draw(t, "unit")
	return time.Duration(rapid.Int64Range(int64(unit), min(100*int64(unit), int64(24*time.Hour))).Draw(t, "timeout"))
})

var drawMetadata = rapid.Custom(func(t *rapid.T) metadata.MD {
	md := metadata.MD{}
	for range rapid.IntRange(0, 4).Draw(t, "keys") {
		key := drawKey.Draw(t, "key")
		values := drawValue
		if rapid.Bool().Draw(t, "binary") {
			key, values = key+"-bin", drawBinary
		}
		if ownKey(key) {
			continue
		}
		md[key] = append(md[key], rapid.SliceOfN(values, 1, 3).Draw(t, "values")...)
	}
	return md
})

var (
	drawKey    = rapid.StringOfN(rapid.RuneFrom([]rune("abcdefghijklmnopqrstuvwxyz0123456789-_.")), 1, 12, -1)
	drawValue  = rapid.Map(rapid.StringOfN(rapid.RuneFrom(printable()), 0, 20, -1), func(v string) string { return strings.Trim(v, " ") })
	drawBinary = rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) })
)

func printable() (ascii []rune) {
	for c := ' '; c <= '~'; c++ {
		ascii = append(ascii, c)
	}
	return ascii
}

// ownKey tells whether a key says something on one of the roads, or is not taken for
// a trailer by net/http.
func ownKey(key string) bool {
	switch key {
	case "te", "host", "user-agent", "content-type", "content-length", "content-encoding", "connection", "date", "trailer",
		"accept", "accept-encoding", "x-user-agent", "x-grpc-web", "vary":
		return true
	}
	return !httpguts.ValidTrailerHeader(http.CanonicalHeaderKey(key)) || strings.HasPrefix(key, ":") || strings.HasPrefix(key, "grpc-") || strings.HasPrefix(key, "connect-")
}

var drawStatus = rapid.Custom(func(t *rapid.T) *spb.Status {
	st := &spb.Status{}
	if rapid.Bool().Draw(t, "fails") {
		st.Code = rapid.Int32Range(1, int32(codes.Unauthenticated)).Draw(t, "code")
		// connect leaves blanks at the ends as they are, which a gRPC-Web trailer,
		// being lines of an HTTP header, cannot carry.
		st.Message = strings.Trim(rapid.StringN(0, 40, -1).Draw(t, "message"), " ")
	}
	for range rapid.IntRange(0, 3).Draw(t, "details") {
		d, err := anypb.New(drawDetail.Draw(t, "detail"))
		if err != nil {
			t.Fatal(err)
		}
		st.Details = append(st.Details, d)
	}
	return st
})

var drawDetail = rapid.Custom(func(t *rapid.T) proto.Message {
	text := rapid.StringN(0, 10, -1)
	switch rapid.IntRange(0, 3).Draw(t, "type") {
	case 0:
		return &errdetails.ErrorInfo{
			Reason:   text.Draw(t, "reason"),
			Metadata: map[string]string{text.Draw(t, "key"): text.Draw(t, "value")},
		}
	case 1:
		return &errdetails.DebugInfo{StackEntries: rapid.SliceOfN(text, 0, 3).Draw(t, "stack"), Detail: text.Draw(t, "text")}
	case 2:
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(rapid.Int64().Draw(t, "delay")))}
	default:
		return &errdetails.LocalizedMessage{Locale: text.Draw(t, "locale"), Message: text.Draw(t, "message")}
	}
})
