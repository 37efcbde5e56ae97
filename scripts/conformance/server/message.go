package main

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// message is a protobuf message whose fields go by their names in the .proto file.
// It panics on a name that is not there: file and program do not fit then.
type message struct{ protoreflect.Message }

func newMessage(d protoreflect.MessageDescriptor) message {
	return message{dynamicpb.NewMessage(d)}
}

// newNamed returns an empty message of the suite.
func newNamed(name protoreflect.Name) (message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(schemaPackage.Append(name))
	if err != nil {
		return message{}, fmt.Errorf("find message %s: %w", name, err)
	}
	return message{t.New()}, nil
}

func (m message) field(name protoreflect.Name) protoreflect.FieldDescriptor {
	f := m.Descriptor().Fields().ByName(name)
	if f == nil {
		panic(fmt.Sprintf("%s has no field %s", m.Descriptor().FullName(), name))
	}
	return f
}

func (m message) has(name protoreflect.Name) bool { return m.Has(m.field(name)) }

func (m message) get(name protoreflect.Name) protoreflect.Value { return m.Get(m.field(name)) }

// set sets a field that is no message and no list to v, which is of its Go type.
func (m message) set(name protoreflect.Name, v any) { m.Set(m.field(name), protoreflect.ValueOf(v)) }

// sub returns the message in a field, only to be read: it is empty where the field
// is not set.
func (m message) sub(name protoreflect.Name) message { return message{m.get(name).Message()} }

// fill returns the message in a field, to be written.
func (m message) fill(name protoreflect.Name) message {
	return message{m.Mutable(m.field(name)).Message()}
}

// add appends a message to the list in a field, and returns it to be written.
func (m message) add(name protoreflect.Name) message {
	return message{m.Mutable(m.field(name)).List().AppendMutable().Message()}
}

// list returns the messages of the list in a field.
func (m message) list(name protoreflect.Name) iter.Seq[message] {
	return func(yield func(message) bool) {
		list := m.get(name).List()
		for i := range list.Len() {
			if !yield(message{list.Get(i).Message()}) {
				return
			}
		}
	}
}

// any returns an Any of this package as one of Go's.
func (m message) any() *anypb.Any {
	return &anypb.Any{TypeUrl: m.get("type_url").String(), Value: m.get("value").Bytes()}
}

// setAny packs v in an Any.
func (m message) setAny(v message) error {
	packed, err := anypb.New(v.Interface())
	if err != nil {
		return err
	}
	m.set("type_url", packed.TypeUrl)
	m.set("value", packed.Value)
	return nil
}
