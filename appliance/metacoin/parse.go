package metacoin

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// rawField is a member of a request as it was read.
type rawField struct {
	name  string
	kind  jsontext.Kind
	value string // JSON text
}

// Parse checks the "metacoin" object of a request: raw is that one JSON object.
// It refuses anything that is not strict JSON (RFC 8259 and RFC 7493: a name
// given twice, invalid UTF-8), an unknown operation or field, and a value that
// node, bridge or chaincode would refuse, as far as that can be told without
// the ledger's state and a clock.
//
// The error is always a *reason.Refusal, whose Field is relative to the object
// ("amount", "transferlist[3].address"); it never holds a field's value. The Tx
// has nothing of raw's memory.
func Parse(raw []byte) (*Tx, error) {
	t, r := parse(string(raw), raw)
	if r != nil {
		return nil, r
	}
	return t, nil
}

// parse takes the request twice: raw for the decoder, and a copy as a string,
// out of which the values are cut.
func parse(request string, raw []byte) (*Tx, *reason.Refusal) {
	var space [maxFields + 2]rawField // with operation and ledger
	members, r := split(space[:0], request, raw)
	if r != nil {
		return nil, r
	}
	op, r := choose(members)
	if r != nil {
		return nil, r
	}
	t := &Tx{op: op}
	for i := range members {
		if r := t.set(&members[i]); r != nil {
			return nil, r
		}
	}
	for i := range op.fields {
		if r := t.checkField(i); r != nil {
			return nil, r
		}
	}
	if op.check != nil {
		if r := op.check(t); r != nil {
			return nil, r
		}
	}
	t.text = t.join()
	return t, nil
}

// split reads the object's members, without a look at what they mean.
func split(members []rawField, request string, raw []byte) ([]rawField, *reason.Refusal) {
	in := newReader(request, raw)
	defer in.done()

	if kind := in.PeekKind(); kind != '{' && kind != 0 {
		return nil, wrongKind(kind, "json object")
	}
	if _, err := in.ReadToken(); err != nil {
		return nil, malformed(err, in)
	}
	for in.PeekKind() != '}' {
		name, _, err := in.next()
		if err != nil {
			return nil, malformed(err, in)
		}
		value, kind, err := in.next()
		if err != nil {
			return nil, malformed(err, in)
		}
		members = append(members, rawField{unquote(name), kind, value})
	}
	if _, err := in.ReadToken(); err != nil {
		return nil, malformed(err, in)
	}
	if _, err := in.ReadToken(); err != io.EOF {
		return nil, reason.New(reason.RequestMalformed, "give one JSON object", "something follows the object")
	}
	return members, nil
}

// malformed is the refusal for a request that is not strict JSON. The
// decoder's own words are left out: they can quote the request.
func malformed(err error, in *reader) *reason.Refusal {
	at := in.InputOffset()
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		at = syntax.ByteOffset
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return reason.New(reason.RequestMalformed, "give each name once", "a name stands twice in an object, at byte %d", at)
	}
	return reason.New(reason.RequestMalformed, "check the syntax; text must be UTF-8", "not strict JSON at byte %d", at)
}

// choose finds the row for the operation and ledger that the request names.
func choose(members []rawField) (*operation, *reason.Refusal) {
	name, r := named(members, "operation")
	if r != nil {
		return nil, r
	}
	if name == "" {
		return nil, reason.New(reason.FieldMissing, `say what to do: "operation": "transfer"`, "missing").At("operation")
	}
	f, known := operations[name]
	if !known {
		return nil, reason.New(reason.OperationUnknown, closest(name), "the ledger has no such operation").At("operation")
	}
	ledger, r := named(members, "ledger")
	if r != nil {
		return nil, r
	}
	switch ledger {
	case "", mainnet, testnet:
	default:
		return nil, reason.New(reason.FieldInvalid, "say mainnet or testnet", "not one of the two ledgers").At("ledger")
	}
	switch {
	case f.both != nil && f.both.dead != "":
		return nil, reason.New(reason.OperationDead, "there is nothing to sign: no node could carry it out",
			"%s", f.both.dead).At("operation")
	case f.both != nil:
		return f.both, nil
	case ledger == "":
		return nil, reason.New(reason.FieldMissing,
			"say mainnet or testnet: the two run different code, and this operation has other fields or another text on each; "+
				"a node whose GET /mrc400/{a recent id} shows a partner runs the code called testnet here", "missing").At("ledger")
	case ledger == mainnet && f.mainnet == nil:
		return nil, reason.New(reason.OperationDead, "it exists on testnet only", "mainnet's chaincode does not dispatch it").At("operation")
	case ledger == mainnet:
		return f.mainnet, nil
	}
	return f.testnet, nil
}

