package bitcoin

import (
	"encoding/hex"
	"fmt"

	"github.com/btcsuite/btcd/wire/v2"
)

// Description says what a transaction does, for policy and for the answer's
// result. Amounts are in satoshi. It marshals to the same JSON each time.
type Description struct {
	Network string `json:"network"`
	PSBT    uint32 `json:"psbt_version"`

	// TxID is there when nothing that it covers is missing, WTxID when the
	// transaction is complete.
	TxID  string `json:"txid,omitempty"`
	WTxID string `json:"wtxid,omitempty"`

	Complete bool      `json:"complete"`
	Missing  []Missing `json:"missing,omitempty"`

	Fee     int64  `json:"fee"`
	FeeRate string `json:"fee_rate"` // satoshi for a virtual byte, two decimals
	// VSize is in virtual bytes. Until the transaction is complete it is
	// estimated, with missing signatures at their usual greatest size.
	VSize     int  `json:"vsize"`
	Estimated bool `json:"vsize_estimated,omitzero"`

	Paid     int64 `json:"paid"`        // to others
	Change   int64 `json:"change"`      // back to the company's wallets
	LockTime int64 `json:"locktime"`    // block height, or Unix time from 500000000 on; 0 where no input heeds it
	RBF      bool  `json:"replaceable"` // an input signals BIP-125
	Version  int32 `json:"transaction_version"`

	Inputs  []Input  `json:"inputs"`
	Outputs []Output `json:"outputs"`
}

// Missing is an input that lacks signatures.
type Missing struct {
	Input      int      `json:"input"`
	Signatures int      `json:"signatures,omitzero"` // how many more; 0 if the script is not understood
	Keys       []string `json:"keys,omitempty"`      // origins of keys that could sign: d34db33f/84h/0h/0h/0/5
}

// Input describes an input.
type Input struct {
	Spends  string `json:"spends"` // "txid:index"
	Amount  int64  `json:"amount"`
	Proven  bool   `json:"proven"` // by the previous transaction
	Type    string `json:"type"`   // "p2pkh", "p2sh", "p2sh-p2wpkh", "p2sh-p2wsh", "p2wpkh", "p2wsh", "p2tr", "unknown"
	Address string `json:"address,omitempty"`
	Script  string `json:"script,omitempty"` // hexadecimal, where there is no address
	Ours    bool   `json:"ours"`
	Sighash string `json:"sighash,omitempty"` // of our signatures
}

// Output describes an output.
type Output struct {
	Amount  int64  `json:"amount"`
	Type    string `json:"type"` // as Input.Type, or "op_return"
	Address string `json:"address,omitempty"`
	Script  string `json:"script,omitempty"` // hexadecimal, where there is no address
	Change  bool   `json:"change"`
}

// Describe describes the transaction as it stands, before or after signatures
// were added.
func (t *Tx) Describe() *Description {
	draft, missing := t.assemble(true)
	d := &Description{
		Network: t.rules.Network, PSBT: t.psbt.version, Complete: len(missing) == 0,
		Fee: t.fee, Paid: t.paid, Change: t.in - t.fee - t.paid, Version: t.tx.Version,
		VSize: vsize(draft), Estimated: len(missing) > 0,
	}
	cents := t.fee * 100 / int64(d.VSize)
	d.FeeRate = fmt.Sprintf("%d.%02d", cents/100, cents%100)
	for _, i := range missing {
		d.Missing = append(d.Missing, t.missing(i))
	}
	if d.Complete || t.stable(missing) {
		d.TxID = draft.TxID()
	}
	if d.Complete {
		d.WTxID = draft.WitnessHash().String()
	}
	for i, in := range t.ins {
		txIn := t.tx.TxIn[i]
		if txIn.Sequence != wire.MaxTxInSequenceNum {
			d.LockTime = int64(t.tx.LockTime)
		}
		d.RBF = d.RBF || txIn.Sequence < wire.MaxTxInSequenceNum-1
		x := Input{Spends: txIn.PreviousOutPoint.String(), Amount: in.spent.Value, Proven: in.proven, Type: in.kind, Ours: in.ours}
		x.Address, x.Script = t.name(in.spent.PkScript)
		if in.ours {
			x.Sighash = in.sighashName()
		}
		d.Inputs = append(d.Inputs, x)
	}
	for i, o := range t.outs {
		x := Output{Amount: t.tx.TxOut[i].Value, Type: o.kind, Change: o.change}
		x.Address, x.Script = t.name(t.tx.TxOut[i].PkScript)
		d.Outputs = append(d.Outputs, x)
	}
	return d
}

// sighashName names the type of our signatures at the input. Without a stated one that
// is ALL, or Taproot's DEFAULT.
func (in *input) sighashName() string {
	if !in.sighashSet && in.sighash == sighashDefault && in.kind != kindP2TR {
		return sighashNames[sighashAll]
	}
	return sighashNames[in.sighash]
}

// name gives a script's address, or the script itself.
func (t *Tx) name(script []byte) (address, raw string) {
	if address = t.net.address(script); address == "" {
		raw = hex.EncodeToString(script)
	}
	return address, raw
}

// stable reports whether what is missing is in witnesses alone, which a
// transaction's id does not cover.
func (t *Tx) stable(missing []int) bool {
	for _, i := range missing {
		s, _ := t.ins[i].best()
		if s == nil || !s.segwit && !s.schnorr {
			return false
		}
	}
	return true
}

func (t *Tx) missing(i int) Missing {
	in := t.ins[i]
	m := Missing{Input: i}
	s, _ := in.best()
	if s == nil {
		return m
	}
	sigs, have := in.signatures(s)
	m.Signatures = s.need - have
	unsigned := map[string]bool{}
	for j, key := range s.keys {
		unsigned[string(key)] = sigs[j] == nil
	}
	named, _ := in.fields.origins(inDerivation, inTapDerivation)
	for _, k := range named {
		if unsigned[string(k.Public)] {
			m.Keys = append(m.Keys, k.Origin())
		}
	}
	return m
}

// vsize is the virtual size of BIP-141.
func vsize(tx *wire.MsgTx) int {
	return (tx.SerializeSizeStripped()*3 + tx.SerializeSize() + 3) / 4
}
