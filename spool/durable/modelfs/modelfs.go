// Package modelfs is a data volume in memory that forgets what was not synced.
// It implements durable.FS for tests: of a crash at every call, of a call that
// fails, of a disk that is full. It must not be used for anything else.
//
// # What survives a power cut
//
// Every change is volatile until it is synced. Volume.Crash gives a volume as a
// power cut could have left it:
//
//   - The data of a file: what File.Sync or Volume.Sync covered is there. Of the
//     bytes written after that, a Choice takes none, all, the first few, or
//     leaves the size with zeros or garbage in it.
//   - A name: create, mkdir, move, replace, remove and link are each one record,
//     which is in force wholly or not at all. Dir.Sync on a directory that the
//     record concerns, or Volume.Sync, makes it durable. Of the other records a
//     Choice takes any subset that can stand alone, see below.
//   - Data and names know nothing of each other: a file whose data was never
//     synced can be there under its final name, empty.
//
// A Move between two directories is one record, in force for both or for
// neither, so that a sync of either directory makes it durable: ext4, XFS and
// Btrfs put both halves of a rename into one transaction, since a crash between
// the halves would leave a file with two names or with none, which no check of
// the file system could tell from intention. What the Move needs, such as the
// making of the other directory, becomes durable with it.
//
// A record needs the earlier pending ones without which it would make no sense:
// those about the same name, those about the same inode, the one that made a
// directory in which it changes a name, and for the removal of a directory all
// that emptied it. Moving a directory needs also what moved the directories above
// its new place, or two moves could make a ring. Everything else may be reordered,
// also two creations in one directory, although ext4 would keep them in order: the
// next file system may not.
//
// Two things are harsher than ext4. Syncing a file does not make its name
// durable, and syncing a directory does not make the directory's own name durable,
// nor those of the directories above it.
//
// # A sync that fails
//
// After a failed File.Sync or Volume.Sync (see FailNotDone) the model does as
// Linux does: it takes the data concerned for clean. The file still reads as it
// was written, later syncs report success, and after a power cut the data is
// missing. Only bytes that are written after the failure become durable.
//
// Names stay pending instead, and a later sync makes them durable. A real journal
// aborts when it cannot be written: the file system turns read-only and nothing
// later becomes durable. For a program that stops after a failed sync, as it must,
// both come to the same, since pending names may be there or not. For one that
// goes on, the model is the harsher: it lets names become durable whose data is
// lost, which is the mixture that does harm, where the real journal would have
// refused every further step.
//
// # What it does not model
//
// Permissions are recorded and never enforced, there is no umask, and mount
// points do not exist. A directory counts one link, as on Btrfs. After a crash the
// times of a directory are the latest ones, not those of the names that survived.
package modelfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"signdrop/spool/durable"
)

// ErrCrashed is what every call returns after the crash of its volume, and what
// every call on an old handle returns after Kill.
var ErrCrashed = errors.New("the model volume has crashed")

// Op is the kind of a call.
type Op string

// The calls, named for what they ask of the kernel.
const (
	OpRoot     Op = "root"     // FS.Root
	OpSyncAll  Op = "syncfs"   // FS.Sync
	OpSpace    Op = "statfs"   // FS.Space
	OpOpen     Op = "open"     // Dir.Open, Dir.OpenWrite
	OpCreate   Op = "create"   // Dir.Create
	OpMkdir    Op = "mkdir"    // Dir.Mkdir
	OpSub      Op = "opendir"  // Dir.Sub
	OpStat     Op = "stat"     // Dir.Stat
	OpStatOpen Op = "fstat"    // Dir.StatDir, File.Stat
	OpMove     Op = "move"     // Dir.Move
	OpReplace  Op = "replace"  // Dir.Replace, Dir.MoveOver
	OpRemove   Op = "remove"   // Dir.Remove
	OpRmdir    Op = "rmdir"    // Dir.RemoveDir
	OpReaddir  Op = "readdir"  // Dir.Entries, Entries.Next
	OpSyncDir  Op = "fsyncdir" // Dir.Sync
	OpRead     Op = "read"     // File.Read, File.ReadAt
	OpWrite    Op = "write"    // File.Write, File.WriteAt
	OpTruncate Op = "truncate" // File.Truncate
	OpSync     Op = "fsync"    // File.Sync
	OpChown    Op = "chown"    // File.Chown
	OpClose    Op = "close"    // Close of a Dir, File or Entries
)

