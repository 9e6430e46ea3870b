package ethereum

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// Typed data (EIP-712), as eth_signTypedData_v4 takes it.

// Limits of typed data.
const (
	maxTypes  = 64
	maxFields = 64   // of a type
	maxDepth  = 16   // of structs and arrays inside each other
	maxItems  = 4096 // of an array
)

// typed is typed data that was accepted.
type typed struct {
	types  map[string]*structType
	domain [32]byte // hashStruct of the domain
	hash   [32]byte // hashStruct of the message
	raw    jsontext.Value

	of, ofDomain *structType
}

type structType struct {
	name   string
	fields []typedField
	text   string   // encodeType
	hash   [32]byte // typeHash
}

type typedField struct {
	name string
	text string // the type as it is written
	kind kind
}

// kind is a type that a field can have.
type kind struct {
	base string      // "bool", "address", "string", "bytes", "bytes4", "uint8", "int256", or a struct's name
	of   *structType // of a struct
	dims []int       // of arrays, the innermost first; -1: of any length
}

// domainFields are what a domain can have, in this order (EIP-712).
var domainFields = []struct{ name, kind string }{
	{"name", "string"}, {"version", "string"}, {"chainId", "uint256"}, {"verifyingContract", "address"}, {"salt", "bytes32"},
}

const domainType = "EIP712Domain"

func (t *Tx) readTyped(outer *object) *reason.Refusal {
	raw := outer.find("typed_data").raw
	if len(raw) > maxText {
		return invalid(fmt.Sprintf("use at most %d bytes", maxText), "the typed data are too long").At("typed_data")
	}
	o, r := readObject("typed_data.", raw)
	if r != nil {
		return r
	}
	if r := o.fits("typed data", "types primaryType domain message", ""); r != nil {
		return r
	}
	td := &typed{types: map[string]*structType{}}
	if r := td.readTypes(o.find("types").raw); r != nil {
		return r
	}
	primary, r := o.str("primaryType")
	if r != nil {
		return r
	}
	of := td.types[primary]
	td.of = of
	if of == nil || primary == domainType {
		return invalid("name one of types", "there is no such type to sign").At("typed_data.primaryType")
	}
	if r := td.readDomain(t, o.find("domain").raw); r != nil {
		return r
	}
	for _, name := range td.names() {
		if name != domainType && name != primary && !slices.Contains(td.used(of), name) {
			return invalid("leave it out", "nothing that is signed has this type").At("typed_data.types." + name)
		}
	}
	if td.hash, r = td.hashStruct(of, "typed_data.message", o.find("message").raw, 0); r != nil {
		return r
	}
	td.raw = slices.Clone(raw)
	if err := td.raw.Compact(); err != nil {
		return invalid("check the file with a JSON tool", "this is not JSON").At("typed_data")
	}
	t.typed = td
	t.signed = slices.Concat([]byte{0x19, 0x01}, td.domain[:], td.hash[:])
	return nil
}

