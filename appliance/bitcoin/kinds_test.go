package bitcoin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"

	"signdrop/appliance/reason"
)

// quorumCoin adds an input that need of the keys can spend.
func (p *plan) quorumCoin(kind string, amount int64, need int, rings []*ring, n int) *keymap {
	var keys [][]byte
	for _, r := range rings {
		keys = append(keys, public(r.key(n)))
	}
	slices.SortFunc(keys, bytes.Compare)
	script := multisig(need, keys...)
	var m *keymap
	switch kind {
	case kindP2SH:
		m = p.spend(amount, p2shScript(script))
		m.put([]byte{inRedeem}, script)
	case kindP2WSH:
		m = p.spend(amount, p2wshScript(script))
		m.put([]byte{inWitness}, script)
	case kindNestedP2SH:
		redeem := p2wshScript(script)
		m = p.spend(amount, p2shScript(redeem))
		m.put([]byte{inRedeem}, redeem)
		m.put([]byte{inWitness}, script)
	}
	for _, r := range rings {
		key := public(r.key(n))
		m.put(append([]byte{inDerivation}, key...), r.origin(key))
	}
	return m
}

// leafScript is `KEY CHECKSIG`, or multi_a of several keys.
func leafScript(need int, keys ...[]byte) []byte {
	s := append(push(nil, keys[0]), txscript.OP_CHECKSIG)
	if len(keys) == 1 {
		return s
	}
	for _, k := range keys[1:] {
		s = append(push(s, k), txscript.OP_CHECKSIGADD)
	}
	return append(s, txscript.OP_1+byte(need)-1, txscript.OP_NUMEQUAL)
}

// nobody is the internal key that BIP-341 proposes for outputs without a key
// path.
func nobody(t testing.TB) []byte {
	return unhex(t, "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0")
}

// leafCoin adds an input whose scripts hang on the internal key: the one for the
// rings, and one of somebody else.
func (p *plan) leafCoin(t testing.TB, amount int64, internal []byte, need int, rings []*ring, n int) *keymap {
	t.Helper()
	var keys [][]byte
	for _, r := range rings {
		keys = append(keys, public(r.key(n))[1:])
	}
	script, other := leafScript(need, keys...), leafScript(1, nobody(t))
	leaf, sibling := leafHash(0xc0, script), leafHash(0xc0, other)
	root := branchHash(leaf, sibling)
	key, odd, ok := taprootKey(internal, root)
	if !ok {
		t.Fatal("no such internal key")
	}
	control := append([]byte{0xc0}, internal...)
	if odd {
		control[0] |= 1
	}
	m := p.spend(amount, append([]byte{txscript.OP_1, 32}, key...))
	m.put([]byte{inTapKey}, internal)
	m.put([]byte{inTapRoot}, root)
	m.put(append(append([]byte{inTapLeaf}, control...), sibling...), append(bytes.Clone(script), 0xc0))
	for i, r := range rings {
		m.put(append([]byte{inTapDerivation}, keys[i]...), slices.Concat([]byte{1}, leaf, r.origin(keys[i])))
	}
	return m
}

// everyKind spends an output of each kind that one ring can spend alone.
func everyKind(t testing.TB, r *ring, version uint32) *plan {
	p := newPlan()
	p.version = version
	p.tx.LockTime = 800_000
	for n, kind := range []string{kindP2PKH, kindNestedP2PKH, kindP2WPKH, kindP2TR} {
		p.coin(t, r, kind, n, 100_000)
	}
	for n, kind := range []string{kindP2SH, kindP2WSH, kindNestedP2SH} {
		p.quorumCoin(kind, 100_000, 1, []*ring{r, newRing("other")}, 10+n)
	}
	p.leafCoin(t, 100_000, nobody(t), 1, []*ring{r}, 20)
	p.leafCoin(t, 100_000, nobody(t), 1, []*ring{newRing("other"), r}, 21)
	// The internal key is ours, and there are scripts too: the key path wins.
	key := public(r.key(22))[1:]
	m := p.leafCoin(t, 100_000, key, 1, []*ring{newRing("other")}, 22)
	m.put(append([]byte{inTapDerivation}, key...), append([]byte{0}, r.origin(key)...))
	p.pay(700_000)
	p.change(r, 30, 290_000)
	p.payTo(0, append([]byte{txscript.OP_RETURN, 5}, "hello"...))
	return p
}

