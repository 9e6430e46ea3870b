package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// stated replaces the previous transaction by the mere output.
func stated(p *plan, i int) {
	m := p.inputs[i]
	_, out, _ := readOutput(m.get(inTx), p.tx.TxIn[i].PreviousOutPoint.Index)
	m.drop([]byte{inTx})
	m.put([]byte{inOutput}, txOutBytes(out))
}

func txOutBytes(out *wire.TxOut) []byte {
	var b bytes.Buffer
	wire.WriteTxOut(&b, 0, 0, out)
	return b.Bytes()
}

func (m *keymap) drop(key []byte) {
	m.pairs = slices.DeleteFunc(m.pairs, func(p pair) bool { return bytes.Equal(p.key, key) })
	*m = *m.clone()
}

// sighash states an input's sighash type.
func (m *keymap) state(kind uint32) {
	m.put([]byte{inSighash}, []byte{byte(kind), byte(kind >> 8), 0, 0})
}

// script writes a PSBT's xpub field.
func xpubKey(version [4]byte) []byte {
	return append(append([]byte{globalXpub}, version[:]...), make([]byte, 74)...)
}

// share adds an output that both can spend together.
func (p *plan) share(amount int64, a, b *ring) {
	script := multisig(2, public(a.key(8)), public(b.key(8)))
	p.payTo(amount, p2wshScript(script))
	m := p.outputs[len(p.outputs)-1]
	m.put([]byte{outWitness}, script)
	m.put(append([]byte{outDerivation}, public(a.key(8))...), a.origin(public(a.key(8))))
}

