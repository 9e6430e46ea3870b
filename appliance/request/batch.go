package request

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// Batch is a .jsonl file cut into its lines. The lines are not parsed.
type Batch struct {
	Header bool     // the first line says {"type":"batch",…}
	Abort  bool     // one refused line refuses all
	Lines  [][]byte // the requests, without line ends; parts of the file's bytes
	First  int      // number of the first request's line, from 1
}

// header is the optional first line of a batch.
type header struct {
	Type    string `json:"type"`
	Count   *int   `json:"count"`
	OnError string `json:"on_error"`
}

// ParseBatch cuts a batch into lines and checks its first line, if that is a
// header, against them. A line ends with LF or CRLF; the last may lack it. An
// empty line is refused: it would have no answer, and answers come line for line.
// The error is a *reason.Refusal.
func ParseBatch(data []byte) (*Batch, error) {
	b := &Batch{First: 1}
	data = bytes.TrimSuffix(data, []byte("\n"))
	n := bytes.Count(data, []byte("\n")) + 1
	if n > MaxLines+1 {
		return nil, tooLong()
	}
	b.Lines = make([][]byte, 0, n)
	for i := 1; ; i++ {
		line, rest, more := bytes.Cut(data, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(bytes.TrimSpace(line)) == 0 {
			return nil, reason.New(reason.RequestMalformed, "remove it", "the line is empty").OnLine(i)
		}
		if len(line) > maxLine {
			return nil, reason.New(reason.RequestMalformed, fmt.Sprintf("use at most %d bytes", maxLine), "the line is too long").OnLine(i)
		}
		b.Lines = append(b.Lines, line)
		if !more {
			break
		}
		data = rest
	}
	if isHeader(b.Lines[0]) {
		if err := b.header(b.Lines[0]); err != nil {
			return nil, err
		}
		b.Lines, b.First = b.Lines[1:], 2
	}
	if len(b.Lines) > MaxLines {
		return nil, tooLong()
	}
	if len(b.Lines) == 0 {
		return nil, reason.New(reason.BatchCount, "add requests, one a line", "the batch has no request")
	}
	return b, nil
}

func tooLong() error {
	return reason.New(reason.BatchTooLong, "split it into batches of at most "+strconv.Itoa(MaxLines)+" lines", "the batch is too long")
}

// isHeader reports whether a line is meant as a header, well formed or not.
func isHeader(line []byte) bool {
	d := jsontext.NewDecoder(bytes.NewReader(line))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return false
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return false
		}
		isType := name.String() == "type"
		v, err := d.ReadValue()
		if err != nil {
			return false
		}
		if isType {
			return string(v) == `"batch"`
		}
	}
	return false
}

func (b *Batch) header(line []byte) error {
	var h header
	if err := json.Unmarshal(line, &h, json.RejectUnknownMembers(true)); err != nil {
		return reason.New(reason.RequestMalformed, `write {"type":"batch","count":N,"on_error":"abort"}`,
			"the batch's first line is not well formed").OnLine(1)
	}
	switch h.OnError {
	case "abort":
		b.Abort = true
	case "", "continue":
	default:
		return reason.New(reason.FieldInvalid, "use abort or continue", "no such way").At("on_error").OnLine(1)
	}
	if h.Count != nil && *h.Count != len(b.Lines)-1 {
		return reason.New(reason.BatchCount, "send the batch again, whole",
			"the first line announces %d requests and %d follow", *h.Count, len(b.Lines)-1).OnLine(1)
	}
	b.Header = true
	return nil
}
