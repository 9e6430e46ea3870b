package bitcoin

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// previewed is what is said of a PSBT, a line for each field, and the refusals.
func previewed(t testing.TB, data []byte, rules Rules) (text string, codes []reason.Code) {
	t.Helper()
	p, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	before := p.serialize(p.global, p.inputs, p.outputs)
	pre := preview(p, &rules)
	if !bytes.Equal(p.serialize(p.global, p.inputs, p.outputs), before) {
		t.Fatal("preview changed the PSBT")
	}
	return tell(t, pre)
}

func tell(t testing.TB, pre *ledger.Preview) (text string, codes []reason.Code) {
	t.Helper()
	for _, f := range pre.Fields {
		text += f.Name + ": " + f.Value + "\n"
	}
	for _, err := range pre.Refusals {
		ref, ok := reason.As(err)
		if !ok {
			t.Fatalf("not a refusal: %v", err)
		}
		codes = append(codes, ref.Code)
	}
	return text, codes
}

// TestPreview: what is said of a PSBT follows from it, and what it only says is said to
// be its word.
func TestPreview(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	a, b := hex.EncodeToString(alice.fingerprint[:]), hex.EncodeToString(bob.fingerprint[:])
	one := func() *plan {
		p := newPlan()
		p.coin(t, alice, kindP2WPKH, 1, 100_000)
		p.pay(50_000)
		return p
	}
	with := func(change func(*plan)) *plan { p := one(); change(p); return p }
	both := func(p *plan, need int) *plan {
		p.quorumCoin(kindP2WSH, 100_000, need, []*ring{alice, bob}, 1)
		return p.pay(99_000)
	}
	for _, c := range []struct {
		name  string
		plan  *plan
		rules Rules
		codes string   // of the refusals, none for ""
		want  []string // parts of the text
		not   []string // that it must not have
	}{
		{"change", with(func(p *plan) { p.change(alice, 2, 49_000) }), Rules{}, "", []string{
			"network: mainnet (its keys are for this one)\n",
			"inputs: 1, together 0.00100000 BTC\n",
			"pays: output 0: 0.00050000 BTC to bc1qqurswpc8qurswpc8qurswpc8qurswpc89fe3yv\n",
			"says change: output 1: 0.00049000 BTC to bc1q", "(says the PSBT: change of " + a + ")\n",
			"fee: 0.00001000 BTC, about 7.09 sat/vB, 2.00 % of what is paid\n",
			"wanted: " + a + ": 1 signature, input 0; with that it is complete\n",
			"replaceable: ", "txid: ",
		}, []string{"not proven", "without proof", "appliance"}},
		{"to the coin's own address", with(func(p *plan) { p.payTo(49_000, append([]byte{0, 20}, hash160(public(alice.key(1)))...)) }), Rules{}, "",
			[]string{"pays: output 1: ", " (the address of input 0)\n"}, []string{"says change"}},
		{"change of somebody whose coins it does not spend", with(func(p *plan) { p.change(bob, 2, 49_000) }), Rules{}, "",
			[]string{"pays: output 1: ", "(says the PSBT: to " + b + ", of which no input is)\n"}, []string{"says change"}},
		{"change that is not", with(func(p *plan) {
			p.change(alice, 2, 49_000)
			p.tx.TxOut[1].PkScript = others(8)
		}), Rules{}, "change-false", []string{"pays: output 1: ", "(the PSBT names a key of " + a + " for it, and it does not pay to that key)\n"}, []string{"says change"}},
		{"fee of all that is paid", with(func(p *plan) { p.change(alice, 2, 40_000) }), Rules{}, "fee-too-high",
			[]string{"fee: 0.00010000 BTC", "20.00 % of what is paid\n", a + ": refused if it is yours: fee-too-high: the fee is above 10 % of what is paid\n"}, nil},
		{"the same with a policy that allows it", with(func(p *plan) { p.change(alice, 2, 40_000) }), Rules{MaxFeePercent: 20}, "", []string{a + ": 1 signature"}, nil},
		{"fee that is too high for anybody", one(), Rules{}, "fee-too-high", []string{"100.00 % of what is paid"}, nil},
		{"amount without proof, of one input", with(func(p *plan) { stated(p, 0); p.change(alice, 2, 49_000) }), Rules{}, "",
			[]string{"not proven: the amounts of 1 inputs, and so the fee, are as the PSBT says\n", "(the PSBT says, without proof)\n"}, nil},
		{"amount without proof, of two", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindP2WPKH, 1, 50_000)
			p.coin(t, alice, kindP2WPKH, 2, 50_000)
			stated(p, 1)
			return p.pay(99_000)
		}(), Rules{}, "amount-unproven", []string{a + ": refused if it is yours: amount-unproven: inputs[1]: its amount is stated"}, nil},
		{"no amount", with(func(p *plan) { p.inputs[0].drop([]byte{inTx}) }), Rules{}, "amount-unproven",
			[]string{"inputs: 1\n", "pays: output 0: 0.00050000 BTC to bc1q"}, []string{"fee"}},
		{"an amount that cannot be", with(func(p *plan) { p.tx.TxOut[0].Value = -5 }), Rules{}, "amount-invalid",
			[]string{"(an amount that cannot be: -5 satoshi)\n"}, nil},
		{"more out than in", with(func(p *plan) { p.pay(60_000) }), Rules{}, "amount-invalid", []string{"pays: output 1: 0.00060000"}, nil},
		{"an output twice", func() *plan {
			p := one()
			p.coin(t, alice, kindP2WPKH, 1, 100_000)
			p.tx.TxIn[1].PreviousOutPoint = p.tx.TxIn[0].PreviousOutPoint
			return p
		}(), Rules{}, "input-twice", nil, nil},
		{"sighash", with(func(p *plan) { p.inputs[0].state(sighashNone); p.change(alice, 2, 49_000) }), Rules{}, "sighash-forbidden",
			[]string{"not covered: input 0 is to be signed with NONE: whoever has the transaction can change what that leaves open\n"}, nil},
		{"sighash that the policy allows", with(func(p *plan) { p.inputs[0].state(sighashAll | anyoneCanPay); p.change(alice, 2, 49_000) }),
			Rules{Sighashes: []string{"ALL|ANYONECANPAY"}}, "", []string{"not covered: input 0 is to be signed with ALL|ANYONECANPAY"}, nil},
		{"unknown sighash", with(func(p *plan) { p.inputs[0].state(0x42); p.change(alice, 2, 49_000) }), Rules{}, "sighash-forbidden",
			[]string{"with the unknown type 0x42"}, nil},
		{"another network", with(func(p *plan) { p.change(alice, 2, 49_000) }), Rules{Network: "testnet"}, "network-mismatch",
			[]string{"network: testnet (as you or the policy say)\n", "to tb1q"}, nil},
		{"lock time", with(func(p *plan) { p.tx.LockTime = 900_000; p.change(alice, 2, 49_000) }), Rules{}, "", []string{"not before: block 900000\n"}, nil},
		{"data", with(func(p *plan) { p.payTo(49_000, []byte{0x6a, 2, 'h', 'i'}) }), Rules{}, "", []string{"output 1: 0.00049000 BTC to op_return 6a026869\n"}, nil},
		{"two of two", both(newPlan(), 2), Rules{}, "", []string{a + ": 1 signature, input 0; others have to sign too\n", b + ": 1 signature, input 0; others have to sign too\n"}, nil},
		{"one of two", both(newPlan(), 1), Rules{}, "", []string{a + ": 1 signature, input 0; with that it is complete\n", b + ": 1 signature, input 0; with that it is complete\n"}, nil},
		{"one input is somebody's without a name", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindP2WPKH, 1, 50_000)
			p.spend(50_000, others(3))
			stated(p, 1)
			return p.pay(99_000)
		}(), Rules{}, "", []string{a + ": refused if it is yours: amount-unproven", "wanted: input 1: no master key is named; a wallet with a single key may be meant\n"}, nil},
		{"who owns all that is named pays nothing", func() *plan {
			p := newPlan()
			p.coin(t, alice, kindP2WPKH, 1, 100_000)
			p.change(alice, 2, 80_000)
			p.change(bob, 2, 15_000)
			return p
		}(), Rules{}, "", []string{a + ": refused if it is yours: fee-too-high", "wanted: all of them, if all are yours, and where change goes too: 1 signature, input 0"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []uint32{0, 2} {
				c.plan.version = version
				text, codes := previewed(t, c.plan.bytes(), c.rules)
				got := ""
				for _, code := range codes {
					got += string(code)
				}
				if got != c.codes {
					t.Errorf("refused with %q, want %q\n%s", got, c.codes, text)
				}
				for _, want := range c.want {
					if !strings.Contains(text, want) {
						t.Errorf("it does not say %q:\n%s", want, text)
					}
				}
				for _, not := range c.not {
					if strings.Contains(text, not) {
						t.Errorf("it says %q:\n%s", not, text)
					}
				}
			}
		})
	}
}

