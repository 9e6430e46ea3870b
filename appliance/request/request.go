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
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/reason"
)

// The request types. TypesOf says who may ask for which.
const (
	Sign          = "sign"
	WalletCreate  = "wallet.create"
	WalletImport  = "wallet.import"
	WalletBind    = "wallet.bind"
	WalletList    = "wallet.list"
	WalletAddress = "wallet.address"
	WalletDisable = "wallet.disable"
	WalletEnable  = "wallet.enable"
	DataKeyCreate = "datakey.create"
	Encrypt       = "encrypt"
	Decrypt       = "decrypt"

	CompanyCreate  = "company.create"
	CompanyUpdate  = "company.update"
	CompanyDisable = "company.disable"
	CompanyEnable  = "company.enable"
	CompanyList    = "company.list"
	PolicySet      = "policy.set"
	AdminsSet      = "admins.set"
	Backup         = "backup"
	RestoreAccept  = "restore.accept"
)

// KindHD is the kind of an HD wallet.
const KindHD = "hd"

// Limits of a request, in bytes unless said otherwise.
const (
	MaxReference = 200
	MaxText      = 64 << 10 // of data.text
	MaxLines     = 100_000  // requests in a batch
	MaxPage      = 1000     // entries of a list's answer
	MaxKeys      = 100      // public keys that one command gives
	MaxAddresses = 100      // addresses of one answer
	maxLine      = 1 << 20  // of one line of a batch
	maxKey       = 16 << 10 // of a key as text
	maxPhrase    = 128      // of a passphrase
	maxWords     = 512      // of 24 words
)

// Request is one parsed request. What a type does not have is zero.
type Request struct {
	Type      string
	Reference string    // echoed in the answer
	Appliance string    // id of the appliance that it is meant for, "" for any
	NotAfter  time.Time // zero: no end

	Wallet         string    // id, or the address that the wallet is bound to
	Replace        bool      // sign: another text for the same nonce is meant
	Curve          string    // wallet.create
	Kind           string    // wallet.create: "hd", or "" for a single key
	Network        string    // wallet.create, wallet.import, wallet.address: Bitcoin's
	Address        string    // wallet.bind, wallet.import
	WalletNotAfter time.Time // wallet.create, wallet.import: from then on it does not sign
	PrivateKey     []byte    // wallet.import: PEM, WIF or an extended key; a secret
	Mnemonic       []byte    // wallet.import: words of BIP-39, in its place; a secret
	Script         string    // wallet.address: form of the outputs
	Account        int       // wallet.address
	Change         bool      // wallet.address: of the chain for change
	Index          int       // wallet.address: the first
	Number         int       // wallet.address: how many, 0 for one
	Tx             ledger.Tx // sign: of one of the ledgers
	Document       bool      // sign: the file is what is to be signed, and has no fields
	Data           *Data     // sign: or this

	Key        string // encrypt, decrypt: id of the data key
	Format     string // encrypt, decrypt: how the ciphertext is made
	Text       string // encrypt: what to encrypt, as text
	Bytes      []byte // encrypt: the same, as bytes
	Ciphertext string // decrypt
	Passphrase []byte // datakey.create, decrypt, wallet.import with words; a secret
	Recipient  string // decrypt: whom the text goes to, encrypted (age)
	Clear      bool   // decrypt: the text may go out as it is

	After string // lists: begin after this one
	Limit int    // lists: at most so many, 0 for MaxPage

	Since   string // backup: continue the one with this id
	Restore string // restore.accept: id of the restore

	Company        string          // commands
	Name           string          // a company's or data key's name for people
	Signers        []string        // public keys, OpenSSH lines or PEM
	AuthorizedKeys []string        // OpenSSH lines for the SFTP door
	Admins         []string        // as Signers
	Threshold      int             // how many administrators a command takes
	Policy         []byte          // JSON object
	Has            map[string]bool // fields that a command gives, where leaving one out means another thing than an empty one
}

