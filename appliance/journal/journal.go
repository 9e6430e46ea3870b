package journal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"signdrop/appliance/journal/memory"
	"signdrop/spool/durable"
)

// Options are the parameters of a journal.
type Options struct {
	// AllowNew allows an empty directory, where a journal is begun. Without it an
	// empty directory is refused: it is a journal that is missing.
	AllowNew bool

	// MaxFile is the size in bytes from which on a new file is begun. Default 256 MiB,
	// which is also taken for more than 32 GiB.
	MaxFile int64

	// Now is the clock, which several goroutines may ask. Default time.Now.
	Now func() time.Time

	// FlushAt is how many index entries are held in memory before a segment of the
	// index is written. Default 65536.
	FlushAt int

	// Serial: the index is written by the calling goroutine and not in the
	// background, for tests that count file-system calls.
	Serial bool

	// Start may hold further fields of the start event, such as Detail.
	Start Event

	// Report gets what goes wrong with the index without stopping the appliance: it
	// is rebuilt in part, or it cannot be written for now. May be nil.
	Report func(error)
}

const (
	defaultMaxFile = 256 << 20
	maxMaxFile     = 1 << (offsetBits - 1)
)

// ErrIndex is memory.ErrDamaged: the index contradicts the journal or cannot be
// read. The appliance must stop; the next start rebuilds the index.
var ErrIndex = memory.ErrDamaged

// Errors of Write.
var (
	errClosed   = errors.New("the journal is closed")
	errUnsynced = errors.New("internal error: the group before was neither synced nor abandoned")
	errHalf     = errors.New("internal error: the group ends with a line that has no verdict")
)

// Journal is an open journal. One goroutine, the committer, calls Write, Synced,
// Abandon and Close; any may call the others.
type Journal struct {
	vol   durable.FS
	dir   durable.Dir
	index *memory.Index
	o     Options

	latest  atomic.Int64         // time of the newest event, microseconds since 1970
	reached atomic.Pointer[Head] // synced, for everybody

	// Owned by the committer.
	file    durable.File // the newest, written at its end
	head    durable.File
	slot    int // of head, where the next state goes: 0 or 1
	synced  tip // what counts
	tip     tip // with the group that is not synced yet
	pending []memory.Entry
	counts  counts
	buf     []byte
	failed  error // Write or sync failed: only Abandon helps
	dead    error // nothing helps
}

// begin begins the next file with the given event, durably. It says what counts of
// the file before, whose void bytes are void. The old file and head must be closed.
//
// Crash: before the volume is synced there are files that are called .new, in any
// state; the next start removes them. After that the two moves may have happened or
// not, each for itself, and both files are whole. See the table of states.
func (j *Journal) begin(first *Event, void int64) error {
	old := j.synced
	first.Seq, first.Time, first.Prev = old.seq+1, j.stamp(), old.hash
	if old.file > 0 {
		first.Previous = &Previous{nameOf(old.file, fileSuffix), old.size, void}
	}
	if err := checkYear(first.Time); err != nil {
		return err
	}
	line := appendEvent(nil, first)
	t := tip{old.file + 1, int64(len(line)) + 1, sha256.Sum256(line), first.Seq, first.Time}
	name, newName := nameOf(t.file, fileSuffix), nameOf(t.file, newFileSuffix)
	headName, newHeadName := nameOf(t.file, headSuffix), nameOf(t.file, newHeadSuffix)

	file, err := create(j.dir, newName, append(line, '\n'))
	if err != nil {
		j.dir.Remove(newName)
		return err
	}
	head, err := create(j.dir, newHeadName, newHead(t))
	if err == nil {
		if err = j.vol.Sync(); err != nil {
			head.Close()
		}
	}
	if err != nil {
		file.Close()
		j.dir.Remove(newHeadName)
		j.dir.Remove(newName)
		return err
	}
	err = j.dir.Move(newHeadName, j.dir, headName)
	if err == nil {
		err = j.dir.Move(newName, j.dir, name)
	}
	if err == nil {
		err = j.dir.Sync()
	}
	if err != nil {
		// Nobody knows which names the disk has. The next start will see.
		file.Close()
		head.Close()
		j.dead = fmt.Errorf("the journal must be opened anew: %w", err)
		return j.dead
	}
	if old.file > 0 {
		// Should it stay, the next start removes it.
		j.dir.Remove(nameOf(old.file, headSuffix))
	}
	j.file, j.head, j.slot = file, head, 1
	j.synced, j.tip = t, t
	j.reach()
	return nil
}