// named returns a member that must be a string, as it stands; "" if absent.
func named(members []rawField, name string) (string, *reason.Refusal) {
	for i := range members {
		if members[i].name != name {
			continue
		}
		if members[i].kind != '"' {
			return "", wrongKind(members[i].kind, "json string").At(name)
		}
		v := unquote(members[i].value)
		if v == "" {
			return "", reason.New(reason.FieldInvalid, "fill it in", "empty").At(name)
		}
		return v, nil
	}
	return "", nil
}

// set takes a member over into the transaction.
func (t *Tx) set(m *rawField) *reason.Refusal {
	i := t.op.find(m.name)
	switch {
	case i >= 0:
	case m.name == "operation", m.name == "ledger":
		return nil
	default:
		return t.unknown(m.name)
	}
	f := &t.op.fields[i]
	if m.kind == '"' {
		t.values[i] = strings.TrimSpace(unquote(m.value))
	} else if f.kind.shape != nil && (m.kind == '[' || m.kind == '{') {
		t.values[i] = compact(m.value)
	} else {
		name := "json string"
		if f.kind.shape != nil {
			name = f.kind.shape.name()
		}
		return wrongKind(m.kind, name).At(f.name)
	}
	if t.values[i] == "" && f.use == required {
		return f.kind.explain("").At(f.name)
	}
	return nil
}

// unknown refuses a field that the operation does not have, with the likeliest
// cause.
func (t *Tx) unknown(name string) *reason.Refusal {
	hint := "it takes " + t.op.fieldNames()
	switch f := operations[t.op.name]; {
	case t.op.nonce != "" && (name == t.op.nonce || name == "tkey" || name == "checkkey"):
		hint = "the one-time key is called nonce in a request"
	case f.mainnet != nil && f.mainnet.find(name) >= 0:
		hint = "only mainnet has it; on testnet " + hint
	case f.testnet != nil && f.testnet.find(name) >= 0:
		hint = "only testnet has it; on mainnet " + hint
	}
	return reason.New(reason.FieldUnknown, hint, "%s has no such field", t.op.name).At(shown(name))
}

// checkField checks one value by itself.
func (t *Tx) checkField(i int) *reason.Refusal {
	f, v := &t.op.fields[i], t.values[i]
	switch {
	case v == "":
		if f.use == required {
			return reason.New(reason.FieldMissing, "it must be "+f.kind.must, "%s needs it", t.op.name).At(f.name)
		}
		return nil
	case !f.kind.is(v):
		return f.kind.explain(v).At(f.name)
	case f.kind.shape == nil:
		return nil
	}
	rows, r := f.kind.shape.read(v)
	if r != nil {
		if r.Field == "" {
			return r.At(f.name)
		}
		return within(r, f.name)
	}
	if f.name == t.op.list {
		t.rows = rows
	}
	return nil
}

// closest is the hint for an operation that does not exist.
func closest(name string) string {
	var near []string
	best := 4 // beyond that, nothing is alike
	for i := range table {
		op := &table[i]
		d := distance(name, op.name)
		if op.dead != "" || d > best || slices.Contains(near, op.name) {
			continue
		}
		if d < best {
			best, near = d, nil
		}
		near = append(near, op.name)
	}
	if len(near) == 0 {
		return "operations are named like transfer, token_burn, mrc402_sell"
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// distance is how many characters must be put in, left out or changed to make
// b of a, case aside. It stops counting for words that cannot be near.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