// Call is one file-system call. A call that fails before it would reach the
// kernel, for its name or its closed handle, is none.
type Call struct {
	N    int // 1 for the first call on the volume
	Op   Op
	Path string // below the top of the volume; "FROM to TO" for a move or replace
}

func (c Call) String() string { return fmt.Sprintf("%d %s %q", c.N, c.Op, c.Path) }

// Fault is what happens to a call.
type Fault struct {
	kind faultKind
	err  error
}

type faultKind int

const (
	faultNone faultKind = iota
	faultNotDone
	faultDone
	faultCrashBefore
	faultCrashWithin
	faultCrashAfter
)

// None lets the call happen. The other three end the run: the call and all later
// ones return ErrCrashed. The test goes on with Crash for a power cut or with Kill
// for the end of the process alone.
var (
	None        = Fault{}
	CrashBefore = Fault{kind: faultCrashBefore} // the call has no effect
	CrashWithin = Fault{kind: faultCrashWithin} // a write does its first half, all else is as CrashBefore
	CrashAfter  = Fault{kind: faultCrashAfter}  // the call has its effect
)

// FailNotDone lets the call report err and have no effect, except that a handle
// is closed even so, as Linux does, and that a failed sync loses data as the
// package comment says.
func FailNotDone(err error) Fault { return Fault{faultNotDone, err} }

// FailDone lets the call have its effect and report err all the same.
func FailDone(err error) Fault { return Fault{faultDone, err} }

// Volume is a data volume in memory. It may be used by several goroutines.
type Volume struct {
	mu sync.Mutex // guards everything below and all nodes and handles

	clock func() int64 // nil: ticks
	ticks int64

	root    uint64
	nodes   map[uint64]*node // every inode with a name, or with one in a pending record
	lastIno uint64

	pending    []*record // in the order of their making, and of their id
	lastRecord uint64
	touched    map[nameKey]uint64 // the last pending record about a name
	dirty      map[uint64]*node   // files whose data on disk is not what reading gives

	limit int64 // bytes that all files together may have; negative: no limit
	used  int64

	hook       func(Call) Fault
	calls      []Call
	crashed    bool
	generation int // of handles; Kill begins a new one
	handles    map[*handle]struct{}
}

var _ durable.FS = (*Volume)(nil)

// New makes a volume with an empty top directory.
func New() *Volume {
	v := &Volume{
		nodes:   map[uint64]*node{},
		touched: map[nameKey]uint64{},
		dirty:   map[uint64]*node{},
		handles: map[*handle]struct{}{},
		limit:   -1,
	}
	top := v.newNode(fs.ModeDir|0o700, nil)
	top.nlink = 1
	v.root = top.ino
	return v
}

// Clone copies the volume with all that is pending. The copy has no handles, no
// fault and no calls, and it is alive, whether or not v is.
func (v *Volume) Clone() *Volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &Volume{
		clock: v.clock, ticks: v.ticks,
		root: v.root, nodes: make(map[uint64]*node, len(v.nodes)), lastIno: v.lastIno,
		pending: make([]*record, len(v.pending)), lastRecord: v.lastRecord,
		touched: maps.Clone(v.touched), dirty: make(map[uint64]*node, len(v.dirty)),
		limit: v.limit, used: v.used,
		handles: map[*handle]struct{}{},
	}
	for ino, n := range v.nodes {
		c.nodes[ino] = n.clone()
	}
	for ino := range v.dirty {
		c.dirty[ino] = c.nodes[ino]
	}
	for i, r := range v.pending {
		copied := *r
		c.pending[i] = &copied
	}
	return c
}

// SetClock takes the time of every change from clock, in nanoseconds since 1970.
// Without it the time is a counter that every change advances by one. The clock
// must not call the volume.
func (v *Volume) SetClock(clock func() int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clock = clock
}

