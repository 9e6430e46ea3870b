package bitcoin

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// Wants lists the signatures that our keys are to make, in the order of the
// inputs. It is never empty. The caller must not change what it points to.
func (t *Tx) Wants() []Want { return slices.Clone(t.wants) }

// Add puts a signature in its place: DER for ECDSA, 64 bytes for Schnorr. One
// that does not verify is an error and changes nothing. Adding the same again is
// none; a second, other signature is an error.
//
// With verified set the caller has verified it already, with the want's digest and
// the key that the output names, and it is not verified again, here or by the script
// engine where that comes to the same digest and key.
func (t *Tx) Add(w Want, sig []byte, verified bool) error {
	if w.index >= len(t.wants) || t.wants[w.index].Digest != w.Digest || !bytes.Equal(t.wants[w.index].field, w.field) {
		return errors.New("adding a signature: the transaction does not want it")
	}
	w = t.wants[w.index]
	in := t.ins[w.Input]
	s := in.spendOf(w.field)
	key := s.verifier(w.Key.Public)
	if !verified && !verifySignature(s.schnorr, key, w.Digest, sig) {
		return fmt.Errorf("adding a signature to input %d: it does not verify", w.Input)
	}
	full := slices.Clone(sig)
	if in.sighash != sighashDefault {
		full = append(full, byte(in.sighash))
	}
	if there := in.fields.at(w.field); there != nil && !bytes.Equal(there, full) {
		return fmt.Errorf("adding a signature to input %d: it has another one", w.Input)
	}
	in.fields.put(w.field, full)
	if t.verified == nil {
		t.verified = txscript.NewSigCache(2 * uint(len(t.wants))) // with as many of others
	}
	if s.schnorr {
		sig = full // as the engine asks for it
	}
	t.verified.Add(w.Digest, slices.Clone(sig), key)
	return nil
}

// File is a file of the answer. Its name is the request's name without .psbt,
// and Suffix.
type File struct {
	Suffix string // "-signed.psbt", "-part.psbt" or "-final.txn"
	Data   []byte
}

// Answer is what becomes of a signed transaction.
type Answer struct {
	// Complete: no signature is missing, and the script engine accepts every
	// input.
	Complete bool

	// Files has NAME-signed.psbt and NAME-final.txn, or NAME-part.psbt alone
	// while signatures of others are missing. The PSBT is the asker's with our
	// signatures, in the form in which it came; the transaction is in
	// hexadecimal, one line.
	Files []File

	Description *Description
}

// Finish makes the answer when every want was added.
func (t *Tx) Finish() (a *Answer, err error) {
	defer refusePanic(&err)
	for _, w := range t.wants {
		if t.ins[w.Input].fields.at(w.field) == nil {
			return nil, fmt.Errorf("finishing a transaction: input %d lacks a signature", w.Input)
		}
	}
	t.closeFlags()
	inputs := make([]*keymap, len(t.ins))
	for i, in := range t.ins {
		inputs[i] = in.fields
	}
	psbt := t.psbt.form.encode(t.psbt.serialize(t.global, inputs, t.psbt.outputs))

	final, missing := t.assemble(false)
	if len(missing) > 0 {
		return &Answer{Files: []File{{"-part.psbt", psbt}}, Description: t.Describe()}, nil
	}
	for i := range t.ins {
		if err := t.run(final, i); err != nil {
			return nil, at(reason.New(reason.CosignatureInvalid, "remove what does not verify, or let its owner sign again",
				"the finished input is not accepted"), "inputs", i)
		}
	}
	var raw bytes.Buffer
	if err := final.Serialize(&raw); err != nil {
		return nil, fmt.Errorf("finishing a transaction: %w", err)
	}
	return &Answer{
		Complete:    true,
		Files:       []File{{"-signed.psbt", psbt}, {"-final.txn", append(hex.AppendEncode(nil, raw.Bytes()), '\n')}},
		Description: t.Describe(),
	}, nil
}

// run runs the script engine on an input, with the rules of a node that relays.
func (t *Tx) run(final *wire.MsgTx, i int) error {
	spent := t.ins[i].spent
	vm, err := txscript.NewEngine(spent.PkScript, final, i, txscript.StandardVerifyFlags, t.verified,
		t.digests.shared, spent.Value, t.digests.prevouts)
	if err != nil {
		return err
	}
	return vm.Execute()
}

