package memory

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestFilter: no key is missed, and few that are not there seem to be.
func TestFilter(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 10_000, 100_000} {
		f := newFilter(int64(n))
		for i := range n {
			f.add(NewKey(sha256.Sum256(fmt.Append(nil, i)), i%2 == 0))
		}
		for i := range n {
			if !f.has(NewKey(sha256.Sum256(fmt.Append(nil, i)), i%2 == 0)) {
				t.Fatalf("%d keys: key %d is missed", n, i)
			}
		}
		wrong := 0
		const asked = 100_000
		for i := range asked {
			if f.has(NewKey(sha256.Sum256(fmt.Append(nil, -1-i)), i%2 == 0)) {
				wrong++
			}
		}
		if share := float64(wrong) / asked; share > 0.04 {
			t.Errorf("%d keys: %.1f %% of unknown keys seem to be there", n, 100*share)
		}
	}
}
