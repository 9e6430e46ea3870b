// Package metacoin knows one ledger: it parses a transaction strictly, gives
// the exact text to sign, and says what the signature does and does not mean.
// It knows no files, no keys and no clock, and asks no network.
//
// A request states a transaction as one JSON object:
//
//	{"operation": "transfer", "from": "MT…", "to": "MT…", "token": "0",
//	 "amount": "100000000", "nonce": "…"}
//
// Each value is a JSON string; numbers are digits in quotes. Only inside a few
// lists (a vote's answers, the dates of an mrc401_auction) does the chaincode
// want JSON numbers. Four rules hold for all operations:
//
//   - The one-time key is called nonce, whatever the ledger calls it.
//   - A value is signed without its outer blanks, as the chaincode trims them:
//     everything that unicode.IsSpace knows. What a value is made of apart from
//     that is never changed, only refused.
//   - A value that the ledger reads as JSON (transferlist, itemdata, …) is a
//     string with that JSON, signed byte for byte, or the array or object
//     itself, signed without the blanks between its tokens. Its inner strings
//     are not trimmed.
//   - "ledger" is "mainnet" or "testnet". Some operations have another text or
//     other fields on each, and must say which; the others may.
//
// The signed text is the values joined with |: no prefix, no escaping, no name
// of the operation. So | is refused in every value, and AlsoMeans lists what
// else the same text can be used for.
//
// Parse gives the same Tx for the same request at any time.
package metacoin

import (
	"strings"
)

// Tx is a transaction that Parse has accepted. It does not change.
type Tx struct {
	op     *operation
	values [maxFields]string // by field of op, "" for absent
	rows   rows              // of the field op.list
	text   string
}

// Operation returns the operation's name: "transfer".
func (t *Tx) Operation() string { return t.op.name }

// Text returns the exact text to sign, as UTF-8.
func (t *Tx) Text() string { return t.text }

// Signer returns the Metacoin address whose key must sign, or "" where only
// the ledger's state knows it.
func (t *Tx) Signer() string { return t.value(t.op.signer) }

// Nonce returns the one-time key, or "" for an operation without one.
func (t *Tx) Nonce() string { return t.value("nonce") }

// NotCovered lists what the signature does not hold and who submits the call
// may choose: fields by their names in a request, whether or not this one has
// them, then what only the ledger's state says, in words. The caller must not
// change it.
func (t *Tx) NotCovered() []string { return t.op.notCovered }

// AlsoMeans lists the other operations that Text can be used for with the same
// signature. Whether the ledger's state lets one through is another matter.
// The caller must not change it.
func (t *Tx) AlsoMeans() []string {
	if t.rows.len() == 1 && t.op.alsoOne != nil {
		return t.op.alsoOne
	}
	return t.op.also
}

// value returns a field's value, "" for one that is absent or unknown.
func (t *Tx) value(name string) string {
	if i := t.op.find(name); i >= 0 {
		return t.values[i]
	}
	return ""
}

// column finds a member of the list field's entries.
func (t *Tx) column(list, member string) int {
	return t.op.fields[t.op.find(list)].kind.shape.column(member)
}

// join makes the signed text out of the values.
func (t *Tx) join() string {
	if t.op.join != nil {
		return t.joinEntries()
	}
	n := len(t.op.signed) - 1
	for _, i := range t.op.signed {
		n += len(t.values[i])
	}
	var b strings.Builder
	b.Grow(n)
	for at, i := range t.op.signed {
		if at > 0 {
			b.WriteByte('|')
		}
		b.WriteString(t.values[i])
	}
	return b.String()
}

// joinEntries is join for a list that is signed entry by entry.
func (t *Tx) joinEntries() string {
	var parts []string
	for _, i := range t.op.signed {
		if t.op.fields[i].name != t.op.list {
			parts = append(parts, t.values[i])
			continue
		}
		for row := range t.rows.len() {
			for _, member := range t.op.join {
				parts = append(parts, t.rows.at(row, t.column(t.op.list, member)))
			}
		}
	}
	return strings.Join(parts, "|")
}