// TestRefusals: one case for each thing that a careful signer refuses, and beside
// it the nearest that he signs.
func TestRefusals(t *testing.T) {
	alice, mallory := newRing("alice"), newRing("mallory")
	// two is what most cases begin with: two inputs of ours, a payment, change.
	two := func(kinds ...string) *plan {
		p := newPlan()
		for n, kind := range kinds {
			p.coin(t, alice, kind, n, 100_000)
		}
		p.pay(60_000)
		p.change(alice, 9, int64(len(kinds))*100_000-61_000)
		return p
	}
	v0 := []string{kindP2WPKH, kindP2WPKH}
	tr := []string{kindP2TR, kindP2TR}
	const signed = reason.Code("")
	for _, c := range []struct {
		name string
		code reason.Code // "" if it is signed
		at   string      // the field that the refusal names
		plan func() *plan
		rule Rules
	}{
		{"two inputs", signed, "", func() *plan { return two(v0...) }, Rules{}},

		// Amounts.
		{"legacy input without its transaction", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := two(kindP2PKH, kindP2WPKH)
			stated(p, 0)
			return p
		}, Rules{WitnessAmounts: true}},
		{"single legacy input without its transaction", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindP2PKH, 0, 50_000)
			stated(p, 0)
			return p.pay(49_000)
		}, Rules{}},
		{"nothing about the output", reason.AmountUnproven, "inputs[1]", func() *plan {
			p := two(v0...)
			p.inputs[1].drop([]byte{inTx})
			return p
		}, Rules{WitnessAmounts: true}},
		{"another transaction", reason.AmountUnproven, "inputs[1]", func() *plan {
			p := two(v0...)
			p.inputs[1].put([]byte{inTx}, p.inputs[0].get(inTx))
			return p
		}, Rules{}},
		{"a changed transaction", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := two(v0...)
			raw := bytes.Clone(p.inputs[0].get(inTx))
			raw[len(raw)-30] ^= 1
			p.inputs[0].put([]byte{inTx}, raw)
			return p
		}, Rules{}},
		{"no such output", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := two(v0...)
			p.tx.TxIn[0].PreviousOutPoint.Index = 2
			return p
		}, Rules{}},
		{"broken transaction", reason.PSBTMalformed, "inputs[0]", func() *plan {
			p := two(v0...)
			p.inputs[0].put([]byte{inTx}, p.inputs[0].get(inTx)[:50])
			return p
		}, Rules{}},
		{"both, and they differ", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := two(v0...)
			p.inputs[0].put([]byte{inOutput}, txOutBytes(wire.NewTxOut(50_001, others(1))))
			return p
		}, Rules{}},
		{"both, and they agree", signed, "", func() *plan {
			p := two(v0...)
			_, out, _ := readOutput(p.inputs[0].get(inTx), 1)
			p.inputs[0].put([]byte{inOutput}, txOutBytes(out))
			return p
		}, Rules{}},
		{"a stated amount among two", reason.AmountUnproven, "inputs[1]", func() *plan {
			p := two(v0...)
			stated(p, 1)
			return p
		}, Rules{}},
		{"the same, and the policy takes it", signed, "", func() *plan {
			p := two(v0...)
			stated(p, 1)
			return p
		}, Rules{WitnessAmounts: true}},
		{"a stated amount that is alone", signed, "", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindNestedP2PKH, 0, 50_000)
			stated(p, 0)
			return p.pay(49_000)
		}, Rules{}},
		{"a stated amount of somebody else's input", reason.AmountUnproven, "inputs[1]", func() *plan {
			p := two(kindP2WPKH)
			p.spend(1000, others(3))
			stated(p, 1)
			return p
		}, Rules{}},
		// Who lies about an input of ours may as well say that it is Taproot.
		{"a stated Taproot output beside our other", reason.AmountUnproven, "inputs[1]", func() *plan {
			p := two(kindP2WPKH, kindP2TR)
			stated(p, 1)
			return p
		}, Rules{}},
		{"Taproot's signatures cover all amounts", signed, "", func() *plan {
			p := two(tr...)
			p.spend(1000, others(3))
			for i := range p.inputs {
				stated(p, i)
			}
			return p
		}, Rules{}},
		{"but not with ANYONECANPAY", reason.AmountUnproven, "inputs[0]", func() *plan {
			p := two(tr...)
			p.inputs[0].state(sighashAll | anyoneCanPay)
			stated(p, 0)
			return p
		}, Rules{Sighashes: []string{"ALL|ANYONECANPAY"}}},
		{"more than there is", reason.AmountInvalid, "", func() *plan { return two(v0...).pay(100_000) }, Rules{}},
		{"a negative output", reason.AmountInvalid, "outputs[2]", func() *plan { return two(v0...).pay(-1) }, Rules{}},
		{"outputs that overflow", reason.AmountInvalid, "outputs[3]", func() *plan { return two(v0...).pay(maxMoney - 200_000).pay(maxMoney) }, Rules{}},
		{"an input above all money", reason.AmountInvalid, "inputs[2]", func() *plan {
			p := two(v0...)
			p.spend(maxMoney, others(1))
			return p
		}, Rules{}},

		// The fee.
		{"a fee of 10 %", signed, "", func() *plan { return newCoin(t, alice, 11_000).pay(10_000) }, Rules{}},
		{"a fee above 10 %", reason.FeeTooHigh, "", func() *plan { return newCoin(t, alice, 11_001).pay(10_000) }, Rules{}},
		{"the policy allows 20 %", signed, "", func() *plan { return newCoin(t, alice, 12_000).pay(10_000) }, Rules{MaxFeePercent: 20}},
		{"above 20 %", reason.FeeTooHigh, "", func() *plan { return newCoin(t, alice, 12_001).pay(10_000) }, Rules{MaxFeePercent: 20}},
		{"no limit", signed, "", func() *plan { return newCoin(t, alice, 50_000).pay(1) }, Rules{MaxFeePercent: -1}},
		{"a limit in satoshi", reason.FeeTooHigh, "", func() *plan { return newCoin(t, alice, 50_000).pay(49_000) }, Rules{MaxFee: 999}},
		{"change does not count as paid", reason.FeeTooHigh, "", func() *plan {
			p := newCoin(t, alice, 100_000).pay(1_000)
			p.change(alice, 9, 98_000)
			return p
		}, Rules{}},
		{"all comes back", signed, "", func() *plan {
			p := newCoin(t, alice, 100_000)
			p.change(alice, 9, 98_000)
			return p
		}, Rules{}},
		{"change that is shared does not count either", reason.FeeTooHigh, "", func() *plan {
			p := newCoin(t, alice, 100_000).pay(1_000)
			p.share(98_000, alice, mallory)
			return p
		}, Rules{}},
		{"all goes to what is shared", signed, "", func() *plan {
			p := newCoin(t, alice, 100_000)
			p.share(98_000, alice, mallory)
			return p
		}, Rules{}},
		{"all is fee", reason.FeeTooHigh, "", func() *plan {
			return newCoin(t, alice, 100_000).payTo(0, []byte{txscript.OP_RETURN})
		}, Rules{}},

		// Sighash types.
		{"NONE", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(v0...), sighashNone) }, Rules{}},
		{"SINGLE in Taproot", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(tr...), sighashSingle) }, Rules{}},
		{"ALL in Taproot", signed, "", func() *plan { return withSighash(two(tr...), sighashAll) }, Rules{}},
		{"DEFAULT outside Taproot", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(v0...), sighashDefault) }, Rules{Sighashes: []string{"DEFAULT"}}},
		{"unknown", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(v0...), 0x41) }, Rules{Sighashes: []string{""}}},
		{"with a higher byte", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(v0...), 0x101) }, Rules{}},
		{"the policy allows another", reason.SighashForbidden, "inputs[1]", func() *plan { return withSighash(two(v0...), sighashNone) }, Rules{Sighashes: []string{"SINGLE"}}},
		{"SINGLE without its output", reason.SighashForbidden, "inputs[2]", func() *plan {
			p := newPlan()
			for n := range 3 {
				p.coin(t, alice, kindP2PKH, n, 50_000)
			}
			p.pay(100_000).pay(49_000)
			p.inputs[2].state(sighashSingle)
			return p
		}, Rules{Sighashes: []string{"SINGLE"}}},
		{"somebody else's input may have another", signed, "", func() *plan {
			p := two(kindP2WPKH)
			p.coin(t, mallory, kindP2WPKH, 0, 1000).state(sighashNone)
			return p
		}, Rules{}},

		// Scripts.
		{"a redeem script of another output", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindNestedP2PKH)
			p.inputs[0].put([]byte{inRedeem}, others(1))
			return p
		}, Rules{}},
		{"a redeem script without P2SH", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindP2WPKH)
			p.inputs[0].put([]byte{inRedeem}, others(1))
			return p
		}, Rules{}},
		{"a witness script of another output", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := newPlan()
			p.quorumCoin(kindP2WSH, 50_000, 1, []*ring{alice, mallory}, 1).put([]byte{inWitness}, multisig(1, public(alice.key(1))))
			return p.pay(49_000)
		}, Rules{}},
		{"a witness script without P2WSH", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindP2WPKH)
			p.inputs[0].put([]byte{inWitness}, multisig(1, public(alice.key(1))))
			return p
		}, Rules{}},
		{"another internal key", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindP2TR)
			p.inputs[0].put([]byte{inTapKey}, nobody(t))
			return p
		}, Rules{}},
		{"an internal key that is no point", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindP2TR)
			p.inputs[0].put([]byte{inTapKey}, bytes.Repeat([]byte{0xff}, 32))
			return p
		}, Rules{}},
		{"another merkle root", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := two(kindP2TR)
			p.inputs[0].put([]byte{inTapRoot}, make([]byte, 32))
			return p
		}, Rules{}},
		{"another leaf", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := newPlan()
			m := p.leafCoin(t, 50_000, nobody(t), 1, []*ring{alice}, 1)
			for i, f := range m.pairs {
				if f.kind() == inTapLeaf {
					m.pairs[i].value = append(leafScript(1, public(alice.key(2))[1:]), 0xc0)
				}
			}
			return p.pay(49_000)
		}, Rules{}},
		{"the leaf's parity", reason.ScriptMismatch, "inputs[0]", func() *plan {
			p := newPlan()
			m := p.leafCoin(t, 50_000, nobody(t), 1, []*ring{alice}, 1)
			for i, f := range m.pairs {
				if f.kind() == inTapLeaf {
					m.pairs[i].key = bytes.Clone(f.key)
					m.pairs[i].key[1] ^= 1
				}
			}
			return p.pay(49_000)
		}, Rules{}},
		{"a script that we do not know", reason.NothingToSign, "", func() *plan {
			p := newPlan()
			key := public(alice.key(1))
			script := append(push(nil, key), txscript.OP_CHECKSIGVERIFY, txscript.OP_1)
			m := p.spend(50_000, p2wshScript(script))
			m.put([]byte{inWitness}, script)
			m.put(append([]byte{inDerivation}, key...), alice.origin(key))
			return p.pay(49_000)
		}, Rules{}},

		{"a key twice in a script", reason.KeyTwice, "inputs[0]", func() *plan {
			p := newPlan()
			p.quorumCoin(kindP2WSH, 50_000, 2, []*ring{alice, mallory, alice}, 1)
			return p.pay(49_000)
		}, Rules{}},
		{"a key twice in a leaf", reason.KeyTwice, "inputs[0]", func() *plan {
			p := newPlan()
			p.leafCoin(t, 50_000, nobody(t), 2, []*ring{alice, mallory, mallory}, 1)
			return p.pay(49_000)
		}, Rules{}},

		{"a single key in P2SH", reason.NothingToSign, "", func() *plan {
			p := newPlan()
			key := public(alice.key(1))
			script := append(push(nil, key), txscript.OP_CHECKSIG)
			m := p.spend(50_000, p2shScript(script))
			m.put([]byte{inRedeem}, script)
			m.put(append([]byte{inDerivation}, key...), alice.origin(key))
			return p.pay(49_000)
		}, Rules{}},

		// Keys and change.
		{"somebody else's key with our fingerprint", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newPlan()
			m := p.coin(t, mallory, kindP2WPKH, 1, 50_000)
			key := public(mallory.key(1))
			m.put(append([]byte{inDerivation}, key...), alice.origin(public(alice.key(1))))
			return p.pay(49_000)
		}, Rules{}},
		{"our key on another path", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			key := public(alice.key(0))
			p.inputs[0].put(append([]byte{inDerivation}, key...), alice.origin(public(alice.key(1))))
			return p.pay(49_000)
		}, Rules{}},
		{"our key with both of its halves, where the wallet would know it", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			priv := alice.key(0)
			key := priv.PubKey().SerializeUncompressed()
			alice.keys[string(key)], alice.paths[string(key)] = priv, alice.paths[string(public(priv))]
			p.inputs[0].put(append([]byte{inDerivation}, key...), alice.origin(key))
			return p.pay(49_000)
		}, Rules{}},
		{"what is no key with our key's origin, where the wallet would know it", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			priv := alice.key(0)
			key := append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...)
			alice.keys[string(key)], alice.paths[string(key)] = priv, alice.paths[string(public(priv))]
			p.inputs[0].put(append([]byte{inDerivation}, key...), alice.origin(key))
			return p.pay(49_000)
		}, Rules{}},
		{"a key of ours that is not in the script", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			key := public(alice.key(5))
			p.inputs[0].put(append([]byte{inDerivation}, key...), alice.origin(key))
			return p.pay(49_000)
		}, Rules{}},
		{"a key of ours as the internal key, and it is not", reason.OriginFalse, "inputs[0]", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindP2TR, 1, 50_000)
			key := public(alice.key(5))[1:]
			p.inputs[0].put(append([]byte{inTapDerivation}, key...), append([]byte{0}, alice.origin(key)...))
			return p.pay(49_000)
		}, Rules{}},
		{"change to somebody else with our key's origin", reason.ChangeFalse, "outputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000).pay(49_000)
			key := public(mallory.key(5))
			p.outputs[0].put(append([]byte{outDerivation}, key...), alice.origin(public(alice.key(5))))
			return p
		}, Rules{}},
		{"change that names our key, and pays another", reason.ChangeFalse, "outputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000).pay(49_000)
			key := public(alice.key(5))
			p.outputs[0].put(append([]byte{outDerivation}, key...), alice.origin(key))
			return p
		}, Rules{}},
		{"change to the hash of a Taproot key, which is lost", reason.ChangeFalse, "outputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			key := public(alice.key(5))[1:]
			p.payTo(49_000, append([]byte{0, 20}, hash160(key)...))
			p.outputs[0].put(append([]byte{outTapDerivation}, key...), append([]byte{0}, alice.origin(key)...))
			return p
		}, Rules{}},
		{"Taproot change with another internal key", reason.ChangeFalse, "outputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			key := public(alice.key(5))[1:]
			p.payTo(49_000, p2trScript(t, nobody(t), nil))
			p.outputs[0].put([]byte{outTapKey}, key)
			p.outputs[0].put(append([]byte{outTapDerivation}, key...), append([]byte{0}, alice.origin(key)...))
			return p
		}, Rules{}},

		// Networks.
		{"keys of mainnet for testnet", reason.NetworkMismatch, "inputs[0]", func() *plan { return two(v0...) }, Rules{Network: "testnet"}},
		{"change to a path of testnet", reason.NetworkMismatch, "outputs[0]", func() *plan {
			p := newCoin(t, alice, 50_000)
			key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{11}, 32))
			alice.add(key, []uint32{84 | hardened, 1 | hardened, hardened, 1, 5})
			p.payTo(49_000, append([]byte{0, 20}, hash160(public(key))...))
			p.outputs[0].put(append([]byte{outDerivation}, public(key)...), alice.origin(public(key)))
			return p
		}, Rules{}},
		{"an xpub for testnet", reason.NetworkMismatch, "", func() *plan {
			p := two(v0...)
			p.global.put(xpubKey(mainXpub), []byte{1, 2, 3, 4})
			return p
		}, Rules{Network: "regtest"}},
		{"a tpub for mainnet", reason.NetworkMismatch, "", func() *plan {
			p := two(v0...)
			p.global.put(xpubKey(testXpub), []byte{1, 2, 3, 4})
			return p
		}, Rules{}},
		{"an xpub for mainnet", signed, "", func() *plan {
			p := two(v0...)
			p.global.put(xpubKey(mainXpub), []byte{1, 2, 3, 4})
			return p
		}, Rules{}},

		// The rest.
		{"an output twice", reason.InputTwice, "inputs[1]", func() *plan {
			p := two(v0...)
			p.tx.TxIn[1].PreviousOutPoint = p.tx.TxIn[0].PreviousOutPoint
			return p
		}, Rules{}},
		{"the output of a coinbase", reason.InputTwice, "inputs[0]", func() *plan {
			p := two(v0...)
			p.tx.TxIn[0].PreviousOutPoint = wire.OutPoint{Index: 0xffffffff}
			return p
		}, Rules{}},
		{"nothing of ours", reason.NothingToSign, "", func() *plan {
			p := newPlan()
			p.coin(t, mallory, kindP2WPKH, 1, 50_000)
			return p.pay(49_000)
		}, Rules{}},
		{"no outputs", reason.NothingToSign, "", func() *plan { return newCoin(t, alice, 50_000) }, Rules{}},
		{"a signature that does not verify", reason.CosignatureInvalid, "inputs[1]", func() *plan {
			p := two(kindP2WPKH)
			m := p.coin(t, mallory, kindP2WPKH, 0, 1000)
			m.put(append([]byte{inSignature}, public(mallory.key(0))...), append(mallory.sign(t, Want{Key: Key{Public: public(mallory.key(0))}}), sighashAll))
			return p
		}, Rules{}},
		{"a Taproot signature that does not verify", reason.CosignatureInvalid, "inputs[1]", func() *plan {
			p := two(kindP2WPKH)
			p.coin(t, mallory, kindP2TR, 0, 1000).put([]byte{inTapSignature}, make([]byte, 64))
			return p
		}, Rules{}},
	} {
		for _, version := range []uint32{0, 2} {
			t.Run(fmt.Sprintf("%s/%d", c.name, version), func(t *testing.T) {
				plan := c.plan()
				plan.version = version
				p, err := Parse(plan.bytes())
				if err != nil {
					t.Fatal(err)
				}
				tx, err := p.Check(c.rule, alice)
				if c.code == signed {
					if err != nil {
						t.Fatal(err)
					}
					for _, w := range tx.Wants() {
						if err := tx.Add(w, alice.sign(t, w), false); err != nil {
							t.Fatal(err)
						}
					}
					if _, err := tx.Finish(); err != nil {
						t.Error(err)
					}
					return
				}
				if tx != nil {
					t.Error("there is something to sign")
				}
				wantCode(t, err, c.code)
				if r, _ := reason.As(err); r.Field != c.at {
					t.Errorf("the refusal names %q, want %q", r.Field, c.at)
				}
				if !reason.Final(c.code) {
					t.Errorf("%s is not remembered", c.code)
				}
			})
		}
	}
}

