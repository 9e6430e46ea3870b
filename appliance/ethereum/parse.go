package ethereum

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// Limits.
const (
	maxChain = 1<<63 - 1 - 36 // EIP-2294: so that EIP-155's v stays a number of 64 bits
	maxNonce = 1<<64 - 2      // EIP-2681
	minGas   = 21000          // what a transaction costs at least
	maxRaw   = 128 << 10      // bytes of a transaction, more than nodes pass on
	maxText  = 64 << 10       // bytes of a message or of typed data
)

// shapes say which fields an operation needs and which it may have.
var shapes = map[string]struct{ must, may string }{
	opLegacy:        {"chain_id nonce value gas_limit gas_price", "from to create data"},
	opAccessList:    {"chain_id nonce value gas_limit gas_price", "from to create data access_list"},
	opFees:          {"chain_id nonce value gas_limit max_fee_per_gas max_priority_fee_per_gas", "from to create data access_list"},
	opSetCode:       {"chain_id nonce to value gas_limit max_fee_per_gas max_priority_fee_per_gas authorization_list", "from data access_list"},
	opAuthorization: {"chain_id nonce address", "from"},
	opMessage:       {"", "from text bytes"},
	opTypedData:     {"typed_data", "from"},
	opHash:          {"hash", "from"},
}

const operationNames = "legacy, eip2930, eip1559, eip7702, authorization, message, typed_data or hash"

// object is a JSON object whose members are read one by one.
type object struct {
	at      string // its place, with a dot at the end, "" for the outermost
	members []member
}

type member struct {
	name string
	kind jsontext.Kind
	raw  jsontext.Value
}

// invalid is the refusal of a value.
func invalid(hint, format string, args ...any) *reason.Refusal {
	return reason.New(reason.FieldInvalid, hint, format, args...)
}

// decoders are reused: a batch parses 100,000 lines.
var decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(bytes.NewReader(nil)) }}

// walk calls do for each member of an object or array, with the decoder in front of it,
// until it reports a refusal.
func walk(at string, raw jsontext.Value, do func(d *jsontext.Decoder) *reason.Refusal) *reason.Refusal {
	d := decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(d)
	d.Reset(bytes.NewReader(raw))
	if _, err := d.ReadToken(); err != nil {
		return malformed(at)
	}
	for {
		switch d.PeekKind() {
		case '}', ']':
			return nil
		}
		if r := do(d); r != nil {
			return r
		}
	}
}

func malformed(at string) *reason.Refusal {
	return reason.New(reason.RequestMalformed, "check the file with a JSON tool", "this is not JSON").At(at)
}

// value reads the value that comes, as a part of raw.
func value(d *jsontext.Decoder, raw jsontext.Value) (jsontext.Value, error) {
	v, err := d.ReadValue()
	end := d.InputOffset()
	return raw[end-int64(len(v)) : end : end], err
}

// readObject takes an object apart. raw is well-formed JSON without a name twice.
func readObject(at string, raw jsontext.Value) (*object, *reason.Refusal) {
	place := strings.TrimSuffix(at, ".")
	if raw.Kind() != '{' {
		return nil, invalid("write an object", "the value is not an object").At(place)
	}
	o := &object{at: at, members: make([]member, 0, 10)}
	r := walk(place, raw, func(d *jsontext.Decoder) *reason.Refusal {
		name, err := d.ReadToken()
		if err != nil {
			return malformed(place)
		}
		m := member{name: name.String(), kind: d.PeekKind()}
		if m.raw, err = value(d, raw); err != nil {
			return malformed(place)
		}
		o.members = append(o.members, m)
		return nil
	})
	return o, r
}

// readArray takes an array apart.
func readArray(at string, raw jsontext.Value, most int) (all []jsontext.Value, r *reason.Refusal) {
	if raw.Kind() != '[' {
		return nil, invalid("write an array", "the value is not an array").At(at)
	}
	r = walk(at, raw, func(d *jsontext.Decoder) *reason.Refusal {
		if len(all) == most {
			return invalid(fmt.Sprintf("use at most %d", most), "the list is too long").At(at)
		}
		v, err := value(d, raw)
		if err != nil {
			return malformed(at)
		}
		all = append(all, v)
		return nil
	})
	return all, r
}

