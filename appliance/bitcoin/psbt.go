package bitcoin

import (
	"bytes"
	encbinary "encoding/binary"
	"fmt"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// Limits of a PSBT.
const (
	MaxSize    = 2 << 20 // bytes, in binary form
	MaxInputs  = 2000
	MaxOutputs = 10_000
)

// PSBT is a partially signed transaction that Parse has read. It does not
// change.
type PSBT struct {
	form    form
	version uint32 // 0 or 2
	global  *keymap
	inputs  []*keymap
	outputs []*keymap
	tx      *wire.MsgTx // without signatures
	inline  bool        // see Inline
}

// The fields that we read, by their numbers in BIP-174, BIP-370 and BIP-371.
const (
	globalTx           = 0x00
	globalXpub         = 0x01
	globalTxVersion    = 0x02
	globalLockTime     = 0x03
	globalInputCount   = 0x04
	globalOutputCount  = 0x05
	globalModifiable   = 0x06
	globalVersion      = 0xfb
	inTx               = 0x00
	inOutput           = 0x01
	inSignature        = 0x02
	inSighash          = 0x03
	inRedeem           = 0x04
	inWitness          = 0x05
	inDerivation       = 0x06
	inFinalScript      = 0x07
	inFinalWitness     = 0x08
	inPreviousID       = 0x0e
	inIndex            = 0x0f
	inSequence         = 0x10
	inTimeLock         = 0x11
	inHeightLock       = 0x12
	inTapSignature     = 0x13
	inTapLeafSignature = 0x14
	inTapLeaf          = 0x15
	inTapDerivation    = 0x16
	inTapKey           = 0x17
	inTapRoot          = 0x18
	outRedeem          = 0x00
	outWitness         = 0x01
	outDerivation      = 0x02
	outAmount          = 0x03
	outScript          = 0x04
	outTapKey          = 0x05
	outTapTree         = 0x06
	outTapDerivation   = 0x07
)

// A field says what a type's key data and value must be. Types that are not in
// the tables are kept as they are.
type field struct {
	name  string
	key   func(data []byte) bool // nil: no key data
	value func(key, value []byte) bool
	only2 bool // of PSBT version 2 only
}

var globalFields = map[uint64]field{
	globalTx:          {name: "unsigned transaction"},
	globalXpub:        {name: "extended public key", key: size(78), value: func(k, v []byte) bool { return isOrigin(v) && len(v)/4-1 == int(k[4]) }},
	globalTxVersion:   {name: "transaction version", value: valueSize(4), only2: true},
	globalLockTime:    {name: "fallback locktime", value: valueSize(4), only2: true},
	globalInputCount:  {name: "input count", value: isCompact, only2: true},
	globalOutputCount: {name: "output count", value: isCompact, only2: true},
	globalModifiable:  {name: "modifiable flags", value: valueSize(1), only2: true},
	globalVersion:     {name: "version", value: valueSize(4)},
}

var inputFields = map[uint64]field{
	inTx:               {name: "previous transaction"},
	inOutput:           {name: "previous output", value: func(_, v []byte) bool { _, ok := readTxOut(v); return ok }},
	inSignature:        {name: "partial signature", key: isPublicKey, value: func(_, v []byte) bool { return len(v) >= 9 && len(v) <= 73 }},
	inSighash:          {name: "sighash type", value: valueSize(4)},
	inRedeem:           {name: "redeem script"},
	inWitness:          {name: "witness script"},
	inDerivation:       {name: "key origin", key: isPublicKey, value: func(_, v []byte) bool { return isOrigin(v) }},
	inFinalScript:      {name: "final script"},
	inFinalWitness:     {name: "final witness", value: func(_, v []byte) bool { _, ok := readWitness(v); return ok }},
	inPreviousID:       {name: "previous id", value: valueSize(32), only2: true},
	inIndex:            {name: "output index", value: valueSize(4), only2: true},
	inSequence:         {name: "sequence", value: valueSize(4), only2: true},
	inTimeLock:         {name: "required time", value: func(_, v []byte) bool { return len(v) == 4 && u32(v) >= txscript.LockTimeThreshold }, only2: true},
	inHeightLock:       {name: "required height", value: func(_, v []byte) bool { return len(v) == 4 && u32(v) > 0 && u32(v) < txscript.LockTimeThreshold }, only2: true},
	inTapSignature:     {name: "Taproot signature", value: isSchnorr},
	inTapLeafSignature: {name: "Taproot script signature", key: size(64), value: isSchnorr},
	inTapLeaf:          {name: "Taproot leaf script", key: isControl, value: func(_, v []byte) bool { return len(v) > 0 }},
	inTapDerivation:    {name: "Taproot key origin", key: size(32), value: func(_, v []byte) bool { _, _, ok := readTapOrigin(v); return ok }},
	inTapKey:           {name: "Taproot internal key", value: valueSize(32)},
	inTapRoot:          {name: "Taproot merkle root", value: valueSize(32)},
}

var outputFields = map[uint64]field{
	outRedeem:        {name: "redeem script"},
	outWitness:       {name: "witness script"},
	outDerivation:    {name: "key origin", key: isPublicKey, value: func(_, v []byte) bool { return isOrigin(v) }},
	outAmount:        {name: "amount", value: valueSize(8), only2: true},
	outScript:        {name: "script", only2: true},
	outTapKey:        {name: "Taproot internal key", value: valueSize(32)},
	outTapTree:       {name: "Taproot tree", value: func(_, v []byte) bool { _, ok := treeRoot(v); return ok }},
	outTapDerivation: {name: "Taproot key origin", key: size(32), value: func(_, v []byte) bool { _, _, ok := readTapOrigin(v); return ok }},
}

func size(n int) func([]byte) bool           { return func(b []byte) bool { return len(b) == n } }
func valueSize(n int) func(_, v []byte) bool { return func(_, v []byte) bool { return len(v) == n } }
func u32(b []byte) uint32                    { return encbinary.LittleEndian.Uint32(b) }
func isOrigin(v []byte) bool                 { return len(v) >= 4 && len(v)%4 == 0 }
func isSchnorr(_, v []byte) bool             { return len(v) == 64 || len(v) == 65 }
func isCompact(_, v []byte) bool             { r := reader{b: v}; r.compact(); return r.done() }
func isControl(b []byte) bool                { return len(b) >= 33 && len(b) <= 33+128*32 && (len(b)-33)%32 == 0 }

// isPublicKey looks at the form only. Whether it is a point on the curve shows
// when it is used.
func isPublicKey(b []byte) bool {
	return len(b) == 33 && (b[0] == 2 || b[0] == 3) || len(b) == 65 && b[0] == 4
}

func readTxOut(v []byte) (*wire.TxOut, bool) {
	r := reader{b: v}
	out := &wire.TxOut{Value: int64(r.u64()), PkScript: r.prefixed()}
	return out, r.done()
}

func readWitness(v []byte) (wire.TxWitness, bool) {
	r := reader{b: v}
	n := r.compact()
	if n > uint64(len(r.b)) {
		return nil, false
	}
	w := make(wire.TxWitness, 0, n)
	for range n {
		w = append(w, r.prefixed())
	}
	return w, r.done()
}

// readTapOrigin splits the value of a Taproot key origin: the hashes of the
// leaves with the key, and the origin itself.
func readTapOrigin(v []byte) (leaves [][]byte, origin []byte, ok bool) {
	r := reader{b: v}
	n := r.compact()
	if n > uint64(len(r.b)/32) {
		return nil, nil, false
	}
	for range n {
		leaves = append(leaves, r.take(32))
	}
	return leaves, r.b, !r.bad && isOrigin(r.b)
}

// check holds a map against the table of its fields. where names the map for
// people.
func check(m *keymap, table map[uint64]field, version uint32, where string) error {
	for _, p := range m.pairs {
		f, ok := table[p.kind()]
		if !ok {
			continue
		}
		data := p.data()
		switch {
		case f.only2 && version != 2:
			return malformed("make it anew", "%s has a %s, which PSBT version %d does not know", where, f.name, version)
		case f.key == nil && len(data) > 0, f.key != nil && !f.key(data):
			return malformed("make it anew", "the key of the %s in %s is not of its form", f.name, where)
		case f.value != nil && !f.value(data, p.value):
			return malformed("make it anew", "the %s in %s is not of its form", f.name, where)
		}
	}
	return nil
}

// Parse reads a PSBT of version 0 or 2 in its binary form, in base64 or in
// hexadecimal. It refuses what BIP-174, BIP-370 and BIP-371 call invalid:
// fields that are not of their form, keys that are there twice, bytes after the
// end. Fields of unknown types and the order of all are kept. It does not judge
// what the transaction does. Refusals: too-large, psbt-malformed, key-twice,
// trailing-bytes.
func Parse(data []byte) (*PSBT, error) { return parse(data, 1) }

// answerTimes is how many times larger than what was asked an answer may be, in bytes
// and in the fields of a map: our signatures are in it.
const answerTimes = 8

// parse is Parse with so many times the limits.
func parse(data []byte, times int) (p *PSBT, err error) {
	defer refusePanic(&err, func() { p = nil })
	limit := MaxSize * times
	tooLarge := reason.New(reason.TooLarge, "split the payment", "a PSBT has at most %d bytes in binary form", limit)
	if len(data) > 2*limit+limit/16 { // hexadecimal, with line ends
		return nil, tooLarge
	}
	form, raw, err := detect(data)
	if err != nil {
		return nil, err
	}
	if len(raw) > limit {
		return nil, tooLarge
	}
	// The caller may use data for something else; form.encode gives it back.
	if form.text == binary {
		raw = bytes.Clone(raw)
	}
	p = &PSBT{form: form}
	if err := p.read(raw, maxFields*times); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.serialize(p.global, p.inputs, p.outputs), raw) {
		return nil, malformed("make it anew", "the PSBT cannot be written again as it was")
	}
	return p, nil
}