// newCoin spends one output of the ring's.
func newCoin(t testing.TB, r *ring, amount int64) *plan {
	p := newPlan()
	p.coin(t, r, kindP2WPKH, 0, amount)
	return p
}

func withSighash(p *plan, kind uint32) *plan {
	p.inputs[1].state(kind)
	return p
}

// TestFinishedByOthers: an input that somebody else has finished is run by the
// engine too.
func TestFinishedByOthers(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	p := newCoin(t, alice, 50_000)
	p.coin(t, bob, kindP2WPKH, 0, 50_000)
	data := p.pay(99_000).bytes()
	first := checked(t, data, Rules{}, bob)
	w := first.Wants()[0]
	witness := appendPrefixed(appendPrefixed([]byte{2}, append(bob.sign(t, w), sighashAll)), w.Key.Public)
	p.inputs[1].put([]byte{inFinalWitness}, witness)
	if a := answered(t, p.bytes(), Rules{}, alice); !a.Complete {
		t.Errorf("%+v", a.Description)
	}
	broken := bytes.Clone(witness)
	broken[len(broken)-1] ^= 1
	p.inputs[1].put([]byte{inFinalWitness}, broken)
	tx := checked(t, p.bytes(), Rules{}, alice)
	for _, w := range tx.Wants() {
		if err := tx.Add(w, alice.sign(t, w), false); err != nil {
			t.Fatal(err)
		}
	}
	a, err := tx.Finish()
	if a != nil {
		t.Error("there is an answer")
	}
	wantCode(t, err, reason.CosignatureInvalid)
}

