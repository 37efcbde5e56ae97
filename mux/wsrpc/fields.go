package wsrpc

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oneport/mux/internal/rpc"
)

// webContentType is what a header says first, with which one without metadata is not
// empty.
const webContentType = "application/grpc-web+proto"

const statusDetails = "grpc-status-details-bin"

// parseFields reads the header of a call: the lines of an HTTP/1 header, of which the
// last may lack its end or be followed by an empty one. Names become lower case. The
// error is a status and safe for the client.
func parseFields(b []byte) (map[string][]string, error) {
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\r\n"), "\r\n")
	fields := make(map[string][]string)
	if text == "" {
		return fields, nil
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, status.Errorf(codes.InvalidArgument, "header line %.100q is not name: value", line)
		}
		name = strings.ToLower(name)
		fields[name] = append(fields[name], strings.Trim(value, " \t"))
	}
	return fields, nil
}

// appendMetadataFields appends the lines that say md.
func appendMetadataFields(b []byte, md metadata.MD) []byte {
	rpc.AddHeader(func(name, value string) { b = appendField(b, name, value) }, md)
	return b
}

// appendOutcome appends the lines that say how a call ended, nil for OK.
func appendOutcome(b []byte, trailer metadata.MD, err error) []byte {
	st := status.Convert(err)
	b = appendField(b, "grpc-status", strconv.Itoa(int(st.Code())))
	message := strings.ToValidUTF8(st.Message(), "\uFFFD")
	if message != "" {
		b = appendField(b, "grpc-message", percentEncode(message))
	}
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		p.Message = message
		if raw, err := proto.Marshal(p); err == nil { // valid UTF-8 is all it asks for
			b = appendField(b, statusDetails, base64.RawStdEncoding.EncodeToString(raw))
			delete(trailer, statusDetails) // as grpc-go: two would be none
		}
	}
	return appendMetadataFields(b, trailer)
}

func appendField(b []byte, name, value string) []byte {
	return fmt.Appendf(b, "%s: %s\r\n", name, value)
}

// percentEncode makes text of a status message that a header field can have
// ("Status-Message" in PROTOCOL-HTTP2.md).
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
