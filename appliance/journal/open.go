package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"signdrop/appliance/journal/memory"
	"signdrop/spool/durable"
)

// Recovery is what Open found and did.
type Recovery struct {
	New      bool   `json:"new,omitempty"`  // a journal was begun where none was
	Files    int    `json:"files"`          // that were there
	Seq      uint64 `json:"seq"`            // of the last event that was there
	Void     *Void  `json:"void,omitempty"` // what was torn off the newest file
	Replayed uint64 `json:"replayed"`       // lines that the index did not have
}

// errMissing is the refusal to begin a journal where one should be.
var errMissing = errors.New("the journal is missing: restore it from a copy or, for a new appliance, run signdrop init")

// Open opens the journal in dir, with its index in the directory index, and begins a
// new file with a durable start event. It refuses every state that the table in the
// package comment does not have; what is wrong is then told by a *Fault.
//
// The directories must stay open until after Close.
func Open(vol durable.FS, dir, index durable.Dir, o Options) (*Journal, *Recovery, error) {
	if o.MaxFile <= 0 || o.MaxFile > maxMaxFile {
		o.MaxFile = defaultMaxFile
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s, err := inspect(dir)
	if err != nil {
		return nil, nil, err
	}
	if len(s.strange) > 0 {
		return nil, nil, &Fault{File: s.strange[0], What: "this is not a name of the journal's; remove the file"}
	}
	if s.listing.newest() == 0 && !o.AllowNew {
		return nil, nil, errMissing
	}
	j := &Journal{vol: vol, dir: dir, o: o, synced: s.tip, tip: s.tip}
	j.counts.forget()
	if !s.tip.time.IsZero() {
		j.latest.Store(s.tip.time.UnixMicro())
	}
	r := &Recovery{New: len(s.files) == 0, Files: len(s.files), Seq: s.tip.seq}
	if s.torn.File != "" {
		r.Void = &s.torn
	}
	if j.index, err = memory.Open(index, func(m memory.Mark) (bool, error) {
		return s.covers(dir, m.At, m.Hash)
	}, memory.Options{FlushAt: o.FlushAt, Serial: o.Serial, Report: o.Report}); err != nil {
		return nil, nil, fmt.Errorf("opening the index: %w", err)
	}
	if err = j.replay(s, r); err == nil {
		err = j.start(s)
	}
	if err != nil {
		j.index.Close()
		return nil, nil, err
	}
	j.index.Start()
	return j, r, nil
}

// replay adds to the index what it does not cover yet.
func (j *Journal) replay(s *survey, r *Recovery) error {
	m := j.index.Covered()
	from := tip{hash: m.Hash}
	from.file, from.size = placeOf(m.At)
	var entries []memory.Entry
	return s.walk(j.dir, from, func(e *Event, off int64, _ int, t tip) error {
		at := place(t.file, off)
		entries = appendEntries(entries[:0], e, at)
		if e.Signature != "" {
			entries = append(entries, memory.Entry{Key: walletKey(e.Company, e.Wallet), At: at})
		}
		j.index.Add(entries, memory.Mark{At: place(t.file, t.size), Hash: t.hash}, t.size-off)
		r.Replayed++
		return j.index.Room()
	})
}

// start removes what an unfinished begin left, and begins a file.
func (j *Journal) start(s *survey) error {
	next := s.listing.newest() + 1
	// The head first, durably: alone it would be the head of a file that is missing.
	if err := removeAll(j.dir, s.heads, headSuffix, func(n uint32) bool { return n == next }); err != nil {
		return err
	}
	if err := removeAll(j.dir, s.newFiles, newFileSuffix, func(uint32) bool { return true }); err != nil {
		return err
	}
	if err := removeAll(j.dir, s.newHeads, newHeadSuffix, func(n uint32) bool { return n == next }); err != nil {
		return err
	}
	first := j.o.Start
	first.Kind = kindStart
	if err := first.checkLength(); err != nil {
		return err
	}
	if first.Signature != "" {
		return errors.New("internal error: a start event holds a signature, which nobody would count")
	}
	var void int64
	if len(s.files) > 0 {
		void = s.files[len(s.files)-1].void
	}
	if err := j.begin(&first, void); err != nil {
		return fmt.Errorf("beginning a journal file: %w", err)
	}
	// The heads of older files are of no use now; begin has removed one. Should they
	// stay, the next start removes them.
	for _, n := range s.heads {
		if n < next-1 {
			j.dir.Remove(nameOf(n, headSuffix))
		}
	}
	for _, n := range s.newHeads {
		if n < next {
			j.dir.Remove(nameOf(n, newHeadSuffix))
		}
	}
	return nil
}

// removeAll removes the files of the given numbers that which chooses, durably.
func removeAll(dir durable.Dir, numbers []uint32, suffix string, which func(uint32) bool) error {
	removed := false
	for _, n := range numbers {
		if !which(n) {
			continue
		}
		if err := dir.Remove(nameOf(n, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what a crash left: %w", err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return dir.Sync()
}