// TestChange tells what comes back from what somebody else could take too.
func TestChange(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	a, b := public(alice.key(1)), public(bob.key(1))
	p := newCoin(t, alice, 200_000)
	add := func(script []byte, fields map[byte][]byte, rings ...*ring) {
		p.payTo(10_000, script)
		m := p.outputs[len(p.outputs)-1]
		for k, v := range fields {
			m.put([]byte{k}, v)
		}
		for _, r := range rings {
			key := public(r.key(1))
			if p2tr(script) != nil {
				m.put(append([]byte{outTapDerivation}, key[1:]...), append([]byte{0}, r.origin(key)...))
			} else {
				m.put(append([]byte{outDerivation}, key...), r.origin(key))
			}
		}
	}
	leaf := func(key []byte) []byte {
		return appendPrefixed([]byte{0, 0xc0}, leafScript(1, key[1:]))
	}
	root := func(tree []byte) []byte { s, _ := treeRoot(tree); return s.root }
	oneOfTwo, own := multisig(1, a, b), multisig(1, a)
	nested := append([]byte{0, 20}, hash160(a)...)
	add(p2pkhScript(hash160(a)), nil, alice)
	add(p2shScript(nested), map[byte][]byte{outRedeem: nested}, alice)
	add(p2shScript(nested), nil, alice)
	add(p2trScript(t, a[1:], nil), map[byte][]byte{outTapKey: a[1:]}, alice)
	add(p2wshScript(own), map[byte][]byte{outWitness: own}, alice)
	add(p2trScript(t, a[1:], root(leaf(a))), map[byte][]byte{outTapKey: a[1:], outTapTree: leaf(a)}, alice)
	// Bob can take these, whatever the PSBT says.
	add(p2wshScript(oneOfTwo), map[byte][]byte{outWitness: oneOfTwo}, alice, bob)
	add(p2trScript(t, a[1:], root(leaf(b))), map[byte][]byte{outTapKey: a[1:], outTapTree: leaf(b)}, alice)
	add(p2wshScript(own), map[byte][]byte{outWitness: own}) // nobody says that it is ours
	redeem := multisig(1, a)
	add(p2shScript(redeem), map[byte][]byte{outRedeem: redeem}, alice)
	// Our key, in what the appliance would not spend: nothing would come back.
	single, twice := append(push(nil, a), txscript.OP_CHECKSIG), multisig(1, a, a)
	var many [][]byte
	for n := range 16 {
		many = append(many, public(alice.key(n+1)))
	}
	large := multisig(1, many...)
	add(single, nil, alice)
	add(own, nil, alice)
	add(p2shScript(single), map[byte][]byte{outRedeem: single}, alice)
	add(p2wshScript(twice), map[byte][]byte{outWitness: twice}, alice)
	add(p2shScript(large), map[byte][]byte{outRedeem: large}, alice)
	for n, m := range many {
		p.outputs[len(p.outputs)-1].put(append([]byte{outDerivation}, m...), alice.origin(public(alice.key(n+1))))
	}
	data := p.bytes()
	want := []bool{true, true, true, true, true, true, false, false, false, true, false, false, false, false, false}
	tx := checked(t, data, Rules{MaxFeePercent: -1}, alice)
	for i, out := range tx.Describe().Outputs {
		if out.Change != want[i] {
			t.Errorf("output %d: change is %t, want %t", i, out.Change, want[i])
		}
	}
}

