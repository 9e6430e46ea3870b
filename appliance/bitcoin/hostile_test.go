package bitcoin

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"

	"signdrop/appliance/reason"
)

// allocated is how many bytes f allocates, which unlike its time is the same on every
// machine.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// bushCoin adds a Taproot input with so many leaves, each of which wants all of the
// ring's first keys, in an order of its own.
func (p *plan) bushCoin(t testing.TB, r *ring, leaves, keys int) {
	t.Helper()
	var all [][]byte
	for n := range keys {
		all = append(all, public(r.key(n))[1:])
	}
	var scripts, level [][]byte
	for n := range leaves {
		ks := slices.Concat(all[n%keys:], all[:n%keys])
		if n >= keys {
			ks[0], ks[1] = ks[1], ks[0]
		}
		s := append(push(nil, ks[0]), txscript.OP_CHECKSIG)
		for _, k := range ks[1:] {
			s = append(push(s, k), txscript.OP_CHECKSIGADD)
		}
		s = append(s, 1, byte(keys), txscript.OP_NUMEQUAL)
		scripts, level = append(scripts, s), append(level, leafHash(0xc0, s))
	}
	paths, at := make([][]byte, leaves), make([]int, leaves)
	for n := range at {
		at[n] = n
	}
	for len(level) > 1 { // leaves is a power of two
		for n := range at {
			paths[n] = append(paths[n], level[at[n]^1]...)
			at[n] /= 2
		}
		var up [][]byte
		for n := 0; n < len(level); n += 2 {
			up = append(up, branchHash(level[n], level[n+1]))
		}
		level = up
	}
	key, odd, ok := taprootKey(nobody(t), level[0])
	if !ok {
		t.Fatal("no such internal key")
	}
	control := append([]byte{0xc0}, nobody(t)...)
	if odd {
		control[0] |= 1
	}
	m := p.spend(100_000, append([]byte{txscript.OP_1, 32}, key...))
	m.put([]byte{inTapKey}, nobody(t))
	m.put([]byte{inTapRoot}, level[0])
	for n, s := range scripts {
		m.put(slices.Concat([]byte{inTapLeaf}, control, paths[n]), append(s, 0xc0))
	}
	for _, k := range all {
		m.put(append([]byte{inTapDerivation}, k...), slices.Concat([]byte{1}, leafHash(0xc0, scripts[0]), r.origin(k)))
	}
}

// TestManySignatures: an input that wants thousands of signatures costs what they cost
// and not the square of it, and there is an end.
func TestManySignatures(t *testing.T) {
	r := newRing("alice")
	leaves, keys := 64, 120
	if testing.Short() {
		leaves = 8
	}
	p := newPlan()
	p.bushCoin(t, r, leaves, keys)
	data := p.pay(99_000).bytes()
	var tx *Tx
	// Some hundred bytes for each; that of the square were gigabytes.
	if n := allocated(func() { tx = checked(t, data, Rules{}, r) }); n > uint64(leaves*keys)*8<<10 {
		t.Errorf("checking %d signatures takes %d bytes", leaves*keys, n)
	}
	if len(tx.Wants()) != leaves*keys {
		t.Errorf("%d signatures are wanted", len(tx.Wants()))
	}
	p = newPlan()
	p.bushCoin(t, r, 128, 126)
	big, err := Parse(p.pay(99_000).bytes())
	if err != nil {
		t.Fatal(err)
	}
	tx, err = big.Check(Rules{}, r)
	if tx != nil {
		t.Error("there is something to sign")
	}
	wantCode(t, err, reason.TooLarge)
}