// TestEveryKind: the script engine has accepted each input when Finish says that
// the transaction is complete.
func TestEveryKind(t *testing.T) {
	r := newRing("alice")
	// The bytes are the same on every machine and at any time.
	golden := map[uint32]string{
		0: "7e235f64ed74ca604b2ad5b785398a7bdb67b1e02fb1382aa5704fdd1ee80d6d",
		2: "2b8afe3ee6b488080fd0945c7e91dec5256dfe256a0edba96c4ba575f867c448",
	}
	var finals []string
	for _, version := range []uint32{0, 2} {
		data := everyKind(t, r, version).bytes()
		a := answered(t, data, Rules{}, r)
		if !a.Complete || len(a.Files) != 2 || a.Files[0].Suffix != "-signed.psbt" || a.Files[1].Suffix != "-final.txn" {
			t.Fatalf("version %d: %+v", version, a.Description)
		}
		again := answered(t, data, Rules{}, r)
		for i, f := range a.Files {
			if !bytes.Equal(f.Data, again.Files[i].Data) {
				t.Errorf("version %d: %s differs when made again", version, f.Suffix)
			}
		}
		finals = append(finals, string(a.Files[1].Data))
		h := sha256.New()
		for _, f := range a.Files {
			h.Write(f.Data)
		}
		d, err := json.Marshal(a.Description)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(d)
		if got := hex.EncodeToString(h.Sum(nil)); got != golden[version] {
			t.Errorf("version %d: the answer's digest is %s, want %s; description %s", version, got, golden[version], d)
		}
	}
	if finals[0] != finals[1] {
		t.Error("the two versions of a PSBT give different transactions")
	}
}

// TestDescribe: what is known before anything is signed.
func TestDescribe(t *testing.T) {
	r := newRing("alice")
	tx := checked(t, everyKind(t, r, 0).bytes(), Rules{}, r)
	d := tx.Describe()
	if d.Complete || d.TxID != "" || d.WTxID != "" || !d.Estimated || len(d.Missing) != 10 {
		t.Errorf("before: %+v", d)
	}
	if d.Fee != 10_000 || d.Paid != 700_000 || d.Change != 290_000 || d.LockTime != 800_000 || !d.RBF || d.Network != "mainnet" {
		t.Errorf("amounts: %+v", d)
	}
	if m := d.Missing[0]; m.Input != 0 || m.Signatures != 1 || len(m.Keys) != 1 || m.Keys[0] != hex.EncodeToString(r.fingerprint[:])+"/84h/0h/0h/0/0" {
		t.Errorf("missing: %+v", m)
	}
	after := answered(t, everyKind(t, r, 0).bytes(), Rules{}, r).Description
	if after.Estimated || after.TxID == "" || after.WTxID == "" || after.WTxID == after.TxID || len(after.Missing) != 0 {
		t.Errorf("after: %+v", after)
	}
	// Signatures are at most two bytes shorter than the draft of them.
	if d.VSize < after.VSize || d.VSize > after.VSize+2*7 {
		t.Errorf("the draft has %d vB, the transaction %d", d.VSize, after.VSize)
	}
	if out := d.Outputs[2]; out.Type != kindData || out.Address != "" || out.Script != "6a0568656c6c6f" || out.Change {
		t.Errorf("OP_RETURN: %+v", out)
	}
	if out := d.Outputs[1]; out.Address == "" || !out.Change || out.Script != "" {
		t.Errorf("change: %+v", out)
	}
	kinds := []string{kindP2PKH, kindNestedP2PKH, kindP2WPKH, kindP2TR, kindP2SH, kindP2WSH, kindNestedP2SH, kindP2TR, kindP2TR, kindP2TR}
	prefixes := []string{"1", "3", "bc1q", "bc1p", "3", "bc1q", "3", "bc1p", "bc1p", "bc1p"}
	for i, in := range d.Inputs {
		if in.Type != kinds[i] || !strings.HasPrefix(in.Address, prefixes[i]) || !in.Ours || !in.Proven {
			t.Errorf("input %d: %+v", i, in)
		}
	}
	// Where only witnesses are missing the id is known before.
	p := newPlan()
	p.coin(t, r, kindP2WPKH, 1, 10_000)
	p.coin(t, r, kindNestedP2PKH, 2, 10_000)
	data := p.pay(19_000).bytes()
	before := checked(t, data, Rules{}, r).Describe()
	if got := answered(t, data, Rules{}, r).Description; got.TxID == "" || got.TxID != before.TxID {
		t.Errorf("id: before %s, after %s", before.TxID, got.TxID)
	}
}