// TestChangeOfOthers: a script that begins like one of ours and goes on is not ours. Bob
// alone can spend each of these.
func TestChangeOfOthers(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	a, b := public(alice.key(1)), public(bob.key(1))
	script := func(parts ...any) (s []byte) {
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				s = append(s, byte(p))
			case []byte:
				s = push(s, p)
			}
		}
		return s
	}
	const (
		one, drop, check, multi, add = txscript.OP_1, txscript.OP_DROP, txscript.OP_CHECKSIG, txscript.OP_CHECKMULTISIG, txscript.OP_CHECKSIGADD
	)
	for i, s := range [][]byte{
		script(a, drop, b, check),
		script(a, check, drop, b, check),
		script(a, b, check),
		script(one, a, drop, drop, b, check),
		script(one, a, one, multi, drop, b, check),
		script(one, a, one, drop, drop, drop, b, check),
		script(b, check, drop, a, check),
	} {
		p := newCoin(t, alice, 200_000).pay(50_000)
		p.payTo(100_000, p2wshScript(s))
		p.payTo(40_000, p2shScript(p2wshScript(s)))
		for _, m := range p.outputs[1:] {
			m.put([]byte{outWitness}, s)
			m.put(append([]byte{outDerivation}, a...), alice.origin(a))
		}
		p.outputs[2].put([]byte{outRedeem}, p2wshScript(s))
		noChange(t, fmt.Sprintf("witness script %d", i), p, alice)
	}
	a2 := public(alice.key(2))
	for i, s := range [][]byte{
		script(a[1:], drop, b[1:], check),
		script(a[1:], check, drop, b[1:], check),
		script(a[1:], check, b[1:], check),
		script(a[1:], check, one, drop, drop, b[1:], check),
		script(a[1:], check, a2[1:], add, drop, b[1:], check),
		script(b[1:], check, drop, a[1:], check),
	} {
		p := newCoin(t, alice, 200_000).pay(50_000)
		tree := appendPrefixed([]byte{0, 0xc0}, s)
		of, _ := treeRoot(tree)
		p.payTo(100_000, p2trScript(t, a[1:], of.root))
		m := p.outputs[1]
		m.put([]byte{outTapKey}, a[1:])
		m.put([]byte{outTapTree}, tree)
		m.put(append([]byte{outTapDerivation}, a[1:]...), append([]byte{0}, alice.origin(a)...))
		m.put(append([]byte{outTapDerivation}, a2[1:]...), append([]byte{0}, alice.origin(a2)...))
		noChange(t, fmt.Sprintf("leaf %d", i), p, alice)
	}
}

// TestChangeIsFound: who has the wallets finds the script of change again. Otherwise whoever
// wrote it could sell it, and it is paid.
func TestChangeIsFound(t *testing.T) {
	const h = hardened
	for _, c := range []struct {
		name   string
		path   []uint32 // of the other key; the first's is 84h/0h/0h/0/1
		leaves int      // 0: a witness script
		want   bool
	}{
		{"the same number in another account that is spent from", []uint32{84 | h, h, 1 | h, 7, 1}, 0, true},
		{"and another chain of this one", []uint32{84 | h, h, h, 1, 1}, 0, true},
		{"another number", []uint32{84 | h, h, 1 | h, 0, 2}, 0, false},
		{"an account that is not spent from", []uint32{84 | h, h, 2 | h, 0, 1}, 0, false},
		{"a key by itself", []uint32{1}, 0, false},
		{"leaves", []uint32{84 | h, h, 1 | h, 0, 1}, 8, true},
		{"leaves of another number", []uint32{84 | h, h, 1 | h, 0, 2}, 2, false},
		{"many leaves", []uint32{84 | h, h, 1 | h, 0, 1}, 16, false},
	} {
		alice := newRing("alice")
		p := newCoin(t, alice, 200_000).pay(50_000)
		here := alice.key(77)
		alice.add(here, []uint32{84 | h, h, 1 | h, 0, 9})
		p.spend(1000, p2pkhScript(hash160(public(here)))).put(append([]byte{inDerivation}, public(here)...), alice.origin(public(here)))
		a, other := public(alice.key(1)), alice.key(78)
		alice.add(other, c.path)
		b := public(other)
		if c.leaves == 0 {
			script := multisig(1, a, b)
			p.payTo(100_000, p2wshScript(script))
			m := p.outputs[1]
			m.put([]byte{outWitness}, script)
			m.put(append([]byte{outDerivation}, a...), alice.origin(a))
			m.put(append([]byte{outDerivation}, b...), alice.origin(b))
		} else {
			var tree []byte
			for range c.leaves {
				tree = appendPrefixed(append(tree, byte(bits.Len(uint(c.leaves))-1), 0xc0), leafScript(1, b[1:]))
			}
			of, ok := treeRoot(tree)
			if !ok {
				t.Fatal("no such tree")
			}
			p.payTo(100_000, p2trScript(t, a[1:], of.root))
			m := p.outputs[1]
			m.put([]byte{outTapKey}, a[1:])
			m.put([]byte{outTapTree}, tree)
			m.put(append([]byte{outTapDerivation}, a[1:]...), append([]byte{0}, alice.origin(a)...))
			m.put(append([]byte{outTapDerivation}, b[1:]...), append([]byte{0}, alice.origin(b)...))
		}
		out := checked(t, p.bytes(), Rules{MaxFeePercent: -1}, alice).Describe().Outputs[1]
		if out.Change != c.want {
			t.Errorf("%s: change is %t", c.name, out.Change)
		}
	}
}

