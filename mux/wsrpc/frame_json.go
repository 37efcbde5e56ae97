package wsrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

// The JSON encoding of frames, for people and their tools.

// jsonFrame and what is in it have the keys in the order in which they are written.
type jsonFrame struct {
	Call      uint32          `json:"call,omitempty"`
	Open      *jsonOpen       `json:"open,omitempty"`
	Credit    uint32          `json:"credit,omitempty"`
	Header    *jsonHeader     `json:"header,omitempty"`
	Message   json.RawMessage `json:"message,omitempty"`
	HalfClose bool            `json:"halfClose,omitempty"`
	Cancel    bool            `json:"cancel,omitempty"`
	End       *jsonEnd        `json:"end,omitempty"`
	Hello     *jsonHello      `json:"hello,omitempty"`
	Ping      *uint64         `json:"ping,omitempty"`
	Pong      *uint64         `json:"pong,omitempty"`
	GoAway    *jsonGoAway     `json:"goAway,omitempty"`
}

type jsonMetadata map[string][]string

type jsonOpen struct {
	Method    string       `json:"method,omitempty"`
	Metadata  jsonMetadata `json:"metadata,omitempty"`
	TimeoutMS uint64       `json:"timeoutMs,omitempty"`
}

type jsonHeader struct {
	Metadata jsonMetadata `json:"metadata,omitempty"`
}

type jsonEnd struct {
	Code    uint32       `json:"code,omitempty"`
	Message string       `json:"message,omitempty"`
	Details []jsonDetail `json:"details,omitempty"`
	Trailer jsonMetadata `json:"trailer,omitempty"`
}

type jsonDetail struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

type jsonHello struct {
	Window     uint32       `json:"window,omitempty"`
	MaxMessage uint32       `json:"maxMessage,omitempty"`
	MaxCalls   uint32       `json:"maxCalls,omitempty"`
	Metadata   jsonMetadata `json:"metadata,omitempty"`
}

