// Package memory is the journal's index: it says where in the journal a key was
// recorded. It is a cache. The journal can rebuild it at any time, so it may be
// deleted while the appliance is stopped, and nothing must ever be kept here that
// the journal does not have.
//
// # Shape
//
//	        newest                                                    oldest
//	Add ──▶ active table ──▶ frozen tables ──▶ segment … segment ──▶ segment
//	        a map            maps, read only   files, sorted, never changed
//
// Each part covers a stretch of the journal, from one Mark to the next, and the
// parts follow each other without a gap from the journal's beginning. When the
// active table has Options.FlushAt entries it is frozen, and a background
// goroutine writes it as a segment; neighbouring segments of about the same size
// are merged, so that there are few. In this way a key is written about four times
// in its life, memory does not grow with the journal except for a filter of one
// byte a key, and a key that is not there is nearly always answered from the
// filters alone.
//
// # What a crash leaves
//
// A segment is written under another name, synced, moved to its own name, and the
// directory is synced, before the table or the segments that it replaces are let
// go. Whatever a crash leaves is a set of segments of which a prefix covers the
// journal without a gap; Open takes that prefix and removes the rest, and the
// journal's lines behind it are added again.
//
// # Several entries with one key
//
// The key itself says which entry counts when there are several: the first or the
// latest in the journal, see NewKey.
package memory

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"signdrop/spool/durable"
)

// ErrDamaged says that the index cannot be relied on. Its files have been removed
// as far as that was possible; the appliance must stop, and the next start rebuilds
// the index from the journal.
var ErrDamaged = errors.New("the index is damaged: stop, delete the files in the index directory and start again, the journal rebuilds it")

// Key is 16 bytes of a SHA-256, evenly distributed.
type Key [16]byte

// NewKey makes a key of a digest. Of several entries with the same key the latest
// counts, or the first.
func NewKey(sum [32]byte, latest bool) Key {
	k := Key(sum[:16])
	k[15] &^= 1
	if latest {
		k[15] |= 1
	}
	return k
}

func (k Key) latest() bool { return k[15]&1 == 1 }

func compare(a, b Key) int { return bytes.Compare(a[:], b[:]) }

// Mark is a place between two lines of the journal.
type Mark struct {
	At   uint64   // grows along the journal; 0 is its beginning
	Hash [32]byte // chain hash there: of the last line before it, zero at the beginning
}

// Entry says that Key was recorded at At.
type Entry struct {
	Key Key
	At  uint64
}

// Options are the parameters of an index.
type Options struct {
	// FlushAt is the number of entries that are held in memory before a segment
	// is written. Default 65536.
	FlushAt int

	// Span is how many bytes of journal the active table covers before it is
	// written although it has fewer entries, which bounds what a start reads.
	// Default 32 MiB.
	Span int64

	// Serial: no goroutine. What it would do is done in Add. For tests that count
	// file-system calls.
	Serial bool

	// Report gets what goes wrong in the background. Signing goes on, the entries
	// are kept in memory, and the next frozen table is the next attempt. May be nil.
	Report func(error)
}

// maxFrozen is how many tables wait in memory when segments cannot be written: 2
// million entries of the default size. After that Room waits or reports an error.
const maxFrozen = 32

// table is a frozen table.
type table struct {
	entries  map[Key]uint64
	from, to Mark
}

// Index is safe for concurrent use by readers and one writer.
type Index struct {
	dir durable.Dir
	o   Options

	mu      sync.RWMutex
	active  map[Key]uint64
	from    Mark // where active begins
	end     Mark // up to where active reaches
	span    int64
	frozen  []*table   // oldest first; the slice is replaced, never changed
	segs    []*segment // oldest first; the slice is replaced, never changed
	failure error      // of the latest attempt to write
	broken  bool       // damaged: nothing is written any more
	settled sync.Cond  // an attempt to write has ended, or broken was set

	running bool
	kick    chan struct{} // capacity 1: there is work
	stop    chan struct{}
	done    chan struct{}

	serial int // of temporary names; owned by whoever runs work
}

// Open reads the segments in dir. valid says whether the journal has the given
// hash at the given place; segments that reach beyond the last valid mark, or
// behind a gap, or that are damaged, are removed. The journal must then be replayed
// from Covered on. Nothing runs in the background before Start.
func Open(dir durable.Dir, valid func(Mark) (bool, error), o Options) (*Index, error) {
	if o.FlushAt <= 0 {
		o.FlushAt = 65536
	}
	if o.Span <= 0 {
		o.Span = 32 << 20
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	x := &Index{
		dir: dir, o: o, active: make(map[Key]uint64),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	x.settled.L = &x.mu
	segs, err := openAll(dir, valid, o.Report)
	if err != nil {
		return nil, err
	}
	x.segs = segs
	if n := len(segs); n > 0 {
		x.end = segs[n-1].to
	}
	x.from = x.end
	return x, nil
}

// Start lets the background goroutine begin, unless Options.Serial.
func (x *Index) Start() {
	if x.o.Serial || x.running {
		return
	}
	x.running = true
	go x.run()
	x.wakeUp()
}

// Covered is how far the index reaches.
func (x *Index) Covered() Mark {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.end
}

// Segments is the number of segment files.
func (x *Index) Segments() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.segs)
}

