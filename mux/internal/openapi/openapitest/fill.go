package openapitest

import (
	"math"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Fill sets fields of m at random, so that m has JSON. Messages within it are at most so
// deep.
func Fill(r *rand.Rand, m protoreflect.Message, depth int) {
	if fillWellKnown(r, m.Interface()) {
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		required := fd.Cardinality() == protoreflect.Required
		if !required && (r.IntN(3) == 0 || depth == 0 && fd.Message() != nil) {
			continue
		}
		switch {
		case fd.IsMap():
			entries := m.Mutable(fd).Map()
			for range r.IntN(3) {
				entries.Set(value(r, fd.MapKey(), entries.NewValue, depth).MapKey(), value(r, fd.MapValue(), entries.NewValue, depth))
			}
		case fd.IsList():
			elements := m.Mutable(fd).List()
			for range r.IntN(3) {
				elements.Append(value(r, fd, elements.NewElement, depth))
			}
		default:
			m.Set(fd, value(r, fd, func() protoreflect.Value { return m.NewField(fd) }, depth))
		}
	}
}

func value(r *rand.Rand, fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(r.IntN(values.Len())).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(r.Uint32()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(r.Uint32())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(r.Uint64()))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(r.Uint64())
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(float(r)))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float(r))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(r))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text(r)))
	}
	v := empty()
	Fill(r, v.Message(), depth-1)
	return v
}

func float(r *rand.Rand) float64 {
	return []float64{0, -1, r.NormFloat64(), math.MaxFloat32, math.NaN(), math.Inf(1), math.Inf(-1)}[r.IntN(7)]
}

func text(r *rand.Rand) string {
	return strings.Repeat(string([]rune("a\"\\é\n\x00😀 ")[r.IntN(8)]), r.IntN(4))
}

// fillWellKnown fills what has other JSON than that of its fields, some of which not all
// values have.
func fillWellKnown(r *rand.Rand, m proto.Message) bool {
	var from proto.Message
	switch m := m.(type) {
	case *anypb.Any:
		of := []proto.Message{durationpb.New(1e9), &Thing_Deep{Word: new(text(r))}, structpb.NewBoolValue(true)}
		from, _ = anypb.New(of[r.IntN(len(of))])
	case *structpb.Value:
		from = anyValue(r, 2)
	case *structpb.Struct:
		from = &structpb.Struct{Fields: map[string]*structpb.Value{text(r): anyValue(r, 1)}}
	case *structpb.ListValue:
		from = &structpb.ListValue{Values: []*structpb.Value{anyValue(r, 1), anyValue(r, 1)}}
	default:
		md := m.ProtoReflect().Descriptor()
		field := func(name protoreflect.Name, v protoreflect.Value) {
			m.ProtoReflect().Set(md.Fields().ByName(name), v)
		}
		switch md.FullName() {
		case "google.protobuf.Timestamp": // from year 1 to 9999
			field("seconds", protoreflect.ValueOfInt64(-62135596800+r.Int64N(315537897600)))
			field("nanos", protoreflect.ValueOfInt32(nanos(r)))
		case "google.protobuf.Duration":
			sign := 1 - 2*r.Int64N(2)
			field("seconds", protoreflect.ValueOfInt64(sign*r.Int64N(315576000001)))
			field("nanos", protoreflect.ValueOfInt32(int32(sign)*nanos(r)))
		case "google.protobuf.FieldMask":
			field("paths", protoreflect.ValueOfList(pathsOf(m.ProtoReflect(), "a_b", "c.d")))
		default:
			return false
		}
		return true
	}
	proto.Reset(m)
	proto.Merge(m, from)
	return true
}

func pathsOf(m protoreflect.Message, paths ...string) protoreflect.List {
	l := m.NewField(m.Descriptor().Fields().ByName("paths")).List()
	for _, p := range paths {
		l.Append(protoreflect.ValueOfString(p))
	}
	return l
}

func nanos(r *rand.Rand) int32 { return []int32{0, 5e8, 123_456_789}[r.IntN(3)] }

func anyValue(r *rand.Rand, depth int) *structpb.Value {
	n := 4
	if depth > 0 {
		n = 6
	}
	switch r.IntN(n) {
	case 0:
		return structpb.NewNullValue()
	case 1:
		return structpb.NewBoolValue(true)
	case 2:
		return structpb.NewNumberValue(r.NormFloat64())
	case 3:
		return structpb.NewStringValue(text(r))
	case 4:
		return structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{anyValue(r, depth-1)}})
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{text(r): anyValue(r, depth-1)}})
}