// TestPutMany: fields that are put into a large map get the places that they get one by
// one, in a map that is in order and in one that is not.
func TestPutMany(t *testing.T) {
	key := func(n int) []byte { return []byte{0x20, byte(n >> 8), byte(n), 1} }
	for _, backwards := range []bool{false, true} {
		n := 2000
		m := &keymap{}
		for i := range n {
			m.append(pair{key(3 * i), []byte("was there")})
		}
		if backwards {
			slices.Reverse(m.pairs)
			m.reindex()
		}
		want := slices.Clone(m.pairs)
		work := allocated(func() {
			for i := range n {
				m.put(key(7*i%n*3+1), []byte("new"))
			}
		})
		if work > 4<<20 {
			t.Errorf("putting %d fields takes %d bytes", n, work)
		}
		m.put(key(1), []byte("changed"))
		m.put(key(3), []byte("changed too"))
		for i := range n {
			p := pair{key(7*i%n*3 + 1), []byte("new")}
			at := slices.IndexFunc(want, func(q pair) bool { return bytes.Compare(q.key, p.key) > 0 })
			if at < 0 {
				at = len(want)
			}
			want = slices.Insert(want, at, p)
		}
		for i, p := range want {
			switch {
			case bytes.Equal(p.key, key(1)):
				want[i].value = []byte("changed")
			case bytes.Equal(p.key, key(3)):
				want[i].value = []byte("changed too")
			}
			if v := m.at(p.key); !bytes.Equal(v, want[i].value) {
				t.Fatalf("field %x is %q", p.key, v)
			}
		}
		got := m.appendTo(nil)
		if plain := (&keymap{pairs: want}).appendTo(nil); !bytes.Equal(got, plain) {
			t.Errorf("backwards %t: the fields are in another order", backwards)
		}
	}
}

// TestKeymap holds a map against a list without an index, in whatever order fields are
// put, changed, read, copied and written.
func TestKeymap(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		draw := func() []byte {
			key := []byte{[]byte{0x01, inSignature, inSignature, 0x13, 0xf0}[rnd.IntN(5)]}
			for range rnd.IntN(3) {
				key = append(key, byte(rnd.IntN(6)))
			}
			return key
		}
		m := &keymap{}
		var want []pair // as put describes it
		for range rnd.IntN(30) {
			if p := (pair{draw(), []byte{1}}); m.find(p.key) < 0 {
				m.append(p)
				want = append(want, p)
			}
		}
		for step := range 60 {
			key, value := draw(), []byte{byte(step), 2}
			i := slices.IndexFunc(want, func(p pair) bool { return bytes.Equal(p.key, key) })
			switch rnd.IntN(8) {
			case 0:
				old := m
				m = m.clone()
				old.put(key, []byte("of the old one"))
				old.put([]byte{0xee, byte(step)}, nil)
			case 1:
				if got := m.appendTo(nil); !bytes.Equal(got, (&keymap{pairs: want}).appendTo(nil)) {
					t.Fatalf("seed %d, step %d: written as %x", seed, step, got)
				}
			case 2, 3:
				var there []byte
				if i >= 0 {
					there = want[i].value
				}
				if got := m.at(key); !bytes.Equal(got, there) || (got == nil) != (i < 0) {
					t.Fatalf("seed %d, step %d: %x is %x, want %x", seed, step, key, got, there)
				}
			default:
				m.put(key, value)
				if i >= 0 {
					want[i].value = value
					break
				}
				to := slices.IndexFunc(want, func(p pair) bool { return compareKeys(p.key, key) > 0 })
				if to < 0 {
					to = len(want)
				}
				want = slices.Insert(want, to, pair{key, value})
			}
		}
		if got := m.appendTo(nil); !bytes.Equal(got, (&keymap{pairs: want}).appendTo(nil)) {
			t.Fatalf("seed %d: written as %x", seed, got)
		}
	}
}

// TestScriptsOfOthers: an input that somebody else has finished may have a script whose
// every two bytes check a signature.
func TestScriptsOfOthers(t *testing.T) {
	evil := newRing("evil")
	script := append(bytes.Repeat([]byte{txscript.OP_2DUP, txscript.OP_CHECKSIGVERIFY}, 99), txscript.OP_CHECKSIG)
	for _, c := range []struct {
		segwit bool
		inputs int
		pays   int // outputs
		code   reason.Code
	}{{true, 3, 1, ""}, {true, 161, 1, reason.TooLarge}, {false, 3, 1, ""}, {false, 161, 1, reason.TooLarge}, {false, 15, 9000, reason.TooLarge}} {
		r := newRing("alice")
		p := newCoin(t, r, 50_000)
		out := script
		if c.segwit {
			out = p2wshScript(script)
		}
		for range c.inputs {
			p.spend(1000, out)
		}
		p.pay(49_000)
		for range c.pays - 1 {
			p.payTo(0, append([]byte{txscript.OP_RETURN, 75}, make([]byte, 75)...))
		}
		rules := Rules{MaxFeePercent: -1}
		tx := checked(t, p.bytes(), rules, r)
		for i, m := range p.inputs[1:] {
			digest, ok := tx.digests.digest(i+1, &spend{segwit: c.segwit, script: script}, sighashAll)
			if !ok {
				t.Fatal("no digest")
			}
			sig, key := append(ecdsa.Sign(evil.key(0), digest[:]).Serialize(), sighashAll), public(evil.key(0))
			if c.segwit {
				m.put([]byte{inFinalWitness}, appendPrefixed(appendPrefixed(appendPrefixed([]byte{3}, sig), key), script))
			} else {
				m.put([]byte{inFinalScript}, push(push(nil, sig), key))
			}
		}
		name := fmt.Sprintf("%+v", c)
		if c.code == "" {
			if a := answered(t, p.bytes(), rules, r); !a.Complete {
				t.Errorf("%s: not complete", name)
			}
			continue
		}
		big, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if tx, err = big.Check(rules, r); tx != nil {
			t.Errorf("%s: there is something to sign", name)
		}
		wantCode(t, err, c.code)
	}
}