// fits checks the members' names: all of must, and apart from that only may.
func (o *object) fits(what, must, may string) *reason.Refusal {
	for i := range o.members {
		if name := o.members[i].name; !word(must, name) && !word(may, name) {
			return reason.New(reason.FieldUnknown, "it has "+strings.Join(strings.Fields(must+" "+may), ", "), "%s has no such field", what).At(o.at + clip(name))
		}
	}
	for name := range strings.FieldsSeq(must) {
		if o.find(name) == nil {
			return reason.New(reason.FieldMissing, "add it; see docs/formats.md", "%s needs this field", what).At(o.at + name)
		}
	}
	return nil
}

// word says whether list, words with blanks between them, has the word.
func word(list, w string) bool {
	for len(list) > 0 {
		first, rest, _ := strings.Cut(list, " ")
		if first == w && w != "" {
			return true
		}
		list = rest
	}
	return false
}

// clip shortens what a stranger named, for a message.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}

func (o *object) find(name string) *member {
	for i := range o.members {
		if o.members[i].name == name {
			return &o.members[i]
		}
	}
	return nil
}

// str returns a member that is a string.
func (o *object) str(name string) (string, *reason.Refusal) {
	m := o.find(name)
	s, r := text(m.raw)
	if r != nil {
		return "", r.At(o.at + name)
	}
	return s, nil
}

// text reads a JSON string.
func text(raw jsontext.Value) (string, *reason.Refusal) {
	if raw.Kind() != '"' {
		hint := "write a string"
		if raw.Kind() == '0' {
			hint = "write the number as a string, in quotes"
		}
		return "", invalid(hint, "the value is not a string")
	}
	if in := raw[1 : len(raw)-1]; bytes.IndexByte(in, '\\') < 0 {
		return string(in), nil
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", invalid("write a string", "the value is not a string")
	}
	return string(b), nil
}

const numberForm = `write it in quotes, as decimal digits or as 0x and hexadecimal digits, without leading zeros`

// parseNumber reads a number of at most 256 bits.
func parseNumber(s string) (*big.Int, bool) {
	base, digits := 10, s
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		base, digits = 16, rest
	}
	if digits == "" || len(digits) > 78 || digits[0] == '0' && len(digits) > 1 {
		return nil, false
	}
	for i := range len(digits) {
		switch c := digits[i]; {
		case c >= '0' && c <= '9', base == 16 && (c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'):
		default:
			return nil, false
		}
	}
	n, ok := new(big.Int).SetString(digits, base)
	return n, ok && n.BitLen() <= 256
}

// num reads a number from low to high.
func (o *object) num(name string, low, high uint64) (uint64, *reason.Refusal) {
	n, r := o.big(name)
	if r != nil {
		return 0, r
	}
	if !n.IsUint64() || n.Uint64() < low || n.Uint64() > high {
		return 0, invalid(fmt.Sprintf("it must be from %d to %d", low, high), "the number is out of range").At(o.at + name)
	}
	return n.Uint64(), nil
}

// big reads a number of at most 256 bits.
func (o *object) big(name string) (*big.Int, *reason.Refusal) {
	s, r := o.str(name)
	if r != nil {
		return nil, r
	}
	n, ok := parseNumber(s)
	if !ok {
		return nil, invalid(numberForm+", below 2^256", "the value is not such a number").At(o.at + name)
	}
	return n, nil
}

// parseAddress reads 0x and 40 hexadecimal digits. If there are small and capital
// letters they must be those of EIP-55.
func parseAddress(s string) (a address, r *reason.Refusal) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok || len(digits) != 40 {
		return a, invalid("write 0x and 40 hexadecimal digits", "the value is not an address")
	}
	if _, err := hex.Decode(a[:], []byte(digits)); err != nil {
		return a, invalid("write 0x and 40 hexadecimal digits", "the value is not an address")
	}
	if strings.ToLower(digits) != digits && strings.ToUpper(digits) != digits && a.String() != s {
		return a, invalid("copy the address again; an address in small letters only has no checksum", "the address's checksum is wrong (EIP-55)")
	}
	return a, nil
}

func (o *object) address(name string) (a address, r *reason.Refusal) {
	s, r := o.str(name)
	if r == nil {
		if a, r = parseAddress(s); r != nil {
			r = r.At(o.at + name)
		}
	}
	return a, r
}

