package journal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// wire is a line as JSON has it.
type wire struct {
	Seq       uint64        `json:"seq"`
	Time      string        `json:"time"`
	Event     string        `json:"event"`
	Company   string        `json:"company"`
	Name      string        `json:"name"`
	Line      int           `json:"line"`
	Request   string        `json:"request"`
	By        string        `json:"by"`
	Key       string        `json:"key"`
	Type      string        `json:"type"`
	Wallet    string        `json:"wallet"`
	Ledger    string        `json:"ledger"`
	Operation string        `json:"operation"`
	Nonce     string        `json:"nonce"`
	Text      string        `json:"text"`
	Algorithm string        `json:"algorithm"`
	Signature string        `json:"signature"`
	Uses      uint64        `json:"uses"`
	Result    string        `json:"result"`
	Code      string        `json:"code"`
	Final     bool          `json:"final"`
	Detail    string        `json:"detail"`
	Previous  *wirePrevious `json:"previous"`
	Prev      string        `json:"prev"`
}

type wirePrevious struct {
	File string `json:"file"`
	Size int64  `json:"size"`
	Void int64  `json:"void"`
}

// strict refuses members that a line does not have. Repeated members and text that
// is not UTF-8 are refused anyway.
var strict = json.RejectUnknownMembers(true)

// ParseLine reads one line, without its newline. It refuses every line that
// appendEvent would have written otherwise.
func ParseLine(line []byte) (*Event, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("the line is longer than %d bytes", MaxLine)
	}
	var w wire
	if err := json.Unmarshal(line, &w, strict); err != nil {
		return nil, fmt.Errorf("the line is not the JSON of an event: %v", err)
	}
	e, err := w.event()
	if err != nil {
		return nil, err
	}
	// Most of what is not in the one form ends here: spaces, another order, empty
	// members, escapes that are not needed, digits in the other case.
	if !bytes.Equal(appendEvent(make([]byte, 0, len(line)), e), line) {
		return nil, errors.New("the line is not in the form in which the journal writes it")
	}
	return e, nil
}

func (w *wire) event() (*Event, error) {
	if w.Seq == 0 {
		return nil, errors.New("seq is missing or 0")
	}
	if !isWord(w.Event) {
		return nil, errors.New("event is missing or not a lower-case word")
	}
	if w.Line < 0 {
		return nil, errors.New("line is negative")
	}
	if (w.Signature == "") != (w.Uses == 0) {
		return nil, errors.New("of signature and uses one is there without the other")
	}
	e := &Event{Kind: w.Event, Seq: w.Seq, Line: w.Line, Uses: w.Uses, Final: w.Final}
	var err error
	if e.Time, err = time.Parse(timeForm, w.Time); err != nil {
		return nil, errors.New("time is not of its form")
	}
	for _, t := range []struct {
		to    *string
		value string
	}{
		{&e.Company, w.Company}, {&e.Name, w.Name}, {&e.By, w.By}, {&e.Key, w.Key}, {&e.Type, w.Type}, {&e.Wallet, w.Wallet},
		{&e.Ledger, w.Ledger}, {&e.Operation, w.Operation}, {&e.Nonce, w.Nonce}, {&e.Algorithm, w.Algorithm},
		{&e.Signature, w.Signature}, {&e.Code, w.Code}, {&e.Detail, w.Detail},
	} {
		if *t.to, err = decodeText(t.value); err != nil {
			return nil, err
		}
	}
	for _, d := range []struct {
		to    *[32]byte
		value string
	}{
		{&e.Request, w.Request}, {&e.Text, w.Text}, {&e.Result, w.Result}, {&e.Prev, w.Prev},
	} {
		if *d.to, err = decodeDigest(d.value); err != nil {
			return nil, err
		}
	}
	if p := w.Previous; p != nil {
		if _, ok := parseName(p.File, fileSuffix); !ok || p.Size <= 0 || p.Void < 0 || !e.opens() {
			return nil, errors.New("previous is not of its form")
		}
		e.Previous = &Previous{p.File, p.Size, p.Void}
	}
	return e, nil
}

// decodeDigest reads 64 hexadecimal digits, or nothing.
func decodeDigest(s string) (d [32]byte, err error) {
	if s == "" {
		return d, nil
	}
	if len(s) != 2*len(d) {
		return d, errors.New("a digest does not have 64 digits")
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return d, errors.New("a digest is not hexadecimal")
	}
	return d, nil
}

// decodeText undoes the percent signs of appendText.
func decodeText(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("a text ends within an escape")
		}
		var err error
		if b, err = hex.AppendDecode(b, []byte(s[i+1:i+3])); err != nil {
			return "", errors.New("a text has a percent sign without two hexadecimal digits")
		}
		i += 2
	}
	return string(b), nil
}
