package hd_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/keyfs/hd"
)

// drawn makes the master key number n.
func drawn(t testing.TB, n uint64) *hd.Key {
	t.Helper()
	seed := make([]byte, 32)
	rnd := rand.New(rand.NewPCG(n, 32))
	for i := range seed {
		seed[i] = byte(rnd.UintN(256))
	}
	k, err := hd.Master(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func derived(t testing.TB, k *hd.Key, path ...uint32) *hd.Key {
	t.Helper()
	d, err := k.Derive(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestHasChildDrawn holds HasChild to the private derivation, for drawn keys and for
// indexes at the borders: each key is the child of its index and of no other.
func TestHasChildDrawn(t *testing.T) {
	n := uint64(40)
	if testing.Short() {
		n = 4
	}
	odd := 0
	for seed := range n {
		rnd := rand.New(rand.NewPCG(seed, 1))
		parent := derived(t, drawn(t, seed), []uint32{hd.Hardened + 84, rnd.Uint32N(1 << 31)}[:seed%3]...)
		public := parent.Public()
		text := public.String(hd.Main)
		indexes := []uint32{0, 1, rnd.Uint32N(1 << 31), hd.Hardened - 1}
		var keys []*btcec.PublicKey
		for _, i := range indexes {
			key := derived(t, parent, i).Public().Key()
			hasChild(t, public, i, key)
			if got, err := public.Derive(hd.Path{i}); err != nil || !got.Key().IsEqual(key) {
				t.Errorf("seed %d, child %d: derived publicly it differs (%v)", seed, i, err)
			}
			keys = append(keys, key)
			odd += int(key.SerializeCompressed()[0] & 1)
		}
		for a, key := range keys {
			before := key.SerializeUncompressed()
			for b, i := range indexes {
				for _, anyY := range []bool{false, true} {
					if got := public.HasChild(i, key, anyY); got != (a == b) {
						t.Errorf("seed %d: the key of %d is child %d: %v", seed, indexes[a], i, got)
					}
				}
			}
			if !bytes.Equal(key.SerializeUncompressed(), before) {
				t.Errorf("seed %d: HasChild changes the key", seed)
			}
		}
		if public.String(hd.Main) != text {
			t.Errorf("seed %d: HasChild changes the parent", seed)
		}
		notReduced(t, public, indexes[0], keys[0])
	}
	if all := int(n) * 4; odd == 0 || odd == all {
		t.Errorf("of %d keys %d have an odd y", all, odd)
	}
}

// notReduced: points are compared as what they are, not as what they are written as.
func notReduced(t *testing.T, parent *hd.Public, i uint32, key *btcec.PublicKey) {
	t.Helper()
	var p btcec.JacobianPoint
	var prime btcec.FieldVal // p, as one more than p-1
	prime.SetInt(1).Negate(1).Normalize().AddInt(1)
	key.AsJacobian(&p)
	if !parent.HasChild(i, btcec.NewPublicKey(p.X.Add(&prime), p.Y.Add(&prime)), false) {
		t.Error("a key whose numbers are not reduced is another")
	}
	var step btcec.FieldVal
	step.SetByteSlice([]byte{2, 0, 0, 0}) // 2^25: two of them overflow a word of 26 bits
	key.AsJacobian(&p)
	hidden := btcec.NewPublicKey(p.X.Add(&step).Add(&step), &p.Y)
	if !bytes.Equal(hidden.SerializeCompressed(), key.SerializeCompressed()) {
		t.Fatal("it is written otherwise")
	}
	if parent.HasChild(i, hidden, true) {
		t.Error("what is only written like the key is it")
	}
}

// TestDerive: the public half is computed where it is needed alone. Every order of
// hardened and other steps gives the same as step by step, with the parent's fingerprint,
// and as the private key alone.
func TestDerive(t *testing.T) {
	master := drawn(t, 7)
	before := master.Bytes(hd.Main)
	longest := 6
	if testing.Short() {
		longest = 4
	}
	for steps := 1; steps <= longest; steps++ {
		for hardened := range 1 << steps {
			var p hd.Path
			for n := range steps {
				i := uint32(n * n)
				if hardened>>n&1 == 1 {
					i += hd.Hardened
				}
				p = append(p, i)
			}
			var parent *hd.Key
			slow := master
			for _, i := range p {
				parent, slow = slow, derived(t, slow, i)
			}
			fast := derived(t, master, p...)
			if !bytes.Equal(fast.Bytes(hd.Main), slow.Bytes(hd.Main)) {
				t.Errorf("%s: %x, step by step %x", p, fast.Bytes(hd.Main), slow.Bytes(hd.Main))
			}
			// The place is that of the bytes; the point that of the private number.
			if parsed, _, err := hd.ParseBytes(fast.Bytes(hd.Main)); err != nil || parsed.Public().String(hd.Main) != fast.Public().String(hd.Main) ||
				parsed.Fingerprint() != fast.Fingerprint() {
				t.Errorf("%s: the halves do not belong to each other (%v)", p, err)
			}
			if f := parent.Fingerprint(); !bytes.Equal(fast.Bytes(hd.Main)[5:9], f[:]) {
				t.Errorf("%s: it names another parent than %s", p, f)
			}
			alone, err := parent.Child(p[steps-1])
			if err != nil || !bytes.Equal(alone.Serialize(), fast.Bytes(hd.Main)[46:]) {
				t.Errorf("%s: the private key alone differs (%v)", p, err)
			}
		}
	}
	if !bytes.Equal(master.Bytes(hd.Main), before) {
		t.Error("the master key was changed")
	}
}

// TestDeepest: below a key of depth 255 is nothing.
func TestDeepest(t *testing.T) {
	p := make(hd.Path, 255)
	for i := range p {
		p[i] = hd.Hardened
	}
	deepest := derived(t, drawn(t, 1), p...)
	if deepest.Bytes(hd.Main)[4] != 255 {
		t.Fatal("it is not deep")
	}
	for _, i := range []uint32{0, hd.Hardened} {
		_, derr := deepest.Derive(hd.Path{i})
		_, cerr := deepest.Child(i)
		_, perr := deepest.Public().Derive(hd.Path{i})
		if derr == nil || cerr == nil || perr == nil || deepest.Public().HasChild(i, deepest.Public().Key(), true) {
			t.Errorf("child %d: %v, %v, %v", i, derr, cerr, perr)
		}
	}
	if _, err := drawn(t, 1).Derive(append(p, 0)); err == nil {
		t.Error("a path of 256 steps is derived")
	}
}