// TestChangeIsSpendable: whatever script is said to be change, the appliance spends it with
// the company's keys alone. The scripts are drawn: good ones, and such as differ from these
// in a token or two.
func TestChangeIsSpendable(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	second := alice.key(2)
	alice.add(second, []uint32{hardened | 84, hardened, hardened | 1, 0, 1})
	a, a2, b, none := public(alice.key(1)), public(second), public(bob.key(1)), nobody(t)
	const one, two, check, multi, add, equal = txscript.OP_1, txscript.OP_2, txscript.OP_CHECKSIG, txscript.OP_CHECKMULTISIG, txscript.OP_CHECKSIGADD, txscript.OP_NUMEQUAL
	op := func(codes ...byte) (tokens [][]byte) {
		for _, c := range codes {
			tokens = append(tokens, []byte{c})
		}
		return tokens
	}
	long := func(key []byte) []byte { return append([]byte{txscript.OP_PUSHDATA1, byte(len(key))}, key...) }
	said := map[string]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	draws := 6000
	if testing.Short() {
		draws = 600
	}
	for n := range draws {
		kind := []string{kindP2WSH, kindNestedP2SH, kindP2SH, kindP2TR}[n%4]
		x, y, z := a, a2, b
		if kind == kindP2TR {
			x, y, z = a[1:], a2[1:], b[1:]
		}
		keys := [][]byte{push(nil, x), push(nil, y)}
		goods := [][][]byte{
			{keys[0], {check}}, {{one}, keys[0], {one}, {multi}}, {{one}, keys[0], keys[1], {two}, {multi}}, {{two}, keys[0], keys[1], {two}, {multi}},
		}
		if kind == kindP2TR {
			goods = [][][]byte{
				{keys[0], {check}}, {keys[0], {check}, {one}, {equal}}, {keys[0], {check}, keys[1], {add}, {two}, {equal}}, {keys[1], {check}, keys[0], {add}, {one}, {equal}},
			}
		}
		tokens := slices.Clone(goods[rnd.IntN(len(goods))])
		others := append(op(one, two, check, multi, add, equal, txscript.OP_0, txscript.OP_DROP, txscript.OP_NOP, txscript.OP_CHECKSIGVERIFY, txscript.OP_RETURN, txscript.OP_CODESEPARATOR),
			keys[0], keys[1], push(nil, z), long(x), []byte{1, 17}, []byte{1, 2})
		for range rnd.IntN(3) {
			i, other := rnd.IntN(len(tokens)), others[rnd.IntN(len(others))]
			switch rnd.IntN(4) {
			case 0:
				tokens[i] = other
			case 1:
				tokens = slices.Delete(tokens, i, i+1)
			case 2:
				tokens = slices.Insert(tokens, i, other)
			default:
				tokens = append(tokens, other)
			}
			if len(tokens) == 0 {
				break
			}
		}
		s := slices.Concat(tokens...)

		// put describes the script at an output, or at an input that spends it.
		script, internal := []byte(nil), a[1:]
		put := func(m *keymap, redeem, witness, derivation byte) {
			if kind == kindP2SH {
				m.put([]byte{redeem}, s)
			} else {
				m.put([]byte{witness}, s)
			}
			if kind == kindNestedP2SH {
				m.put([]byte{redeem}, p2wshScript(s))
			}
			for _, key := range [][]byte{a, a2} {
				if bytes.Contains(s, key) {
					m.put(append([]byte{derivation}, key...), alice.origin(key))
				}
			}
		}
		origin := func(key []byte) []byte { return append([]byte{0}, alice.origin(key)...) }
		p := newCoin(t, alice, 200_000).pay(50_000)
		p.spend(1000, p2pkhScript(hash160(a2))).put(append([]byte{inDerivation}, a2...), alice.origin(a2))
		switch kind {
		case kindP2WSH:
			script = p2wshScript(s)
		case kindNestedP2SH:
			script = p2shScript(p2wshScript(s))
		case kindP2SH:
			script = p2shScript(s)
		case kindP2TR:
			tree := appendPrefixed([]byte{0, 0xc0}, s)
			of, _ := treeRoot(tree)
			script = p2trScript(t, internal, of.root)
			p.payTo(100_000, script)
			m := p.outputs[1]
			m.put([]byte{outTapKey}, internal)
			m.put([]byte{outTapTree}, tree)
			m.put(append([]byte{outTapDerivation}, a[1:]...), origin(a))
			m.put(append([]byte{outTapDerivation}, a2[1:]...), origin(a2))
		}
		if kind != kindP2TR {
			p.payTo(100_000, script)
			put(p.outputs[1], outRedeem, outWitness, outDerivation)
		}
		q, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := q.Check(Rules{MaxFeePercent: -1}, alice)
		if err != nil {
			wantCode(t, err, reason.ChangeFalse)
			continue
		}
		if !tx.Describe().Outputs[1].Change {
			continue
		}
		said[kind]++

		p = newPlan()
		if kind == kindP2TR {
			// The leaf by itself: by the internal key it can always be spent.
			hash := leafHash(0xc0, s)
			m := p.spend(100_000, p2trScript(t, none, hash))
			_, odd, _ := taprootKey(none, hash)
			control := append([]byte{0xc0}, none...)
			if odd {
				control[0]++
			}
			m.put(append([]byte{inTapLeaf}, control...), append(bytes.Clone(s), 0xc0))
			for _, key := range [][]byte{a, a2} {
				m.put(append([]byte{inTapDerivation}, key[1:]...), slices.Concat([]byte{1}, hash, alice.origin(key)))
			}
		} else {
			put(p.spend(100_000, script), inRedeem, inWitness, inDerivation)
		}
		if !answered(t, p.pay(90_000).bytes(), Rules{MaxFeePercent: -1}, alice).Complete {
			t.Errorf("%s %x is said to be change and cannot be spent", kind, s)
		}
	}
	for _, kind := range []string{kindP2WSH, kindNestedP2SH, kindP2SH, kindP2TR} {
		if said[kind] < draws/60 {
			t.Errorf("%s was change %d times only", kind, said[kind])
		}
	}
}

// TestLongPushes: a script whose keys are pushed in a longer way than need be has only our
// keys in it, and no node relays what spends it.
func TestLongPushes(t *testing.T) {
	alice := newRing("alice")
	a := public(alice.key(1))
	long := func(key []byte) []byte { return append([]byte{txscript.OP_PUSHDATA1, byte(len(key))}, key...) }
	multi := append(append([]byte{txscript.OP_1}, long(a)...), txscript.OP_1, txscript.OP_CHECKMULTISIG)
	single := append(long(a), txscript.OP_CHECKSIG)
	for i, s := range [][]byte{multi, single} {
		p := newCoin(t, alice, 200_000).pay(50_000).payTo(100_000, p2wshScript(s))
		p.outputs[1].put([]byte{outWitness}, s)
		p.outputs[1].put(append([]byte{outDerivation}, a...), alice.origin(a))
		noChange(t, fmt.Sprintf("witness script %d", i), p, alice)
	}
	tree := appendPrefixed([]byte{0, 0xc0}, append(long(a[1:]), txscript.OP_CHECKSIG))
	of, _ := treeRoot(tree)
	p := newCoin(t, alice, 200_000).pay(50_000).payTo(100_000, p2trScript(t, a[1:], of.root))
	m := p.outputs[1]
	m.put([]byte{outTapKey}, a[1:])
	m.put([]byte{outTapTree}, tree)
	m.put(append([]byte{outTapDerivation}, a[1:]...), append([]byte{0}, alice.origin(a)...))
	noChange(t, "leaf", p, alice)
}

