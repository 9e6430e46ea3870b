package ethereum

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
)

// explain checks an answer offline. It starts from the bytes that were signed and from
// the raw transaction, which it takes apart with a decoder of its own, and compares
// with them whatever else the answer says.
func explain(a *answer.Answer) *ledger.Finding {
	e := &explainer{a: a, f: &ledger.Finding{}}
	if err := e.explain(); err != nil {
		e.problem("%v", err)
	}
	return e.f
}

// AnsweredBy reports whether an answer is of the account that the request wants, where it
// names one: what is signed does not hold it.
func (t *Tx) AnsweredBy(a *answer.Answer) bool {
	return t.from == nil || a.Address == t.from.String()
}

type explainer struct {
	a   *answer.Answer // nil in a preview: nobody has said anything yet
	f   *ledger.Finding
	own own

	payload []byte
	r, s    []byte
	parity  byte
}

func (e *explainer) problem(format string, args ...any) {
	e.f.Problems = append(e.f.Problems, fmt.Sprintf(format, args...))
}

// field adds what was signed, and compares it with what the answer says.
func (e *explainer) field(name, signed, said string) {
	e.f.Fields = append(e.f.Fields, ledger.Field{Name: name, Value: signed})
	e.same(name, signed, said)
}

func (e *explainer) same(name, signed, said string) {
	if signed != said && e.a != nil {
		e.problem("the answer says %s %q, and what was signed says %q", name, said, signed)
	}
}

func (e *explainer) explain() error {
	a := e.a
	if err := json.Unmarshal(a.Own["ethereum"], &e.own, json.RejectUnknownMembers(true)); err != nil {
		return errors.New("what it says of Ethereum cannot be read: a newer signdrop may know it")
	}
	if _, known := shapes[a.Operation]; !known {
		return fmt.Errorf("the operation %q of Ethereum is not known: a newer signdrop may know it", a.Operation)
	}
	if a.Submit != nil || a.NotCovered != nil || a.AlsoMeans != nil {
		e.problem("it says what no answer of Ethereum does: submit, not_covered or also_means")
	}
	if name := e.own.foreign(a.Operation); name != "" {
		e.problem("it says %s, which the answer to %s does not have", name, a.Operation)
	}
	payload, ok := strings.CutPrefix(a.Payload, "0x")
	var err error
	if len(payload) > 2*maxRaw || len(e.own.Raw) > 2+2*maxRaw {
		return errors.New("it is longer than anything that is signed")
	}
	if e.payload, err = hex.DecodeString(payload); !ok || err != nil {
		return errors.New("the payload is not 0x and hexadecimal digits")
	}
	if a.Algorithm != algorithm(a.Operation) {
		return fmt.Errorf("the algorithm %q is not that of the operation", a.Algorithm)
	}
	digest := keccak(e.payload)
	if a.Operation == opHash {
		if len(e.payload) != 32 {
			return errors.New("the payload is not a hash")
		}
		digest = [32]byte(e.payload)
	}
	if err := e.signature(digest[:]); err != nil {
		return err
	}
	switch a.Operation {
	case opAuthorization:
		return e.authorization(digest)
	case opMessage, opTypedData, opHash:
		e.same("hash", hex0x(digest[:]), e.own.Hash)
		v := 27 + e.parity
		e.same("v", strconv.Itoa(int(v)), e.own.V)
		e.same("signature", hex0x(append(append(bytes.Clone(e.r), e.s...), v)), e.own.Signature)
		if a.Operation == opMessage {
			return e.message()
		}
		if a.Operation == opTypedData {
			return e.typed()
		}
		e.hash(digest)
		return nil
	}
	return e.transaction()
}

func (e *explainer) hash(digest [32]byte) {
	e.add("hash", hex0x(digest[:]))
	e.add("means", "nobody here can know: it can be a transaction of the account")
}

// foreign names a member that the answers of this operation do not have, "" for none.
func (o *own) foreign(op string) string {
	tx := transactionFields[op] != nil
	counted := tx || op == opAuthorization
	for _, m := range []struct {
		name       string
		there, may bool
	}{
		{"chain_id", o.ChainID != "", counted || op == opTypedData},
		{"nonce", o.Nonce != "", counted}, {"to", o.To != "", counted}, {"contract", o.Contract != "", tx},
		{"value", o.Value != "", tx}, {"max_fee", o.MaxFee != "", tx}, {"raw", o.Raw != "", tx},
		{"signature", o.Signature != "", !counted}, {"text", o.Text != nil, op == opMessage}, {"typed_data", o.Typed != nil, op == opTypedData},
	} {
		if m.there && !m.may {
			return m.name
		}
	}
	return ""
}

