// Package request says what a request file may say. It parses strictly: a field
// that the type does not know, a repeated field, bytes after the object, invalid
// UTF-8 or a number where a string belongs is a refusal that names the line and
// the field. It knows neither files nor keys.
//
// A file is one request, a JSON object, or a batch, one object a line.
// docs/formats.md specifies both.
package request

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/metacoin"
	"signdrop/appliance/reason"
)

// The request types.
const (
	Sign         = "sign"
	WalletCreate = "wallet.create"
	WalletBind   = "wallet.bind"
)

// Limits of a request, in bytes unless said otherwise.
const (
	MaxReference = 200
	MaxText      = 64 << 10 // of data.text
	MaxLines     = 100_000  // requests in a batch
	maxLine      = 1 << 20  // of one line of a batch
)

// Request is one parsed request. What a type does not have is zero.
type Request struct {
	Type      string
	Reference string    // echoed in the answer
	Appliance string    // id of the appliance that it is meant for, "" for any
	NotAfter  time.Time // zero: no end
	Wallet    string    // id, or the address that the wallet is bound to
	Replace   bool      // another text for the same nonce is meant
	Curve     string    // wallet.create
	Address   string    // wallet.bind
	Metacoin  *metacoin.Tx
	Data      *Data
}

// Data is a text to be signed as it is, as walletKMS did.
type Data struct {
	Text   string
	Hash   string // "sha256", "sha384" or "sha512"
	Scheme string // "ecdsa", "ecdsa-recoverable" or "schnorr"
}

// decoders are reused: a batch parses 100,000 lines.
var decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(bytes.NewReader(nil)) }}

// Parse parses one request. The error is a *reason.Refusal.
func Parse(data []byte) (*Request, error) {
	if !utf8.Valid(data) {
		return nil, reason.New(reason.RequestMalformed, "write the file in UTF-8", "the request is not valid UTF-8")
	}
	r := &Request{}
	p := parser{r: r, data: data}
	if err := p.run(); err != nil {
		return nil, err
	}
	if err := r.check(&p); err != nil {
		return nil, err
	}
	return r, nil
}

// parser holds what is needed only while a request is read.
type parser struct {
	r    *Request
	data []byte
	d    *jsontext.Decoder

	has      fields // which fields there are
	metacoin []byte
}

type fields uint16

const (
	hasType fields = 1 << iota
	hasReference
	hasAppliance
	hasNotAfter
	hasWallet
	hasReplace
	hasCurve
	hasAddress
	hasMetacoin
	hasData
)

var fieldNames = map[string]fields{
	"type": hasType, "reference": hasReference, "appliance": hasAppliance, "not_after": hasNotAfter,
	"wallet": hasWallet, "replace": hasReplace, "curve": hasCurve, "address": hasAddress,
	"metacoin": hasMetacoin, "data": hasData,
}

const common = hasType | hasReference | hasAppliance | hasNotAfter

// shape says which fields a type has and which it needs.
type shape struct{ may, must fields }

var shapes = map[string]shape{
	Sign:         {common | hasWallet | hasReplace | hasMetacoin | hasData, hasWallet},
	WalletCreate: {common | hasCurve, hasCurve},
	WalletBind:   {common | hasWallet | hasAddress, hasWallet | hasAddress},
}