func (p *PSBT) read(raw []byte, fields int) error {
	r := &reader{b: raw}
	if !bytes.Equal(r.take(uint64(len(magic))), []byte(magic)) {
		return malformed("make it with a wallet that knows BIP-174", "the file does not begin like a PSBT")
	}
	var err error
	if p.global, err = readMap(r, fields, "the global map"); err != nil {
		return err
	}
	if v := p.global.get(globalVersion); len(v) == 4 {
		p.version = u32(v)
	}
	if p.version != 0 && p.version != 2 {
		return malformed("make one of version 0 or 2", "PSBT version %d does not exist here", p.version)
	}
	if err := check(p.global, globalFields, p.version, "the global map"); err != nil {
		return err
	}
	ins, outs, err := p.counts()
	if err != nil {
		return err
	}
	if ins > MaxInputs || outs > MaxOutputs {
		return reason.New(reason.TooLarge, "split the payment", "a transaction has at most %d inputs and %d outputs here", MaxInputs, MaxOutputs)
	}
	for i := range ins {
		where := fmt.Sprintf("the map of input %d", i)
		m, err := readMap(r, fields, where)
		if err != nil {
			return err
		}
		if err := check(m, inputFields, p.version, where); err != nil {
			return err
		}
		p.inputs = append(p.inputs, m)
	}
	for i := range outs {
		where := fmt.Sprintf("the map of output %d", i)
		m, err := readMap(r, fields, where)
		if err != nil {
			return err
		}
		if err := check(m, outputFields, p.version, where); err != nil {
			return err
		}
		p.outputs = append(p.outputs, m)
	}
	if !r.done() {
		return reason.New(reason.TrailingBytes, "make it anew", "bytes follow the end of the PSBT")
	}
	if p.version == 2 {
		return p.build()
	}
	return nil
}

