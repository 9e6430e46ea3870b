package bitcoin

import (
	"fmt"
	"testing"
	"time"

	"signdrop/appliance/reason"
)

// many spends n outputs of a kind, which have so many others beside them.
func many(t testing.TB, r *ring, kind string, n, more int) []byte {
	p := newPlan()
	p.more = more
	for i := range n {
		p.coin(t, r, kind, i, 100_000)
	}
	return p.pay(int64(n) * 98_000).bytes()
}

var benchmarked = []string{kindP2PKH, kindP2WPKH, kindP2TR}

// BenchmarkCheck is Parse and Check: everything before a key is needed. The largest is
// near both limits, 2,000 inputs and 2 MB.
func BenchmarkCheck(b *testing.B) {
	for _, kind := range benchmarked {
		for _, c := range []struct{ inputs, more int }{{1, 0}, {10, 0}, {250, 0}, {MaxInputs, 0}, {MaxInputs, 22}} {
			r := newRing("alice")
			data := many(b, r, kind, c.inputs, c.more)
			b.Run(fmt.Sprintf("%s/%d/%dkB", kind, c.inputs, len(data)/1000), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					checked(b, data, Rules{}, r)
				}
			})
		}
	}
}

// BenchmarkFinish is what comes after the signatures: each is verified, and the
// script engine runs every input.
func BenchmarkFinish(b *testing.B) {
	for _, kind := range benchmarked {
		for _, n := range []int{1, 10, 250, MaxInputs} {
			r := newRing("alice")
			data := many(b, r, kind, n, 0)
			tx := checked(b, data, Rules{}, r)
			var sigs [][]byte
			for _, w := range tx.Wants() {
				sigs = append(sigs, r.sign(b, w))
			}
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					tx := checked(b, data, Rules{}, r)
					b.StartTimer()
					for i, w := range tx.Wants() {
						if err := tx.Add(w, sigs[i], false); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := tx.Finish(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestLimits: 2,000 inputs are taken, one more is not, and the work grows with
// the size.
func TestLimits(t *testing.T) {
	r := newRing("alice")
	n := MaxInputs
	if testing.Short() {
		n = 100
	}
	for _, kind := range benchmarked {
		data := many(t, r, kind, n, 0)
		start := time.Now()
		tx := checked(t, data, Rules{}, r)
		t.Logf("%s: %d inputs, %d bytes: %v", kind, n, len(data), time.Since(start))
		if len(tx.Wants()) != n {
			t.Errorf("%s: %d signatures are wanted, want %d", kind, len(tx.Wants()), n)
		}
	}
	p := newPlan()
	for range MaxInputs + 1 {
		p.spend(1000, others(1))
	}
	_, err := Parse(p.pay(1000).bytes())
	wantCode(t, err, reason.TooLarge)

	// Legacy digests cover the whole transaction each.
	p = newPlan()
	for range MaxInputs {
		p.spend(1000, p2pkhScript(make([]byte, 20)))
	}
	for range 3000 {
		p.pay(1000)
	}
	big, err := Parse(p.bytes())
	if err != nil {
		t.Fatal(err)
	}
	_, err = big.Check(Rules{}, r)
	wantCode(t, err, reason.TooLarge)

	p = newPlan()
	p.coin(t, r, kindP2WPKH, 0, 100_000)
	for range MaxOutputs + 1 {
		p.pay(1)
	}
	_, err = Parse(p.bytes())
	wantCode(t, err, reason.TooLarge)
}