// signature recovers who has signed, and compares it with the public key.
func (e *explainer) signature(digest []byte) error {
	sig, err := base64.StdEncoding.Strict().DecodeString(e.a.Signature)
	if err != nil || strings.ContainsAny(e.a.Signature, "\r\n") || len(sig) != 65 || sig[64] > 1 {
		return errors.New("the signature is not r, s and v in base64")
	}
	e.r, e.s, e.parity = sig[:32], sig[32:64], sig[64]
	// btcec takes 27+v || r || s.
	found, _, err := secp.RecoverCompact(append([]byte{27 + e.parity}, sig[:64]...), digest)
	if err != nil {
		return errors.New("the signature does not verify")
	}
	point := found.SerializeUncompressed()
	if !bytes.Equal(point, (ledger.Wallet{Curve: "secp256k1", PublicPEM: e.a.PublicKey}).Point()) {
		return errors.New("the signature does not verify")
	}
	e.f.Signed = true
	if new(big.Int).SetBytes(e.s).Cmp(halfOrder) > 0 {
		e.problem("s is the higher of the two, which Ethereum does not take (EIP-2)")
	}
	from := addressOf(point).String()
	e.field("from", from, e.own.From)
	e.same("address", from, e.a.Address)
	e.same("r", hex0x(e.r), e.own.R)
	e.same("s", hex0x(e.s), e.own.S)
	e.same("y_parity", strconv.Itoa(int(e.parity)), e.own.YParity)
	return nil
}

// transaction takes raw and payload apart: but for the signature they are the same.
func (e *explainer) transaction() error {
	digits, ok := strings.CutPrefix(e.own.Raw, "0x")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil {
		return errors.New("the raw transaction is not 0x and hexadecimal digits")
	}
	hash := keccak(raw)
	e.same("hash", hex0x(hash[:]), e.own.Hash)
	body := raw
	kind, typed := kinds[e.a.Operation]
	if typed {
		if len(raw) == 0 || raw[0] != kind {
			return fmt.Errorf("the raw transaction is not one of type %d", kind)
		}
		body = raw[1:]
	}
	outer, err := decode(body)
	if err != nil {
		return fmt.Errorf("reading the raw transaction: %w", err)
	}
	get, chain, err := takeApart(e.a.Operation, e.payload)
	if err != nil {
		return err
	}
	names := transactionFields[e.a.Operation]
	if !outer.list || len(outer.items) != len(names)+3 {
		return errors.New("the raw transaction is not of its form")
	}
	for i, name := range names {
		if !bytes.Equal(outer.items[i].raw, get[name].raw) {
			return fmt.Errorf("the raw transaction has another %s than the payload", name)
		}
	}
	last := outer.items[len(names):]
	for i, want := range [][]byte{e.r, e.s} {
		if !bytes.Equal(last[1+i].bytes, shorten(want)) || last[1+i].list {
			return errors.New("the raw transaction has another signature")
		}
	}
	v := new(big.Int).SetInt64(int64(e.parity))
	if !typed {
		v.SetBytes(chain.bytes)
		v.Lsh(v, 1).Add(v, big.NewInt(35+int64(e.parity)))
	}
	e.same("v", v.String(), e.own.V)
	if last[0].list || !bytes.Equal(last[0].bytes, v.Bytes()) {
		return errors.New("the raw transaction has another v")
	}
	if err := e.meaning(get, chain); err != nil {
		return err
	}
	e.add("hash", hex0x(hash[:]))
	return nil
}

// isNumber says whether an item is a number as nodes take it: of at most 256 bits, with
// no zeros before it.
func isNumber(it item) bool {
	return !it.list && len(it.bytes) <= 32 && (len(it.bytes) == 0 || it.bytes[0] != 0)
}

