// Package ethereum knows Ethereum and the chains that are like it: it parses what is
// to be signed strictly, gives the exact bytes and digest, and writes the raw
// transaction. It knows no files, no private keys and no clock, and asks no network:
// nonce, fees and chain are the asker's to know.
//
// A request states it as one JSON object:
//
//	{"operation": "eip1559", "chain_id": "1", "nonce": "9", "to": "0x…",
//	 "value": "1000000000000000000", "gas_limit": "21000",
//	 "max_fee_per_gas": "30000000000", "max_priority_fee_per_gas": "1000000000"}
//
// Every number is a JSON string, in decimal or as 0x and hexadecimal digits, without
// leading zeros. Amounts are in wei.
//
// Sources: EIP-155 (replay protection), EIP-191 (messages), EIP-712 (typed data),
// EIP-2718 and EIP-2930 (typed transactions, access lists), EIP-1559 (fees), EIP-7702
// (delegation), EIP-55 (addresses), EIP-2681 (nonces), EIP-2 (low s).
package ethereum

import (
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// Ledger is Ethereum, as the appliance knows it.
var Ledger = ledger.Ledger{
	Name: "ethereum",
	Parse: func(raw []byte) (ledger.Tx, error) {
		t, r := parse(raw)
		if r != nil {
			return nil, r
		}
		return t, nil
	},
	Rules: parseRules,
	Addresses: func(w ledger.Wallet) []ledger.Address {
		point := w.Point()
		if point == nil {
			return nil
		}
		return []ledger.Address{{Name: "ethereum", Value: addressOf(point).String()}}
	},
	Explain: explain,
	Preview: preview,
}

// The operations.
const (
	opLegacy        = "legacy"
	opAccessList    = "eip2930"
	opFees          = "eip1559"
	opSetCode       = "eip7702"
	opAuthorization = "authorization"
	opMessage       = "message"
	opTypedData     = "typed_data"
	opHash          = "hash"
)

// kinds are the numbers of the typed transactions (EIP-2718).
var kinds = map[string]byte{opAccessList: 1, opFees: 2, opSetCode: 4}

// magic begins the signed bytes of an authorization (EIP-7702).
const magic = 0x05

// Tx is a transaction, an authorization, a message, typed data or a hash that Parse
// has accepted.
type Tx struct {
	op   string
	from *address // as the request says, nil if it does not

	signed []byte // what is hashed and signed; of opHash the hash itself

	// Of transactions and authorizations.
	chain uint64 // of typed data too, 0 where it names none
	nonce uint64
	to    *address // nil where a contract is created
	value *big.Int
	fee   *big.Int // the most that it can cost, in wei, beside the value
	body  []byte   // the items of the list that is signed, encoded, without what EIP-155 adds
	pays  [32]byte

	message []byte // of opMessage
	text    bool   // it came as text
	typed   *typed // of opTypedData
}

// Ledger returns "ethereum".
func (t *Tx) Ledger() string { return "ethereum" }

// Operation returns the operation's name: "eip1559".
func (t *Tx) Operation() string { return t.op }

// Payload returns the bytes whose Keccak-256 is signed, or of a hash itself, as 0x and
// hexadecimal digits.
func (t *Tx) Payload() string { return hex0x(t.signed) }

// transaction says whether t is one, which a node takes.
func (t *Tx) transaction() bool { return t.value != nil }

func (t *Tx) digest() [32]byte {
	if t.op == opHash {
		return [32]byte(t.signed)
	}
	return keccak(t.signed)
}

// algorithm names what is done.
func algorithm(op string) string {
	if op == opHash {
		return "ecdsa-recoverable-secp256k1"
	}
	return "ecdsa-recoverable-secp256k1-keccak256"
}

// Signings returns the one signature that there is.
func (t *Tx) Signings(ws []ledger.Wallet) ([]ledger.Signing, error) {
	point := ws[0].Point()
	if point == nil {
		return nil, reason.New(reason.CurveUnsuitable, "use a wallet on secp256k1", "Ethereum takes keys on secp256k1 only").At("wallet")
	}
	if t.from != nil && *t.from != addressOf(point) {
		return nil, reason.New(reason.AddressMismatch, "name the wallet that has the address, or leave from out",
			"from is another address than the wallet's").At("ethereum.from")
	}
	digest := t.digest()
	s := ledger.Signing{
		Text: sha256.Sum256(t.signed), Digest: digest[:],
		Scheme: ledger.ECDSARecoverable, Algorithm: algorithm(t.op),
	}
	if t.body != nil {
		s.Use = ledger.Use{
			Key: strconv.FormatUint(t.chain, 10) + ":" + strconv.FormatUint(t.nonce, 10), Pays: t.pays,
			Field: "ethereum.nonce", Name: "nonce", Hint: "fetch the wallet's present nonce",
		}
	}
	return []ledger.Signing{s}, nil
}

// own is what the answer says in its member "ethereum".
type own struct {
	ChainID  string `json:"chain_id,omitempty"`
	From     string `json:"from"` // who signs, EIP-55
	Nonce    string `json:"nonce,omitempty"`
	To       string `json:"to,omitempty"`       // who is paid or called, or whose code an authorization sets
	Contract string `json:"contract,omitempty"` // that is created
	Value    string `json:"value,omitempty"`    // wei
	MaxFee   string `json:"max_fee,omitempty"`  // wei that it can cost beside the value
	Hash     string `json:"hash"`               // of a transaction its own, else what was signed
	Raw      string `json:"raw,omitempty"`      // the signed transaction, as nodes take it
	R        string `json:"r"`                  // 32 bytes
	S        string `json:"s"`                  // 32 bytes
	V        string `json:"v"`
	YParity  string `json:"y_parity"`

	Signature string         `json:"signature,omitempty"` // r || s || v, as wallets return it
	Text      *string        `json:"text,omitempty"`      // of a message that came as text
	Typed     jsontext.Value `json:"typed_data,omitempty"`
}

// Answer says who signed and who is paid what, and gives the transaction as a node
// takes it.
func (t *Tx) Answer(a *answer.Signed, ws []ledger.Wallet, sigs []string) {
	a.Signature = sigs[0]
	sig, err := base64.StdEncoding.DecodeString(sigs[0])
	if err != nil || len(sig) != 65 {
		panic("internal error: a signature is not r || s || v")
	}
	from := addressOf(ws[0].Point())
	a.Address = from.String()
	r, s, parity := sig[:32], sig[32:64], sig[64]
	o := own{
		From: a.Address, R: hex0x(r), S: hex0x(s), YParity: strconv.Itoa(int(parity)), V: t.v(parity),
	}
	digest := t.digest()
	if t.chain != 0 {
		o.ChainID = strconv.FormatUint(t.chain, 10)
	}
	if t.body != nil {
		o.Nonce = strconv.FormatUint(t.nonce, 10)
		if t.to != nil {
			o.To = t.to.String()
		} else {
			o.Contract = created(from, t.nonce).String()
		}
	}
	switch {
	case t.transaction():
		raw := t.raw(r, s, parity)
		digest = keccak(raw)
		o.Raw, o.Value, o.MaxFee = hex0x(raw), t.value.String(), t.fee.String()
	case t.op == opAuthorization:
		o.ChainID = strconv.FormatUint(t.chain, 10) // also 0
	default:
		o.Signature = hex0x(append(append(make([]byte, 0, 65), sig[:64]...), 27+parity))
	}
	o.Hash = hex0x(digest[:])
	if t.text {
		text := string(t.message)
		o.Text = &text
	}
	if t.typed != nil {
		o.Typed = t.typed.raw
	}
	a.Own = o.append(make([]byte, 0, 1024+len(o.Raw)))
}

// v is how the parity of the signature is written in each kind.
func (t *Tx) v(parity byte) string {
	switch t.op {
	case opLegacy: // EIP-155; the chain is at most maxChain
		return strconv.FormatUint(t.chain*2+35+uint64(parity), 10)
	case opMessage, opTypedData, opHash:
		return strconv.Itoa(27 + int(parity))
	}
	return strconv.Itoa(int(parity))
}

// raw is the signed transaction as it goes to a node.
func (t *Tx) raw(r, s []byte, parity byte) []byte {
	body := make([]byte, 0, len(t.body)+80)
	body = append(body, t.body...)
	v := uint64(parity)
	kind, typed := kinds[t.op]
	if !typed {
		v += t.chain*2 + 35
	}
	body = appendString(body, number(v))
	body = appendString(body, shorten(r))
	body = appendString(body, shorten(s))
	out := make([]byte, 0, len(body)+8)
	if typed {
		out = append(out, kind)
	}
	return appendList(out, body)
}

// append appends the object as JSON. But for a message's text and typed data, no value
// needs an escape.
func (o *own) append(dst []byte) []byte {
	dst = append(dst, '{')
	for _, m := range [...]struct{ name, value string }{
		{"chain_id", o.ChainID}, {"from", o.From}, {"nonce", o.Nonce}, {"to", o.To}, {"contract", o.Contract},
		{"value", o.Value}, {"max_fee", o.MaxFee}, {"hash", o.Hash}, {"raw", o.Raw},
		{"r", o.R}, {"s", o.S}, {"v", o.V}, {"y_parity", o.YParity}, {"signature", o.Signature},
	} {
		if m.value == "" {
			continue
		}
		dst = append(dst, '"')
		dst = append(dst, m.name...)
		dst = append(dst, `":"`...)
		dst = append(dst, m.value...)
		dst = append(dst, `",`...)
	}
	if o.Text != nil {
		dst = append(dst, `"text":`...)
		dst, _ = jsontext.AppendQuote(dst, *o.Text)
		dst = append(dst, ',')
	}
	if o.Typed != nil {
		dst = append(dst, `"typed_data":`...)
		dst = append(dst, o.Typed...)
		dst = append(dst, ',')
	}
	dst[len(dst)-1] = '}' // from is always there
	return dst
}
