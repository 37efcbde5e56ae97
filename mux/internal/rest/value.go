package rest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// hasText tells whether messages of a type can be written as one parameter: wrappers and
// the other well-known types whose JSON is no object, and those that are JSON themselves.
func hasText(md protoreflect.MessageDescriptor) bool {
	switch md.FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask",
		"google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.Empty":
		return true
	}
	return isWrapper(md)
}

func isWrapper(md protoreflect.MessageDescriptor) bool {
	switch md.FullName() {
	case "google.protobuf.BoolValue", "google.protobuf.BytesValue", "google.protobuf.StringValue",
		"google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int32Value",
		"google.protobuf.Int64Value", "google.protobuf.UInt32Value", "google.protobuf.UInt64Value":
		return true
	}
	return false
}

// parseValue makes a value of fd, or of its elements, of a parameter: as in JSON but
// without quotes, and besides as grpc-gateway takes it, where that does not say something
// else. empty makes an empty message, if fd is one. The error does not name the field.
func parseValue(fd protoreflect.FieldDescriptor, text string, empty func() protoreflect.Value) (protoreflect.Value, error) {
	switch kind := fd.Kind(); kind {
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(text)
		return value(protoreflect.ValueOfBool(b), err, text, "true or false")
	case protoreflect.EnumKind:
		return parseEnum(fd.Enum(), text)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := strconv.ParseInt(text, 10, 32)
		return value(protoreflect.ValueOfInt32(int32(n)), err, text, "an integer of 32 bits")
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(text, 10, 64)
		return value(protoreflect.ValueOfInt64(n), err, text, "an integer of 64 bits")
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(text, 10, 32)
		return value(protoreflect.ValueOfUint32(uint32(n)), err, text, "an unsigned integer of 32 bits")
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(text, 10, 64)
		return value(protoreflect.ValueOfUint64(n), err, text, "an unsigned integer of 64 bits")
	case protoreflect.FloatKind:
		f, err := parseFloat(text, 32)
		return value(protoreflect.ValueOfFloat32(float32(f)), err, text, "a number")
	case protoreflect.DoubleKind:
		f, err := parseFloat(text, 64)
		return value(protoreflect.ValueOfFloat64(f), err, text, "a number")
	case protoreflect.StringKind:
		if !utf8.ValidString(text) {
			return protoreflect.Value{}, errors.New("is not UTF-8")
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BytesKind:
		b, err := parseBytes(text)
		return value(protoreflect.ValueOfBytes(b), err, text, "base64")
	}
	m := empty()
	return m, parseMessage(m.Message(), text)
}

func value(v protoreflect.Value, err error, text, want string) (protoreflect.Value, error) {
	if err != nil {
		return v, fmt.Errorf("%.100q is not %s", text, want)
	}
	return v, nil
}

// parseEnum takes the name of a value, or its number.
func parseEnum(ed protoreflect.EnumDescriptor, text string) (protoreflect.Value, error) {
	v := ed.Values().ByName(protoreflect.Name(text))
	if v == nil {
		if n, err := strconv.ParseInt(text, 10, 32); err == nil {
			v = ed.Values().ByNumber(protoreflect.EnumNumber(n))
		}
	}
	if v == nil {
		return protoreflect.Value{}, fmt.Errorf("%.100q is no value of %s", text, ed.FullName())
	}
	return protoreflect.ValueOfEnum(v.Number()), nil
}

// parseFloat takes what JSON does, not all that strconv does.
func parseFloat(text string, bits int) (float64, error) {
	switch text {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	if text == "" || strings.ContainsAny(text, "xX_nN") { // hexadecimal, 1_000, inf and nan
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(text, bits)
}

// parseBytes takes base64 of either alphabet, with or without padding.
func parseBytes(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}

// parseMessage fills m, which is empty and of a type that hasText.
func parseMessage(m protoreflect.Message, text string) error {
	md := m.Descriptor()
	if isWrapper(md) {
		fd := md.Fields().ByNumber(1)
		v, err := parseValue(fd, text, nil)
		if err == nil {
			m.Set(fd, v)
		}
		return err
	}
	json, want := strconv.Quote(text), "" // what is not plain is wrong in any case
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		want = "a time such as 2006-01-02T15:04:05Z"
	case "google.protobuf.Duration":
		want = "a duration such as 1.5s"
		if d, err := time.ParseDuration(text); err == nil { // "1m30s" as well
			setDuration(m, d)
			return nil
		}
	case "google.protobuf.FieldMask":
		return setFieldMask(m, text)
	case "google.protobuf.Empty":
		json, want = text, "{}"
		if text == "" {
			return nil
		}
	case "google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue":
		json, want = text, "JSON for it"
	default:
		return fmt.Errorf("is a %s, which has no text; name a field of it", md.FullName())
	}
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal([]byte(json), m.Interface()); err != nil {
		return fmt.Errorf("%.100q is not %s", text, want)
	}
	return nil
}

func setDuration(m protoreflect.Message, d time.Duration) {
	fields := m.Descriptor().Fields()
	m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(int64(d/time.Second)))
	m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(int32(d%time.Second)))
}

// setFieldMask takes paths as JSON has them ("displayName") and as protobuf has
// ("display_name"), which people write.
func setFieldMask(m protoreflect.Message, text string) error {
	fd := m.Descriptor().Fields().ByName("paths")
	paths := m.Mutable(fd).List()
	if text == "" {
		return nil
	}
	for path := range strings.SplitSeq(text, ",") {
		if !strings.Contains(path, "_") {
			path = snakeCase(path)
		}
		if !protoreflect.FullName(path).IsValid() {
			return fmt.Errorf("%.100q is no path of fields", path)
		}
		paths.Append(protoreflect.ValueOfString(path))
	}
	return nil
}

func snakeCase(s string) string {
	b := make([]byte, 0, len(s)+4)
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b = append(b, '_', c|0x20)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
