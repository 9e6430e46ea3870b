package bitcoin

import (
	"bytes"
	"crypto/sha256"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
)

func hash160(b []byte) []byte { return address.Hash160(b) }

// scriptHash cuts the hash or key out of a script of one of the fixed forms.
func scriptHash(script, prefix, suffix []byte, n int) []byte {
	if len(script) != len(prefix)+n+len(suffix) || !bytes.HasPrefix(script, prefix) || !bytes.HasSuffix(script, suffix) {
		return nil
	}
	return script[len(prefix) : len(prefix)+n]
}

// The fixed forms. Each gives nil for a script of another form.
func p2pkh(s []byte) []byte {
	return scriptHash(s, []byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, []byte{txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG}, 20)
}
func p2sh(s []byte) []byte {
	return scriptHash(s, []byte{txscript.OP_HASH160, 20}, []byte{txscript.OP_EQUAL}, 20)
}
func p2wpkh(s []byte) []byte { return scriptHash(s, []byte{0, 20}, nil, 20) }
func p2wsh(s []byte) []byte  { return scriptHash(s, []byte{0, 32}, nil, 32) }
func p2tr(s []byte) []byte   { return scriptHash(s, []byte{txscript.OP_1, 32}, nil, 32) }

// A quorum is what a script that we understand wants: so many signatures by the
// keys, in the order of the script.
type quorum struct {
	need int
	keys [][]byte
}

// keyTwice reports whether two of the keys have the same x coordinate, so that who has
// one of them has the other.
func (q quorum) keyTwice() bool {
	seen := make(map[[32]byte]bool, len(q.keys))
	for _, key := range q.keys {
		if len(key) > 32 {
			key = key[1:33]
		}
		if len(key) < 32 {
			continue
		}
		if seen[[32]byte(key)] {
			return true
		}
		seen[[32]byte(key)] = true
	}
	return false
}

// readMultisig understands `m KEY… n CHECKMULTISIG` and, for witness scripts,
// `KEY CHECKSIG`. Where it does not, the keys are those that come first.
func readMultisig(script []byte) (q quorum, ok bool) {
	q, ok = multisigOf(script)
	return q, ok && shortest(script)
}

// shortest reports whether a script pushes all its data in the shortest way. No node
// relays what spends another (MINIMALDATA, BIP-62).
func shortest(script []byte) bool {
	n := 0
	for t := txscript.MakeScriptTokenizer(0, script); t.Next(); {
		if n++; t.Data() != nil {
			n += len(push(nil, t.Data())) - 1
		}
	}
	return n == len(script)
}

func multisigOf(script []byte) (q quorum, ok bool) {
	t := txscript.MakeScriptTokenizer(0, script)
	if !t.Next() {
		return q, false
	}
	if key := t.Data(); isPublicKey(key) {
		ok = t.Next() && t.Opcode() == txscript.OP_CHECKSIG && !t.Next() && t.Err() == nil
		return quorum{1, [][]byte{key}}, ok
	}
	if q.need, ok = small(&t); !ok {
		return q, false
	}
	for t.Next() {
		if key := t.Data(); isPublicKey(key) {
			q.keys = append(q.keys, key)
			continue
		}
		n, ok := small(&t)
		ok = ok && n == len(q.keys) && q.need <= n && q.need > 0 && n <= txscript.MaxPubKeysPerMultiSig &&
			t.Next() && t.Opcode() == txscript.OP_CHECKMULTISIG && !t.Next() && t.Err() == nil
		return q, ok
	}
	return q, false
}

// maxPush is the most that a script may push, in bytes, and so the size of a redeem
// script. What pays to a larger one is lost.
const maxPush = 520

// readRedeem is readMultisig for a redeem script without a witness, which is multisig
// alone.
func readRedeem(script []byte) (q quorum, ok bool) {
	q, ok = readMultisig(script)
	return q, ok && len(script) <= maxPush && !isSingle(script)
}

// readLeaf understands the tapscripts `KEY CHECKSIG` and
// `KEY CHECKSIG KEY CHECKSIGADD … m NUMEQUAL` (multi_a of BIP-387), as readMultisig.
func readLeaf(script []byte) (q quorum, ok bool) {
	q, ok = leafOf(script)
	return q, ok && shortest(script)
}