// parseBytes reads 0x and hexadecimal digits, two for each byte; length is how many
// there must be, -1 for any number.
func parseBytes(s string, length int) ([]byte, *reason.Refusal) {
	digits, ok := strings.CutPrefix(s, "0x")
	var b []byte
	if ok {
		var err error
		b, err = hex.DecodeString(digits)
		ok = err == nil && (length < 0 || len(b) == length)
	}
	if !ok {
		hint := "write 0x and hexadecimal digits, two for each byte"
		if length >= 0 {
			hint = fmt.Sprintf("write 0x and %d hexadecimal digits", 2*length)
		}
		return nil, invalid(hint, "the value is not of this form")
	}
	return b, nil
}

func (o *object) bytes(name string, length int) ([]byte, *reason.Refusal) {
	s, r := o.str(name)
	if r != nil {
		return nil, r
	}
	b, r := parseBytes(s, length)
	if r != nil {
		return nil, r.At(o.at + name)
	}
	return b, nil
}

// parse reads the "ethereum" object of a request. The refusal's Field is relative to
// it.
func parse(raw []byte) (*Tx, *reason.Refusal) {
	o, r := readObject("", raw)
	if r != nil {
		return nil, r
	}
	if o.find("operation") == nil {
		return nil, reason.New(reason.FieldMissing, "say "+operationNames, "it is not said what to sign").At("operation")
	}
	op, r := o.str("operation")
	if r != nil {
		return nil, r
	}
	shape, known := shapes[op]
	if !known {
		return nil, reason.New(reason.OperationUnknown, "use "+operationNames, "Ethereum has no such operation").At("operation")
	}
	if r := o.fits("an ethereum "+op, "operation "+shape.must, shape.may); r != nil {
		return nil, r
	}
	t := &Tx{op: op}
	if o.find("from") != nil {
		from, r := o.address("from")
		if r != nil {
			return nil, r
		}
		t.from = &from
	}
	switch op {
	case opAuthorization:
		return t, t.readAuthorization(o)
	case opMessage:
		return t, t.readMessage(o)
	case opTypedData:
		return t, t.readTyped(o)
	case opHash:
		t.signed, r = o.bytes("hash", 32)
		return t, r
	}
	return t, t.readTransaction(o)
}

// readTransaction reads all four kinds of transactions.
func (t *Tx) readTransaction(o *object) (r *reason.Refusal) {
	if t.chain, r = o.num("chain_id", 1, maxChain); r != nil {
		return r
	}
	if t.nonce, r = o.num("nonce", 0, maxNonce); r != nil {
		return r
	}
	if t.value, r = o.big("value"); r != nil {
		return r
	}
	gas, r := o.num("gas_limit", minGas, 1<<64-1)
	if r != nil {
		return r
	}
	var data []byte
	if o.find("data") != nil {
		if data, r = o.bytes("data", -1); r != nil {
			return r
		}
	}
	if r := t.readTo(o, data); r != nil {
		return r
	}
	var price, tip *big.Int
	if t.op == opLegacy || t.op == opAccessList {
		price, r = o.big("gas_price")
	} else {
		price, r = o.big("max_fee_per_gas")
	}
	if r != nil {
		return r
	}
	if t.op == opFees || t.op == opSetCode {
		if tip, r = o.big("max_priority_fee_per_gas"); r != nil {
			return r
		}
		if tip.Cmp(price) > 0 {
			return invalid("give at most max_fee_per_gas", "it is more than max_fee_per_gas").At("max_priority_fee_per_gas")
		}
	}
	t.fee = new(big.Int).Mul(price, new(big.Int).SetUint64(gas))
	if new(big.Int).Add(t.fee, t.value).BitLen() > 256 {
		return invalid("check value, gas_limit and the price of gas", "together they are more than any account can have").At("gas_limit")
	}
	lists, authorizations, r := t.readLists(o)
	if r != nil {
		return r
	}

	// EIP-2930, EIP-1559, EIP-7702; a legacy transaction has no chain here.
	body := make([]byte, 0, 160+len(data)+len(lists))
	kind, typed := kinds[t.op]
	if typed {
		body = appendString(body, number(t.chain))
	}
	body = appendString(body, number(t.nonce))
	if tip != nil {
		body = appendString(body, tip.Bytes())
	}
	body = appendString(body, price.Bytes())
	body = appendString(body, number(gas))
	if t.to != nil {
		body = appendString(body, t.to[:])
	} else {
		body = appendString(body, nil)
	}
	body = appendString(body, t.value.Bytes())
	body = appendString(body, data)
	t.body = append(body, lists...)
	if len(t.body) > maxRaw-100 {
		return invalid(fmt.Sprintf("use at most %d bytes", maxRaw), "the transaction is too long").At("data")
	}
	signed := make([]byte, 0, len(t.body)+24)
	if typed {
		t.signed = appendList(append(signed, kind), t.body)
	} else {
		// EIP-155: the chain and two empty items stand where the signature will.
		body := append(make([]byte, 0, len(t.body)+12), t.body...)
		body = appendString(body, number(t.chain))
		body = append(body, 0x80, 0x80)
		t.signed = appendList(signed, body)
	}
	t.pays = t.payees(data, authorizations)
	return nil
}