// takeApart decodes what is signed of a transaction: its items by name, and the chain.
func takeApart(op string, payload []byte) (get map[string]item, chain item, err error) {
	kind, typed := kinds[op]
	if typed {
		if len(payload) == 0 || payload[0] != kind {
			return nil, chain, fmt.Errorf("the payload is not a transaction of type %d", kind)
		}
		payload = payload[1:]
	}
	inner, err := decode(payload)
	if err != nil {
		return nil, chain, fmt.Errorf("reading the payload: %w", err)
	}
	names := transactionFields[op]
	chained := 0 // what EIP-155 adds to what is signed
	if !typed {
		chained = 3
	}
	if !inner.list || len(inner.items) != len(names)+chained {
		return nil, chain, errors.New("the payload is not of its form")
	}
	get = map[string]item{}
	for i, name := range names {
		it := inner.items[i]
		get[name] = it
		list := name == "access_list" || name == "authorization_list"
		if list != it.list || !list && name != "to" && name != "data" && !isNumber(it) {
			return nil, chain, errors.New("the payload is not of its form")
		}
	}
	if typed {
		chain = get["chain_id"]
	} else {
		chain = inner.items[len(names)]
		for _, it := range inner.items[len(names)+1:] {
			if len(it.raw) != 1 || it.raw[0] != 0x80 {
				return nil, chain, errors.New("the payload is not of EIP-155's form")
			}
		}
	}
	if !isNumber(chain) || len(chain.bytes) == 0 {
		return nil, chain, errors.New("it names no chain: it is good on every one")
	}
	return get, chain, nil
}

// transactionFields are the items of what is signed, in order.
var transactionFields = map[string][]string{
	opLegacy:     {"nonce", "gas_price", "gas_limit", "to", "value", "data"},
	opAccessList: {"chain_id", "nonce", "gas_price", "gas_limit", "to", "value", "data", "access_list"},
	opFees:       {"chain_id", "nonce", "max_priority_fee_per_gas", "max_fee_per_gas", "gas_limit", "to", "value", "data", "access_list"},
	opSetCode:    {"chain_id", "nonce", "max_priority_fee_per_gas", "max_fee_per_gas", "gas_limit", "to", "value", "data", "access_list", "authorization_list"},
}

// meaning says in words what a transaction does.
func (e *explainer) meaning(get map[string]item, chain item) error {
	num := func(it item) *big.Int { return new(big.Int).SetBytes(it.bytes) }
	e.field("chain_id", num(chain).String(), e.own.ChainID)
	e.field("nonce", num(get["nonce"]).String(), e.own.Nonce)
	if !num(get["nonce"]).IsUint64() {
		return errors.New("the nonce is out of range")
	}
	switch to := get["to"].bytes; len(to) {
	case 20:
		e.field("to", address(to).String(), e.own.To)
		e.same("contract", "", e.own.Contract)
	case 0:
		e.add("means", "a contract is created, of the code in data_hex")
		from, r := parseAddress(e.own.From)
		if e.a == nil && e.own.From == "" {
			e.add("contract", "is created, at an address that follows from who signs")
			break
		}
		if r != nil {
			return errors.New("from is not an address")
		}
		e.field("contract", created(from, num(get["nonce"]).Uint64()).String(), e.own.Contract)
		e.same("to", "", e.own.To)
	default:
		return errors.New("the raw transaction is to no address")
	}
	value := num(get["value"])
	e.field("value", value.String(), e.own.Value)
	e.add("amount", ether(value))
	price := num(get["gas_price"])
	if _, ok := get["max_fee_per_gas"]; ok {
		price = num(get["max_fee_per_gas"])
		e.add("max_priority_fee_per_gas", num(get["max_priority_fee_per_gas"]).String())
		e.add("max_fee_per_gas", price.String())
	} else {
		e.add("gas_price", price.String())
	}
	e.add("gas_limit", num(get["gas_limit"]).String())
	fee := new(big.Int).Mul(price, num(get["gas_limit"]))
	e.field("max_fee", fee.String(), e.own.MaxFee)
	e.add("fee at most", ether(fee))
	if data := get["data"].bytes; len(data) > 0 {
		if len(get["to"].bytes) == 0 {
			e.add("data", plainData(data))
		} else {
			e.add("data", describeData(data))
		}
		e.add("data_hex", hex0x(data))
	}
	if n := len(get["access_list"].items); n > 0 {
		e.add("access_list", fmt.Sprintf("%d, which change only what it costs", n))
	}
	for i, it := range get["authorization_list"].items {
		if len(it.items) != 6 || len(it.items[1].bytes) != 20 {
			return errors.New("an authorization is not of its form")
		}
		for j, number := range it.items {
			if j != 1 && !isNumber(number) {
				return errors.New("an authorization is not of its form")
			}
		}
		chains := "chain " + num(it.items[0]).String()
		if len(it.items[0].bytes) == 0 {
			chains = "every chain"
		}
		e.add(fmt.Sprintf("authorization_list[%d]", i), fmt.Sprintf("%s gets the code at %s, on %s, nonce %s",
			authority(it), address(it.items[1].bytes), chains, num(it.items[2])))
	}
	return nil
}

