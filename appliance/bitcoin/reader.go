package bitcoin

import (
	"crypto/sha256"
	encbinary "encoding/binary"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// A reader takes bytes from the front of b. After the first thing that is not
// there it is bad and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

// take gives the next n bytes, without a copy.
func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return encbinary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return encbinary.LittleEndian.Uint64(b)
	}
	return 0
}

// compact reads a compact size. One that is longer than need be is bad, as on
// the network.
func (r *reader) compact() uint64 {
	first := r.u8()
	var n, least uint64
	switch first {
	case 0xfd:
		if b := r.take(2); b != nil {
			n = uint64(encbinary.LittleEndian.Uint16(b))
		}
		least = 0xfd
	case 0xfe:
		n, least = uint64(r.u32()), 0x1_0000
	case 0xff:
		n, least = r.u64(), 0x1_0000_0000
	default:
		return uint64(first)
	}
	if n < least {
		r.bad = true
		return 0
	}
	return n
}

// prefixed reads bytes that follow their length.
func (r *reader) prefixed() []byte { return r.take(r.compact()) }

// done reports whether all bytes were there and none is left.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

// appendCompact appends a compact size.
func appendCompact(dst []byte, n uint64) []byte {
	switch {
	case n < 0xfd:
		return append(dst, byte(n))
	case n <= 0xffff:
		return encbinary.LittleEndian.AppendUint16(append(dst, 0xfd), uint16(n))
	case n <= 0xffff_ffff:
		return encbinary.LittleEndian.AppendUint32(append(dst, 0xfe), uint32(n))
	}
	return encbinary.LittleEndian.AppendUint64(append(dst, 0xff), n)
}

func appendPrefixed(dst, b []byte) []byte {
	return append(appendCompact(dst, uint64(len(b))), b...)
}

// leastInput and leastOutput are the fewest bytes of an input and an output in
// a transaction: a count that does not fit into the rest is refused before
// anything is allocated for it.
const (
	leastInput  = 41
	leastOutput = 9
)

var errTransaction = errors.New("not a transaction")

// scan walks over a serialised transaction and calls in and out for its parts,
// which lie in raw. With segwit it may have the marker of BIP-144. It gives the
// transaction's id.
func scan(raw []byte, segwit bool, in func(*wire.TxIn) error, out func(int, *wire.TxOut) error) (t wire.MsgTx, id chainhash.Hash, err error) {
	r := &reader{b: raw}
	version := r.take(4)
	marked := segwit && len(r.b) >= 2 && r.b[0] == 0 && r.b[1] == 1
	if marked {
		r.take(2)
	}
	body := r.b
	ins := r.compact()
	if r.bad || ins > uint64(len(r.b)/leastInput) {
		return t, id, errTransaction
	}
	for range ins {
		var txIn wire.TxIn
		copy(txIn.PreviousOutPoint.Hash[:], r.take(32))
		txIn.PreviousOutPoint.Index = r.u32()
		txIn.SignatureScript = r.prefixed()
		txIn.Sequence = r.u32()
		if r.bad {
			return t, id, errTransaction
		}
		if in != nil {
			if err := in(&txIn); err != nil {
				return t, id, err
			}
		}
	}
	outs := r.compact()
	if r.bad || outs > uint64(len(r.b)/leastOutput) {
		return t, id, errTransaction
	}
	for i := range outs {
		txOut := wire.TxOut{Value: int64(r.u64()), PkScript: r.prefixed()}
		if r.bad {
			return t, id, errTransaction
		}
		if err := out(int(i), &txOut); err != nil {
			return t, id, err
		}
	}
	body = body[:len(body)-len(r.b)]
	if marked {
		for range ins {
			for n := r.compact(); n > 0 && !r.bad; n-- {
				r.prefixed()
			}
		}
	}
	lock := r.take(4)
	if !r.done() {
		return t, id, errTransaction
	}
	t.Version = int32(encbinary.LittleEndian.Uint32(version))
	t.LockTime = encbinary.LittleEndian.Uint32(lock)
	h := sha256.New()
	h.Write(version)
	h.Write(body)
	h.Write(lock)
	id = sha256.Sum256(h.Sum(nil))
	return t, id, nil
}

// readUnsigned reads the transaction of a PSBT of version 0: without
// signatures, and in the serialisation that has no place for witnesses.
func readUnsigned(raw []byte) (*wire.MsgTx, error) {
	var ins []*wire.TxIn
	var outs []*wire.TxOut
	t, _, err := scan(raw, false, func(in *wire.TxIn) error {
		if len(in.SignatureScript) > 0 {
			return errors.New("an input of the unsigned transaction has a script already")
		}
		in.SignatureScript = nil
		ins = append(ins, in)
		return nil
	}, func(_ int, out *wire.TxOut) error {
		outs = append(outs, out)
		return nil
	})
	t.TxIn, t.TxOut = ins, outs
	return &t, err
}

// readOutput gives the id of a serialised transaction and its output with the
// index, nil if there is none.
func readOutput(raw []byte, index uint32) (chainhash.Hash, *wire.TxOut, error) {
	var found *wire.TxOut
	_, id, err := scan(raw, true, nil, func(i int, out *wire.TxOut) error {
		if uint32(i) == index {
			found = out
		}
		return nil
	})
	return id, found, err
}