// readTo reads who is called. That a contract is created has to be said, so that no
// address is forgotten.
func (t *Tx) readTo(o *object, data []byte) *reason.Refusal {
	create := o.find("create")
	switch {
	case create != nil && create.kind != 't':
		return invalid("write true, without quotes, or leave it out", "the value is not true").At("create")
	case create != nil && o.find("to") != nil:
		return invalid("leave one of the two out", "a transaction to an address creates no contract").At("create")
	case create != nil && len(data) == 0:
		return invalid("give the contract's code", "a contract is created of its code").At("data")
	case create != nil:
		return nil
	case o.find("to") == nil:
		return reason.New(reason.FieldMissing, `say whom it is to; to create a contract say "create": true`, "the transaction has no payee").At("to")
	}
	to, r := o.address("to")
	if r != nil {
		return r
	}
	t.to = &to
	return nil
}

// payees is a digest of what a transaction does: whom it pays or calls, with what. Fees,
// the access list and the kind of the transaction have no part in it.
func (t *Tx) payees(data, authorizations []byte) [32]byte {
	b := make([]byte, 0, 160+len(data))
	if t.to != nil {
		b = append(b, "signdrop ethereum pays\x00"...)
		b = append(append(b, t.to[:]...), 0)
	} else {
		// Words of its own, so that no code can be read as an address and what follows.
		b = append(b, "signdrop ethereum creates\x00"...)
	}
	b = appendString(b, t.value.Bytes())
	b = appendString(b, data)
	b = append(b, authorizations...)
	return sha256.Sum256(b)
}

// maxEntries bounds an access list, its keys and a list of authorizations: more would
// not fit into a transaction.
const maxEntries = maxRaw / 32

// readLists reads access list and authorizations, and returns them encoded, both, and
// the latter alone.
func (t *Tx) readLists(o *object) (both, authorizations []byte, r *reason.Refusal) {
	if t.op == opLegacy {
		return nil, nil, nil
	}
	var access []byte
	if m := o.find("access_list"); m != nil {
		if access, r = readAccessList(m.raw); r != nil {
			return nil, nil, r
		}
	}
	both = appendList(nil, access)
	if t.op == opSetCode {
		if authorizations, r = readAuthorizations(o.find("authorization_list").raw); r != nil {
			return nil, nil, r
		}
		authorizations = appendList(nil, authorizations)
		both = append(both, authorizations...)
	}
	return both, authorizations, nil
}

func readAccessList(raw jsontext.Value) (out []byte, r *reason.Refusal) {
	entries, r := readArray("access_list", raw, maxEntries)
	if r != nil {
		return nil, r
	}
	for i, entry := range entries {
		o, r := readObject("access_list["+strconv.Itoa(i)+"].", entry)
		if r != nil {
			return nil, r
		}
		if r := o.fits("an entry of the access list", "address storage_keys", ""); r != nil {
			return nil, r
		}
		a, r := o.address("address")
		if r != nil {
			return nil, r
		}
		at := o.at + "storage_keys"
		keys, r := readArray(at, o.find("storage_keys").raw, maxEntries)
		if r != nil {
			return nil, r
		}
		var list []byte
		for j, key := range keys {
			s, r := text(key)
			var k []byte
			if r == nil {
				k, r = parseBytes(s, 32)
			}
			if r != nil {
				return nil, r.At(at + "[" + strconv.Itoa(j) + "]")
			}
			list = appendString(list, k)
		}
		out = appendList(out, appendList(appendString(nil, a[:]), list))
	}
	return out, nil
}

