package metacoin

import (
	"bytes"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// reader reads strict JSON: no name twice in an object, no invalid UTF-8. What
// it gives out is cut from text, not copied.
type reader struct {
	jsontext.Decoder
	buf  bytes.Buffer
	text string
}

// readers keeps readers between calls, since a decoder is large. Each goes on
// holding what it read last until it reads something else.
var readers = sync.Pool{New: func() any { return new(reader) }}

// newReader reads text, of which raw is another copy.
func newReader(text string, raw []byte) *reader {
	in := readers.Get().(*reader)
	in.text = text
	in.buf = *bytes.NewBuffer(raw) // read in place
	in.Reset(&in.buf)
	return in
}

// done ends the use of a reader.
func (in *reader) done() { readers.Put(in) }

// next reads a name or a value as it is written, and its kind.
func (in *reader) next() (string, jsontext.Kind, error) {
	v, err := in.ReadValue()
	if err != nil {
		return "", 0, err
	}
	end := int(in.InputOffset())
	return in.text[end-len(v) : end], v.Kind(), nil
}

// unquote decodes a valid JSON string, as part of the original where it can.
func unquote(quoted string) string {
	if strings.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	v, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		panic("internal error: metacoin: the decoder took an invalid string: " + err.Error())
	}
	return string(v)
}

// compact takes the blanks between the tokens out of valid JSON. It leaves
// strings and numbers as they are written, so the outcome depends on nothing
// but the request.
func compact(json string) string {
	if !strings.ContainsAny(json, " \t\r\n") {
		return json
	}
	var b strings.Builder
	b.Grow(len(json))
	quoted := false
	for i := 0; i < len(json); i++ {
		switch c := json[i]; {
		case quoted && c == '\\':
			b.WriteByte(c)
			i++
			b.WriteByte(json[i])
			continue
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		}
		b.WriteByte(json[i])
	}
	return b.String()
}
