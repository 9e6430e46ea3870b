package modelfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Choice decides what a power cut leaves of the changes that were not synced. It
// always decides alike for the same volume.
type Choice struct {
	name  string
	begin func() decisions
}

func (c Choice) String() string { return c.name }

// decisions are those of one crash. They are asked in a fixed order: for each
// pending record, then for each file with unsynced data.
type decisions struct {
	record func(i int) bool
	data   func(unsynced int) fate
}

// fate is what becomes of the unsynced bytes of one file.
type fate struct {
	keep int  // so many bytes, in the order of writing, are there
	size bool // the others too, but what they hold is fill
	fill byte
	meta bool // the new group and times are there
}

func choice(name string, record func(i int) bool, data func(unsynced int) fate) Choice {
	return Choice{name, func() decisions { return decisions{record, data} }}
}

func keepName(int) bool    { return true }
func loseName(int) bool    { return false }
func keepData(n int) fate  { return fate{keep: n, meta: true} }
func loseData(int) fate    { return fate{} }
func zeroedData(int) fate  { return fate{size: true, meta: true} }
func garbageData(int) fate { return fate{size: true, fill: garbage, meta: true} }

// garbage is what a block holds that was given to a file and never written.
const garbage = 0xA5

var (
	// KeepNothing loses all that was not synced.
	KeepNothing = choice("KeepNothing", loseName, loseData)

	// KeepAll loses nothing, except what a failed sync lost.
	KeepAll = choice("KeepAll", keepName, keepData)

	// NamesWithoutData keeps every name and no unsynced byte: the empty file under
	// its final name, which a rename without a sync of the data leaves behind.
	NamesWithoutData = choice("NamesWithoutData", keepName, loseData)

	// NamesWithZeros keeps every name and size, and zeros in place of each unsynced
	// byte.
	NamesWithZeros = choice("NamesWithZeros", keepName, zeroedData)

	// NamesWithGarbage is NamesWithZeros with old content of the disk for zeros.
	NamesWithGarbage = choice("NamesWithGarbage", keepName, garbageData)

	// DataWithoutNames keeps every byte and no unsynced name.
	DataWithoutNames = choice("DataWithoutNames", loseName, keepData)
)

// KeepPrefix keeps the first n pending records and no unsynced byte, as a journal
// does that commits in order.
func KeepPrefix(n int) Choice {
	return choice(fmt.Sprintf("KeepPrefix(%d)", n), func(i int) bool { return i < n }, loseData)
}

// KeepRandom keeps what the seed says. How much it keeps on the whole depends on
// the seed too, so that few seeds already reach nearly nothing and nearly all.
func KeepRandom(seed uint64) Choice {
	return Choice{fmt.Sprintf("KeepRandom(%d)", seed), func() decisions {
		r := rand.New(rand.NewPCG(seed, 0))
		names := []float64{0.1, 0.5, 0.9, 0.98}[r.IntN(4)]
		return decisions{
			record: func(int) bool { return r.Float64() < names },
			data: func(unsynced int) fate {
				some := r.IntN(unsynced + 1)
				f := []fate{
					{},
					{keep: unsynced},
					{keep: some},
					{size: true},
					{keep: some, size: true},
					{keep: some, size: true, fill: garbage},
				}[r.IntN(6)]
				f.meta = r.IntN(2) == 0
				return f
			},
		}
	}}
}

// Choices lists what a test of one state should try: the extremes, every prefix
// of the pending records, and so many random ones, from seed on. Where nothing is
// unsynced every choice comes to the same, so it lists one.
func (v *Volume) Choices(random int, seed uint64) []Choice {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := []Choice{KeepNothing, KeepAll, NamesWithoutData, NamesWithZeros, NamesWithGarbage, DataWithoutNames}
	for n := 1; n < len(v.pending); n++ {
		list = append(list, KeepPrefix(n))
	}
	if len(v.pending) == 0 && len(v.dirty) == 0 {
		return list[:1]
	}
	for i := range random {
		list = append(list, KeepRandom(seed+uint64(i)))
	}
	return list
}

// Crash cuts the power: it returns the volume as the disk then could be. All calls
// on v return ErrCrashed from now on. What v holds stays as it is, so that Crash
// can be called again with another choice. To see what a crash would leave and go
// on, crash a Clone.
func (v *Volume) Crash(choice Choice) *Volume {
	v.mu.Lock()
	v.crashed = true
	v.mu.Unlock()

	c := v.Clone()
	decide := choice.begin()
	c.crashNames(decide.record)
	c.crashData(decide.data)
	return c
}

// crashNames takes all pending records back and then makes those again that are
// chosen and have all they need.
func (v *Volume) crashNames(keep func(i int) bool) {
	for _, r := range slices.Backward(v.pending) {
		for _, c := range slices.Backward(r.changes) {
			v.set(c.dir, c.name, c.before)
		}
	}
	lost := map[uint64]bool{}
	for i, r := range v.pending {
		kept := keep(i) || r.synced
		if !kept || slices.ContainsFunc(r.needs, func(id uint64) bool { return lost[id] }) {
			lost[r.id] = true
			continue
		}
		for _, c := range r.changes {
			if v.nodes[c.dir].names[c.name] != c.before {
				panic(fmt.Sprintf("internal error: %s does not fit the state after the crash", r.what))
			}
			v.set(c.dir, c.name, c.after)
		}
	}
	settled := v.pending
	v.pending = nil
	for _, r := range settled {
		v.settle(r)
	}
}

// crashData gives every file the content that the disk has of it.
func (v *Volume) crashData(data func(unsynced int) fate) {
	for _, ino := range slices.Sorted(maps.Keys(v.dirty)) {
		n := v.dirty[ino]
		unsynced := 0
		for _, w := range n.writes {
			unsynced += len(w.data)
		}
		f := data(unsynced)
		if n.nlink > 0 {
			v.used -= int64(len(n.data))
		}
		writes := f.apply(n.writes)
		n.data = overlay(n.onDisk.data, writes)
		if len(writes) == 0 {
			n.hole = n.onDisk.hole
		}
		if !f.meta {
			n.gid, n.mtime, n.ctime = n.onDisk.gid, n.onDisk.mtime, n.onDisk.ctime
		}
		if n.nlink > 0 {
			v.used += int64(len(n.data))
		}
		n.onDisk, n.writes, n.lossy = nil, nil, false
	}
	v.dirty = map[uint64]*node{}
}

// apply returns the writes as they reached the disk.
func (f fate) apply(writes []write) []write {
	var out []write
	keep := f.keep
	for _, w := range writes {
		whole := w.data
		w.data = clip(whole[:min(keep, len(whole))])
		keep -= len(w.data)
		if f.size {
			w.data = append(w.data, slices.Repeat([]byte{f.fill}, len(whole)-len(w.data))...)
		}
		if len(w.data) > 0 || w.truncate && (f.size || f.keep > 0) {
			out = append(out, w)
		}
	}
	return out
}

// Kill ends the process but not the machine, as kill -9 does: all that was written
// stays, synced or not, and all handles are dead. The volume can be used again by
// new handles, also after a crash by a fault.
func (v *Volume) Kill() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.crashed = false
	v.generation++
	v.handles = map[*handle]struct{}{}
}

// Unsynced lists in words what a crash could lose: the pending records in their
// order, then the files with unsynced data.
func (v *Volume) Unsynced() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []string
	for _, r := range v.pending {
		list = append(list, r.what)
	}
	v.walk(v.nodes[v.root], "", func(path string, n *node) {
		if v.dirty[n.ino] != nil {
			list = append(list, "data of "+path)
		}
	})
	return list
}