// closeFlags says in a PSBT of version 2 what our signatures no longer allow to
// be changed (BIP-370, "Signer").
func (t *Tx) closeFlags() {
	v := t.global.get(globalModifiable)
	if v == nil {
		return
	}
	flags := v[0]
	for _, w := range t.wants {
		kind := t.ins[w.Input].sighash
		if kind&anyoneCanPay == 0 {
			flags &^= 1
		}
		if kind&^anyoneCanPay != sighashNone {
			flags &^= 2
		}
		if kind&^anyoneCanPay == sighashSingle {
			flags |= 4
		}
	}
	t.global.put([]byte{globalModifiable}, []byte{flags})
}

// assemble makes the transaction for the network, and lists the inputs that it
// cannot finish. With draft these are filled with what has the size that
// signatures will have, as far as their scripts are understood.
func (t *Tx) assemble(draft bool) (final *wire.MsgTx, missing []int) {
	final = t.tx.Copy()
	for i, in := range t.ins {
		txIn := final.TxIn[i]
		if in.final {
			txIn.SignatureScript = in.fields.get(inFinalScript)
			txIn.Witness, _ = readWitness(in.fields.get(inFinalWitness))
			continue
		}
		s, complete := in.best()
		if !complete {
			missing = append(missing, i)
		}
		if s == nil || !complete && !draft {
			continue
		}
		txIn.SignatureScript, txIn.Witness = in.unlock(s)
	}
	return final, missing
}

// best is the first way to spend that has its signatures, else the one that is
// ours, else the first.
func (in *input) best() (best *spend, complete bool) {
	for _, s := range in.spends {
		if _, have := in.signatures(s); have >= s.need {
			return s, true
		}
	}
	for _, s := range in.spends {
		for _, key := range s.keys {
			if _, ok := in.owned[string(key)]; ok {
				return s, false
			}
		}
	}
	if len(in.spends) > 0 {
		return in.spends[0], false
	}
	return nil, false
}

// Sizes of what is not there yet.
var (
	draftECDSA   = make([]byte, 72)
	draftSchnorr = make([]byte, 64)
	draftKey     = make([]byte, 33)
)

// unlock makes the script and the witness that spend the input, with drafts for
// signatures that are missing.
func (in *input) unlock(s *spend) (script []byte, witness wire.TxWitness) {
	sigs, _ := in.signatures(s)
	left := s.need
	for i, sig := range sigs {
		if sig != nil && left > 0 {
			left--
		} else {
			sigs[i] = nil // one more than the script takes
		}
	}
	for i, sig := range sigs {
		if sig == nil && left > 0 {
			left--
			sigs[i] = draftECDSA
			if s.schnorr {
				sigs[i] = draftSchnorr
			}
		}
	}
	if in.nested != nil {
		script = push(nil, in.nested)
	}
	switch in.kind {
	case kindP2PKH, kindP2WPKH, kindNestedP2PKH:
		sig, key := draftECDSA, draftKey
		if len(s.keys) == 1 {
			sig, key = sigs[0], s.keys[0]
		}
		if s.segwit {
			return script, wire.TxWitness{sig, key}
		}
		return push(push(nil, sig), key), nil
	case kindP2SH:
		script = []byte{txscript.OP_0} // which CHECKMULTISIG takes and does not use
		for _, sig := range sigs {
			if sig != nil {
				script = push(script, sig)
			}
		}
		return push(script, s.script), nil
	case kindP2WSH, kindNestedP2SH:
		if !isSingle(s.script) {
			witness = append(witness, nil)
		}
		for _, sig := range sigs {
			if sig != nil {
				witness = append(witness, sig)
			}
		}
		return script, append(witness, s.script)
	}
	if s.leaf == nil {
		return nil, wire.TxWitness{sigs[0]}
	}
	slices.Reverse(sigs)
	return nil, append(append(witness, sigs...), s.script, s.control)
}

// isSingle reports whether a script that readMultisig understands is
// `KEY CHECKSIG`.
func isSingle(script []byte) bool { return script[len(script)-1] == txscript.OP_CHECKSIG }

// push appends the shortest push of data of up to 520 bytes, the most that a
// script may push.
func push(script, data []byte) []byte {
	switch n := len(data); {
	case n <= txscript.OP_DATA_75:
		script = append(script, byte(n))
	case n <= 0xff:
		script = append(script, txscript.OP_PUSHDATA1, byte(n))
	default:
		script = append(script, txscript.OP_PUSHDATA2, byte(n), byte(n>>8))
	}
	return append(script, data...)
}
