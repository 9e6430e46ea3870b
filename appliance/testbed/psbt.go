package testbed

import (
	"bytes"
	"crypto/sha256"
	encbinary "encoding/binary"
	"encoding/pem"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/answer"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// Account is an account of an HD wallet, as a watching wallet knows it.
type Account struct {
	Script      hd.Script
	Fingerprint hd.Fingerprint
	Path        hd.Path
	xpub        *hd.Public
}

// Accounts are those that the answer to wallet.create tells.
func Accounts(a *answer.Answer) (map[hd.Script]*Account, error) {
	f, ok := hd.ParseFingerprint(a.Fingerprint)
	if !ok {
		return nil, fmt.Errorf("the fingerprint is %q", a.Fingerprint)
	}
	m := map[hd.Script]*Account{}
	for _, e := range a.Accounts {
		path, err := hd.ParsePath(e.Path)
		if err != nil {
			return nil, err
		}
		xpub, _, err := hd.ParsePublic(e.XPub)
		if err != nil {
			return nil, err
		}
		m[hd.Script(e.Script)] = &Account{hd.Script(e.Script), f, path, xpub}
	}
	return m, nil
}

// AccountOf is account 0 of a wallet.
func AccountOf(w *keyfs.Wallet, s hd.Script) (*Account, error) {
	path := hd.Account(s, w.Network(), 0)
	xpub, err := w.PublicAt(path)
	if err != nil {
		return nil, err
	}
	return &Account{s, w.Fingerprint(), path, xpub}, nil
}

// Key is the key at a path below the account, such as 0, 7.
func (a *Account) Key(steps ...uint32) Key {
	pub, err := a.xpub.Derive(steps)
	if err != nil {
		panic(err)
	}
	return Key{pub.Key(), Origin(a.Fingerprint, a.Path.Below(steps...))}
}

// Key is a public key with its origin as a PSBT says it, nil for none.
type Key struct {
	Public *btcec.PublicKey
	Origin []byte
}

// Origin is the value of a BIP-32 derivation.
func Origin(f hd.Fingerprint, path hd.Path) []byte {
	out := bytes.Clone(f[:])
	for _, step := range path {
		out = encbinary.LittleEndian.AppendUint32(out, step)
	}
	return out
}

// Stranger is a key of nobody here, which has an origin all the same.
func Stranger(name string) Key {
	sum := sha256.Sum256([]byte(name))
	_, pub := btcec.PrivKeyFromBytes(sum[:])
	return Key{pub, Origin(hd.Fingerprint(sum[:4]), hd.Path{84 | hd.Hardened, hd.Hardened, hd.Hardened, 0, 1})}
}

// Payment is a transaction in the making, with what a PSBT says of it.
type Payment struct {
	Tx      *wire.MsgTx
	inputs  [][]field
	outputs [][]field
}

type field struct{ key, value []byte }

// NewPayment begins one.
func NewPayment() *Payment { return &Payment{Tx: wire.NewMsgTx(2)} }

// spend adds an input that spends an output with the script. coin names the output.
func (p *Payment) spend(coin string, amount int64, script []byte, segwit bool) *[]field {
	from := chainhash.DoubleHashH([]byte(coin))
	prev := wire.NewMsgTx(2)
	prev.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&from, 0), []byte{0x51}, nil))
	prev.AddTxOut(wire.NewTxOut(amount, script))
	id := prev.TxHash()
	p.Tx.AddTxIn(&wire.TxIn{PreviousOutPoint: *wire.NewOutPoint(&id, 0), Sequence: wire.MaxTxInSequenceNum - 2})
	var proof, spent bytes.Buffer
	if err := prev.SerializeNoWitness(&proof); err != nil {
		panic(err)
	}
	if err := wire.WriteTxOut(&spent, 0, 0, prev.TxOut[0]); err != nil {
		panic(err)
	}
	fields := []field{{[]byte{0}, proof.Bytes()}}
	if segwit {
		fields = append(fields, field{[]byte{1}, spent.Bytes()})
	}
	p.inputs = append(p.inputs, fields)
	return &p.inputs[len(p.inputs)-1]
}

// Spend adds an input of the form with the key.
func (p *Payment) Spend(coin string, amount int64, s hd.Script, k Key) *Payment {
	in := p.spend(coin, amount, s.Output(k.Public), s != hd.P2PKH)
	if s == hd.P2SHP2WPKH {
		*in = append(*in, field{[]byte{4}, hd.P2WPKH.Output(k.Public)})
	}
	*in = append(*in, k.fields(s, 0x06, 0x16, 0x17)...)
	return p
}