// counts gives the numbers of inputs and outputs. For version 0 it reads the
// transaction.
func (p *PSBT) counts() (ins, outs int, err error) {
	raw := p.global.get(globalTx)
	if p.version == 0 {
		if raw == nil {
			return 0, 0, malformed("make it anew", "the unsigned transaction is missing")
		}
		if p.tx, err = readUnsigned(raw); err != nil {
			return 0, 0, malformed("make it anew", "the unsigned transaction is not one without signatures and witnesses")
		}
		return len(p.tx.TxIn), len(p.tx.TxOut), nil
	}
	if raw != nil {
		return 0, 0, malformed("make it anew", "PSBT version 2 has no unsigned transaction")
	}
	for _, kind := range []byte{globalTxVersion, globalInputCount, globalOutputCount} {
		if !p.global.has(kind) {
			return 0, 0, malformed("make it anew", "the %s is missing", globalFields[uint64(kind)].name)
		}
	}
	count := func(kind byte) int {
		r := reader{b: p.global.get(kind)}
		return int(min(r.compact(), MaxSize))
	}
	return count(globalInputCount), count(globalOutputCount), nil
}

// build makes the transaction out of the maps of version 2.
func (p *PSBT) build() error {
	p.tx = &wire.MsgTx{Version: int32(u32(p.global.get(globalTxVersion)))}
	for i, m := range p.inputs {
		id, index := m.get(inPreviousID), m.get(inIndex)
		if id == nil || index == nil {
			return malformed("make it anew", "input %d does not say what it spends", i)
		}
		in := &wire.TxIn{Sequence: wire.MaxTxInSequenceNum}
		copy(in.PreviousOutPoint.Hash[:], id)
		in.PreviousOutPoint.Index = u32(index)
		if v := m.get(inSequence); v != nil {
			in.Sequence = u32(v)
		}
		p.tx.TxIn = append(p.tx.TxIn, in)
	}
	for i, m := range p.outputs {
		amount, script := m.get(outAmount), m.get(outScript)
		if amount == nil || script == nil {
			return malformed("make it anew", "output %d lacks its amount or its script", i)
		}
		p.tx.TxOut = append(p.tx.TxOut, wire.NewTxOut(int64(encbinary.LittleEndian.Uint64(amount)), script))
	}
	return p.lockTime()
}

