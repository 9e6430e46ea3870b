package bitcoin

import (
	"bytes"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// An input is what Check finds out about one input.
type input struct {
	fields *keymap // the Tx's own, to which signatures are added
	spent  *wire.TxOut
	proven bool   // spent comes out of a transaction that has the id
	kind   string // "p2wpkh", …, "unknown"

	sighash    uint32
	sighashSet bool

	final  bool // finished already, by another program
	spends []*spend
	nested []byte // the redeem script of P2SH with segregated witness

	internal *btcec.PublicKey // of a Taproot output, if it is known

	owned map[string]Key
	ours  bool

	byField map[string]*spend // see spendOf
}

// A spend is a way to spend an input that we understand.
type spend struct {
	quorum
	segwit  bool
	schnorr bool
	script  []byte // what the digest covers: script code, witness script or leaf script
	leaf    []byte // hash of the leaf in a Taproot script path
	control []byte // its control block
	tweaked []byte // the output's key in a Taproot key path; keys has the internal one
	root    []byte // the merkle root behind tweaked

	digests map[uint32][32]byte // by sighash type, what was computed before
}

// field is the key of the PSBT's field with the signature by the key.
func (s *spend) field(key []byte) []byte {
	switch {
	case s.leaf != nil:
		return append(append([]byte{inTapLeafSignature}, key...), s.leaf...)
	case s.schnorr:
		return []byte{inTapSignature}
	}
	return append([]byte{inSignature}, key...)
}

// verifier is the key that verifies the signature which key makes.
func (s *spend) verifier(key []byte) []byte {
	if s.tweaked != nil {
		return s.tweaked
	}
	return key
}

// signatures gives those that are there, in the order of the keys, nil for one
// that is missing, and how many are there.
func (in *input) signatures(s *spend) (sigs [][]byte, have int) {
	for _, key := range s.keys {
		sig := in.fields.at(s.field(key))
		if sig != nil {
			have++
		}
		sigs = append(sigs, sig)
	}
	return sigs, have
}

// The kinds of outputs.
const (
	kindP2PKH       = "p2pkh"
	kindP2SH        = "p2sh"
	kindNestedP2PKH = "p2sh-p2wpkh"
	kindNestedP2SH  = "p2sh-p2wsh"
	kindP2WPKH      = "p2wpkh"
	kindP2WSH       = "p2wsh"
	kindP2TR        = "p2tr"
	kindData        = "op_return"
	kindUnknown     = "unknown"
)

// kindOf names an output's script; with its redeem script, if there is one, also
// what lies behind P2SH.
func kindOf(script, redeem []byte) string {
	switch {
	case p2pkh(script) != nil:
		return kindP2PKH
	case p2sh(script) != nil && p2wpkh(redeem) != nil:
		return kindNestedP2PKH
	case p2sh(script) != nil && p2wsh(redeem) != nil:
		return kindNestedP2SH
	case p2sh(script) != nil:
		return kindP2SH
	case p2wpkh(script) != nil:
		return kindP2WPKH
	case p2wsh(script) != nil:
		return kindP2WSH
	case p2tr(script) != nil:
		return kindP2TR
	case len(script) > 0 && script[0] == txscript.OP_RETURN:
		return kindData
	}
	return kindUnknown
}

// witnessed reports whether a script may be spent with a witness.
func witnessed(script, redeem []byte) bool {
	if p2sh(script) != nil {
		return redeem == nil || txscript.IsWitnessProgram(redeem)
	}
	return txscript.IsWitnessProgram(script)
}

// readSpent finds the output that the input spends, and what proves it.
func (in *input) readSpent(out wire.OutPoint) *reason.Refusal {
	raw, stated := in.fields.get(inTx), in.fields.get(inOutput)
	if raw != nil {
		id, found, err := readOutput(raw, out.Index)
		switch {
		case err != nil:
			return malformed("make it anew", "the previous transaction is not one")
		case id != out.Hash || found == nil:
			return reason.New(reason.AmountUnproven, "put the transaction in whose output is spent",
				"the previous transaction is not the one whose output is spent")
		}
		in.spent, in.proven = found, true
	}
	if stated == nil {
		if in.spent == nil {
			return reason.New(reason.AmountUnproven, "let the wallet put the previous transaction (non-witness UTXO) in",
				"the PSBT does not say which output is spent")
		}
		return nil
	}
	txOut, _ := readTxOut(stated)
	if in.proven {
		if txOut.Value != in.spent.Value || !bytes.Equal(txOut.PkScript, in.spent.PkScript) {
			return reason.New(reason.AmountUnproven, "make it anew",
				"the stated output is not the one in the previous transaction")
		}
		return nil
	}
	in.spent = txOut
	if !witnessed(txOut.PkScript, in.fields.get(inRedeem)) {
		return reason.New(reason.AmountUnproven, "let the wallet put the previous transaction (non-witness UTXO) in",
			"an output without segregated witness is stated, not proven")
	}
	return nil
}

// readScripts holds the scripts, internal keys and merkle roots of the input
// against the output that it spends, and finds the ways to spend it.
func (in *input) readScripts() *reason.Refusal {
	script := in.spent.PkScript
	redeem, witness := in.fields.get(inRedeem), in.fields.get(inWitness)
	in.kind = kindOf(script, redeem)
	in.final = in.fields.has(inFinalScript) || in.fields.has(inFinalWitness)

	if redeem != nil && !bytes.Equal(p2sh(script), hash160(redeem)) {
		return mismatch("the redeem script is not the one that the output commits to")
	}
	program := script
	if in.kind == kindNestedP2PKH || in.kind == kindNestedP2SH {
		program, in.nested = redeem, redeem
	}
	if witness != nil && !bytes.Equal(p2wsh(program), sha(witness)) {
		return mismatch("the witness script is not the one that the output commits to")
	}
	if in.final {
		return nil
	}
	switch in.kind {
	case kindP2PKH:
		in.spends = []*spend{{quorum: in.single(p2pkh(script)), script: script}}
	case kindP2WPKH, kindNestedP2PKH:
		in.spends = []*spend{{quorum: in.single(p2wpkh(program)), script: program, segwit: true}}
	case kindP2SH:
		if q, ok := readRedeem(redeem); ok {
			in.spends = []*spend{{quorum: q, script: redeem}}
		}
	case kindP2WSH, kindNestedP2SH:
		if q, ok := readMultisig(witness); ok {
			in.spends = []*spend{{quorum: q, script: witness, segwit: true}}
		}
	case kindP2TR:
		return in.readTaproot(p2tr(script))
	}
	return nil
}

// checks is how many signatures the script engine checks at the most when it runs the
// input.
func (in *input) checks() (n int) {
	if !in.final {
		for _, s := range in.spends {
			if s.schnorr {
				n = max(n, s.need)
			} else {
				n = max(n, len(s.keys)) // each may be tried
			}
		}
		return n
	}
	script, pays := in.fields.get(inFinalScript), in.spent.PkScript
	witness, _ := readWitness(in.fields.get(inFinalWitness))
	n = txscript.GetSigOpCount(script) + txscript.GetPreciseSigOpCount(script, pays, true) + txscript.GetWitnessSigOpCount(script, pays, witness)
	if in.kind == kindP2TR {
		n += 1 + witness.SerializeSize()/50 // the budget of BIP-342
	}
	return n
}

// anew is how many bytes, at the most, the script engine hashes again for each signature
// that a finished Taproot input checks: the annex, and with SINGLE the output of the same
// number (BIP-341).
func (in *input) anew(tx *wire.MsgTx, i int) (n int) {
	witness, _ := readWitness(in.fields.get(inFinalWitness))
	if last := len(witness) - 1; last > 0 && len(witness[last]) > 0 && witness[last][0] == txscript.TaprootAnnexTag {
		n = len(witness[last])
	}
	if i < len(tx.TxOut) {
		n += tx.TxOut[i].SerializeSize()
	}
	return n
}

// single looks for the key with the hash among those that the PSBT names.
func (in *input) single(hash []byte) quorum {
	for _, p := range in.fields.pairs {
		if k := p.kind(); k != inDerivation && k != inSignature {
			continue
		}
		if key := p.data(); bytes.Equal(hash160(key), hash) {
			return quorum{1, [][]byte{key}}
		}
	}
	return quorum{need: 1}
}

// maxLeaves is how many leaf scripts an input may have.
const maxLeaves = 128

// A tapLeaf is a leaf script as the PSBT names it.
type tapLeaf struct {
	control, script []byte
	version         byte
	hash, root      []byte // root: what the control block makes of it
}

func (in *input) tapLeaves() (leaves []tapLeaf, few bool) {
	for _, p := range in.fields.pairs {
		if p.kind() != inTapLeaf {
			continue
		}
		if len(leaves) == maxLeaves {
			return nil, false
		}
		n := len(p.value) - 1
		l := tapLeaf{control: p.data(), script: p.value[:n], version: p.value[n]}
		l.hash = leafHash(l.version, l.script)
		l.root = controlRoot(l.control, l.hash)
		leaves = append(leaves, l)
	}
	return leaves, true
}

// readTaproot is readScripts for a Taproot output with the key. Internal key and
// merkle root may be stated, or follow from a leaf script.
func (in *input) readTaproot(output []byte) *reason.Refusal {
	leaves, ok := in.tapLeaves()
	if !ok {
		return reason.New(reason.TooLarge, "name the leaves that are to be used", "an input has at most %d leaf scripts", maxLeaves)
	}
	internal, root := in.fields.get(inTapKey), in.fields.get(inTapRoot)
	if len(leaves) > 0 && internal == nil {
		internal = leaves[0].control[1:33]
	}
	if len(leaves) > 0 && root == nil {
		root = leaves[0].root
	}
	// The internal key comes first: who has it needs no script.
	in.spends = []*spend{{quorum: quorum{1, [][]byte{internal}}, schnorr: true, tweaked: output, root: root}}
	if internal == nil {
		return nil // somebody else's, or signed by no key that has an origin
	}
	point, err := schnorr.ParsePubKey(internal)
	if err != nil {
		return mismatch("the internal key is not a point of the curve")
	}
	in.internal = point
	q, ok := taprootPoint(point, root)
	if !ok || !hasX(&q, output) {
		return mismatch("the internal key and the merkle root do not make the key in the output")
	}
	odd := false
	if len(leaves) > 0 {
		q.ToAffine()
		odd = q.Y.IsOdd()
	}
	for _, l := range leaves {
		if !bytes.Equal(l.control[1:33], internal) || !bytes.Equal(l.root, root) ||
			l.control[0]&^1 != l.version || (l.control[0]&1 == 1) != odd {
			return mismatch("a leaf script is not one that the output commits to")
		}
		if q, ok := readLeaf(l.script); ok && l.version == byte(txscript.BaseLeafVersion) {
			in.spends = append(in.spends, &spend{quorum: q, schnorr: true, script: l.script, leaf: l.hash, control: l.control})
		}
	}
	return nil
}

func mismatch(format string, args ...any) *reason.Refusal {
	return reason.New(reason.ScriptMismatch, "make it anew", format, args...)
}

// origins are the keys with their origins that a map names, under the types for
// both kinds of keys. The second result has those that are said to be the
// internal key of a Taproot output, since they name no leaf.
func (m *keymap) origins(ecdsa, taproot uint64) (keys []Key, atRoot []bool) {
	for _, p := range m.pairs {
		switch p.kind() {
		case ecdsa:
			keys = append(keys, readKey(p.data(), p.value))
			atRoot = append(atRoot, false)
		case taproot:
			leaves, origin, _ := readTapOrigin(p.value)
			keys = append(keys, readKey(p.data(), origin))
			atRoot = append(atRoot, len(leaves) == 0)
		}
	}
	return keys, atRoot
}