// SpendShared adds an input of so many of the keys (P2WSH).
func (p *Payment) SpendShared(coin string, amount int64, need int, keys ...Key) *Payment {
	witness := []byte{0x50 + byte(need)}
	for _, k := range keys {
		witness = append(append(witness, 33), k.Public.SerializeCompressed()...)
	}
	witness = append(witness, 0x50+byte(len(keys)), 0xae)
	sum := sha256.Sum256(witness)
	in := p.spend(coin, amount, append([]byte{0, 32}, sum[:]...), true)
	*in = append(*in, field{[]byte{5}, witness})
	for _, k := range keys {
		*in = append(*in, k.fields(hd.P2WPKH, 0x06, 0, 0)...)
	}
	return p
}

// fields say whose a key is, with the field types for the key, and for Taproot's.
func (k Key) fields(s hd.Script, plain, tap, internal byte) (fields []field) {
	x := hd.XOnly(k.Public)
	if s == hd.P2TR {
		fields = append(fields, field{[]byte{internal}, x})
		if k.Origin != nil {
			fields = append(fields, field{append([]byte{tap}, x...), append([]byte{0}, k.Origin...)})
		}
		return fields
	}
	if k.Origin != nil {
		fields = append(fields, field{append([]byte{plain}, k.Public.SerializeCompressed()...), k.Origin})
	}
	return fields
}

// Pay adds an output to somebody else, whom n tells from others.
func (p *Payment) Pay(amount int64, n byte) *Payment {
	p.Tx.AddTxOut(wire.NewTxOut(amount, append([]byte{0, 20}, bytes.Repeat([]byte{n}, 20)...)))
	p.outputs = append(p.outputs, nil)
	return p
}

// Change adds an output of the form to the key.
func (p *Payment) Change(amount int64, s hd.Script, k Key) *Payment {
	return p.Claim(amount, s, k, k)
}

// Claim is Change that says another key than the one that it goes to.
func (p *Payment) Claim(amount int64, s hd.Script, to, said Key) *Payment {
	p.Tx.AddTxOut(wire.NewTxOut(amount, s.Output(to.Public)))
	var out []field
	if s == hd.P2SHP2WPKH {
		out = append(out, field{[]byte{0}, hd.P2WPKH.Output(to.Public)})
	}
	p.outputs = append(p.outputs, append(out, said.fields(s, 0x02, 0x07, 0x05)...))
	return p
}

// In sets a field of an input, whose key is a single byte.
func (p *Payment) In(i int, key byte, value []byte) *Payment {
	p.inputs[i] = append(p.inputs[i], field{[]byte{key}, value})
	return p
}

// Unproven leaves out the transaction that proves an input's amount, and says another
// amount if stated is not 0.
func (p *Payment) Unproven(i int, stated int64) *Payment {
	p.inputs[i] = p.inputs[i][1:]
	if stated != 0 {
		v := bytes.Clone(p.inputs[i][0].value)
		encbinary.LittleEndian.PutUint64(v, uint64(stated))
		p.inputs[i][0].value = v
	}
	return p
}

// PSBT writes it in binary form (BIP-174, version 0).
func (p *Payment) PSBT() []byte {
	var bare, out bytes.Buffer
	if err := p.Tx.SerializeNoWitness(&bare); err != nil {
		panic(err)
	}
	out.WriteString("psbt\xff")
	put := func(fields []field) {
		for _, f := range fields {
			for _, b := range [][]byte{f.key, f.value} {
				if err := wire.WriteVarBytes(&out, 0, b); err != nil {
					panic(err)
				}
			}
		}
		out.WriteByte(0)
	}
	put([]field{{[]byte{0}, bare.Bytes()}})
	for _, fields := range append(p.inputs, p.outputs...) {
		put(fields)
	}
	return out.Bytes()
}

// PSBT makes a transaction that spends one output, in binary form (BIP-174, version 0):
// of the key alone (P2WPKH) if whole, else of the key and somebody else's together
// (P2WSH, 2 of 2). publicPEM is a wallet's public key on secp256k1, and coin names the
// output that is spent. fee is in satoshi; 100,000 come in.
func PSBT(publicPEM string, whole bool, coin string, fee int64) []byte {
	k := KeyOf(publicPEM)
	p := NewPayment()
	if whole {
		p.Spend(coin, 100_000, hd.P2WPKH, k)
	} else {
		theirs := Stranger("somebody else")
		theirs.Origin = nil
		p.SpendShared(coin, 100_000, 2, k, theirs)
	}
	p.Pay(50_000, 7)
	p.Tx.AddTxOut(wire.NewTxOut(50_000-fee, append([]byte{0, 20}, address.Hash160(k.Public.SerializeCompressed())...)))
	p.outputs = append(p.outputs, nil)
	return p.PSBT()
}

// KeyOf is a wallet's key, without an origin. publicPEM is that of an answer, on
// secp256k1.
func KeyOf(publicPEM string) Key {
	block, _ := pem.Decode([]byte(publicPEM))
	if block == nil || len(block.Bytes) != 23+65 {
		panic("not a public key on secp256k1")
	}
	key, err := btcec.ParsePubKey(block.Bytes[23:])
	if err != nil {
		panic(err)
	}
	return Key{Public: key}
}
