package bitcoin

import (
	"bytes"
	"crypto/sha256"
	encbinary "encoding/binary"
	"fmt"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// A ring holds private keys of one owner. Its fingerprint is its name's.
type ring struct {
	fingerprint [4]byte
	keys        map[string]*btcec.PrivateKey // by compressed public key and by its x
	paths       map[string][]uint32
}

func newRing(name string) *ring {
	h := sha256.Sum256([]byte(name))
	return &ring{fingerprint: [4]byte(h[:4]), keys: map[string]*btcec.PrivateKey{}, paths: map[string][]uint32{}}
}

// key makes the key number n. It lies on a path for mainnet.
func (r *ring) key(n int) *btcec.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "%x key %d", r.fingerprint, n))
	priv, _ := btcec.PrivKeyFromBytes(seed[:])
	r.add(priv, []uint32{hardened | 84, hardened, hardened, 0, uint32(n)})
	return priv
}

func (r *ring) add(priv *btcec.PrivateKey, path []uint32) {
	public := priv.PubKey().SerializeCompressed()
	for _, id := range []string{string(public), string(public[1:])} {
		r.keys[id], r.paths[id] = priv, path
	}
}

func (r *ring) Knows(fingerprint [4]byte) bool { return fingerprint == r.fingerprint }

func (r *ring) Owns(k Key) bool {
	path, ok := r.paths[string(k.Public)]
	return ok && fmt.Sprint(path) == fmt.Sprint(k.Path)
}

// origin is the value of a BIP-32 derivation.
func (r *ring) origin(public []byte) []byte {
	out := bytes.Clone(r.fingerprint[:])
	for _, step := range r.paths[string(public)] {
		out = encbinary.LittleEndian.AppendUint32(out, step)
	}
	return out
}

func (r *ring) sign(t testing.TB, w Want) []byte {
	t.Helper()
	priv, ok := r.keys[string(w.Key.Public)]
	if !ok {
		t.Fatalf("input %d wants a key that nobody has", w.Input)
	}
	if w.Scheme == ECDSA {
		return ecdsa.Sign(priv, w.Digest[:]).Serialize()
	}
	if w.Tweaked {
		priv = tweak(priv, w.MerkleRoot)
	}
	return signSchnorr(t, priv, w.Digest[:])
}

// signSchnorr signs as BIP-340 does with the auxiliary value zero.
func signSchnorr(t testing.TB, priv *btcec.PrivateKey, digest []byte) []byte {
	t.Helper()
	sig, err := schnorr.Sign(priv, digest, schnorr.CustomNonce([32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	return sig.Serialize()
}

// tweak is taproot_tweak_seckey of BIP-341, written out as Want says it.
func tweak(priv *btcec.PrivateKey, root []byte) *btcec.PrivateKey {
	d := priv.Key
	public := priv.PubKey().SerializeCompressed()
	if public[0] == 3 {
		d.Negate()
	}
	h := chainhash.TaggedHash(chainhash.TagTapTweak, public[1:], root)
	var by btcec.ModNScalar
	by.SetByteSlice(h[:])
	d.Add(&by)
	return btcec.PrivKeyFromScalar(&d)
}

// A plan is a transaction in the making: its fields are put into a PSBT of
// either version.
type plan struct {
	tx      *wire.MsgTx
	version uint32
	global  keymap
	inputs  []*keymap
	outputs []*keymap
	more    int // further outputs that the previous transactions have
}

func newPlan() *plan { return &plan{tx: wire.NewMsgTx(2)} }

func public(priv *btcec.PrivateKey) []byte { return priv.PubKey().SerializeCompressed() }

// pay adds an output that is somebody else's.
func (p *plan) pay(amount int64) *plan { return p.payTo(amount, others(7)) }

func (p *plan) payTo(amount int64, script []byte) *plan {
	p.tx.AddTxOut(wire.NewTxOut(amount, script))
	p.outputs = append(p.outputs, &keymap{})
	return p
}

// others is a script of nobody here.
func others(n byte) []byte { return append([]byte{0, 20}, bytes.Repeat([]byte{n}, 20)...) }

// spend adds an input that spends an output with the script, proven by the
// transaction that has it, and gives its map.
func (p *plan) spend(amount int64, script []byte) *keymap {
	prev := wire.NewMsgTx(2)
	from := chainhash.DoubleHashH(fmt.Appendf(nil, "coin %d", len(p.inputs)))
	prev.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&from, 3), []byte{txscript.OP_1}, nil))
	prev.AddTxOut(wire.NewTxOut(600, others(9)))
	prev.AddTxOut(wire.NewTxOut(amount, script))
	for range p.more {
		prev.AddTxOut(wire.NewTxOut(600, others(9)))
	}
	id := prev.TxHash()
	p.tx.AddTxIn(&wire.TxIn{PreviousOutPoint: *wire.NewOutPoint(&id, 1), Sequence: wire.MaxTxInSequenceNum - 2})
	var raw bytes.Buffer
	prev.Serialize(&raw)
	m := &keymap{}
	m.put([]byte{inTx}, raw.Bytes())
	p.inputs = append(p.inputs, m)
	return m
}