// Secret reports whether a request of its type holds a secret, so that it may come
// encrypted only.
func (r *Request) Secret() bool {
	switch r.Type {
	case WalletImport, DataKeyCreate, Decrypt:
		return true
	}
	return false
}

// Wipe clears what is secret.
func (r *Request) Wipe() {
	clear(r.PrivateKey)
	clear(r.Mnemonic)
	clear(r.Passphrase)
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

// ParseDocument parses a file that is no JSON, a document of the ledger, as a request
// to sign what is in it. The error is a *reason.Refusal.
func ParseDocument(l *ledger.Ledger, data []byte) (*Request, error) {
	tx, err := l.Document.Parse(data)
	if err != nil {
		return nil, err
	}
	return &Request{Type: Sign, Tx: tx, Document: true}, nil
}

// parser holds what is needed only while a request is read.
type parser struct {
	r    *Request
	data []byte
	d    *jsontext.Decoder

	has fields // which fields there are

	ledger *ledger.Ledger // whose field there is, nil for none
	raw    []byte         // that field's value
}

type fields uint64

// kind says how a field's value is read.
type kind func(p *parser, f *field) error

// field is one field that a request may have.
type field struct {
	name string
	bit  fields
	max  int // bytes of a string, entries of a list
	read kind
}

// bits are given out in the order of the table.
var table = func() []field {
	t := []field{
		{name: "type", max: 64, read: text(func(r *Request) *string { return &r.Type })},
		{name: "reference", max: MaxReference, read: text(func(r *Request) *string { return &r.Reference })},
		{name: "appliance", max: 64, read: text(func(r *Request) *string { return &r.Appliance })},
		{name: "not_after", read: moment(func(r *Request) *time.Time { return &r.NotAfter })},
		{name: "wallet", max: 128, read: text(func(r *Request) *string { return &r.Wallet })},
		{name: "replace", read: flag(func(r *Request) *bool { return &r.Replace })},
		{name: "curve", max: 64, read: text(func(r *Request) *string { return &r.Curve })},
		{name: "address", max: 128, read: text(func(r *Request) *string { return &r.Address })},
		{name: "wallet_not_after", read: moment(func(r *Request) *time.Time { return &r.WalletNotAfter })},
		{name: "private_key", max: maxKey, read: lines(func(r *Request, s string) { r.PrivateKey = []byte(s) })},
		{name: "kind", max: 16, read: text(func(r *Request) *string { return &r.Kind })},
		{name: "network", max: 16, read: text(func(r *Request) *string { return &r.Network })},
		{name: "mnemonic", max: maxWords, read: lines(func(r *Request, s string) { r.Mnemonic = []byte(s) })},
		{name: "script", max: 32, read: text(func(r *Request) *string { return &r.Script })},
		{name: "account", max: maxStep, read: natural(func(r *Request) *int { return &r.Account })},
		{name: "change", read: flag(func(r *Request) *bool { return &r.Change })},
		{name: "index", max: maxIndex, read: natural(func(r *Request) *int { return &r.Index })},
		{name: "number", max: MaxAddresses, read: number(func(r *Request) *int { return &r.Number })},
		{name: "data", read: readData},
		{name: "key", max: 64, read: text(func(r *Request) *string { return &r.Key })},
		{name: "format", max: 32, read: text(func(r *Request) *string { return &r.Format })},
		{name: "text", read: lines(func(r *Request, s string) { r.Text = s })},
		{name: "bytes", read: readBytes},
		{name: "ciphertext", read: text(func(r *Request) *string { return &r.Ciphertext })},
		{name: "passphrase", max: maxPhrase, read: lines(func(r *Request, s string) { r.Passphrase = []byte(s) })},
		{name: "recipient", max: 128, read: text(func(r *Request) *string { return &r.Recipient })},
		{name: "clear", read: flag(func(r *Request) *bool { return &r.Clear })},
		{name: "after", max: 64, read: text(func(r *Request) *string { return &r.After })},
		{name: "limit", max: MaxPage, read: number(func(r *Request) *int { return &r.Limit })},
		{name: "company", max: 64, read: text(func(r *Request) *string { return &r.Company })},
		{name: "name", max: 200, read: text(func(r *Request) *string { return &r.Name })},
		{name: "signers", max: MaxKeys, read: list(func(r *Request) *[]string { return &r.Signers })},
		{name: "authorized_keys", max: MaxKeys, read: list(func(r *Request) *[]string { return &r.AuthorizedKeys })},
		{name: "admins", max: MaxKeys, read: list(func(r *Request) *[]string { return &r.Admins })},
		{name: "threshold", max: MaxKeys, read: number(func(r *Request) *int { return &r.Threshold })},
		{name: "policy", read: readPolicy},
		{name: "since", max: 64, read: text(func(r *Request) *string { return &r.Since })},
		{name: "restore", max: 64, read: text(func(r *Request) *string { return &r.Restore })},
	}
	at := slices.IndexFunc(t, func(f field) bool { return f.name == "data" })
	for _, l := range ledgers.All {
		t = slices.Insert(t, at, field{name: l.Name, read: readLedger(l)})
		at++
	}
	for i := range t {
		t[i].bit = 1 << i // at most 64 of them
	}
	return t
}()

var byName = func() map[string]*field {
	m := map[string]*field{}
	for i := range table {
		m[table[i].name] = &table[i]
	}
	return m
}()

// of is the set of the fields with these names.
func of(names string) (set fields) {
	for _, n := range strings.Fields(names) {
		set |= byName[n].bit
	}
	return set
}

// ofLedgers are the fields that hold what a ledger has signed.
var ofLedgers = of(ledgerNames(" "))

func ledgerNames(separator string) string {
	names := make([]string, len(ledgers.All))
	for i, l := range ledgers.All {
		names[i] = l.Name
	}
	return strings.Join(names, separator)
}

var common = of("type reference appliance not_after")

// shape says which fields a type has beside the common ones, which of them it
// needs, and who may ask for it.
type shape struct {
	must, may fields
	roles     Role
}

// Role says in which inbox a request lies, and so who may have signed it.
type Role int

// The roles.
const (
	Partner       Role = 1 << iota // a company's inbox
	Administrator                  // that of the administrators
)

var shapes = map[string]shape{
	Sign:          {0, of("wallet replace data") | ofLedgers, Partner},
	WalletCreate:  {0, of("curve kind network wallet_not_after"), Partner},
	WalletImport:  {0, of("private_key mnemonic passphrase network address wallet_not_after"), Partner},
	WalletAddress: {of("wallet script"), of("network account change index number"), Partner},
	WalletBind:    {of("wallet address"), of("company"), Partner | Administrator},
	WalletList:    {0, of("after limit"), Partner},
	WalletDisable: {of("wallet"), of("company"), Partner | Administrator},
	WalletEnable:  {of("wallet company"), 0, Administrator},
	DataKeyCreate: {of("passphrase"), of("name"), Partner},
	Encrypt:       {of("key"), of("format text bytes"), Partner},
	Decrypt:       {of("key ciphertext passphrase"), of("format recipient clear"), Partner},

	CompanyCreate:  {of("company signers"), of("name authorized_keys policy"), Administrator},
	CompanyUpdate:  {of("company"), of("name signers authorized_keys"), Administrator},
	CompanyDisable: {of("company"), 0, Administrator},
	CompanyEnable:  {of("company"), 0, Administrator},
	CompanyList:    {0, of("after limit"), Administrator},
	PolicySet:      {of("company policy"), 0, Administrator},
	AdminsSet:      {of("admins threshold"), 0, Administrator},
	Backup:         {0, of("since"), Administrator},
	RestoreAccept:  {of("restore"), 0, Administrator},
}

// For checks that a request of this type may be asked for in a role. The error is
// a *reason.Refusal.
func (r *Request) For(role Role) error {
	if shapes[r.Type].roles&role == 0 {
		if role == Partner {
			return reason.New(reason.TypeUnknown, "ask your administrators for it", "a company cannot ask for this").At("type")
		}
		return reason.New(reason.TypeUnknown, "the company's own signers ask for it, in its inbox", "an administrator cannot ask for this").At("type")
	}
	if role == Administrator && shapes[r.Type].must|shapes[r.Type].may != 0 && r.Company == "" &&
		(shapes[r.Type].must|shapes[r.Type].may)&byName["company"].bit != 0 {
		return reason.New(reason.FieldMissing, "say which company is meant", "a %s command needs this field", r.Type).At("company")
	}
	if role == Partner && r.Company != "" {
		return reason.New(reason.FieldUnknown, "remove it: a company asks for itself", "a %s request has no such field", r.Type).At("company")
	}
	return nil
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
		f, known := byName[name.String()]
		if !known {
			return reason.New(reason.FieldUnknown, "see docs/formats.md for the fields of each type",
				"no request has such a field").At(clip(name.String()))
		}
		p.has |= f.bit
		if err := f.read(p, f); err != nil {
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

// The kinds of fields.

func text(to func(*Request) *string) kind {
	return func(p *parser, f *field) (err error) {
		*to(p.r), err = p.text(f.name, f.max)
		return err
	}
}

// lines is a text with line breaks.
func lines(to func(*Request, string)) kind {
	return func(p *parser, f *field) error {
		s, err := p.str(f.name)
		if err == nil && s == "" {
			err = empty(f.name)
		}
		if err == nil && f.max > 0 && len(s) > f.max {
			err = long(f.name, f.max)
		}
		if err == nil {
			to(p.r, s)
		}
		return err
	}
}

func moment(to func(*Request) *time.Time) kind {
	return func(p *parser, f *field) error {
		s, err := p.text(f.name, 64)
		if err != nil {
			return err
		}
		*to(p.r), err = parseTime(f.name, s)
		return err
	}
}

func flag(to func(*Request) *bool) kind {
	return func(p *parser, f *field) (err error) {
		*to(p.r), err = p.flag(f.name)
		return err
	}
}

func number(to func(*Request) *int) kind { return numberFrom(1, to) }

// natural is a number from 0.
func natural(to func(*Request) *int) kind { return numberFrom(0, to) }

// maxStep is the greatest step of a path, maxIndex the last address that inputs are
// signed for.
const (
	maxStep  = 1<<31 - 1
	maxIndex = 999_999
)

func numberFrom(least int, to func(*Request) *int) kind {
	return func(p *parser, f *field) error {
		k := p.d.PeekKind()
		v, err := p.d.ReadValue()
		if err != nil {
			return p.syntax(err)
		}
		n, cerr := strconv.Atoi(string(v))
		if k != '0' || cerr != nil || n < least || n > f.max {
			return reason.New(reason.FieldInvalid, fmt.Sprintf("write a whole number from %d to %d, without quotes", least, f.max),
				"the value is not such a number").At(f.name)
		}
		*to(p.r) = n
		return nil
	}
}

// list is a list of texts.
func list(to func(*Request) *[]string) kind {
	return func(p *parser, f *field) error {
		if k := p.d.PeekKind(); k != '[' {
			if _, err := p.d.ReadValue(); err != nil {
				return p.syntax(err)
			}
			return reason.New(reason.FieldInvalid, `write a list of strings, such as ["…"]`, "the value is %s, not a list", kindName(k)).At(f.name)
		}
		if _, err := p.d.ReadToken(); err != nil {
			return p.syntax(err)
		}
		all := []string{}
		for p.d.PeekKind() != ']' {
			at := fmt.Sprintf("%s[%d]", f.name, len(all))
			if len(all) == f.max {
				return reason.New(reason.FieldInvalid, fmt.Sprintf("use at most %d", f.max), "the list is too long").At(f.name)
			}
			s, err := p.str(at)
			if err != nil {
				return err
			}
			if s == "" {
				return empty(at)
			}
			if len(s) > maxKey {
				return long(at, maxKey)
			}
			all = append(all, s)
		}
		if _, err := p.d.ReadToken(); err != nil {
			return p.syntax(err)
		}
		*to(p.r) = all
		return nil
	}
}

func readBytes(p *parser, f *field) error {
	s, err := p.str(f.name)
	if err != nil {
		return err
	}
	b, derr := base64.StdEncoding.Strict().DecodeString(s)
	if derr != nil || len(b) == 0 {
		return reason.New(reason.FieldInvalid, "write the bytes in standard base64", "this is not base64, or it is empty").At(f.name)
	}
	p.r.Bytes = b
	return nil
}

// readLedger keeps the value, which is parsed when the whole request is known to be
// well formed.
func readLedger(l *ledger.Ledger) kind {
	return func(p *parser, _ *field) (err error) {
		if p.ledger != nil {
			return reason.New(reason.FieldInvalid, "split the request in two, or remove one",
				"%s and %s cannot be in one request", p.ledger.Name, l.Name).At(l.Name)
		}
		p.ledger = l
		p.raw, err = p.value()
		return err
	}
}

func readPolicy(p *parser, f *field) error {
	k := p.d.PeekKind()
	v, err := p.value()
	if err == nil && k != '{' {
		err = reason.New(reason.FieldInvalid, `write an object, such as {"data":"safe"}`, "the value is %s, not an object", kindName(k)).At(f.name)
	}
	p.r.Policy = v
	return err
}

func empty(field string) error {
	return reason.New(reason.FieldInvalid, "leave the field out or fill it", "the value is empty").At(field)
}

func long(field string, max int) error {
	return reason.New(reason.FieldInvalid, fmt.Sprintf("use at most %d bytes", max), "the value is too long").At(field)
}

func parseTime(field, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, reason.New(reason.FieldInvalid, "write it like 2026-11-22T15:00:00Z", "this is not an RFC 3339 time").At(field)
	}
	if y := t.UTC().Year(); y < 1970 || y > 9999 {
		return t, reason.New(reason.FieldInvalid, "use a year from 1970 to 9999", "no such time can be written").At(field)
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
	return p.data[end-int64(len(v)) : end : end], nil
}

// text reads a string value of at most max bytes, 0 for any number, without control
// characters.
func (p *parser) text(field string, max int) (string, error) {
	s, err := p.str(field)
	if err != nil {
		return "", err
	}
	if s == "" {
		return "", empty(field)
	}
	if max > 0 && len(s) > max {
		return "", long(field, max)
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

func readData(p *parser, _ *field) (err error) {
	p.r.Data, err = p.readData()
	return err
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
	if r.Type == "" {
		return reason.New(reason.FieldMissing, `say what is asked for, such as "type": "sign"`, "the field is missing").At("type")
	}
	sh, known := shapes[r.Type]
	if !known {
		return reason.New(reason.TypeUnknown, "see docs/formats.md for the types there are", "no request has this type").At("type")
	}
	if extra := p.has &^ (common | sh.must | sh.may); extra != 0 {
		return reason.New(reason.FieldUnknown, "remove it, or use another type", "a %s request has no such field", r.Type).At(extra.first())
	}
	if missing := sh.must &^ p.has; missing != 0 {
		return reason.New(reason.FieldMissing, "add it; see docs/formats.md", "a %s request needs this field", r.Type).At(missing.first())
	}
	has := func(name string) bool { return p.has&byName[name].bit != 0 }
	switch r.Type {
	case Sign:
		switch {
		case p.ledger == nil && r.Data == nil:
			return reason.New(reason.FieldMissing, "add metacoin or data, or what another ledger is to sign", "there is nothing to sign").At(ledgers.All[0].Name)
		case p.ledger != nil && r.Data != nil:
			return reason.New(reason.FieldInvalid, "split the request in two, or remove one",
				"%s and data cannot be in one request", p.ledger.Name).At("data")
		}
		switch finds := p.ledger != nil && p.ledger.Finds; {
		case finds && has("wallet"):
			return reason.New(reason.FieldUnknown, "remove it: the transaction names its keys", "a request for %s names no wallet", p.ledger.Name).At("wallet")
		case !finds && !has("wallet"):
			return reason.New(reason.FieldMissing, "add it; see docs/formats.md", "a %s request needs this field", r.Type).At("wallet")
		}
	case WalletCreate:
		return r.checkCreate(has)
	case WalletImport:
		return r.checkImport(has)
	case WalletAddress:
		return r.checkNetwork()
	case Encrypt:
		if err := oneOf(has, "text", "bytes", "there is nothing to encrypt"); err != nil {
			return err
		}
	case Decrypt:
		if err := oneOf(has, "recipient", "clear", "it is not said how the text shall come back"); err != nil {
			return err
		}
	case CompanyUpdate:
		if !has("name") && !has("signers") && !has("authorized_keys") {
			return reason.New(reason.FieldMissing, "give what shall change", "there is nothing to update").At("signers")
		}
		r.Has = map[string]bool{"authorized_keys": has("authorized_keys")}
	}
	if p.ledger == nil {
		return nil
	}
	tx, err := p.ledger.Parse(p.raw)
	if ref, ok := reason.As(err); ok {
		return ref.Under(p.ledger.Name)
	}
	if err != nil {
		return err
	}
	r.Tx = tx
	return nil
}

// checkCreate: a single key has a curve, an HD wallet a network.
func (r *Request) checkCreate(has func(string) bool) error {
	switch {
	case r.Kind != "" && r.Kind != KindHD:
		return reason.New(reason.FieldInvalid, "use hd, or leave it out", "there is no such kind of wallet").At("kind")
	case r.Kind == "" && !has("curve"):
		return reason.New(reason.FieldMissing, "add it; see docs/formats.md", "a %s request needs this field", r.Type).At("curve")
	case r.Kind == "" && has("network"):
		return reason.New(reason.FieldUnknown, `remove it, or add "kind": "hd"`, "a wallet with a single key belongs to no network").At("network")
	case r.Kind != "" && has("curve"):
		return reason.New(reason.FieldUnknown, "remove it", "the keys of an HD wallet are on secp256k1").At("curve")
	case r.Kind != "" && !has("network"):
		return reason.New(reason.FieldMissing, "say main, test or regtest", "an HD wallet needs this field").At("network")
	}
	return r.checkNetwork()
}

// checkImport: a key, or words, which may have a passphrase.
func (r *Request) checkImport(has func(string) bool) error {
	if has("private_key") && has("mnemonic") {
		return oneOf(has, "private_key", "mnemonic", "")
	}
	if !has("private_key") && !has("mnemonic") {
		return reason.New(reason.FieldMissing, "add it, or mnemonic; see docs/formats.md", "a %s request needs this field", r.Type).At("private_key")
	}
	switch {
	case has("passphrase") && !has("mnemonic"):
		return reason.New(reason.FieldUnknown, "remove it; an encrypted key must be decrypted first", "only words have a passphrase").At("passphrase")
	case has("mnemonic") && !has("network"):
		return reason.New(reason.FieldMissing, "say main, test or regtest", "words do not tell of which network they are").At("network")
	}
	return r.checkNetwork()
}

func (r *Request) checkNetwork() error {
	switch r.Network {
	case "", "main", "test", "regtest":
		return nil
	}
	return reason.New(reason.FieldInvalid, "use main, test or regtest", "there is no such network").At("network")
}

// oneOf wants exactly one of two fields.
func oneOf(has func(string) bool, a, b, neither string) error {
	switch {
	case has(a) && has(b):
		return reason.New(reason.FieldInvalid, "split the request in two, or remove one", "%s and %s cannot be in one request", a, b).At(b)
	case !has(a) && !has(b):
		return reason.New(reason.FieldMissing, "add "+a+" or "+b, "%s", neither).At(a)
	}
	return nil
}

func (f fields) first() string {
	for i := range table {
		if f&table[i].bit != 0 {
			return table[i].name
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
