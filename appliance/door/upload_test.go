package door

import (
	"testing"
)

func TestExtents(t *testing.T) {
	var e extents
	for i, c := range []struct{ from, to, prefix int64 }{
		{5, 5, 0}, {10, 20, 0}, {0, 5, 5}, {30, 40, 5}, {5, 10, 20}, {15, 35, 40}, {100, 101, 40}, {0, 200, 200},
	} {
		if !e.add(c.from, c.to) {
			t.Fatal("too many")
		}
		if got := e.prefix(); got != c.prefix {
			t.Errorf("step %d: prefix %d, want %d", i, got, c.prefix)
		}
	}
	e = extents{}
	ok := true
	for i := int64(0); ok; i++ {
		if ok = e.add(10*i, 10*i+1); i > 2*maxExtents {
			t.Fatal("there is no bound")
		}
	}
}

// FuzzExtents compares with a map of bytes.
func FuzzExtents(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		var e extents
		var have [512]bool
		for ; len(data) >= 2; data = data[2:] {
			from, n := int64(data[0]), int64(data[1])
			e.add(from, from+n)
			for i := from; i < from+n; i++ {
				have[i] = true
			}
		}
		var want int64
		for want < 512 && have[want] {
			want++
		}
		if got := e.prefix(); got != want {
			t.Fatalf("prefix %d, want %d of %v", got, want, e.ends)
		}
		for i := 1; i < len(e.ends); i++ {
			if e.ends[i] <= e.ends[i-1] {
				t.Fatalf("not in order: %v", e.ends)
			}
		}
	})
}
