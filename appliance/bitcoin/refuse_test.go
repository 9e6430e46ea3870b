package bitcoin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

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

// script is an owner of scripts.
type scripts struct {
	*ring
	mine []byte
}

func (s scripts) OwnsScript(script []byte, keys []Key) bool {
	return len(keys) == 2 && bytes.Equal(script, s.mine)
}

// TestChange tells what comes back from what somebody else could take too.
func TestChange(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	a, b := public(alice.key(1)), public(bob.key(1))
	p := newCoin(t, alice, 100_000)
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
	data := p.bytes()
	want := []bool{true, true, true, true, true, true, false, false, false}
	tx := checked(t, data, Rules{MaxFeePercent: -1}, alice)
	for i, out := range tx.Describe().Outputs {
		if out.Change != want[i] {
			t.Errorf("output %d: change is %t, want %t", i, out.Change, want[i])
		}
	}
	// A wallet that knows the script has the last word on what is shared.
	want[6] = true
	tx = checked(t, data, Rules{MaxFeePercent: -1}, scripts{alice, p2wshScript(oneOfTwo)})
	for i, out := range tx.Describe().Outputs {
		if out.Change != want[i] {
			t.Errorf("output %d, for a wallet with the script: change is %t, want %t", i, out.Change, want[i])
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