// script of each kind with single keys, and the fields that belong to it.
func single(kind string, public []byte) (script []byte, fields map[byte][]byte) {
	hash := hash160(public)
	switch kind {
	case kindP2PKH:
		return p2pkhScript(hash), nil
	case kindP2WPKH:
		return append([]byte{0, 20}, hash...), nil
	case kindNestedP2PKH:
		redeem := append([]byte{0, 20}, hash...)
		return p2shScript(redeem), map[byte][]byte{inRedeem: redeem}
	}
	panic(kind)
}

func p2pkhScript(hash []byte) []byte {
	s := append([]byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, hash...)
	return append(s, txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
}

func p2shScript(redeem []byte) []byte {
	return append(append([]byte{txscript.OP_HASH160, 20}, hash160(redeem)...), txscript.OP_EQUAL)
}

func p2wshScript(witness []byte) []byte { return append([]byte{0, 32}, sha(witness)...) }

func p2trScript(t testing.TB, internal, root []byte) []byte {
	key, _, ok := taprootKey(internal, root)
	if !ok {
		t.Fatal("no such internal key")
	}
	return append([]byte{txscript.OP_1, 32}, key...)
}

func multisig(need int, keys ...[]byte) []byte {
	s := []byte{txscript.OP_1 + byte(need) - 1}
	for _, k := range keys {
		s = push(s, k)
	}
	return append(s, txscript.OP_1+byte(len(keys))-1, txscript.OP_CHECKMULTISIG)
}

// coin adds an input of the kind for the ring's key n.
func (p *plan) coin(t testing.TB, r *ring, kind string, n int, amount int64) *keymap {
	t.Helper()
	key := public(r.key(n))
	if kind == kindP2TR {
		m := p.spend(amount, p2trScript(t, key[1:], nil))
		m.put([]byte{inTapKey}, key[1:])
		m.put(append([]byte{inTapDerivation}, key[1:]...), append([]byte{0}, r.origin(key)...))
		return m
	}
	script, fields := single(kind, key)
	m := p.spend(amount, script)
	for k, v := range fields {
		m.put([]byte{k}, v)
	}
	m.put(append([]byte{inDerivation}, key...), r.origin(key))
	return m
}

// change adds an output that says it goes to the ring's key n.
func (p *plan) change(r *ring, n int, amount int64) *keymap {
	key := public(r.key(n))
	p.payTo(amount, append([]byte{0, 20}, hash160(key)...))
	m := p.outputs[len(p.outputs)-1]
	m.put(append([]byte{outDerivation}, key...), r.origin(key))
	return m
}

// bytes writes the PSBT.
func (p *plan) bytes() []byte {
	out := &PSBT{global: p.global.clone()}
	for i, m := range p.inputs {
		m := m.clone()
		if p.version == 2 {
			in := p.tx.TxIn[i]
			m.put([]byte{inPreviousID}, in.PreviousOutPoint.Hash[:])
			m.put([]byte{inIndex}, encbinary.LittleEndian.AppendUint32(nil, in.PreviousOutPoint.Index))
			m.put([]byte{inSequence}, encbinary.LittleEndian.AppendUint32(nil, in.Sequence))
		}
		out.inputs = append(out.inputs, m)
	}
	for i, m := range p.outputs {
		m := m.clone()
		if p.version == 2 {
			m.put([]byte{outAmount}, encbinary.LittleEndian.AppendUint64(nil, uint64(p.tx.TxOut[i].Value)))
			m.put([]byte{outScript}, p.tx.TxOut[i].PkScript)
		}
		out.outputs = append(out.outputs, m)
	}
	if p.version == 2 {
		out.global.put([]byte{globalTxVersion}, encbinary.LittleEndian.AppendUint32(nil, uint32(p.tx.Version)))
		out.global.put([]byte{globalLockTime}, encbinary.LittleEndian.AppendUint32(nil, p.tx.LockTime))
		out.global.put([]byte{globalInputCount}, appendCompact(nil, uint64(len(p.inputs))))
		out.global.put([]byte{globalOutputCount}, appendCompact(nil, uint64(len(p.outputs))))
		out.global.put([]byte{globalVersion}, []byte{2, 0, 0, 0})
	} else {
		var raw bytes.Buffer
		p.tx.SerializeNoWitness(&raw)
		out.global.put([]byte{globalTx}, raw.Bytes())
	}
	return out.serialize(out.global, out.inputs, out.outputs)
}

func checked(t testing.TB, data []byte, rules Rules, keys Keys) *Tx {
	t.Helper()
	p, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := p.Check(rules, keys)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// answer checks, signs and finishes.
func answered(t testing.TB, data []byte, rules Rules, r *ring) *Answer {
	t.Helper()
	tx := checked(t, data, rules, r)
	for _, w := range tx.Wants() {
		if err := tx.Add(w, r.sign(t, w), false); err != nil {
			t.Fatal(err)
		}
	}
	a, err := tx.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantCode checks for a refusal with the code that is remembered.
func wantCode(t testing.TB, err error, code reason.Code) {
	t.Helper()
	r, ok := reason.As(err)
	if !ok || r.Code != code {
		t.Fatalf("got %v, want a refusal with %s", err, code)
	}
	if r.Message == "" || r.Hint == "" {
		t.Errorf("%s lacks a message or a hint", r)
	}
}