func leafOf(script []byte) (q quorum, ok bool) {
	t := txscript.MakeScriptTokenizer(0, script)
	for t.Next() {
		if key := t.Data(); len(key) == 32 {
			want := byte(txscript.OP_CHECKSIGADD)
			if len(q.keys) == 0 {
				want = txscript.OP_CHECKSIG
			}
			if !t.Next() || t.Opcode() != want {
				return q, false
			}
			q.keys = append(q.keys, key)
			continue
		}
		q.need, ok = small(&t)
		ok = ok && q.need > 0 && q.need <= len(q.keys) &&
			t.Next() && t.Opcode() == txscript.OP_NUMEQUAL && !t.Next() && t.Err() == nil
		return q, ok
	}
	q.need = 1
	return q, t.Err() == nil && len(q.keys) == 1
}

// small reads the token as a number from 0 to 127 in its shortest form, beyond
// which only others' scripts go.
func small(t *txscript.ScriptTokenizer) (int, bool) {
	op, data := t.Opcode(), t.Data()
	switch {
	case op == txscript.OP_0:
		return 0, true
	case op >= txscript.OP_1 && op <= txscript.OP_16:
		return int(op-txscript.OP_1) + 1, true
	case len(data) == 1 && data[0] > 16 && data[0] < 0x80:
		return int(data[0]), true
	}
	return 0, false
}

// taprootKey is taproot_tweak_pubkey of BIP-341: the key in the output for an
// internal key (32 bytes) and a merkle root (32 bytes or none), and whether its
// y is odd.
func taprootKey(internal, root []byte) (key []byte, odd, ok bool) {
	p, err := schnorr.ParsePubKey(internal)
	if err != nil {
		return nil, false, false
	}
	q, ok := taprootPoint(p, root)
	if !ok {
		return nil, false, false
	}
	q.ToAffine()
	x := q.X.Bytes()
	return x[:], q.Y.IsOdd(), true
}

// taprootPoint is taprootKey before the inversion that makes coordinates of it.
func taprootPoint(internal *btcec.PublicKey, root []byte) (q btcec.JacobianPoint, ok bool) {
	h := chainhash.TaggedHash(chainhash.TagTapTweak, schnorr.SerializePubKey(internal), root)
	var t btcec.ModNScalar
	if t.SetBytes((*[32]byte)(h)) != 0 {
		return q, false
	}
	var tweak btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(&t, &tweak)
	internal.AsJacobian(&q)
	btcec.AddNonConst(&q, &tweak, &q)
	return q, !q.Z.IsZero()
}

// hasX reports whether x is the point's coordinate, without computing that: it is
// X/Z².
func hasX(q *btcec.JacobianPoint, x []byte) bool {
	var want, z2 btcec.FieldVal
	if over := want.SetByteSlice(x); over {
		return false
	}
	z2.SquareVal(&q.Z)
	return want.Mul(&z2).Normalize().Equals(q.X.Normalize())
}

func leafHash(version byte, script []byte) []byte {
	h := chainhash.TaggedHash(chainhash.TagTapLeaf, []byte{version}, appendPrefixed(nil, script))
	return h[:]
}

func branchHash(a, b []byte) []byte {
	if bytes.Compare(a, b) > 0 {
		a, b = b, a
	}
	h := chainhash.TaggedHash(chainhash.TagTapBranch, a, b)
	return h[:]
}

// controlRoot gives the merkle root that a control block makes of a leaf.
func controlRoot(control, leaf []byte) []byte {
	for path := control[33:]; len(path) > 0; path = path[32:] {
		leaf = branchHash(leaf, path[:32])
	}
	return leaf
}

// A tree is a Taproot script tree.
type tree struct {
	root    []byte
	scripts [][]byte
	base    bool // every leaf is a tapscript (BIP-342)
}

// treeRoot reads a tree as BIP-371 writes it: leaves in depth-first order, each
// with its depth, its version and its script.
func treeRoot(v []byte) (tree, bool) {
	type node struct {
		depth byte
		hash  []byte
	}
	var stack []node
	t := tree{base: true}
	r := reader{b: v}
	for len(r.b) > 0 && !r.bad {
		depth, version, script := r.u8(), r.u8(), r.prefixed()
		if r.bad || depth > 128 || version&1 != 0 {
			return t, false
		}
		t.base = t.base && version == byte(txscript.BaseLeafVersion)
		t.scripts = append(t.scripts, script)
		stack = append(stack, node{depth, leafHash(version, script)})
		for n := len(stack); n >= 2 && stack[n-1].depth == stack[n-2].depth && stack[n-1].depth > 0; n = len(stack) {
			stack = append(stack[:n-2], node{stack[n-1].depth - 1, branchHash(stack[n-2].hash, stack[n-1].hash)})
		}
	}
	if !r.done() || len(stack) != 1 || stack[0].depth != 0 {
		return t, false
	}
	t.root = stack[0].hash
	return t, true
}

func sha(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