// lockTime is "Determining Lock Time" of BIP-370: the greatest height, if every
// input that needs something can do with a height, else the greatest time.
func (p *PSBT) lockTime() error {
	if v := p.global.get(globalLockTime); v != nil {
		p.tx.LockTime = u32(v)
	}
	var height, time uint32
	heights, times, any := true, true, false
	for _, m := range p.inputs {
		h, t := m.get(inHeightLock), m.get(inTimeLock)
		if h == nil && t == nil {
			continue
		}
		any = true
		heights, times = heights && h != nil, times && t != nil
		if h != nil {
			height = max(height, u32(h))
		}
		if t != nil {
			time = max(time, u32(t))
		}
	}
	switch {
	case !any:
	case heights:
		p.tx.LockTime = height
	case times:
		p.tx.LockTime = time
	default:
		return malformed("make inputs that can be spent at the same time", "one input needs a height and another a time")
	}
	return nil
}

func (p *PSBT) serialize(global *keymap, inputs, outputs []*keymap) []byte {
	out := global.appendTo([]byte(magic))
	for _, m := range inputs {
		out = m.appendTo(out)
	}
	for _, m := range outputs {
		out = m.appendTo(out)
	}
	return out
}

// refusePanic makes a refusal of a panic in this package or a library: bytes
// from outside must not stop the appliance. drop takes back what would be returned
// beside it.
func refusePanic(err *error, drop ...func()) {
	if recover() != nil {
		for _, f := range drop {
			f()
		}
		*err = malformed("make it anew with another wallet, and tell us", "the PSBT could not be read to its end")
	}
}