// noChange wants a PSBT to be refused, or to have no change.
func noChange(t *testing.T, what string, p *plan, r *ring) {
	t.Helper()
	q, err := Parse(p.bytes())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := q.Check(Rules{MaxFeePercent: -1}, r)
	if err != nil {
		wantCode(t, err, reason.ChangeFalse)
		return
	}
	for i, o := range tx.Describe().Outputs {
		if o.Change {
			t.Errorf("%s: output %d is said to be change", what, i)
		}
	}
}

// TestFeeAttack is the attack for which amounts have to be proven: the same
// transaction, presented twice, each time with a lie about the other input, and
// a signature of each presentation makes the one whose fee nobody saw.
func TestFeeAttack(t *testing.T) {
	alice := newRing("alice")
	present := func(lie int) []byte {
		p := newPlan()
		for n, amount := range []int64{1_000_000, 2_000_000} {
			p.coin(t, alice, kindP2WPKH, n, amount)
		}
		for i := range p.inputs {
			stated(p, i)
		}
		out, _ := readTxOut(p.inputs[lie].get(inOutput))
		out.Value = 10_000
		p.inputs[lie].put([]byte{inOutput}, txOutBytes(out))
		return p.pay(1_005_000).bytes()
	}
	var sigs [2][]byte
	for lie := range 2 {
		data := present(lie)
		p, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Check(Rules{MaxFeePercent: -1}, alice)
		wantCode(t, err, reason.AmountUnproven)
		// Who allows it loses the fee: the signatures are good for the truth.
		tx := checked(t, data, Rules{MaxFeePercent: -1, WitnessAmounts: true}, alice)
		sigs[1-lie] = alice.sign(t, tx.Wants()[1-lie])
	}
	p := newPlan()
	for n, amount := range []int64{1_000_000, 2_000_000} {
		p.coin(t, alice, kindP2WPKH, n, amount)
	}
	truth := checked(t, p.pay(1_005_000).bytes(), Rules{MaxFeePercent: -1}, alice)
	for i, w := range truth.Wants() {
		if err := truth.Add(w, sigs[i], false); err != nil {
			t.Fatal("the attack that this test is about does not work: ", err)
		}
	}
}