func (v *Volume) now() int64 {
	if v.clock != nil {
		return v.clock()
	}
	v.ticks++
	return v.ticks
}

// SetFree lets the files grow by bytes more, all together. A write that does not
// fit writes what fits and returns durable.ErrNoSpace; when nothing is left,
// Create and Mkdir fail likewise. Removing a file gives its bytes back. A negative
// number lifts the limit.
func (v *Volume) SetFree(bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limit = bytes
	if bytes >= 0 {
		v.limit += v.used
	}
}

// roomy is how much is free on a volume without a limit.
const roomy = 1 << 40

func (v *Volume) free() int64 {
	if v.limit < 0 {
		return roomy
	}
	return max(0, v.limit-v.used)
}

// SetFault asks hook before every call what is to happen to it; nil is None for
// all. The hook may change the volume by its planting methods, as another process
// could between two calls.
func (v *Volume) SetFault(hook func(Call) Fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hook = hook
}

// Calls lists the calls so far.
func (v *Volume) Calls() []Call {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.calls)
}

// OpenHandles lists the paths of the live handles that were not closed, sorted.
func (v *Volume) OpenHandles() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var paths []string
	for h := range v.handles {
		paths = append(paths, h.path)
	}
	slices.Sort(paths)
	return paths
}

// call makes one call: it counts it, asks the hook, and does what do does under
// the lock, unless the fault is against it. h is the handle that the call uses, or
// nil. effects may be empty; see its fields.
func (v *Volume) call(h *handle, op Op, path string, do func() error, effects effects) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(h); err != nil {
		return failure(op, path, err)
	}
	c := Call{N: len(v.calls) + 1, Op: op, Path: path}
	v.calls = append(v.calls, c)
	fault := None
	if v.hook != nil {
		hook := v.hook
		v.mu.Unlock()
		fault = hook(c)
		v.mu.Lock()
		if err := v.usable(h); err != nil {
			return failure(op, path, err)
		}
	}

	switch fault.kind {
	case faultCrashBefore, faultCrashWithin:
		if fault.kind == faultCrashWithin && effects.half != nil {
			effects.half()
		}
		v.crashed = true
		return failure(op, path, ErrCrashed)
	case faultNotDone:
		if effects.failed != nil {
			effects.failed()
		}
		return failure(op, path, fault.err)
	}
	err := do()
	switch {
	case fault.kind == faultCrashAfter:
		v.crashed = true
		return failure(op, path, ErrCrashed)
	case err != nil:
		return failure(op, path, err)
	case fault.kind == faultDone:
		return failure(op, path, fault.err)
	}
	return nil
}

// effects are what a call does when it is not done.
type effects struct {
	failed func() // on FailNotDone
	half   func() // on CrashWithin
}

func (v *Volume) usable(h *handle) error {
	switch {
	case v.crashed, h != nil && h.generation != v.generation:
		return ErrCrashed
	case h != nil && h.closed:
		return fs.ErrClosed
	}
	return nil
}

func failure(op Op, path string, err error) error {
	return &fs.PathError{Op: string(op), Path: path, Err: err}
}

// Root implements durable.FS.
func (v *Volume) Root() (durable.Dir, error) {
	h, err := v.opening(nil, OpRoot, "", func() (*node, error) { return v.nodes[v.root], nil })
	if err != nil {
		return nil, err
	}
	return &dir{h}, nil
}

// Sync implements durable.FS.
func (v *Volume) Sync() error {
	return v.call(nil, OpSyncAll, "", func() error {
		for _, n := range v.dirty {
			v.flush(n)
		}
		v.syncNames(v.pending)
		return nil
	}, effects{failed: func() {
		for _, n := range v.dirty {
			n.loseWrites()
		}
	}})
}

// Space implements durable.FS.
func (v *Volume) Space() (durable.Space, error) {
	var s durable.Space
	err := v.call(nil, OpSpace, "", func() error {
		s = durable.Space{Free: uint64(v.free()), Total: uint64(v.free() + v.used)}
		return nil
	}, effects{})
	return s, err
}
