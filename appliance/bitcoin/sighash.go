package bitcoin

import (
	"crypto/sha256"
	encbinary "encoding/binary"
	"hash"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// A digester computes what signatures of one transaction cover. The hashes that
// all inputs share are computed once.
type digester struct {
	tx       *wire.MsgTx
	outputs  []*wire.TxOut // what the inputs spend
	prevouts *txscript.MultiPrevOutFetcher
	shared   *txscript.TxSigHashes
	legacy   *legacyDigester
}

func newDigester(tx *wire.MsgTx, spent []*wire.TxOut) *digester {
	prevouts := make(map[wire.OutPoint]*wire.TxOut, len(spent))
	for i, in := range tx.TxIn {
		prevouts[in.PreviousOutPoint] = spent[i]
	}
	d := &digester{tx: tx, outputs: spent, prevouts: txscript.NewMultiPrevOutFetcher(prevouts)}
	d.shared = txscript.NewTxSigHashes(tx, d.prevouts)
	return d
}

// digest is the digest for a spend of the input with the sighash type.
func (d *digester) digest(input int, s *spend, sighash uint32) ([32]byte, bool) {
	if known, ok := s.digests[sighash]; ok {
		return known, true
	}
	digest, ok := d.compute(input, s, sighash)
	if ok {
		if s.digests == nil {
			s.digests = make(map[uint32][32]byte, 1)
		}
		s.digests[sighash] = digest
	}
	return digest, ok
}

func (d *digester) compute(input int, s *spend, sighash uint32) ([32]byte, bool) {
	var out []byte
	var err error
	kind := txscript.SigHashType(sighash)
	switch {
	case s.schnorr && s.leaf == nil:
		out, err = txscript.CalcTaprootSignatureHash(d.shared, kind, d.tx, input, d.prevouts)
	case s.schnorr:
		out, err = txscript.CalcTapscriptSignaturehash(d.shared, kind, d.tx, input, d.prevouts, txscript.NewBaseTapLeaf(s.script))
	case s.segwit:
		out, err = txscript.CalcWitnessSigHash(s.script, d.shared, kind, d.tx, input, d.outputs[input].Value)
	case sighash == sighashAll:
		if d.legacy == nil {
			d.legacy = newLegacyDigester(d.tx)
		}
		return d.legacy.digest(input, s.script), true
	default:
		out, err = txscript.CalcSignatureHash(s.script, kind, d.tx, input)
	}
	if err != nil || len(out) != 32 {
		return [32]byte{}, false
	}
	return [32]byte(out), true
}

// A legacyDigester computes digests of the original protocol for the sighash
// type ALL. Each covers the whole transaction, so that their cost grows with the
// square of the inputs; what comes before the input is hashed once for all that
// are asked in order.
type legacyDigester struct {
	tx     *wire.MsgTx
	parts  []byte    // the inputs with empty scripts, the outputs, the lock time, the type
	before hash.Hash // the version, the count and the inputs before next
	next   int
}

// emptyInput is the size of an input with an empty script.
const emptyInput = 36 + 1 + 4

func newLegacyDigester(tx *wire.MsgTx) *legacyDigester {
	l := &legacyDigester{tx: tx, before: sha256.New()}
	head := encbinary.LittleEndian.AppendUint32(nil, uint32(tx.Version))
	l.before.Write(appendCompact(head, uint64(len(tx.TxIn))))
	for _, in := range tx.TxIn {
		l.parts = append(l.parts, in.PreviousOutPoint.Hash[:]...)
		l.parts = encbinary.LittleEndian.AppendUint32(l.parts, in.PreviousOutPoint.Index)
		l.parts = append(l.parts, 0)
		l.parts = encbinary.LittleEndian.AppendUint32(l.parts, in.Sequence)
	}
	l.parts = appendCompact(l.parts, uint64(len(tx.TxOut)))
	for _, out := range tx.TxOut {
		l.parts = encbinary.LittleEndian.AppendUint64(l.parts, uint64(out.Value))
		l.parts = appendPrefixed(l.parts, out.PkScript)
	}
	l.parts = encbinary.LittleEndian.AppendUint32(l.parts, tx.LockTime)
	l.parts = encbinary.LittleEndian.AppendUint32(l.parts, sighashAll)
	return l
}

func (l *legacyDigester) digest(input int, script []byte) [32]byte {
	if input < l.next { // out of order: from the beginning
		*l = *newLegacyDigester(l.tx)
	}
	at := input * emptyInput
	l.before.Write(l.parts[l.next*emptyInput : at])
	l.next = input
	h, err := l.before.(hash.Cloner).Clone()
	if err != nil {
		panic("internal error: SHA-256 cannot be cloned: " + err.Error())
	}
	h.Write(l.parts[at : at+36])
	h.Write(appendPrefixed(nil, script))
	h.Write(l.parts[at+37:])
	return sha256.Sum256(h.Sum(nil))
}