// TestTaprootOfOthers: what a finished Taproot input hashes for each of its signatures is
// bounded. An annex and an output of SINGLE are hashed again for each.
func TestTaprootOfOthers(t *testing.T) {
	evil := newRing("evil")
	key := public(evil.key(0))[1:]
	for _, c := range []struct {
		checks, annex, output int // the latter in bytes
		code                  reason.Code
	}{
		{40, 5000, 5000, ""},
		{3000, 160_000, 0, ""}, // as large as all that is in the annex
		{3000, 0, 180_000, reason.TooLarge},
		{3000, 180_000, 0, reason.TooLarge},
		{3000, 160_000, 20_000, reason.TooLarge},
	} {
		if testing.Short() && c.checks > 1000 && c.code == "" {
			continue
		}
		name := fmt.Sprintf("%+v", c)
		script := append(bytes.Repeat([]byte{txscript.OP_2DUP, txscript.OP_CHECKSIGVERIFY}, c.checks-1), txscript.OP_CHECKSIG)
		// The budget of BIP-342 takes 50 bytes for each.
		filler := append(push(nil, make([]byte, 520)), txscript.OP_DROP)
		script = slices.Concat(bytes.Repeat(filler, max(0, 50*c.checks-c.annex)/len(filler)), script)
		output, odd, ok := taprootKey(nobody(t), leafHash(0xc0, script))
		if !ok {
			t.Fatal("no such internal key")
		}
		control := append([]byte{0xc0}, nobody(t)...)
		if odd {
			control[0] |= 1
		}
		r := newRing("alice")
		p := newCoin(t, r, 50_000)
		m := p.spend(1000, append([]byte{txscript.OP_1, 32}, output...))
		p.pay(49_000).payTo(0, append([]byte{txscript.OP_RETURN}, make([]byte, c.output)...))
		rules := Rules{MaxFeePercent: -1}
		tx := checked(t, p.bytes(), rules, r)

		var with []txscript.TaprootSigHashOption
		var annex []byte
		if c.annex > 0 {
			annex = append([]byte{txscript.TaprootAnnexTag}, make([]byte, c.annex)...)
			with = append(with, txscript.WithAnnex(annex))
		}
		digest, err := txscript.CalcTapscriptSignaturehash(tx.digests.shared, sighashSingle, tx.tx, 1, tx.digests.prevouts, txscript.NewBaseTapLeaf(script), with...)
		if err != nil {
			t.Fatal(err)
		}
		witness := [][]byte{append(signSchnorr(t, evil.keys[string(key)], digest), sighashSingle), key, script, control}
		if annex != nil {
			witness = append(witness, annex)
		}
		raw := []byte{byte(len(witness))}
		for _, w := range witness {
			raw = appendPrefixed(raw, w)
		}
		m.put([]byte{inFinalWitness}, raw)
		if c.code == "" {
			if a := answered(t, p.bytes(), rules, r); !a.Complete {
				t.Errorf("%s: not complete", name)
			}
			continue
		}
		big, err := Parse(p.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if tx, err = big.Check(rules, r); tx != nil {
			t.Errorf("%s: there is something to sign", name)
		}
		wantCode(t, err, c.code)
	}
}

// TestFingerprints names each once, in order.
func TestFingerprints(t *testing.T) {
	p := newPlan()
	for _, name := range []string{"b", "a", "b"} {
		p.coin(t, newRing(name), kindP2WPKH, 1, 1000)
	}
	q, err := Parse(p.pay(2000).bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := q.Fingerprints(), [][4]byte{newRing("b").fingerprint, newRing("a").fingerprint}; !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
