package testbed

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// PSBT makes a transaction that spends one output, in binary form (BIP-174, version 0):
// of the key alone (P2WPKH) if whole, else of the key and somebody else's together
// (P2WSH, 2 of 2). publicPEM is a wallet's public key on secp256k1, and coin names the
// output that is spent. fee is in satoshi; 100,000 come in.
func PSBT(publicPEM string, whole bool, coin string, fee int64) []byte {
	block, _ := pem.Decode([]byte(publicPEM))
	if block == nil || len(block.Bytes) != 23+65 {
		panic("not a public key on secp256k1")
	}
	key, err := btcec.ParsePubKey(block.Bytes[23:])
	if err != nil {
		panic(err)
	}
	public := key.SerializeCompressed()
	script, witness := append([]byte{0, 20}, address.Hash160(public)...), []byte(nil)
	if !whole {
		other := sha256.Sum256([]byte("somebody else"))
		_, theirs := btcec.PrivKeyFromBytes(other[:])
		witness = append([]byte{0x52, 33}, public...)
		witness = append(append(witness, 33), theirs.SerializeCompressed()...)
		witness = append(witness, 0x52, 0xae)
		sum := sha256.Sum256(witness)
		script = append([]byte{0, 32}, sum[:]...)
	}
	from := chainhash.DoubleHashH([]byte(coin))
	prev := wire.NewMsgTx(2)
	prev.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&from, 0), []byte{0x51}, nil))
	prev.AddTxOut(wire.NewTxOut(100_000, script))
	id := prev.TxHash()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: *wire.NewOutPoint(&id, 0), Sequence: wire.MaxTxInSequenceNum - 2})
	tx.AddTxOut(wire.NewTxOut(50_000, append([]byte{0, 20}, bytes.Repeat([]byte{7}, 20)...)))
	tx.AddTxOut(wire.NewTxOut(50_000-fee, append([]byte{0, 20}, address.Hash160(public)...)))

	var out bytes.Buffer
	out.WriteString("psbt\xff")
	pair := func(k byte, v []byte) {
		out.Write([]byte{1, k})
		if err := wire.WriteVarBytes(&out, 0, v); err != nil {
			panic(err)
		}
	}
	var bare, proof, spent bytes.Buffer
	for _, err := range []error{tx.SerializeNoWitness(&bare), prev.SerializeNoWitness(&proof), wire.WriteTxOut(&spent, 0, 0, prev.TxOut[0])} {
		if err != nil {
			panic(fmt.Sprint("writing a transaction: ", err))
		}
	}
	pair(0, bare.Bytes())
	out.WriteByte(0)
	pair(0, proof.Bytes())
	pair(1, spent.Bytes())
	if witness != nil {
		pair(5, witness)
	}
	out.Write([]byte{0, 0, 0})
	return out.Bytes()
}