// authority says which account has signed an authorization.
func authority(it item) string {
	var body []byte
	for _, part := range it.items[:3] {
		body = append(body, part.raw...)
	}
	digest := keccak(appendList([]byte{magic}, body))
	parity := new(big.Int).SetBytes(it.items[3].bytes)
	if !parity.IsUint64() || parity.Uint64() > 1 {
		return "nobody (the signature is none)"
	}
	sig := make([]byte, 65)
	sig[0] = 27 + byte(parity.Uint64())
	new(big.Int).SetBytes(it.items[4].bytes).FillBytes(sig[1:33])
	new(big.Int).SetBytes(it.items[5].bytes).FillBytes(sig[33:])
	key, _, err := secp.RecoverCompact(sig, digest[:])
	if err != nil {
		return "nobody (the signature is none)"
	}
	return addressOf(key.SerializeUncompressed()).String()
}

func (e *explainer) add(name, value string) {
	e.f.Fields = append(e.f.Fields, ledger.Field{Name: name, Value: value})
}

// ether writes wei as ether.
func ether(wei *big.Int) string {
	s := wei.String()
	if len(s) <= 18 {
		s = strings.Repeat("0", 19-len(s)) + s
	}
	whole, part := s[:len(s)-18], strings.TrimRight(s[len(s)-18:], "0")
	if part != "" {
		whole += "." + part
	}
	return whole + " of the chain's coin"
}

// describeData says what the best known calls of tokens do (ERC-20, ERC-721). Where both
// have a call, the number is an amount in the one and a piece's own in the other.
func describeData(data []byte) string {
	calls := map[string]struct {
		name string
		args int
		text func(a []address, n *big.Int) string // "" for what no such call has
	}{
		"a9059cbb": {"transfer(address,uint256)", 2, func(a []address, n *big.Int) string { return fmt.Sprintf("%s of a token to %s", amount(n), a[0]) }},
		"095ea7b3": {"approve(address,uint256)", 2, func(a []address, n *big.Int) string {
			return fmt.Sprintf("%s may spend %s of a token, or its piece of this number", a[0], amount(n))
		}},
		"39509351": {"increaseAllowance(address,uint256)", 2, func(a []address, n *big.Int) string {
			return fmt.Sprintf("%s may spend %s more of a token", a[0], amount(n))
		}},
		"23b872dd": {"transferFrom(address,address,uint256)", 3, func(a []address, n *big.Int) string {
			return fmt.Sprintf("%s of a token, or its piece of this number, from %s to %s", amount(n), a[0], a[1])
		}},
		"42842e0e": {"safeTransferFrom(address,address,uint256)", 3, func(a []address, n *big.Int) string {
			return fmt.Sprintf("a token's piece %s from %s to %s", n, a[0], a[1])
		}},
		"a22cb465": {"setApprovalForAll(address,bool)", 2, func(a []address, n *big.Int) string {
			switch {
			case n.Sign() == 0:
				return fmt.Sprintf("%s may no longer take the pieces of a token", a[0])
			case n.IsUint64() && n.Uint64() == 1:
				return fmt.Sprintf("%s may take all pieces of a token, now and later", a[0])
			}
			return ""
		}},
	}
	if len(data) < 4 {
		return plainData(data)
	}
	c, known := calls[hex.EncodeToString(data[:4])]
	if !known {
		return plainData(data)
	}
	// A contract may take for its call what is not quite of the form.
	strange := fmt.Sprintf("%d bytes, which begin as %s and are not of its form: do not trust them", len(data), c.name)
	if len(data) != 4+32*c.args {
		return strange
	}
	var as []address
	for i := range c.args - 1 {
		word := data[4+32*i:][:32]
		if !bytes.Equal(word[:12], make([]byte, 12)) {
			return strange
		}
		as = append(as, address(word[12:]))
	}
	text := c.text(as, new(big.Int).SetBytes(data[len(data)-32:]))
	if text == "" {
		return strange
	}
	return c.name + ": " + text
}

// amount writes a number of a token's smallest parts.
func amount(n *big.Int) string {
	if n.Cmp(most) == 0 {
		return n.String() + " (2^256 - 1, which stands for no limit)"
	}
	return n.String()
}

var most = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))

func plainData(data []byte) string {
	if len(data) < 4 {
		return fmt.Sprintf("%d bytes", len(data))
	}
	return fmt.Sprintf("%d bytes, which begin with %s", len(data), hex0x(data[:4]))
}

