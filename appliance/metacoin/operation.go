package metacoin

import (
	"slices"
	"strings"

	"signdrop/appliance/reason"
)

// The two codes that the ledger runs. A request names one in its field
// "ledger" where their texts or fields differ.
const (
	mainnet = "mainnet"
	testnet = "testnet"
)

// operation is one row of the table: what the ledger lets a wallet sign, as a
// request states it, as it is signed and as the node takes it.
//
// The rows follow the published sources: chaincode 0e78fc1 (mainnet) and
// 569b17e (testnet), node ce1ac97, bridge bab9ecd and faf3572.
type operation struct {
	name     string
	standard string // the ledger's own name for the family: "MRC010"
	ledger   string // the code that this row is for; "" for both
	dead     string // why no request for it is signed; then nothing else is set

	method string // of the node's route; "" where neither node nor bridge has one
	path   string // with {field} or {name of the one-time key} for what goes into it
	broken string // why the published code cannot carry the call through, for the user

	// nonce is what the node calls the one-time key, which a request always
	// calls "nonce"; "" for an operation without one.
	nonce     string
	signature string // the form's name for our signature, where it is not "signature"

	signer string // the field that holds the signing address, or "state:…"
	text   string // the signed text: fields joined with |, as the ledger joins their values
	fields []field

	// join names the members of the list whose values the text has, entry by
	// entry, in place of the list's JSON.
	join []string

	also    []string // other operations that this text can be used for
	alsoOne []string // the same, when the list has a single entry
	unbound []string // what the signature does not hold, besides the unsigned fields
	check   check
	form    func(t *Tx, signature string) []Field // where the form is not just the fields
	fixed   []Field                               // what the node demands in the form and the ledger ignores
	note    string                                // for the user

	// What compile derives from the above.
	signed     []int    // fields in the order of the text
	list       string   // the JSON field whose rows Tx keeps
	route      []string // path in pieces: text, field, text, …
	notCovered []string
}

// field is one field of a request.
type field struct {
	name string
	kind kind
	use  use
	node string // the form's name for it, where that is another; "-" for none
}

// use says when a field is there.
type use uint8

const (
	required use = iota
	optional
	// sent is optional in a request, but in the form always, empty if need be:
	// the node demands it, or it is signed and the form then shows it.
	sent
	// awaited comes from the other signer of the call and may not be known yet.
	awaited
)

func req(name string, k kind) field  { return field{name: name, kind: k} }
func opt(name string, k kind) field  { return field{name: name, kind: k, use: optional} }
func send(name string, k kind) field { return field{name: name, kind: k, use: sent} }
func wait(name string, k kind) field { return field{name: name, kind: k, use: awaited} }

// A check looks at several values together. It is called when each is of its
// kind.
type check func(*Tx) *reason.Refusal

// maxFields bounds a transaction's fields, the nonce included, so that a Tx
// can hold its values without a further allocation.
const maxFields = 17

// forms are the rows of one operation name.
type forms struct {
	both, mainnet, testnet *operation
}

// operations finds the rows by name.
var operations = compileAll(table)

func compileAll(table []operation) map[string]forms {
	byName := make(map[string]forms, len(table))
	for i := range table {
		op := &table[i]
		op.compile()
		f := byName[op.name]
		switch op.ledger {
		case mainnet:
			f.mainnet = op
		case testnet:
			f.testnet = op
		default:
			f.both = op
		}
		byName[op.name] = f
	}
	return byName
}

// compile fills in what follows from a row. It panics on a row that
// contradicts itself, which any test would show.
func (op *operation) compile() {
	if op.dead != "" {
		return
	}
	if op.nonce != "" {
		op.fields = append(slices.Clip(op.fields), field{name: "nonce", kind: oneTimeKey, node: op.nonce})
	}
	if len(op.fields) > maxFields {
		panic("internal error: metacoin: " + op.name + " has too many fields")
	}
	for name := range strings.SplitSeq(op.text, "|") {
		i := op.find(name)
		if i < 0 {
			panic("internal error: metacoin: " + op.name + " signs an unknown field " + name)
		}
		op.signed = append(op.signed, i)
	}
	for i := range op.fields {
		f := &op.fields[i]
		signed := slices.Contains(op.signed, i)
		if signed && f.use == optional {
			f.use = sent
		}
		if !signed && !f.kind.signature {
			op.notCovered = append(op.notCovered, f.name)
		}
		if f.kind.shape != nil && (f.kind.shape.elem != nil || f.kind.shape.members != nil) && op.list == "" {
			op.list = f.name
		}
	}
	op.notCovered = slices.Concat(op.notCovered, op.unbound)
	op.compileRoute()
}

// compileRoute splits the path at its braces and takes the fields in it out of
// the form.
func (op *operation) compileRoute() {
	rest := op.path
	for rest != "" {
		before, after, found := strings.Cut(rest, "{")
		op.route = append(op.route, before)
		if !found {
			return
		}
		name, after, _ := strings.Cut(after, "}")
		i := slices.IndexFunc(op.fields, func(f field) bool { return f.name == name || f.node == name })
		if i < 0 {
			panic("internal error: metacoin: " + op.name + " has no field for its path")
		}
		op.route = append(op.route, op.fields[i].name)
		if op.fields[i].node != pathToo {
			op.fields[i].node = "-"
		}
		rest = after
	}
}

// pathToo is the node's name, in paths only, for the one field that is in the
// path and in the form.
const pathToo = "mrc030key"

// find returns the index of a field, -1 for none.
func (op *operation) find(name string) int {
	for i := range op.fields {
		if op.fields[i].name == name {
			return i
		}
	}
	return -1
}