// create creates a file with the given content and leaves it open.
func create(dir durable.Dir, name string, content []byte) (durable.File, error) {
	f, err := dir.Create(name, 0o400)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// closeFiles lets go of the file and its head. What counts of them is durable, so
// that an error of closing means nothing.
func (j *Journal) closeFiles() {
	if j.file != nil {
		j.file.Close()
		j.head.Close()
		j.file, j.head = nil, nil
	}
}

// Now is the time, never before that of the newest event: the appliance's clock does
// not go back. It has whole microseconds, as the journal's times.
func (j *Journal) Now() time.Time {
	return time.UnixMicro(max(j.o.Now().UnixMicro(), j.latest.Load())).UTC()
}

// stamp is Now for an event that is written.
func (j *Journal) stamp() time.Time {
	now := j.Now()
	j.latest.Store(now.UnixMicro())
	return now
}

// checkYear refuses a time that a line cannot show.
func checkYear(t time.Time) error {
	if t.Year() < 1970 || t.Year() > 9999 {
		return fmt.Errorf("the clock shows the year %d", t.Year())
	}
	return nil
}

// Write appends a group of events and sets their Seq, Time, Uses and Prev. It begins a new
// file first where the present one is large enough. What it writes counts when the
// caller has synced the volume and calls Synced. After an error, and after a sync
// that failed, the caller must call Abandon.
//
// The lines of a batch and their verdict must be in one group. Memory: 24 bytes for
// each index entry of the group, whatever its lines are, and 200 for each wallet that
// it uses.
func (j *Journal) Write(events []*Event) error {
	switch {
	case j.dead != nil:
		return j.dead
	case j.failed != nil:
		return j.failed
	case j.unsynced():
		j.failed = errUnsynced
	default:
		j.failed = j.write(events)
	}
	return j.failed
}

func (j *Journal) write(events []*Event) error {
	if len(events) == 0 {
		return nil
	}
	for _, e := range events {
		if err := e.Check(); err != nil {
			return err
		}
	}
	if events[len(events)-1].Kind == kindLine {
		return errHalf
	}
	if err := j.index.Room(); err != nil {
		return err
	}
	if j.synced.size >= j.o.MaxFile {
		j.closeFiles()
		if err := j.begin(&Event{Kind: kindContinue}, 0); err != nil {
			return fmt.Errorf("beginning a new journal file: %w", err)
		}
	}
	if err := j.append(events); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	// The head says what was durable before this group, and announces the group. It
	// becomes durable with the group and costs no sync of its own.
	if err := j.note(); err != nil {
		return fmt.Errorf("writing the journal's head: %w", err)
	}
	return nil
}

// unsynced says whether a group was written and not synced.
func (j *Journal) unsynced() bool { return j.tip.seq != j.synced.seq }

// note writes into the head what is durable and what is to become so.
func (j *Journal) note() error {
	if _, err := j.head.WriteAt(head{j.synced, j.tip}.text(), int64(j.slot)*headSlot); err != nil {
		return err
	}
	j.slot = 1 - j.slot
	return nil
}

// append writes events to the end of the file, in pieces.
func (j *Journal) append(events []*Event) error {
	now := j.stamp()
	if err := checkYear(now); err != nil {
		return err
	}
	b := j.buf[:0]
	for _, e := range events {
		e.Seq, e.Time, e.Prev = j.tip.seq+1, now, j.tip.hash
		at := place(j.tip.file, j.tip.size)
		if err := j.number(e, at); err != nil {
			return err
		}
		start := len(b)
		b = appendEvent(b, e)
		j.pending = appendEntries(j.pending, e, at)
		j.tip.hash = sha256.Sum256(b[start:])
		b = append(b, '\n')
		j.tip.size += int64(len(b) - start)
		j.tip.seq, j.tip.time = e.Seq, e.Time
		if len(b) >= chunk {
			if _, err := j.file.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	j.pending = j.counts.appendEntries(j.pending)
	if _, err := j.file.Write(b); err != nil {
		return err
	}
	if cap(b) <= 4*chunk {
		j.buf = b
	}
	return nil
}

// Synced says that the volume was synced without error after Write: the group
// counts, and is found.
func (j *Journal) Synced() {
	if j.failed != nil || j.dead != nil {
		return // the caller was told, and nothing of the group may count
	}
	if !j.unsynced() {
		return
	}
	j.index.Add(j.pending, memory.Mark{At: place(j.tip.file, j.tip.size), Hash: j.tip.hash}, j.tip.size-j.synced.size)
	j.synced = j.tip
	j.reach()
	j.counts.keep()
	j.forget()
}

// forget lets go of the entries of a group.
func (j *Journal) forget() {
	if cap(j.pending) > 8192 {
		j.pending = nil // a large batch came by
	}
	j.pending = j.pending[:0]
}

// Abandon begins a new file, durably, that declares void all that was written since
// the last Synced. It is for a Write or a sync that failed: what that left on the
// disk nobody knows, and the same file is never written or synced again. If Abandon
// fails too the journal is dead, and the next start repairs it.
func (j *Journal) Abandon() error {
	if j.dead != nil {
		return j.dead
	}
	if err := j.abandon(); err != nil {
		j.dead = fmt.Errorf("the journal cannot be written: %w", err)
		return j.dead
	}
	j.failed = nil
	return nil
}

func (j *Journal) abandon() error {
	// By name: rotation may have closed the file before it failed.
	info, err := j.dir.Stat(nameOf(j.synced.file, fileSuffix))
	if err != nil {
		return err
	}
	if info.Size < j.synced.size {
		return fmt.Errorf("the file has %d bytes, but %d were synced", info.Size, j.synced.size)
	}
	j.closeFiles()
	j.forget()
	j.counts.forget()
	j.tip = j.synced
	return j.begin(&Event{Kind: kindContinue, Detail: "what was written after the last sync is void"}, info.Size-j.synced.size)
}

// Close writes the stop event, if one is given, and the exact end into the head,
// both durably, writes the index and lets go of the files. Give nil when something
// went wrong: then nothing is written. Nobody may use the journal any more.
func (j *Journal) Close(stop *Event) error {
	err := j.dead
	if err == nil {
		err = j.failed
	}
	if err == nil && j.unsynced() {
		err = errUnsynced
	}
	if err == nil && stop != nil {
		err = j.end(stop)
	}
	j.closeFiles()
	j.index.Close()
	j.dead = errClosed
	if err != nil {
		return fmt.Errorf("closing the journal: %w", err)
	}
	return nil
}

// end writes the stop event as the last group, and after that into the head that it
// is durable.
func (j *Journal) end(stop *Event) error {
	e := *stop
	e.Kind, e.Previous = kindStop, nil
	if err := e.checkLength(); err != nil {
		return err
	}
	if err := j.append([]*Event{&e}); err != nil {
		return err
	}
	if err := j.note(); err != nil {
		return err
	}
	if err := j.vol.Sync(); err != nil {
		return err
	}
	j.Synced()
	if err := j.note(); err != nil {
		return err
	}
	return j.head.Sync()
}