// TestUnknownNetwork: a misspelt network is the operator's mistake, not the asker's.
func TestUnknownNetwork(t *testing.T) {
	p, err := Parse(newCoin(t, newRing("alice"), 50_000).pay(49_000).bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(Rules{Network: "mainet"}, newRing("alice")); err == nil || !strings.Contains(err.Error(), "mainnet") {
		t.Errorf("got %v, want an error that lists the networks", err)
	}
}

// TestDescriptionIsStable: the JSON has its members in one order.
func TestDescriptionIsStable(t *testing.T) {
	r := newRing("alice")
	d, err := json.Marshal(checked(t, newCoin(t, r, 50_000).pay(49_000).bytes(), Rules{}, r).Describe())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"network":"mainnet","psbt_version":0,"txid":"`
	if !strings.HasPrefix(string(d), want) {
		t.Errorf("got %s, want %s…", d, want)
	}
}

// TestTwice: a key that is twice in a map of any kind is refused for that.
func TestTwice(t *testing.T) {
	for where, twice := range map[string]func(p *plan){
		"the global map": func(p *plan) {
			p.global.pairs = append(p.global.pairs, pair{[]byte{0xfc, 1}, nil}, pair{[]byte{0xfc, 1}, nil})
		},
		"the map of input 0": func(p *plan) { p.inputs[0].pairs = append(p.inputs[0].pairs, p.inputs[0].pairs[0]) },
		"the map of output 0": func(p *plan) {
			p.outputs[0].pairs = append(p.outputs[0].pairs, pair{[]byte{0x77}, nil}, pair{[]byte{0x77}, nil})
		},
	} {
		p := newCoin(t, newRing("alice"), 50_000).pay(49_000)
		twice(p)
		_, err := Parse(p.bytes())
		wantCode(t, err, reason.KeyTwice)
		if r, _ := reason.As(err); !strings.HasPrefix(r.Message, where) {
			t.Errorf("%s: the refusal says %q", where, r.Message)
		}
	}
}

// broken are keys whose owner panics.
type broken struct{ *ring }

func (broken) Owns(Key) bool { panic("it is broken") }

// TestPanic: what panics, here or in a library, is a refusal, and nothing is signed.
func TestPanic(t *testing.T) {
	p, err := Parse(newCoin(t, newRing("alice"), 50_000).pay(49_000).bytes())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := p.Check(Rules{}, broken{newRing("alice")})
	if tx != nil {
		t.Error("there is something to sign")
	}
	wantCode(t, err, reason.PSBTMalformed)
}

// full is a PSBT of so many bytes in binary form, with an input of so many fields.
func full(t testing.TB, r *ring, size, fields int) []byte {
	p := newCoin(t, r, 50_000)
	p.pay(49_000)
	m := p.inputs[0]
	for n := len(m.pairs); n < fields-1; n++ {
		m.append(pair{fmt.Appendf(nil, "\xf0%04d", n), nil})
	}
	m.append(pair{[]byte{0xf1}, nil})
	last := &m.pairs[len(m.pairs)-1]
	last.value = make([]byte, size-len(p.bytes())-4) // its length takes four bytes more
	return p.bytes()
}

// TestSize: a PSBT of 2 MiB is signed in every form, although the answer is larger, and
// one byte more is not.
func TestSize(t *testing.T) {
	r := newRing("alice")
	data := full(t, r, MaxSize, maxFields)
	if len(data) != MaxSize {
		t.Fatalf("it has %d bytes", len(data))
	}
	more := full(t, r, MaxSize+1, 10)
	lines := func(s string) string {
		var b strings.Builder
		for len(s) > 60 {
			b.WriteString(s[:60] + "\n")
			s = s[60:]
		}
		return b.String() + s + "\n"
	}
	for name, form := range map[string]func([]byte) string{
		"binary": func(b []byte) string { return string(b) },
		"base64": base64.StdEncoding.EncodeToString,
		"hex":    func(b []byte) string { return lines(hex.EncodeToString(b)) },
	} {
		a := answered(t, []byte(form(data)), Rules{}, r)
		if !a.Complete || len(a.Files[0].Data) <= len(form(data)) {
			t.Errorf("%s: %+v", name, a.Description)
		}
		_, err := Parse([]byte(form(more)))
		wantCode(t, err, reason.TooLarge)
	}
	sound(t, "the answer to the largest", paid(t, data, r, false))
	fields := full(t, r, 100_000, maxFields+1)
	_, err := Parse(fields)
	wantCode(t, err, reason.PSBTMalformed)
}

// TestFindable: change lies where somebody would look for it.
func TestFindable(t *testing.T) {
	const h = hardened
	for i, c := range []struct {
		path []uint32
		ok   bool
	}{
		{[]uint32{84 | h, h, h, 1, 999_999}, true}, // the account of the input
		{[]uint32{84 | h, h, h, 999, 5}, true},
		{[]uint32{84 | h, h, h, 1000, 5}, false},
		{[]uint32{84 | h, h, h, 1000 | h, 5}, false},
		{[]uint32{84 | h, h, 999 | h, 1, 5}, true},
		{[]uint32{84 | h, h, 1000 | h, 1, 5}, false},
		{[]uint32{86 | h, h, 7 | h, 1, 5}, true},
		{[]uint32{48 | h, h, h, 2 | h, 1, 5}, true},
		{[]uint32{48 | h, h, h, 2 | h, 1, 0, 5}, false}, // too many steps
		{[]uint32{0, 5}, true},
		{[]uint32{5}, true},
		{[]uint32{1 << 30, 0, 5}, false},
	} {
		r := newRing("alice")
		p := newCoin(t, r, 50_000).pay(20_000)
		key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{byte(i + 1)}, 32))
		r.add(key, c.path)
		p.payTo(29_000, append([]byte{0, 20}, hash160(public(key))...))
		p.outputs[1].put(append([]byte{outDerivation}, public(key)...), r.origin(public(key)))
		q, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := q.Check(Rules{}, r)
		if c.ok {
			if err != nil || tx.Describe().Change != 29_000 {
				t.Errorf("%v: %v", c.path, err)
			}
			continue
		}
		wantCode(t, err, reason.ChangeFalse)
	}
	// A little that was sent there before does not make it a place for all the rest.
	for _, c := range []struct {
		outs []int64
		ok   bool
	}{{[]int64{2_000}, true}, {[]int64{1_500, 500}, true}, {[]int64{2_001}, false}, {[]int64{1_500, 501}, false}, {[]int64{29_000}, false}} {
		r := newRing("alice")
		p := newCoin(t, r, 50_000).pay(20_000)
		key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{77}, 32))
		r.add(key, []uint32{84 | h, h, h, 1 << 30, 5})
		script, _ := single(kindP2WPKH, public(key))
		p.spend(2_000, script).put(append([]byte{inDerivation}, public(key)...), r.origin(public(key)))
		for _, amount := range c.outs {
			p.payTo(amount, script)
			p.outputs[len(p.outputs)-1].put(append([]byte{outDerivation}, public(key)...), r.origin(public(key)))
		}
		q, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		_, err = q.Check(Rules{MaxFeePercent: -1}, r)
		if c.ok && err != nil {
			t.Errorf("%v: %v", c.outs, err)
		} else if !c.ok {
			wantCode(t, err, reason.ChangeFalse)
		}
	}
	// Where it is spent from, it may come back to.
	far := []uint32{1 << 30, 1 << 29, 7, 8, 9, 2000, 3}
	r := newRing("alice")
	one, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{1}, 32))
	two, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{2}, 32))
	r.add(one, far)
	r.add(two, append(slices.Clone(far[:6]), 4))
	p := newPlan()
	script, _ := single(kindP2WPKH, public(one))
	p.spend(50_000, script).put(append([]byte{inDerivation}, public(one)...), r.origin(public(one)))
	script, _ = single(kindP2WPKH, public(two))
	p.payTo(49_000, script)
	p.outputs[0].put(append([]byte{outDerivation}, public(two)...), r.origin(public(two)))
	checked(t, p.bytes(), Rules{}, r)
}

// TestFarOfOthers: a key of ours that is only named at somebody else's input makes its path
// no place to which change may go. The input is theirs, and comes back to them beside.
func TestFarOfOthers(t *testing.T) {
	const h = hardened
	far := []uint32{84 | h, h, h, 1 << 30, 5}
	for name, spend := range map[string]func(p *plan, r *ring, key []byte){
		"a script that is not understood": func(p *plan, r *ring, key []byte) {
			p.spend(30_000, []byte{txscript.OP_1, txscript.OP_DROP, txscript.OP_1}).put(append([]byte{inDerivation}, key...), r.origin(key))
		},
		"a leaf that is not there": func(p *plan, r *ring, key []byte) {
			m := p.coin(t, newRing("evil"), kindP2TR, 1, 30_000)
			m.put(append([]byte{inTapDerivation}, key[1:]...), slices.Concat([]byte{1}, make([]byte, 32), r.origin(key)))
		},
		"ours": nil,
	} {
		r := newRing("alice")
		p := newCoin(t, r, 50_000).pay(48_000)
		priv, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{77}, 32))
		r.add(priv, far)
		key := public(priv)
		script, _ := single(kindP2WPKH, key)
		if spend == nil {
			p.spend(30_000, script).put(append([]byte{inDerivation}, key...), r.origin(key))
		} else {
			spend(p, r, key)
		}
		p.payTo(30_000, script)
		p.outputs[1].put(append([]byte{outDerivation}, key...), r.origin(key))
		q, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := q.Check(Rules{}, r)
		if spend == nil {
			if err != nil || tx.Describe().Change != 30_000 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if tx != nil {
			t.Errorf("%s: there is something to sign", name)
		}
		wantCode(t, err, reason.ChangeFalse)
	}
}
