package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"

	"signdrop/appliance/reason"
)

// magic begins every PSBT.
const magic = "psbt\xff"

// A form is how a PSBT was written. The answer is written in the same way.
type form struct {
	text  textForm
	width int    // characters in a line, 0 for one line
	eol   string // "", "\n" or "\r\n"
	last  bool   // the last line ends with eol, too
}

type textForm int

const (
	binary textForm = iota
	base64Text
	hexLower
	hexUpper
)

// detect tells the three forms apart by how the magic bytes begin in each. All
// lines but the last have the same length, and nothing else is white space.
func detect(data []byte) (form, []byte, error) {
	var f form
	switch {
	case bytes.HasPrefix(data, []byte(magic)):
		return f, data, nil
	case bytes.HasPrefix(data, []byte("cHNidP")):
		f.text = base64Text
	case len(data) >= 10 && bytes.EqualFold(data[:10], []byte("70736274ff")):
		f.text = hexLower
		if !bytes.ContainsAny(data, "abcdef") {
			f.text = hexUpper
		}
	default:
		return f, nil, malformed("make it with a wallet that knows BIP-174",
			"the file begins neither like a PSBT nor like its base64 or hexadecimal text")
	}
	text, ok := f.unwrap(data)
	if !ok {
		return f, nil, malformed("write it as one line, or in lines of equal length",
			"the text's lines are not of equal length or end in different ways")
	}
	var raw []byte
	var err error
	if f.text == base64Text {
		raw, err = base64.StdEncoding.Strict().DecodeString(string(text))
	} else {
		raw = make([]byte, hex.DecodedLen(len(text)))
		_, err = hex.Decode(raw, text)
	}
	// What cannot be written again as it was is no text of ours: base64 lets line
	// ends pass, hexadecimal mixed case.
	if err != nil || !bytes.Equal(f.encode(raw), data) {
		return f, nil, malformed("write it anew", "the text is not clean base64 or hexadecimal")
	}
	return f, raw, nil
}

// unwrap joins the lines.
func (f *form) unwrap(data []byte) ([]byte, bool) {
	first := bytes.IndexByte(data, '\n')
	if first < 0 {
		return data, true
	}
	f.eol = "\n"
	if first > 0 && data[first-1] == '\r' {
		f.eol = "\r\n"
	}
	f.last = bytes.HasSuffix(data, []byte(f.eol))
	if f.last {
		data = data[:len(data)-len(f.eol)]
	}
	lines := bytes.Split(data, []byte(f.eol))
	if len(lines) == 1 {
		return data, true
	}
	f.width = len(lines[0])
	for i, l := range lines {
		if len(l) == 0 || len(l) > f.width || i < len(lines)-1 && len(l) != f.width {
			return nil, false
		}
	}
	return bytes.Join(lines, nil), true
}

// encode writes raw in the form.
func (f form) encode(raw []byte) []byte {
	var text []byte
	switch f.text {
	case binary:
		return raw
	case base64Text:
		text = base64.StdEncoding.AppendEncode(nil, raw)
	case hexLower, hexUpper:
		text = hex.AppendEncode(nil, raw)
		if f.text == hexUpper {
			text = bytes.ToUpper(text)
		}
	}
	out := make([]byte, 0, len(text)+len(text)/64+2)
	for f.width > 0 && len(text) > f.width {
		out = append(append(out, text[:f.width]...), f.eol...)
		text = text[f.width:]
	}
	out = append(out, text...)
	if f.last {
		out = append(out, f.eol...)
	}
	return out
}

func malformed(hint, format string, args ...any) *reason.Refusal {
	return reason.New(reason.PSBTMalformed, hint, format, args...)
}