func (td *typed) names() []string {
	names := make([]string, 0, len(td.types))
	for name := range td.types {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// readTypes reads all types and resolves what they refer to.
func (td *typed) readTypes(raw jsontext.Value) *reason.Refusal {
	const at = "typed_data.types"
	o, r := readObject(at+".", raw)
	if r != nil {
		return r
	}
	if len(o.members) > maxTypes {
		return invalid(fmt.Sprintf("use at most %d types", maxTypes), "there are too many types").At(at)
	}
	for i := range o.members {
		m := &o.members[i]
		if !identifier(m.name) || reserved(m.name) {
			return invalid("use letters, digits, _ and $, and no name of Solidity's own types", "no type can have this name").At(o.at + clip(m.name))
		}
		td.types[m.name] = &structType{name: m.name}
	}
	for i := range o.members {
		m := &o.members[i]
		st := td.types[m.name]
		place := o.at + m.name
		list, r := readArray(place, m.raw, maxFields)
		if r != nil {
			return r
		}
		for j, v := range list {
			f, r := readObject(place+"["+strconv.Itoa(j)+"].", v)
			if r != nil {
				return r
			}
			if r := f.fits("a type's field", "name type", ""); r != nil {
				return r
			}
			name, r := f.str("name")
			if r != nil {
				return r
			}
			if !identifier(name) || slices.ContainsFunc(st.fields, func(o typedField) bool { return o.name == name }) {
				return invalid("use letters, digits, _ and $, and each name once", "no field can have this name").At(f.at + "name")
			}
			text, r := f.str("type")
			if r != nil {
				return r
			}
			k, ok := td.kind(text)
			if !ok {
				return invalid("use a type of types, or one of Solidity's own, such as uint256", "there is no such type").At(f.at + "type")
			}
			st.fields = append(st.fields, typedField{name, text, k})
		}
	}
	for _, name := range td.names() {
		st := td.types[name]
		st.text = st.encode()
		for _, other := range td.used(st) {
			if other == st.name {
				// EIP-712 lets it be, and some wallets do not.
				return invalid("let no type hold itself", "the type refers to itself").At(o.at + name)
			}
			st.text += td.types[other].encode()
		}
		st.hash = keccak([]byte(st.text))
	}
	return nil
}

// encode writes the type without those it refers to: "Mail(Person from,string text)".
func (st *structType) encode() string {
	var b strings.Builder
	b.WriteString(st.name + "(")
	for i, f := range st.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(f.text + " " + f.name)
	}
	b.WriteByte(')')
	return b.String()
}

// used names the structs that a type refers to, itself among them if it does, sorted.
func (td *typed) used(st *structType) []string {
	seen := map[string]bool{}
	var walk func(*structType)
	walk = func(st *structType) {
		for _, f := range st.fields {
			if f.kind.of != nil && !seen[f.kind.of.name] {
				seen[f.kind.of.name] = true
				walk(f.kind.of)
			}
		}
	}
	walk(st)
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// kind reads a type as it is written: "uint256", "Person[2][]".
func (td *typed) kind(text string) (k kind, ok bool) {
	base := text
	for strings.HasSuffix(base, "]") {
		open := strings.LastIndexByte(base, '[')
		if open < 0 || len(k.dims) == maxDepth {
			return k, false
		}
		n := -1
		if size := base[open+1 : len(base)-1]; size != "" {
			var err error
			if n, err = strconv.Atoi(size); err != nil || n < 1 || n > maxItems || strconv.Itoa(n) != size {
				return k, false
			}
		}
		// The last bracket is the outermost array.
		k.dims = append(k.dims, n)
		base = base[:open]
	}
	slices.Reverse(k.dims)
	k.base, k.of = base, td.types[base]
	if base == domainType {
		return k, false
	}
	return k, k.of != nil || elementary(base)
}

// identifier is what Solidity takes for one.
func identifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '$' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// elementary says whether a name is that of one of Solidity's own types. uint and int
// without a size are none (EIP-712).
func elementary(s string) bool {
	switch s {
	case "bool", "address", "string", "bytes":
		return true
	}
	_, _, ok := sized(s)
	return ok
}

// reserved says whether a name is one of Solidity's own, or looks like one: "uint" is
// uint256 to some, and would be a struct to others.
func reserved(s string) bool {
	switch strings.TrimRight(s, "0123456789x") {
	case "bool", "address", "string", "bytes", "byte", "uint", "int", "fixed", "ufixed", "function":
		return true
	}
	return false
}

// sized takes apart "bytes4", "uint8" and "int256": n is in bytes.
func sized(s string) (base string, n int, ok bool) {
	for _, base := range []string{"bytes", "uint", "int"} {
		digits, found := strings.CutPrefix(s, base)
		if !found {
			continue
		}
		n, err := strconv.Atoi(digits)
		if err != nil || strconv.Itoa(n) != digits {
			return "", 0, false
		}
		if base != "bytes" {
			if n%8 != 0 {
				return "", 0, false
			}
			n /= 8
		}
		return base, n, n >= 1 && n <= 32
	}
	return "", 0, false
}

// readDomain reads the domain. Its type may be left out, and then has what the domain
// has.
func (td *typed) readDomain(t *Tx, raw jsontext.Value) *reason.Refusal {
	const at = "typed_data.domain"
	o, r := readObject(at+".", raw)
	if r != nil {
		return r
	}
	of := td.types[domainType]
	if of == nil {
		of = &structType{name: domainType}
		for _, f := range domainFields {
			if o.find(f.name) != nil {
				k, _ := td.kind(f.kind)
				of.fields = append(of.fields, typedField{f.name, f.kind, k})
			}
		}
		of.text = of.encode()
		of.hash = keccak([]byte(of.text))
	}
	next := 0
	for _, f := range of.fields {
		for next < len(domainFields) && domainFields[next].name != f.name {
			next++
		}
		if next == len(domainFields) || domainFields[next].kind != f.text {
			return invalid("it has string name, string version, uint256 chainId, address verifyingContract, bytes32 salt, in this order",
				"no domain has such a field").At("typed_data.types." + domainType)
		}
		next++
	}
	td.ofDomain = of
	if len(of.fields) == 0 {
		return invalid("say what the data are for", "the domain is empty").At(at)
	}
	if td.domain, r = td.hashStruct(of, at, raw, 0); r != nil {
		return r
	}
	if m := o.find("chainId"); m != nil {
		n, ok := integer(m)
		if !ok || !n.IsUint64() || n.Uint64() < 1 || n.Uint64() > maxChain {
			return invalid(fmt.Sprintf("it must be from 1 to %d", uint64(maxChain)), "the number is out of range").At(at + ".chainId")
		}
		t.chain = n.Uint64()
	}
	return nil
}

// hashStruct is EIP-712's.
func (td *typed) hashStruct(of *structType, at string, raw jsontext.Value, depth int) (sum [32]byte, r *reason.Refusal) {
	if depth > maxDepth {
		return sum, invalid("use fewer levels", "the data are too deep").At(at)
	}
	o, r := readObject(at+".", raw)
	if r != nil {
		return sum, r
	}
	for i := range o.members {
		name := o.members[i].name
		if !slices.ContainsFunc(of.fields, func(f typedField) bool { return f.name == name }) {
			return sum, reason.New(reason.FieldUnknown, "it would not be signed: leave it out, or add it to the type", "%s has no such field", of.name).At(o.at + clip(name))
		}
	}
	out := make([]byte, 0, 32*(1+len(of.fields)))
	out = append(out, of.hash[:]...)
	for _, f := range of.fields {
		m := o.find(f.name)
		if m == nil {
			return sum, reason.New(reason.FieldMissing, "add it, or leave it out of the type", "%s needs this field", of.name).At(o.at + f.name)
		}
		v, r := td.encode(f.kind, o.at+f.name, m, depth)
		if r != nil {
			return sum, r
		}
		out = append(out, v[:]...)
	}
	return keccak(out), nil
}

// encode gives the 32 bytes that stand for a value (EIP-712, encodeData).
func (td *typed) encode(k kind, at string, m *member, depth int) (out [32]byte, r *reason.Refusal) {
	if n := len(k.dims); n > 0 {
		return td.encodeArray(k, at, m, depth+1)
	}
	if k.of != nil {
		return td.hashStruct(k.of, at, m.raw, depth+1)
	}
	if k.base == "bool" {
		if m.kind != 't' && m.kind != 'f' {
			return out, invalid("write true or false without quotes", "the value is not a boolean").At(at)
		}
		if m.kind == 't' {
			out[31] = 1
		}
		return out, nil
	}
	base, size, _ := sized(k.base)
	if base == "uint" || base == "int" {
		n, ok := integer(m)
		if ok {
			out, ok = fill(n, size, base == "int")
		}
		if !ok {
			return out, invalid("write a whole number that fits "+k.base+"; in quotes, as decimal digits or as 0x and hexadecimal digits, if it is large",
				"the value is not such a number").At(at)
		}
		return out, nil
	}
	s, r := text(m.raw)
	if r != nil {
		return out, r.At(at)
	}
	var b []byte
	switch {
	case k.base == "string":
		return keccak([]byte(s)), nil
	case k.base == "address":
		a, ar := parseAddress(s)
		copy(out[12:], a[:])
		r = ar
	case k.base == "bytes":
		if b, r = parseBytes(s, -1); r == nil {
			return keccak(b), nil
		}
	default:
		b, r = parseBytes(s, size)
		copy(out[:], b)
	}
	if r != nil {
		return out, r.At(at)
	}
	return out, nil
}

func (td *typed) encodeArray(k kind, at string, m *member, depth int) (out [32]byte, r *reason.Refusal) {
	if depth > maxDepth {
		return out, invalid("use fewer levels", "the data are too deep").At(at)
	}
	list, r := readArray(at, m.raw, maxItems)
	if r != nil {
		return out, r
	}
	last := len(k.dims) - 1
	if want := k.dims[last]; want >= 0 && len(list) != want {
		return out, invalid(fmt.Sprintf("give %d", want), "the array has %d items", len(list)).At(at)
	}
	k.dims = k.dims[:last]
	all := make([]byte, 0, 32*len(list))
	for i, v := range list {
		e, r := td.encode(k, at+"["+strconv.Itoa(i)+"]", &member{kind: v.Kind(), raw: v}, depth)
		if r != nil {
			return out, r
		}
		all = append(all, e[:]...)
	}
	return keccak(all), nil
}

// integer reads a whole number: in quotes as elsewhere, also negative, or a JSON number
// of digits alone that every reader of JSON takes for the same.
func integer(m *member) (*big.Int, bool) {
	s := string(m.raw)
	if m.kind == '"' {
		var r *reason.Refusal
		if s, r = text(m.raw); r != nil {
			return nil, false
		}
	} else if m.kind != '0' || len(s) > 17 || strings.HasPrefix(s, "0x") {
		return nil, false
	}
	digits, negative := strings.CutPrefix(s, "-")
	n, ok := parseNumber(digits)
	if !ok || negative && (n.Sign() == 0 || strings.HasPrefix(digits, "0x")) {
		return nil, false
	}
	if m.kind == '0' && n.BitLen() > 53 { // RFC 7493, section 2.2
		return nil, false
	}
	if negative {
		n.Neg(n)
	}
	return n, true
}

// fill writes a number of size bytes as 32 bytes, in two's complement. It reports false
// where it does not fit.
func fill(n *big.Int, size int, signed bool) (out [32]byte, ok bool) {
	bits := 8 * size
	switch {
	case !signed:
		ok = n.Sign() >= 0 && n.BitLen() <= bits
	case n.Sign() >= 0:
		ok = n.BitLen() < bits
	default: // from -2^(bits-1)
		ok = new(big.Int).Not(n).BitLen() < bits
	}
	if !ok {
		return out, false
	}
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 256))
	}
	n.FillBytes(out[:])
	return out, true
}

