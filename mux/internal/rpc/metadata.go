package rpc

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// RequestMetadata makes incoming metadata of HTTP request header fields. Keys
// become lower case; hop-by-hop fields (RFC 9110 §7.6.1), the WebSocket
// handshake and what gRPC reserves for itself are left out; values of keys that
// end in "-bin" are split at commas and decoded from base64. host becomes
// ":authority". The values of header are the metadata's as well, so they must not be
// changed any more.
//
// The error is INVALID_ARGUMENT, names the key, and is safe for the client.
func RequestMetadata(header map[string][]string, host string) (metadata.MD, error) {
	md := make(metadata.MD, len(header)+1)
	var connection []string
	for name, values := range header {
		key, ok := commonKeys[name]
		if !ok {
			key = strings.ToLower(name)
		}
		if key == "connection" {
			connection = append(connection, values...)
		}
		if reservedRequest(key) {
			continue
		}
		if !strings.HasSuffix(key, binarySuffix) {
			if others := md[key]; others != nil { // in another case
				values = slices.Concat(others, values)
			}
			md[key] = values
			continue
		}
		for _, v := range values {
			// "Implementations must split Binary-Headers on ","": proxies and
			// browsers join what was sent as several fields.
			for v := range strings.SplitSeq(v, ",") {
				b, err := decodeBinary(strings.Trim(v, " \t"))
				if err != nil {
					return nil, status.Errorf(codes.InvalidArgument, "header %.100q is not base64: %v", key, err)
				}
				md[key] = append(md[key], b)
			}
		}
	}
	// Further fields that the sender means for this hop only.
	for _, v := range connection {
		for option := range strings.SplitSeq(v, ",") {
			delete(md, strings.ToLower(strings.TrimSpace(option)))
		}
	}
	if host != "" {
		md[":authority"] = []string{host}
	}
	return md, nil
}

// commonKeys are the keys of fields that many requests have, so that not each makes them
// anew.
var commonKeys = make(map[string]string)

func init() {
	for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Connection", "Content-Length", "Content-Type",
		"Cookie", "Origin", "Referer", "Traceparent", "Tracestate", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id"} {
		commonKeys[name] = strings.ToLower(name)
	}
}

const binarySuffix = "-bin"

// decodeBinary reads base64 with or without padding, as gRPC requires of
// receivers ("Custom-Metadata" in PROTOCOL-HTTP2.md).
func decodeBinary(v string) (string, error) {
	enc := base64.RawStdEncoding
	if len(v)%4 == 0 {
		enc = base64.StdEncoding
	}
	b, err := enc.DecodeString(v)
	return string(b), err
}

// AddHeader adds metadata of a server to an HTTP header or trailer by add. Values
// of keys that end in "-bin" are encoded as base64 without padding, which gRPC
// asks of senders. What would tell the transport something (hop-by-hop fields,
// the length) is left out, since net/http would believe it; and so is what tells
// browsers which pages may read the answer, since the server has a policy for that.
func AddHeader(add func(key, value string), md metadata.MD) {
	for key, values := range md {
		if hopByHop(key) || strings.HasPrefix(key, "access-control-") {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(key, binarySuffix) {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			add(key, v)
		}
	}
}

// reservedRequest tells whether a request header field belongs to a transport
// and must not become metadata.
func reservedRequest(key string) bool {
	switch key {
	case "proxy-authenticate", "proxy-authorization", "host", "http2-settings", "content-encoding",
		"connect-protocol-version", "connect-timeout-ms", "connect-content-encoding", "connect-accept-encoding":
		return true
	case "user-agent": // reserved by gRPC, but shown to handlers, as grpc-go does
		return false
	}
	return strings.HasPrefix(key, "sec-websocket-") || hopByHop(key) || reserved(key)
}

// hopByHop tells whether a field speaks of the connection and not of the message
// (RFC 9110 §7.6.1), or frames the message on it.
func hopByHop(key string) bool {
	switch key {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length":
		return true
	}
	return false
}

// reserved tells whether gRPC keeps a key for itself. It is grpc-go's list:
// grpc-previous-rpc-attempts and the grpc-*-bin keys of tracing are metadata on
// purpose.
func reserved(key string) bool {
	switch key {
	case "", "content-type", "user-agent", "te",
		"grpc-message-type", "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout":
		return true
	}
	return key[0] == ':'
}

// dropReserved takes the keys that handlers and clients may not set out of md,
// and returns it.
func dropReserved(md metadata.MD) metadata.MD {
	maps.DeleteFunc(md, func(key string, _ []string) bool { return reserved(key) })
	return md
}

// OverlayMetadata returns base with the keys of md, metadata that a client has sent
// beside the header of its request, in place of base's own. What gRPC reserves for
// itself is left out of md. base is not changed, and is returned where md has nothing;
// else md is, with the rest of base in it.
//
// The error is INVALID_ARGUMENT and safe for the client.
func OverlayMetadata(base, md metadata.MD) (metadata.MD, error) {
	if len(md) == 0 {
		return base, nil
	}
	for key, values := range md {
		if err := validateKey(key, values); err != nil {
			return nil, status.Error(codes.InvalidArgument, status.Convert(err).Message())
		}
		if reserved(key) {
			delete(md, key)
		}
	}
	for key, values := range base {
		if _, ok := md[key]; !ok {
			md[key] = values
		}
	}
	return md, nil
}

// validate checks metadata that is to be sent ("Custom-Metadata" in
// PROTOCOL-HTTP2.md): keys of 0-9 a-z _ - . and values of printable ASCII, but
// any bytes where the key ends in "-bin". As with grpc-go, upper case is
// refused, which only a metadata.MD built by hand can have; pseudo-header fields
// pass, since dropReserved takes them out.
func validate(md metadata.MD) error {
	for key, values := range md {
		if err := validateKey(key, values); err != nil {
			return err
		}
	}
	return nil
}

func validateKey(key string, values []string) error {
	if key == "" {
		return status.Error(codes.Internal, "metadata has an empty key")
	}
	if key[0] == ':' {
		return nil
	}
	for i := range len(key) {
		if !keyBytes[key[i]] {
			return status.Errorf(codes.Internal, "metadata key %.100q has a character other than 0-9 a-z _ - .", key)
		}
	}
	if strings.HasSuffix(key, binarySuffix) {
		return nil
	}
	for _, v := range values {
		for i := range len(v) {
			if v[i] < 0x20 || v[i] > 0x7e {
				return status.Errorf(codes.Internal, "metadata key %.100q has a value with a non-printable character; name the key …-bin to send bytes", key)
			}
		}
	}
	return nil
}

// keyBytes are the bytes that a key may consist of.
var keyBytes = func() (ok [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789-_." {
		ok[c] = true
	}
	return ok
}()

// appendMD merges a copy of add into md and returns it, making md when it is nil.
func appendMD(md, add metadata.MD) metadata.MD {
	if md == nil {
		md = make(metadata.MD, len(add))
	}
	for k, v := range add {
		md[k] = append(md[k], v...)
	}
	return md
}