func (e *explainer) authorization(digest [32]byte) error {
	e.same("hash", hex0x(digest[:]), e.own.Hash)
	e.same("v", strconv.Itoa(int(e.parity)), e.own.V)
	if len(e.payload) == 0 || e.payload[0] != magic {
		return errors.New("the payload is not an authorization")
	}
	it, err := decode(e.payload[1:])
	if err != nil || len(it.items) != 3 || !isNumber(it.items[0]) || !isNumber(it.items[2]) || len(it.items[1].bytes) != 20 {
		return errors.New("the payload is not an authorization")
	}
	e.field("chain_id", new(big.Int).SetBytes(it.items[0].bytes).String(), e.own.ChainID)
	e.field("nonce", new(big.Int).SetBytes(it.items[2].bytes).String(), e.own.Nonce)
	e.field("to", address(it.items[1].bytes).String(), e.own.To)
	where := ""
	if len(it.items[0].bytes) == 0 {
		where = " on every chain"
	}
	if address(it.items[1].bytes) == (address{}) {
		e.add("means", "the account's code is taken away"+where)
	} else {
		e.add("means", "the account gets the code at this address"+where+": that code commands all that the account has")
	}
	return nil
}

func (e *explainer) message() error {
	rest, ok := bytes.CutPrefix(e.payload, []byte("\x19Ethereum Signed Message:\n"))
	// The length has as many digits as make it true.
	for n := 1; ok && n <= len(rest) && n < 10; n++ {
		if string(rest[:n]) != strconv.Itoa(len(rest)-n) {
			continue
		}
		message := rest[n:]
		if e.own.Text != nil {
			e.field("text", string(message), *e.own.Text)
		} else {
			e.add("bytes", hex0x(message))
			if utf8.Valid(message) {
				e.add("as text", string(message))
			}
		}
		return nil
	}
	return errors.New("the payload is not a message")
}

// typed computes the hashes of the typed data that the answer brings.
func (e *explainer) typed() error {
	raw, err := json.Marshal(map[string]any{"operation": opTypedData, "typed_data": e.own.Typed})
	if err != nil {
		return errors.New("the typed data cannot be read")
	}
	t, r := parse(raw)
	if r != nil {
		return fmt.Errorf("the typed data cannot be read: %s: %s", r.Field, r.Message)
	}
	if !bytes.Equal(t.signed, e.payload) {
		return errors.New("the typed data are not what was signed")
	}
	chain := ""
	if t.chain != 0 {
		chain = strconv.FormatUint(t.chain, 10)
	}
	if chain == "" {
		e.same("chain_id", "", e.own.ChainID)
		e.add("means", "it is good on every chain")
	} else {
		e.field("chain_id", chain, e.own.ChainID)
	}
	t.typed.tell(e.add)
	e.add("typed_data", string(e.own.Typed))
	return nil
}

// item is a decoded item of RLP.
type item struct {
	list  bool
	items []item
	bytes []byte
	raw   []byte // as it is encoded
}

var errRLP = errors.New("it is not RLP in its one form")

// decode reads one item, and nothing may follow. It is strict: what has two encodings
// elsewhere has one here.
func decode(b []byte) (item, error) {
	it, rest, err := decodeItem(b, 0)
	if err == nil && len(rest) > 0 {
		err = errRLP
	}
	return it, err
}

func decodeItem(b []byte, depth int) (it item, rest []byte, err error) {
	if len(b) == 0 || depth > 8 {
		return it, nil, errRLP
	}
	first := b[0]
	if first < 0x80 {
		return item{bytes: b[:1], raw: b[:1]}, b[1:], nil
	}
	kind := byte(0x80)
	if first >= 0xc0 {
		kind, it.list = 0xc0, true
	}
	n, head := uint64(first-kind), 1
	if n > 55 {
		size := int(n - 55)
		if len(b) < 1+size || b[1] == 0 {
			return it, nil, errRLP
		}
		n = 0
		for _, c := range b[1 : 1+size] {
			n = n<<8 | uint64(c)
		}
		if n <= 55 {
			return it, nil, errRLP
		}
		head += size
	}
	if n > uint64(len(b)-head) {
		return it, nil, errRLP
	}
	end := head + int(n)
	it.raw, rest = b[:end], b[end:]
	body := b[head:end]
	if !it.list {
		it.bytes = body
		if len(body) == 1 && body[0] < 0x80 {
			return it, nil, errRLP
		}
		return it, rest, nil
	}
	for len(body) > 0 {
		var sub item
		if sub, body, err = decodeItem(body, depth+1); err != nil {
			return it, nil, err
		}
		it.items = append(it.items, sub)
	}
	return it, rest, nil
}