// Add adds entries, in the order of the journal, and says that the index now
// covers the journal up to the mark, which is span bytes further. Before Start,
// and with Options.Serial, a full table is written at once.
func (x *Index) Add(entries []Entry, to Mark, span int64) {
	x.mu.Lock()
	for _, e := range entries {
		insert(x.active, e)
	}
	x.end = to
	x.span += span
	full := len(x.active) >= x.o.FlushAt || x.span >= x.o.Span
	if full {
		x.freeze()
	}
	x.mu.Unlock()
	if full && x.running {
		x.wakeUp()
	} else if full {
		x.work()
	}
}

// insert applies the rule of the key: the first or the latest counts.
func insert(m map[Key]uint64, e Entry) {
	if !e.Key.latest() {
		if _, there := m[e.Key]; there {
			return
		}
	}
	m[e.Key] = e.At
}

// freeze needs the lock.
func (x *Index) freeze() {
	if x.end == x.from {
		return
	}
	t := &table{x.active, x.from, x.end}
	x.frozen = append(x.frozen[:len(x.frozen):len(x.frozen)], t)
	x.active, x.from, x.span = make(map[Key]uint64), x.end, 0
}

// Room waits until there is room in memory for more entries. It returns an error when
// there is none since segments cannot be written, and when the index is damaged.
// Nothing must be signed then, since it could not be remembered.
func (x *Index) Room() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.broken && len(x.frozen) >= maxFrozen {
		if x.failure != nil || !x.running {
			x.wakeUp() // once more, for the next who asks
			return fmt.Errorf("the index holds all it can in memory, since it cannot be written: %w", x.failure)
		}
		x.settled.Wait()
	}
	if x.broken {
		return ErrDamaged
	}
	return nil
}

// Lookup says where key was recorded.
func (x *Index) Lookup(key Key) (at uint64, found bool, err error) {
	for {
		x.mu.RLock()
		at, found = x.active[key]
		frozen, segs := x.frozen, x.segs
		x.mu.RUnlock()

		if key.latest() {
			if found {
				return at, true, nil
			}
			at, found, err = latest(key, frozen, segs)
		} else if a, f, e := first(key, frozen, segs); f || e != nil {
			at, found, err = a, f, e
		}
		if err == errClosed {
			continue // a merge has replaced the segment since the lock was given back
		}
		if err != nil {
			x.Discard(err)
			return 0, false, fmt.Errorf("%w (%w)", ErrDamaged, err)
		}
		return at, found, nil
	}
}

func latest(key Key, frozen []*table, segs []*segment) (uint64, bool, error) {
	for i := len(frozen) - 1; i >= 0; i-- {
		if at, ok := frozen[i].entries[key]; ok {
			return at, true, nil
		}
	}
	for i := len(segs) - 1; i >= 0; i-- {
		if at, ok, err := segs[i].get(key); ok || err != nil {
			return at, ok, err
		}
	}
	return 0, false, nil
}

func first(key Key, frozen []*table, segs []*segment) (uint64, bool, error) {
	for _, s := range segs {
		if at, ok, err := s.get(key); ok || err != nil {
			return at, ok, err
		}
	}
	for _, t := range frozen {
		if at, ok := t.entries[key]; ok {
			return at, true, nil
		}
	}
	return 0, false, nil
}

// Discard removes the segment files, so that the next start rebuilds the index,
// and writes no further ones. What is open stays open. It is for an index that was
// found to contradict the journal.
func (x *Index) Discard(cause error) {
	x.mu.Lock()
	already := x.broken
	x.broken = true
	segs := x.segs
	x.settled.Broadcast()
	x.mu.Unlock()
	if already {
		return
	}
	x.o.Report(fmt.Errorf("%w (%w)", ErrDamaged, cause))
	for _, s := range segs {
		if err := x.dir.Remove(s.name); err != nil {
			x.o.Report(fmt.Errorf("removing a damaged index: %w", err))
		}
	}
}

// Close ends the background goroutine, writes what is in memory and closes the
// files. Nobody may use the index any more. What cannot be written is reported, and comes from the journal again at
// the next start.
func (x *Index) Close() {
	if x.running {
		close(x.stop)
		<-x.done
	}
	x.mu.Lock()
	x.freeze()
	x.mu.Unlock()
	x.work()
	for _, s := range x.segs {
		s.close()
	}
}