// TestPreviewSigned: signatures that are there are told of, and what waits for nobody is
// refused.
func TestPreviewSigned(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	p := newPlan()
	p.quorumCoin(kindP2WSH, 100_000, 2, []*ring{alice, bob}, 1)
	p.pay(99_000)
	part := answered(t, p.bytes(), Rules{}, alice)
	text, codes := previewed(t, part.Files[0].Data, Rules{})
	for _, want := range []string{
		"signed already: input 0; 1 verified\n",
		hex.EncodeToString(alice.fingerprint[:]) + ": refused if it is yours: nothing-to-sign: the company's keys have signed already\n",
		hex.EncodeToString(bob.fingerprint[:]) + ": 1 signature, input 0; with that it is complete\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if len(codes) > 0 {
		t.Errorf("refused: %v", codes)
	}

	whole := answered(t, part.Files[0].Data, Rules{}, bob)
	if _, codes = previewed(t, whole.Files[0].Data, Rules{}); len(codes) != 1 || codes[0] != reason.NothingToSign {
		t.Errorf("a PSBT with all signatures: %v", codes)
	}

	forged := bytes.Clone(part.Files[0].Data)
	at := bytes.Index(forged, []byte{0x30, 0x44, 0x02})
	if at < 0 {
		at = bytes.Index(forged, []byte{0x30, 0x45, 0x02})
	}
	forged[at+10] ^= 1
	if _, codes = previewed(t, forged, Rules{}); len(codes) != 1 || codes[0] != reason.CosignatureInvalid {
		t.Errorf("a forged signature: %v", codes)
	}

	done, err := Parse([]byte(signerVectors(t).Finalized))
	if err != nil {
		t.Fatal(err)
	}
	text, codes = tell(t, preview(done, &Rules{}))
	if len(codes) != 1 || codes[0] != reason.NothingToSign || !strings.Contains(text, "input 0, 1; finished by another program") {
		t.Errorf("a finished PSBT: %v\n%s", codes, text)
	}
	if !strings.Contains(text, "network: mainnet (assumed; nothing in the PSBT tells)") {
		t.Errorf("the network is not said to be assumed:\n%s", text)
	}
}