// readAuthorizations reads authorizations that are signed already, which may be for any
// chain and of any account.
func readAuthorizations(raw jsontext.Value) (out []byte, r *reason.Refusal) {
	entries, r := readArray("authorization_list", raw, maxEntries)
	if r != nil {
		return nil, r
	}
	if len(entries) == 0 {
		return nil, invalid("give at least one, or use eip1559", "the list is empty").At("authorization_list")
	}
	for i, entry := range entries {
		o, r := readObject("authorization_list["+strconv.Itoa(i)+"].", entry)
		if r != nil {
			return nil, r
		}
		if r := o.fits("an authorization", "chain_id address nonce y_parity r s", ""); r != nil {
			return nil, r
		}
		chain, r := o.num("chain_id", 0, maxChain)
		if r != nil {
			return nil, r
		}
		a, r := o.address("address")
		if r != nil {
			return nil, r
		}
		nonce, r := o.num("nonce", 0, maxNonce)
		if r != nil {
			return nil, r
		}
		parity, r := o.num("y_parity", 0, 1)
		if r != nil {
			return nil, r
		}
		body := authorizationBody(chain, a, nonce)
		body = appendString(body, number(parity))
		for _, name := range []string{"r", "s"} {
			n, r := o.bytes(name, 32)
			if r != nil {
				return nil, r
			}
			if n = shorten(n); len(n) == 0 || name == "s" && new(big.Int).SetBytes(n).Cmp(halfOrder) > 0 || new(big.Int).SetBytes(n).Cmp(order) >= 0 {
				return nil, invalid("copy the signature of the authorization", "no signature has this value").At(o.at + name)
			}
			body = appendString(body, n)
		}
		out = appendList(out, body)
	}
	return out, nil
}

// authorizationBody is what is signed of an authorization, encoded, without the list's
// head.
func authorizationBody(chain uint64, a address, nonce uint64) []byte {
	body := appendString(make([]byte, 0, 64), number(chain))
	body = appendString(body, a[:])
	return appendString(body, number(nonce))
}

// order is the number of points of secp256k1 (SEC 2, section 2.4.1). Ethereum takes an
// s of at most half of it (EIP-2).
var (
	order, _  = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	halfOrder = new(big.Int).Rsh(order, 1)
)

// readAuthorization reads an authorization to sign: the account's code becomes that at
// an address.
func (t *Tx) readAuthorization(o *object) (r *reason.Refusal) {
	// Chain 0 is every chain. Rules say whether that may be.
	if t.chain, r = o.num("chain_id", 0, maxChain); r != nil {
		return r
	}
	if t.nonce, r = o.num("nonce", 0, maxNonce); r != nil {
		return r
	}
	to, r := o.address("address")
	if r != nil {
		return r
	}
	t.to = &to
	t.body = authorizationBody(t.chain, to, t.nonce)
	t.signed = appendList([]byte{magic}, t.body)
	t.pays = sha256.Sum256(append([]byte("signdrop ethereum authorizes\x00"), to[:]...))
	return nil
}

// readMessage reads a message that a person signs (EIP-191, version E).
func (t *Tx) readMessage(o *object) (r *reason.Refusal) {
	hasText, hasBytes := o.find("text") != nil, o.find("bytes") != nil
	switch {
	case hasText && hasBytes:
		return invalid("leave one of the two out", "text and bytes cannot be in one message").At("bytes")
	case !hasText && !hasBytes:
		return reason.New(reason.FieldMissing, "give the message as text, or as bytes", "there is no message").At("text")
	case hasText:
		s, r := o.str("text")
		if r != nil {
			return r
		}
		t.message, t.text = []byte(s), true
	default:
		if t.message, r = o.bytes("bytes", -1); r != nil {
			return r
		}
	}
	if len(t.message) == 0 {
		return invalid("give at least one byte", "the message is empty").At(map[bool]string{true: "text", false: "bytes"}[hasText])
	}
	if len(t.message) > maxText {
		return invalid(fmt.Sprintf("use at most %d bytes", maxText), "the message is too long").At(map[bool]string{true: "text", false: "bytes"}[hasText])
	}
	t.signed = appendMessage(nil, t.message)
	return nil
}

func appendMessage(dst, message []byte) []byte {
	dst = append(dst, "\x19Ethereum Signed Message:\n"...)
	dst = strconv.AppendInt(dst, int64(len(message)), 10)
	return append(dst, message...)
}
