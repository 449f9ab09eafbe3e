package nftjson

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"iter"
	"strconv"
)

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	key   string
	value any
}

// with is the object with a member more, where it is wanted.
func (o object) with(wanted bool, key string, value any) object {
	if !wanted {
		return o
	}
	return append(o, member{key, value})
}

// one is an object of one member.
func one(key string, value any) object { return object{{key, value}} }

// orNull is null in the place of an object without members, as nft has it.
func (o object) orNull() any {
	if len(o) == 0 {
		return nil
	}
	return o
}

// array is a JSON array; lazy is one whose members are made as they are written:
// a set may have a hundred thousand.
type (
	array []any
	lazy  iter.Seq[any]
)

// encoder writes values to w, which keeps the first error.
type encoder struct {
	w       *bufio.Writer
	quoted  *bytes.Buffer
	strings *json.Encoder
}

func newEncoder(w io.Writer) encoder {
	var quoted bytes.Buffer
	e := encoder{bufio.NewWriter(w), &quoted, json.NewEncoder(&quoted)}
	// Operators are to be seen as they are.
	e.strings.SetEscapeHTML(false)
	return e
}

func (e encoder) value(v any) {
	switch v := v.(type) {
	case nil:
		e.w.WriteString("null")
	case bool:
		e.w.WriteString(strconv.FormatBool(v))
	case uint64:
		e.w.WriteString(strconv.FormatUint(v, 10))
	case int64:
		e.w.WriteString(strconv.FormatInt(v, 10))
	case string:
		e.text(v)
	case object:
		e.object(v)
	case array:
		e.list(func(yield func(any) bool) {
			for _, x := range v {
				if !yield(x) {
					return
				}
			}
		})
	case lazy:
		e.list(v)
	default:
		// A kind of value that this package does not make.
		panic("nftjson: no JSON for this value")
	}
}

func (e encoder) text(s string) {
	e.quoted.Reset()
	// A string can always be encoded: bytes that are no UTF-8 are replaced.
	_ = e.strings.Encode(s)
	e.w.Write(bytes.TrimSuffix(e.quoted.Bytes(), []byte("\n")))
}

func (e encoder) object(o object) {
	e.w.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			e.w.WriteString(", ")
		}
		e.text(m.key)
		e.w.WriteString(": ")
		e.value(m.value)
	}
	e.w.WriteByte('}')
}

func (e encoder) list(members lazy) {
	e.w.WriteByte('[')
	first := true
	for x := range members {
		if !first {
			e.w.WriteString(", ")
		}
		first = false
		e.value(x)
	}
	e.w.WriteByte(']')
}