// TestPreviewNetwork: the paths of the keys tell, and what they do not agree on is said.
func TestPreviewNetwork(t *testing.T) {
	updated, err := Parse([]byte(signerVectors(t).Updated))
	if err != nil {
		t.Fatal(err)
	}
	if name, why := updated.network(); name != "mainnet" || why != "assumed; nothing in the PSBT tells" {
		t.Errorf("%s, %s", name, why) // its paths are of no standard
	}
	for _, c := range []struct {
		coins []uint32
		name  string
		why   string
	}{
		{[]uint32{0}, "mainnet", "its keys are for this one"},
		{[]uint32{1}, "testnet", "assumed, since its keys are for a test network"},
		{[]uint32{1, 0}, "mainnet", "assumed; the PSBT's keys are for several"},
	} {
		r, p := newRing("alice"), newPlan()
		for i, coin := range c.coins {
			key := r.key(i)
			r.add(key, []uint32{hardened | 84, hardened | coin, hardened, 0, uint32(i)})
			public := public(key)
			m := p.spend(60_000, append([]byte{0, 20}, hash160(public)...))
			m.put(append([]byte{inDerivation}, public...), r.origin(public))
		}
		p.pay(59_000)
		q, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if name, why := q.network(); name != c.name || !strings.HasPrefix(why, c.why) {
			t.Errorf("coins %v: %s, %s", c.coins, name, why)
		}
	}
	xpub := newPlan()
	xpub.spend(60_000, others(1))
	xpub.pay(59_000)
	xpub.global.put(append(xpubKey(testXpub)[:5:5], append([]byte{0}, make([]byte, 73)...)...), make([]byte, 4))
	q, err := Parse(xpub.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if name, _ := q.network(); name != "testnet" {
		t.Errorf("an extended key for a test network: %s", name)
	}
}

// TestPreviewLeaves: who has a key in two leaves signs both, and completes none of them if
// each wants somebody else too.
func TestPreviewLeaves(t *testing.T) {
	alice := newRing("alice")
	a, b, c := public(alice.key(1))[1:], public(newRing("bob").key(1))[1:], public(newRing("carol").key(1))[1:]
	for need, then := range map[int]string{1: "with that it is complete", 2: "others have to sign too"} {
		p := newPlan()
		scripts := [][]byte{leafScript(need, a, b), leafScript(need, a, c)}
		leaves := [][]byte{leafHash(0xc0, scripts[0]), leafHash(0xc0, scripts[1])}
		root := branchHash(leaves[0], leaves[1])
		m := p.spend(100_000, p2trScript(t, nobody(t), root))
		control := append([]byte{0xc0}, nobody(t)...)
		if _, odd, _ := taprootKey(nobody(t), root); odd {
			control[0]++
		}
		for i, s := range scripts {
			m.put(slices.Concat([]byte{inTapLeaf}, control, leaves[1-i]), append(s, 0xc0))
		}
		m.put(append([]byte{inTapDerivation}, a...), slices.Concat([]byte{2}, leaves[0], leaves[1], alice.origin(a)))
		text, _ := previewed(t, p.pay(95_000).bytes(), Rules{})
		if want := ": 2 signatures, input 0; " + then + "\n"; !strings.Contains(text, want) {
			t.Errorf("of %d: %s", need, text)
		}
	}
}

// TestPreviewHostile: what somebody crowds a PSBT with is counted and not written out,
// and takes bounded time.
func TestPreviewHostile(t *testing.T) {
	p := newPlan()
	rings := make([]*ring, maxMasters+4)
	for i := range rings {
		rings[i] = newRing(string(rune('a' + i)))
		p.coin(t, rings[i], kindP2WPKH, 1, 10_000)
	}
	for range 30 - len(rings) {
		p.coin(t, rings[0], kindP2WPKH, 2, 10_000)
	}
	p.pay(290_000)
	begin := time.Now()
	text, codes := previewed(t, p.bytes(), Rules{})
	if len(codes) > 0 || !strings.Contains(text, "spends: and 10 more\n") || strings.Count(text, "spends: ") != maxSpends+1 ||
		!strings.Contains(text, " and 10 more, more than are looked at here\n") {
		t.Errorf("%v\n%s", codes, text)
	}
	if len(text) > 10_000 {
		t.Errorf("%d bytes are said of it", len(text))
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// previewHolds: what preview says is refused, Check refuses also with all the keys that
// there can be.
func previewHolds(t testing.TB, p *PSBT, rules Rules, refused bool) {
	t.Helper()
	said, codes := tell(t, preview(p, &rules))
	if !strings.Contains(said, "pays: output 0: ") && !strings.Contains(said, "says change: output 0: ") && len(p.outputs) > 0 {
		t.Fatalf("it does not say whom it pays: %q", said)
	}
	if strings.ContainsFunc(said, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		t.Fatalf("it repeats bytes of the PSBT: %q", said)
	}
	if len(codes) > 0 && !refused {
		t.Fatalf("it says that a PSBT is refused which is signed: %v", codes)
	}
}

// ringsOf owns the keys of several rings.
type ringsOf []*ring

func (rs ringsOf) Knows(f [4]byte) bool {
	return slices.ContainsFunc(rs, func(r *ring) bool { return r.Knows(f) })
}
func (rs ringsOf) Owns(k Key) bool {
	return slices.ContainsFunc(rs, func(r *ring) bool { return r.Knows(k.Fingerprint) && r.Owns(k) })
}

// TestPreviewFar: a path that nothing is signed for is one whosever the key is.
func TestPreviewFar(t *testing.T) {
	alice := newRing("alice")
	for _, c := range []struct {
		path []uint32
		want []reason.Code
	}{
		{[]uint32{84 | hardened, hardened, hardened, 0, 999_999}, nil},
		{[]uint32{84 | hardened, hardened, hardened, 0, 1_000_000}, []reason.Code{reason.OriginFalse}},
		{[]uint32{84 | hardened, hardened, hardened, 0, hardened}, []reason.Code{reason.OriginFalse}},
		{make([]uint32, 10), nil},
		{make([]uint32, 11), []reason.Code{reason.OriginFalse}},
	} {
		key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{9}, 32))
		alice.add(key, c.path)
		p := newPlan()
		script, _ := single(kindP2WPKH, public(key))
		p.spend(100_000, script).put(append([]byte{inDerivation}, public(key)...), alice.origin(public(key)))
		text, codes := previewed(t, p.pay(99_000).bytes(), Rules{})
		if !slices.Equal(codes, c.want) || strings.Contains(text, "is not its key") {
			t.Errorf("%v: %v\n%s", c.path, codes, text)
		}
	}
}

// TestPreviewSound: what preview says is refused, no company has signed, whichever of the
// wallets it has; and where every claim is true some company has signed the rest.
func TestPreviewSound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	alice, bob := newRing("alice"), newRing("bob")
	kinds := []string{kindP2PKH, kindP2WPKH, kindNestedP2PKH, kindP2TR}
	n := 2000
	if testing.Short() {
		n = 200
	}
	refused, signed := 0, 0
	for range n {
		p := newPlan()
		p.version = uint32(2 * rnd.IntN(2))
		for i := range 1 + rnd.IntN(3) {
			r := []*ring{alice, bob}[rnd.IntN(2)]
			if rnd.IntN(5) == 0 {
				p.quorumCoin(kindP2WSH, 10_000, 1+rnd.IntN(2), []*ring{alice, bob}, i)
			} else {
				p.coin(t, r, kinds[rnd.IntN(len(kinds))], i, 10_000)
			}
			if rnd.IntN(6) == 0 {
				p.inputs[i].state([]uint32{0, 1, 2, 0x81, 0x50}[rnd.IntN(5)])
			}
			if rnd.IntN(4) == 0 && p.inputs[i].get(inTx) != nil {
				stated(p, i)
			}
		}
		in := int64(10_000 * len(p.inputs))
		left := in - []int64{0, 100, in / 12, in / 9, in / 2}[rnd.IntN(5)]
		p.pay(left / 4)
		switch rnd.IntN(4) {
		case 0:
			p.change(alice, 9, left-left/4)
		case 1:
			p.change(bob, 9, left-left/4)
		case 2:
			p.change(alice, 9, left/4)
			p.change(bob, 9, left-2*(left/4))
		}
		if rnd.IntN(12) == 0 {
			p.tx.TxOut[len(p.tx.TxOut)-1].PkScript = others(4)
		}
		if rnd.IntN(3) == 0 { // all comes back
			p.tx.TxOut, p.outputs = p.tx.TxOut[1:], p.outputs[1:]
			if len(p.outputs) == 0 {
				p.change(alice, 8, left)
			}
		}
		data := p.bytes()
		text, codes := previewed(t, data, Rules{})
		q, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		taken := false
		for _, keys := range []Keys{ringsOf{alice}, ringsOf{bob}, ringsOf{alice, bob}} {
			_, err := q.Check(Rules{}, keys)
			taken = taken || err == nil
		}
		if (len(codes) > 0) == taken {
			t.Fatalf("preview refuses with %v, and a company is refused: %t\n%x\n%s", codes, !taken, data, text)
		}
		if taken {
			signed++
		} else {
			refused++
		}
	}
	if refused < n/10 || signed < n/10 {
		t.Errorf("%d refused, %d signed: too few of one", refused, signed)
	}
}