func (p *parser) run() error {
	p.d = decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(p.d)
	p.d.Reset(bytes.NewReader(p.data))
	if p.d.PeekKind() != '{' {
		if _, err := p.d.ReadToken(); err != nil {
			return p.syntax(err)
		}
		return reason.New(reason.RequestMalformed, "write one JSON object", "the request is not a JSON object")
	}
	if _, err := p.d.ReadToken(); err != nil {
		return p.syntax(err)
	}
	for p.d.PeekKind() != '}' {
		name, err := p.d.ReadToken()
		if err != nil {
			return p.syntax(err)
		}
		f, known := fieldNames[name.String()]
		if !known {
			return reason.New(reason.FieldUnknown, "see docs/formats.md for the fields of each type",
				"no request has such a field").At(clip(name.String()))
		}
		p.has |= f
		if err := p.field(f); err != nil {
			return err
		}
	}
	if _, err := p.d.ReadToken(); err != nil {
		return p.syntax(err)
	}
	// Only white space may follow.
	if rest := bytes.TrimLeft(p.data[p.d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return reason.New(reason.RequestMalformed, "write one request a file, or a batch as .jsonl",
			"%d bytes follow the request", len(rest))
	}
	return nil
}

func (p *parser) field(f fields) (err error) {
	r := p.r
	switch f {
	case hasType:
		r.Type, err = p.text("type", 64)
	case hasReference:
		r.Reference, err = p.text("reference", MaxReference)
	case hasAppliance:
		r.Appliance, err = p.text("appliance", 64)
	case hasWallet:
		r.Wallet, err = p.text("wallet", 128)
	case hasCurve:
		r.Curve, err = p.text("curve", 64)
	case hasAddress:
		r.Address, err = p.text("address", 128)
	case hasNotAfter:
		var s string
		if s, err = p.text("not_after", 64); err == nil {
			r.NotAfter, err = parseTime(s)
		}
	case hasReplace:
		r.Replace, err = p.flag("replace")
	case hasMetacoin:
		// Parsed when the whole request is known to be well formed.
		p.metacoin, err = p.value()
	case hasData:
		r.Data, err = p.readData()
	}
	return err
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, reason.New(reason.FieldInvalid, "write it like 2026-11-22T15:00:00Z", "this is not an RFC 3339 time").At("not_after")
	}
	return t, nil
}

func (p *parser) value() ([]byte, error) {
	v, err := p.d.ReadValue()
	if err != nil {
		return nil, p.syntax(err)
	}
	// Valid until the decoder's next read: the parser's input is its copy.
	end := p.d.InputOffset()
	return p.data[end-int64(len(v)) : end], nil
}

// text reads a string value of at most max bytes without control characters.
func (p *parser) text(field string, max int) (string, error) {
	s, err := p.str(field)
	if err != nil {
		return "", err
	}
	if s == "" {
		return "", reason.New(reason.FieldInvalid, "leave the field out or fill it", "the value is empty").At(field)
	}
	if len(s) > max {
		return "", reason.New(reason.FieldInvalid, fmt.Sprintf("use at most %d bytes", max), "the value is too long").At(field)
	}
	for _, c := range s {
		if c < 0x20 || c >= 0x7f && c < 0xa0 {
			return "", reason.New(reason.FieldInvalid, "remove it", "the value has a control character").At(field)
		}
	}
	return s, nil
}

func (p *parser) str(field string) (string, error) {
	kind := p.d.PeekKind()
	t, err := p.d.ReadToken()
	if err != nil {
		return "", p.syntax(err)
	}
	if kind != '"' {
		hint := "write a string"
		if kind == '0' {
			hint = `write the number as a string, in quotes`
		}
		return "", reason.New(reason.FieldInvalid, hint, "the value is %s, not a string", kindName(kind)).At(field)
	}
	return t.String(), nil
}

func (p *parser) flag(field string) (bool, error) {
	kind := p.d.PeekKind()
	t, err := p.d.ReadToken()
	if err != nil {
		return false, p.syntax(err)
	}
	if kind != 't' && kind != 'f' {
		return false, reason.New(reason.FieldInvalid, "write true or false without quotes", "the value is %s, not a boolean", kindName(kind)).At(field)
	}
	return t.Bool(), nil
}