// TestQuorums: several owners sign one after the other, in any order, and the
// last one's answer is complete.
func TestQuorums(t *testing.T) {
	alice, bob, carol := newRing("alice"), newRing("bob"), newRing("carol")
	all := []*ring{alice, bob, carol}
	for _, kind := range []string{kindP2SH, kindP2WSH, kindNestedP2SH, "leaf"} {
		for _, order := range [][]*ring{{alice, bob}, {carol, alice}, {bob, carol}} {
			p := newPlan()
			if kind == "leaf" {
				p.leafCoin(t, 50_000, nobody(t), 2, all, 1)
			} else {
				p.quorumCoin(kind, 50_000, 2, all, 1)
			}
			first := answered(t, p.pay(49_000).bytes(), Rules{}, order[0])
			if first.Complete || len(first.Files) != 1 || first.Files[0].Suffix != "-part.psbt" {
				t.Fatalf("%s: the first: %+v", kind, first.Description)
			}
			if m := first.Description.Missing; len(m) != 1 || m[0].Signatures != 1 || len(m[0].Keys) != 2 {
				t.Errorf("%s: missing: %+v", kind, m)
			}
			// Who has signed has nothing more to sign.
			part, err := Parse(first.Files[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			_, err = part.Check(Rules{}, order[0])
			wantCode(t, err, reason.NothingToSign)

			second := answered(t, first.Files[0].Data, Rules{}, order[1])
			if !second.Complete || len(second.Files) != 2 {
				t.Fatalf("%s: the second: %+v", kind, second.Description)
			}
			// With two signatures there, the third key has nothing to do.
			full, err := Parse(second.Files[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				_, err := full.Check(Rules{}, r)
				wantCode(t, err, reason.NothingToSign)
			}
		}
	}
}

// both are two owners' keys in one wallet.
type both struct{ a, b *ring }

func (k both) Knows(f [4]byte) bool { return k.a.Knows(f) || k.b.Knows(f) }
func (k both) Owns(x Key) bool      { return k.a.Owns(x) || k.b.Owns(x) }

// TestNoMoreThanNeeded: of three keys of ours two sign.
func TestNoMoreThanNeeded(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	p := newPlan()
	p.quorumCoin(kindP2WSH, 50_000, 2, []*ring{alice, bob, newRing("carol")}, 1)
	tx := checked(t, p.pay(49_000).bytes(), Rules{}, both{alice, bob})
	if n := len(tx.Wants()); n != 2 {
		t.Errorf("%d signatures are wanted, want 2", n)
	}
	p = newPlan()
	p.quorumCoin(kindP2WSH, 50_000, 1, []*ring{alice, bob}, 1)
	tx = checked(t, p.pay(49_000).bytes(), Rules{}, both{alice, bob})
	if n := len(tx.Wants()); n != 1 {
		t.Errorf("%d signatures are wanted, want 1", n)
	}
}

// TestAdd: nothing but the signature that is wanted gets into the PSBT.
func TestAdd(t *testing.T) {
	r := newRing("alice")
	for _, kind := range []string{kindP2WPKH, kindP2TR} {
		p := newPlan()
		p.coin(t, r, kind, 1, 50_000)
		p.coin(t, r, kind, 2, 50_000)
		tx := checked(t, p.pay(99_000).bytes(), Rules{}, r)
		wants := tx.Wants()
		if _, err := tx.Finish(); err == nil {
			t.Fatal("finished without signatures")
		}
		other := r.sign(t, wants[1])
		for name, sig := range map[string][]byte{"none": nil, "short": other[:40], "of another input": other, "zeros": make([]byte, 64)} {
			if err := tx.Add(wants[0], sig, false); err == nil {
				t.Errorf("%s: a signature %s was taken", kind, name)
			}
		}
		forged := wants[0]
		forged.Digest[0] ^= 1
		if err := tx.Add(forged, r.sign(t, forged), false); err == nil {
			t.Errorf("%s: a signature of another digest was taken", kind)
		}
		if err := tx.Add(Want{index: 7}, other, false); err == nil {
			t.Errorf("%s: a signature that nobody wants was taken", kind)
		}
		if _, err := tx.Finish(); err == nil {
			t.Fatal("finished without signatures")
		}
		for range 2 {
			if err := tx.Add(wants[0], r.sign(t, wants[0]), false); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tx.Finish(); err == nil {
			t.Fatal("finished with one of two signatures")
		}
		if err := tx.Add(wants[1], other, false); err != nil {
			t.Fatal(err)
		}
		if a, err := tx.Finish(); err != nil || !a.Complete {
			t.Fatalf("%s: %v", kind, err)
		}
	}
}

// TestVerified: what was verified before is not verified again, unless the script
// engine comes to another digest.
func TestVerified(t *testing.T) {
	r := newRing("alice")
	for _, kind := range []string{kindP2PKH, kindNestedP2PKH, kindP2WPKH, kindP2TR} {
		p := newPlan()
		p.coin(t, r, kind, 1, 50_000)
		data := p.pay(49_000).bytes()

		tx := checked(t, data, Rules{}, r)
		w := tx.Wants()[0]
		wrong := r.sign(t, w)
		wrong[len(wrong)-1] ^= 1
		if err := tx.Add(w, wrong, true); err != nil {
			t.Fatal(err)
		}
		if a, err := tx.Finish(); err != nil || !a.Complete { // the caller was believed
			t.Errorf("%s: it was verified again: %v", kind, err)
		}

		tx = checked(t, data, Rules{}, r)
		tx.wants[0].Digest[0] ^= 1
		w = tx.Wants()[0]
		if err := tx.Add(w, r.sign(t, w), true); err != nil {
			t.Fatal(err)
		}
		_, err := tx.Finish()
		wantCode(t, err, reason.CosignatureInvalid)
	}
}

// TestForeignSignatures: signatures that were verified are remembered by what they sign
// and by the key. In an input that comes finished, ours for another input, or with another
// sighash type behind it, are none.
func TestForeignSignatures(t *testing.T) {
	for _, kind := range benchmarked {
		for _, c := range []struct {
			name string
			good bool
			sig  func(own, other []byte) []byte // as they stand in a PSBT
		}{
			{"its own", true, func(own, _ []byte) []byte { return own }},
			{"the other input's", false, func(_, other []byte) []byte { return other }},
			{"another sighash type", false, func(own, _ []byte) []byte {
				if kind == kindP2TR {
					return append(own, sighashAll)
				}
				own[len(own)-1] = sighashAll | anyoneCanPay
				return own
			}},
		} {
			r := newRing("alice")
			p := newPlan()
			p.coin(t, r, kind, 1, 50_000)
			p.coin(t, r, kind, 1, 50_000) // the same key
			p.pay(99_000)
			first := checked(t, p.bytes(), Rules{}, r)
			var sigs [][]byte
			for _, w := range first.Wants() {
				if err := first.Add(w, r.sign(t, w), true); err != nil {
					t.Fatal(err)
				}
				sigs = append(sigs, bytes.Clone(first.ins[w.Input].fields.at(w.field)))
			}
			sig, key := c.sig(sigs[1], sigs[0]), public(r.key(1))
			switch kind {
			case kindP2PKH:
				p.inputs[1].put([]byte{inFinalScript}, push(push(nil, sig), key))
			case kindP2WPKH:
				p.inputs[1].put([]byte{inFinalWitness}, appendPrefixed(appendPrefixed([]byte{2}, sig), key))
			default:
				p.inputs[1].put([]byte{inFinalWitness}, appendPrefixed([]byte{1}, sig))
			}
			tx := checked(t, p.bytes(), Rules{}, r)
			w := tx.Wants()
			if len(w) != 1 || w[0].Input != 0 {
				t.Fatalf("%s: %d are wanted", kind, len(w))
			}
			for range 2 { // twice is once
				if err := tx.Add(w[0], r.sign(t, w[0]), true); err != nil {
					t.Fatal(err)
				}
			}
			a, err := tx.Finish()
			if c.good {
				if err != nil || !a.Complete {
					t.Errorf("%s, %s: %v", kind, c.name, err)
				}
				continue
			}
			if a != nil {
				t.Errorf("%s, %s: there is an answer", kind, c.name)
			}
			wantCode(t, err, reason.CosignatureInvalid)
		}
	}
}

// TestOrderIsKept: BIP-174 does not want the fields in order, and what a wallet
// wrote is answered as it was, unknown fields too.
func TestOrderIsKept(t *testing.T) {
	r := newRing("alice")
	p := newPlan()
	m := p.coin(t, r, kindP2WPKH, 1, 50_000)
	m.put([]byte{0xfc, 4, 't', 'e', 's', 't', 1}, []byte("proprietary"))
	m.put([]byte{0x77, 1, 2}, []byte("unknown"))
	m.put([]byte{0xfd, 0x00, 0x01, 9}, nil)
	slices.Reverse(m.pairs)
	p.global.put([]byte{0xfc, 1, 'x'}, []byte("global"))
	p.pay(49_000)
	data := p.bytes()
	a := answered(t, data, Rules{}, r)
	before, _ := Parse(data)
	after, err := Parse(a.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	var left []pair
	for _, f := range after.inputs[0].pairs {
		if f.kind() != inSignature {
			left = append(left, f)
		}
	}
	if fmt.Sprint(left) != fmt.Sprint(before.inputs[0].pairs) || len(after.inputs[0].pairs) != len(left)+1 {
		t.Errorf("fields:\n got %v\nwant %v", left, before.inputs[0].pairs)
	}
	if fmt.Sprint(after.global.pairs) != fmt.Sprint(before.global.pairs) {
		t.Errorf("global fields: got %v, want %v", after.global.pairs, before.global.pairs)
	}
}

// TestModifiable: after a signature that covers everything nothing may change.
func TestModifiable(t *testing.T) {
	r := newRing("alice")
	for _, c := range []struct {
		sighash   uint32
		flags, to byte
	}{
		{sighashAll, 3, 0}, {sighashAll, 0xff, 0xfc}, {sighashAll | anyoneCanPay, 3, 1},
		{sighashNone, 3, 2}, {sighashSingle | anyoneCanPay, 3, 5}, {sighashAll, 0, 0},
	} {
		p := newPlan()
		p.version = 2
		p.global.put([]byte{globalModifiable}, []byte{c.flags})
		m := p.coin(t, r, kindP2WPKH, 1, 50_000)
		m.put([]byte{inSighash}, []byte{byte(c.sighash), 0, 0, 0})
		a := answered(t, p.pay(49_000).bytes(), Rules{Sighashes: []string{sighashNames[c.sighash]}}, r)
		after, err := Parse(a.Files[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		if got := after.global.get(globalModifiable)[0]; got != c.to {
			t.Errorf("%s: flags %x became %x, want %x", sighashNames[c.sighash], c.flags, got, c.to)
		}
	}
}

// TestSighashes: each type that the policy allows gives a signature that the
// engine takes.
func TestSighashes(t *testing.T) {
	r := newRing("alice")
	for kind, name := range sighashNames {
		for _, script := range []string{kindP2PKH, kindP2WPKH, kindP2TR} {
			if kind == sighashDefault && script != kindP2TR {
				continue
			}
			p := newPlan()
			m := p.coin(t, r, script, 1, 50_000)
			m.put([]byte{inSighash}, []byte{byte(kind), 0, 0, 0})
			p.coin(t, r, script, 2, 50_000)
			a := answered(t, p.pay(99_000).bytes(), Rules{Sighashes: []string{name}}, r)
			if !a.Complete || a.Description.Inputs[0].Sighash != name {
				t.Errorf("%s with %s: %+v", script, name, a.Description)
			}
		}
	}
}

// TestLegacyDigests: ours are those of txscript, in any order.
func TestLegacyDigests(t *testing.T) {
	r := newRing("alice")
	p := newPlan()
	for n := range 5 {
		p.coin(t, r, kindP2PKH, n, 1000)
	}
	p.pay(4000).pay(500)
	script := p2pkhScript(make([]byte, 20))
	l := newLegacyDigester(p.tx)
	for _, i := range []int{0, 1, 1, 4, 2, 3, 0} {
		want, err := txscript.CalcSignatureHash(script, txscript.SigHashAll, p.tx, i)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.digest(i, script); !bytes.Equal(got[:], want) {
			t.Errorf("input %d: got %x, want %x", i, got, want)
		}
	}
}

// TestBorders: numbers, amounts and lengths on both sides of where they take a byte more
// give transactions that the script engine takes.
func TestBorders(t *testing.T) {
	r := newRing("alice")
	for _, version := range []uint32{0, 2} {
		for _, kind := range []string{kindP2PKH, kindP2WPKH, kindP2TR} {
			for _, c := range []struct{ ins, outs int }{{1, 252}, {1, 253}, {252, 1}, {253, 1}} {
				if c.ins > 1 && testing.Short() {
					continue
				}
				p := newPlan()
				p.version = version
				for n := range c.ins {
					p.coin(t, r, kind, n%3, 100_000)
				}
				for range c.outs {
					p.pay(int64(c.ins) * 98_000 / int64(c.outs))
				}
				if a := answered(t, p.bytes(), Rules{}, r); !a.Complete {
					t.Errorf("%s: %d inputs, %d outputs: %+v", kind, c.ins, c.outs, a.Description.Missing)
				}
			}
			// Amounts, with what is left as the fee; and scripts of all lengths.
			const in = maxMoney
			p := newPlan()
			p.version = version
			p.coin(t, r, kind, 1, in)
			left := int64(in)
			for _, v := range []int64{0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000} {
				p.pay(v)
				left -= v
			}
			for _, n := range []int{0, 0xfc, 0xfd, 0xffff, 0x1_0000} {
				p.payTo(1, append(bytes.Repeat([]byte{txscript.OP_NOP}, n), txscript.OP_1))
				left--
			}
			p.pay(left - 1)
			a := answered(t, p.bytes(), Rules{}, r)
			if !a.Complete || a.Description.Fee != 1 || a.Description.Paid != in-1 || a.Description.Inputs[0].Amount != in {
				t.Errorf("%s: a fee of %d", kind, a.Description.Fee)
			}
		}
	}
}

// TestShortSignatures: signatures whose numbers begin with zeros are a byte shorter in
// DER and are not in Schnorr's form. Both get where they belong.
func TestShortSignatures(t *testing.T) {
	r := newRing("alice")
	for kind, want := range map[string][]string{
		kindP2WPKH: {"r 31", "r 32", "r 33", "s 31", "s 32"},
		kindP2PKH:  {"r 32", "r 33", "s 31", "s 32"},
		kindP2TR:   {"r 0", "s 0"},
	} {
		n := 1000
		if testing.Short() {
			n, want = 20, nil
		}
		p := newPlan()
		for i := range n {
			p.coin(t, r, kind, i, 10_000)
		}
		tx := checked(t, p.pay(int64(n)*9_900).bytes(), Rules{}, r)
		seen := map[string]bool{}
		for _, w := range tx.Wants() {
			sig := r.sign(t, w)
			if w.Scheme == Schnorr {
				seen["r 0"] = seen["r 0"] || sig[0] == 0
				seen["s 0"] = seen["s 0"] || sig[32] == 0
			} else {
				seen[fmt.Sprint("r ", sig[3])] = true
				seen[fmt.Sprint("s ", sig[5+sig[3]])] = true
			}
			if err := tx.Add(w, sig, false); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := tx.Finish(); err != nil || !a.Complete {
			t.Fatalf("%s: %v", kind, err)
		}
		for _, what := range want {
			if !seen[what] {
				t.Errorf("%s: no signature has %s: sign more", kind, what)
			}
		}
		if seen["s 33"] {
			t.Errorf("%s: a high s", kind)
		}
	}
}