// tell says in words what is signed, value by value: numbers in decimal, addresses with
// their checksum.
func (td *typed) tell(add func(name, value string)) {
	o, r := readObject("", td.raw)
	if r != nil {
		return // it was read before
	}
	add("primaryType", td.of.name)
	td.tellStruct(add, td.ofDomain, "domain", o.find("domain").raw)
	td.tellStruct(add, td.of, "message", o.find("message").raw)
}

func (td *typed) tellStruct(add func(name, value string), of *structType, at string, raw jsontext.Value) {
	o, r := readObject(at+".", raw)
	if r != nil {
		return
	}
	for _, f := range of.fields {
		td.tellValue(add, f.kind, o.at+f.name, o.find(f.name))
	}
}

func (td *typed) tellValue(add func(name, value string), k kind, at string, m *member) {
	if last := len(k.dims) - 1; last >= 0 {
		k.dims = k.dims[:last]
		list, _ := readArray(at, m.raw, maxItems)
		for i, v := range list {
			td.tellValue(add, k, at+"["+strconv.Itoa(i)+"]", &member{kind: v.Kind(), raw: v})
		}
		if len(list) == 0 {
			add(at, "an empty list")
		}
		return
	}
	if k.of != nil {
		td.tellStruct(add, k.of, at, m.raw)
		return
	}
	if k.base == "bool" {
		add(at, string(m.raw))
		return
	}
	if base, _, _ := sized(k.base); base == "uint" || base == "int" {
		if n, ok := integer(m); ok {
			add(at, amount(n))
		}
		return
	}
	s, r := text(m.raw)
	if r != nil {
		return
	}
	if k.base == "address" {
		if a, r := parseAddress(s); r == nil {
			s = a.String()
		}
	}
	if s == "" {
		s = `""`
	}
	add(at, s)
}