type jsonGoAway struct {
	LastCall uint32 `json:"lastCall,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// appendJSON appends the encoding of f, whose message is JSON without blanks, to b.
func (f *frame) appendJSON(b []byte) ([]byte, error) {
	j := jsonFrame{Call: f.call, Credit: f.credit, Message: f.message, HalfClose: f.halfClose, Cancel: f.cancel, Ping: f.ping, Pong: f.pong}
	if o := f.open; o != nil {
		j.Open = &jsonOpen{o.method, toJSON(o.metadata), o.timeoutMS}
	}
	if f.header != nil {
		j.Header = &jsonHeader{toJSON(f.header)}
	}
	if e := f.end; e != nil {
		j.End = &jsonEnd{Code: e.code, Message: e.message, Trailer: toJSON(e.trailer)}
		for _, d := range e.details {
			j.End.Details = append(j.End.Details, jsonDetail{
				typeName(d.GetTypeUrl()), base64.StdEncoding.EncodeToString(d.GetValue())})
		}
	}
	if h := f.hello; h != nil {
		j.Hello = &jsonHello{h.window, h.maxMessage, h.maxCalls, toJSON(h.metadata)}
	}
	if g := f.goAway; g != nil {
		j.GoAway = &jsonGoAway{g.lastCall, g.reason}
	}
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // the length of the message counts
	if err := enc.Encode(j); err != nil {
		return b, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// parseJSON decodes b into f, which is zero. The message of f is a copy.
// The error is fit for a close frame.
func (f *frame) parseJSON(b []byte) error {
	var j jsonFrame
	fields := map[string]any{
		"call": &j.Call, "credit": &j.Credit, "message": &j.Message, "halfClose": &j.HalfClose, "cancel": &j.Cancel,
		"ping": &j.Ping, "pong": &j.Pong,
		"open": object{func() map[string]any {
			j.Open = new(jsonOpen)
			return map[string]any{"method": &j.Open.Method, "metadata": &j.Open.Metadata, "timeoutMs": &j.Open.TimeoutMS}
		}},
		"header": object{func() map[string]any {
			j.Header = new(jsonHeader)
			return map[string]any{"metadata": &j.Header.Metadata}
		}},
		"end": object{func() map[string]any {
			j.End = new(jsonEnd)
			return map[string]any{"code": &j.End.Code, "message": &j.End.Message, "details": &j.End.Details, "trailer": &j.End.Trailer}
		}},
		"hello": object{func() map[string]any {
			j.Hello = new(jsonHello)
			return map[string]any{"window": &j.Hello.Window, "maxMessage": &j.Hello.MaxMessage, "maxCalls": &j.Hello.MaxCalls, "metadata": &j.Hello.Metadata}
		}},
		"goAway": object{func() map[string]any {
			j.GoAway = new(jsonGoAway)
			return map[string]any{"lastCall": &j.GoAway.LastCall, "reason": &j.GoAway.Reason}
		}},
	}
	raw, err := members(b, fields)
	if err != nil {
		return err
	}
	if len(b)-len(raw["message"]) > frameRoom {
		return errTooMuch
	}
	if err := decodeMembers(raw, fields); err != nil {
		return err
	}
	return f.fromJSON(&j)
}

// object makes the fields of an object that is there.
type object struct{ fields func() map[string]any }

// members returns the values in an object that have keys of fields; of a key that is
// there twice, the last. encoding/json itself would take keys in any case of letters,
// where an unknown key is to be ignored, and hold the values of those too.
func members(b []byte, fields map[string]any) (map[string]json.RawMessage, error) {
	if !json.Valid(b) {
		return nil, errNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotJSON
	}
	raw := make(map[string]json.RawMessage)
	var unknown json.RawMessage
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errNotJSON
		}
		into := &unknown
		key, _ := t.(string)
		if _, ok := fields[key]; ok {
			into = new(json.RawMessage)
		}
		if err := d.Decode(into); err != nil {
			return nil, errNotJSON
		}
		if into != &unknown {
			raw[key] = *into
		}
	}
	return raw, nil
}

// decodeMembers decodes values into fields.
func decodeMembers(raw map[string]json.RawMessage, fields map[string]any) error {
	for key, value := range raw {
		var err error
		switch into := fields[key].(type) {
		case object:
			var inner map[string]json.RawMessage
			inside := into.fields()
			if inner, err = members(value, inside); err == nil {
				if err := decodeMembers(inner, inside); err != nil {
					return err
				}
			}
		case *json.RawMessage:
			*into = value
		default:
			err = json.Unmarshal(value, into)
		}
		if err == errNotJSON {
			return fmt.Errorf("%s is not an object", key)
		}
		if err != nil {
			return fmt.Errorf("%s must be %s", key, typeOf(fields[key]))
		}
	}
	return nil
}

// typeOf says what a field decodes.
func typeOf(into any) string {
	switch into.(type) {
	case *string:
		return "a string"
	case *bool:
		return "true or false"
	case *jsonMetadata:
		return "an object from key to a list of strings"
	case *[]jsonDetail:
		return "a list of objects with type and value, strings"
	case *uint32:
		return "a number from 0 to 2^32-1, such as 1500"
	default:
		return "a number from 0 to 2^64-1, such as 1500"
	}
}

var errNotJSON = fmt.Errorf("the frame is not a JSON object")

func (f *frame) fromJSON(j *jsonFrame) (err error) {
	f.call, f.credit, f.message, f.halfClose, f.cancel, f.ping, f.pong = j.Call, j.Credit, j.Message, j.HalfClose, j.Cancel, j.Ping, j.Pong
	if o := j.Open; o != nil {
		f.open = &openFrame{method: o.Method, timeoutMS: o.TimeoutMS}
		if f.open.metadata, err = fromJSON(o.Metadata); err != nil {
			return err
		}
	}
	if h := j.Header; h != nil {
		if f.header, err = fromJSON(h.Metadata); err != nil {
			return err
		}
		if f.header == nil {
			f.header = metadata.MD{}
		}
	}
	if e := j.End; e != nil {
		f.end = &endFrame{code: e.Code, message: e.Message}
		for _, d := range e.Details {
			value, err := decodeBase64(d.Value)
			if err != nil {
				return fmt.Errorf("details: a value is not base64")
			}
			f.end.details = append(f.end.details, &anypb.Any{TypeUrl: typeURL(d.Type), Value: value})
		}
		if f.end.trailer, err = fromJSON(e.Trailer); err != nil {
			return err
		}
	}
	if h := j.Hello; h != nil {
		f.hello = &helloFrame{window: h.Window, maxMessage: h.MaxMessage, maxCalls: h.MaxCalls}
		if f.hello.metadata, err = fromJSON(h.Metadata); err != nil {
			return err
		}
	}
	if g := j.GoAway; g != nil {
		f.goAway = &goAwayFrame{g.LastCall, g.Reason}
	}
	return nil
}

const binarySuffix = "-bin"

func toJSON(md metadata.MD) jsonMetadata {
	if len(md) == 0 {
		return nil
	}
	j := make(jsonMetadata, len(md))
	for key, values := range md {
		if len(values) == 0 { // which protobuf cannot say
			continue
		}
		if strings.HasSuffix(key, binarySuffix) {
			values = slices.Clone(values)
			for i, v := range values {
				values[i] = base64.StdEncoding.EncodeToString([]byte(v))
			}
		}
		j[key] = values
	}
	return j
}

func fromJSON(j jsonMetadata) (metadata.MD, error) {
	var md metadata.MD
	for key, values := range j {
		if len(values) == 0 { // would take the key away from what the handshake has, and means nothing in protobuf
			continue
		}
		if strings.HasSuffix(key, binarySuffix) {
			for i, v := range values {
				b, err := decodeBase64(v)
				if err != nil {
					return nil, fmt.Errorf("metadata %.100q is not base64", key)
				}
				values[i] = string(b)
			}
		}
		if md == nil {
			md = make(metadata.MD, len(j))
		}
		md[key] = values
	}
	return md, nil
}

// decodeBase64 takes it with or without padding.
func decodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

func sortedKeys(md metadata.MD) []string {
	if len(md) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(md))
}