func (p *parser) readData() (*Data, error) {
	if kind := p.d.PeekKind(); kind != '{' {
		if _, err := p.d.ReadValue(); err != nil {
			return nil, p.syntax(err)
		}
		return nil, reason.New(reason.FieldInvalid, `write {"text": "…", "hash": "sha256"}`, "the value is %s, not an object", kindName(kind)).At("data")
	}
	if _, err := p.d.ReadToken(); err != nil {
		return nil, p.syntax(err)
	}
	d := &Data{Scheme: "ecdsa"}
	for p.d.PeekKind() != '}' {
		name, err := p.d.ReadToken()
		if err != nil {
			return nil, p.syntax(err)
		}
		switch field := name.String(); field {
		case "text":
			if d.Text, err = p.str("data.text"); err == nil && d.Text == "" {
				err = reason.New(reason.FieldInvalid, "give the text to sign", "the value is empty").At("data.text")
			} else if err == nil && len(d.Text) > MaxText {
				err = reason.New(reason.FieldInvalid, fmt.Sprintf("use at most %d bytes", MaxText), "the value is too long").At("data.text")
			}
		case "hash":
			if d.Hash, err = p.text("data.hash", 16); err == nil && d.Hash != "sha256" && d.Hash != "sha384" && d.Hash != "sha512" {
				err = reason.New(reason.FieldInvalid, "use sha256, sha384 or sha512", "no such hash").At("data.hash")
			}
		case "scheme":
			if d.Scheme, err = p.text("data.scheme", 32); err == nil && d.Scheme != "ecdsa" && d.Scheme != "ecdsa-recoverable" && d.Scheme != "schnorr" {
				err = reason.New(reason.FieldInvalid, "use ecdsa, ecdsa-recoverable or schnorr", "no such scheme").At("data.scheme")
			}
		default:
			err = reason.New(reason.FieldUnknown, "data has text, hash and scheme", "data has no such field").At("data." + clip(field))
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := p.d.ReadToken(); err != nil {
		return nil, p.syntax(err)
	}
	if d.Text == "" {
		return nil, reason.New(reason.FieldMissing, "give the text to sign", "the field is missing").At("data.text")
	}
	if d.Hash == "" {
		return nil, reason.New(reason.FieldMissing, "say sha256, sha384 or sha512", "the field is missing").At("data.hash")
	}
	return d, nil
}

// check looks at what needs the whole request.
func (r *Request) check(p *parser) error {
	if p.has&hasType == 0 {
		return reason.New(reason.FieldMissing, `say what is asked for, such as "type": "sign"`, "the field is missing").At("type")
	}
	sh, known := shapes[r.Type]
	if !known {
		return reason.New(reason.TypeUnknown, "use sign, wallet.create or wallet.bind", "no request has this type").At("type")
	}
	if extra := p.has &^ sh.may; extra != 0 {
		return reason.New(reason.FieldUnknown, "remove it, or use another type", "a %s request has no such field", r.Type).At(extra.first())
	}
	if missing := sh.must &^ p.has; missing != 0 {
		return reason.New(reason.FieldMissing, "add it; see docs/formats.md", "a %s request needs this field", r.Type).At(missing.first())
	}
	if r.Type != Sign {
		return nil
	}
	switch {
	case p.has&(hasMetacoin|hasData) == hasMetacoin|hasData:
		return reason.New(reason.FieldInvalid, "split the request in two", "metacoin and data cannot be in one request").At("data")
	case p.has&(hasMetacoin|hasData) == 0:
		return reason.New(reason.FieldMissing, "add metacoin or data", "there is nothing to sign").At("metacoin")
	}
	if p.metacoin == nil {
		return nil
	}
	tx, err := metacoin.Parse(p.metacoin)
	if ref, ok := reason.As(err); ok {
		return ref.Under("metacoin")
	}
	if err != nil {
		return err
	}
	r.Metacoin = tx
	return nil
}

func (f fields) first() string {
	for _, name := range []string{"type", "reference", "appliance", "not_after", "wallet", "replace", "curve", "address", "metacoin", "data"} {
		if f&fieldNames[name] != 0 {
			return name
		}
	}
	return ""
}

// syntax turns a decoder's error into a refusal that says where.
func (p *parser) syntax(err error) error {
	var se *jsontext.SyntacticError
	at := int64(len(p.data))
	what := "the JSON ends too early"
	if errors.As(err, &se) {
		at = min(se.ByteOffset, int64(len(p.data)))
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return reason.New(reason.RequestMalformed, "give each field once", "a field stands twice, %s", place(p.data, at)).At(pointer(string(se.JSONPointer)))
		}
		if se.Err != nil && !strings.Contains(se.Err.Error(), "EOF") {
			what = "this is not JSON"
		}
	}
	return reason.New(reason.RequestMalformed, "check the file with a JSON tool", "%s, %s", what, place(p.data, at))
}

// pointer writes a JSON pointer (RFC 6901) as a dotted path.
func pointer(p string) string {
	return clip(strings.ReplaceAll(strings.TrimPrefix(p, "/"), "/", "."))
}

// clip shortens what a stranger named, for a message.
func clip(s string) string {
	const most = 64
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// place says in which line and column a byte is, both from 1. Of a request on one
// line, such as a batch's, the line says nothing.
func place(data []byte, at int64) string {
	before := data[:at]
	if !bytes.Contains(bytes.TrimSpace(data), []byte("\n")) {
		return fmt.Sprintf("at column %d", len(before)+1)
	}
	line := bytes.Count(before, []byte("\n")) + 1
	col := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("at line %d, column %d", line, col)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	}
	return "something else"
}
