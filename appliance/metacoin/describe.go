package metacoin

import (
	"slices"
	"strings"
)

// Operation describes one operation for documentation, help and a tool that
// makes requests. An operation that differs between the ledgers is there once
// for each.
type Operation struct {
	Name     string
	Standard string // "MTC", "MRC010", …
	Ledger   string // "mainnet" or "testnet" for that ledger alone, "" for both

	// Dispatched says whether the chaincode carries it out at all. If not, a
	// request for it is refused, Note says why, and the rest is empty.
	Dispatched bool

	Signer     string // the field with the signing address, or "state:…" where the ledger knows it
	Nonce      string // what the node calls the one-time key, "" for an operation without one
	Text       string // the fields in the signed text, joined with |
	Fields     []OperationField
	NotCovered []string // as Tx.NotCovered
	AlsoMeans  []string // as Tx.AlsoMeans, at the most

	Method, Path string // of the node's route; "" where there is none
	Signature    string // what the node calls the signature in the form
	// Broken says why the published node, bridge or chaincode cannot carry the
	// call through, "" if they can. Such a request is signed all the same: the
	// chaincode dispatches it, and it is not for a signer to know what the
	// operator of a node has mended since.
	Broken string
	Note   string // what its user should know
}

// OperationField is one field of a request.
type OperationField struct {
	Name     string
	Required bool
	Kind     string // "address", "amount", "json array", …
	Limits   string // completes "it must be …"
	Signed   bool
}

// Operations describes every operation in the order of the table.
func Operations() []Operation {
	out := make([]Operation, 0, len(table))
	for i := range table {
		out = append(out, table[i].describe())
	}
	return out
}

func (op *operation) describe() Operation {
	if op.dead != "" {
		return Operation{Name: op.name, Standard: op.standard, Note: op.dead}
	}
	d := Operation{
		Name: op.name, Standard: op.standard, Ledger: op.ledger, Dispatched: true,
		Signer: op.signer, Nonce: op.nonce, Text: op.text,
		NotCovered: slices.Clone(op.notCovered), AlsoMeans: slices.Concat(op.also, op.alsoOne),
		Method: op.method, Path: op.path, Signature: op.signatureName(), Broken: op.broken, Note: op.note,
	}
	if op.join != nil {
		entry := op.list + "[]."
		d.Text = strings.Replace(op.text, op.list, entry+strings.Join(op.join, "|"+entry), 1)
	}
	for i, f := range op.fields {
		d.Fields = append(d.Fields, OperationField{
			Name: f.name, Required: f.use == required, Kind: f.kind.name, Limits: f.kind.must,
			Signed: slices.Contains(op.signed, i),
		})
	}
	return d
}

// fieldNames lists what a request for the operation can have.
func (op *operation) fieldNames() string {
	names := make([]string, len(op.fields))
	for i, f := range op.fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}
