package journal

import (
	"encoding/hex"
	"time"

	"signdrop/spool/durable"
)

// Report is what Verify found in a journal that is in order.
type Report struct {
	Files int               `json:"files"`
	Lines uint64            `json:"lines"` // that count
	Bytes int64             `json:"bytes"` // that count
	Kinds map[string]uint64 `json:"kinds"` // lines of each kind

	// Void are the stretches that do not count: torn by a crash, or given up after a
	// failed write.
	Void []Void `json:"void,omitempty"`

	Seq   uint64    `json:"seq"`  // of the last line
	Last  string    `json:"last"` // SHA-256 of the last line: noted elsewhere, it proves later that nothing before was changed
	First time.Time `json:"first"`
	Until time.Time `json:"until"`

	// Strange are the names of other files in the directory.
	Strange []string `json:"strange,omitempty"`
}

// progressStep is after how many bytes progress is called.
const progressStep = 4 << 20

// Place is where a line stands.
type Place struct {
	File   string
	Line   int   // from 1
	Offset int64 // bytes
}

// Verify reads a journal, or a copy of one, from its first byte and checks
// everything: each line's form, the chain, the numbering of the lines and of each
// wallet's signatures, what each file says about the one before, and the head.
// progress, which may be nil, is told now and then how many bytes are done. An error
// that is a *Fault says where the journal is wrong.
//
// A copy that is taken while the appliance is at work must have the heads copied
// before the files.
func Verify(dir durable.Dir, progress func(done, total int64)) (*Report, error) {
	s, err := inspect(dir)
	if err != nil {
		return nil, err
	}
	if len(s.files) == 0 {
		return nil, missing(nameOf(1, fileSuffix))
	}
	r := &Report{Files: len(s.files), Kinds: map[string]uint64{}, Strange: s.strange}
	var total int64
	for n, c := range s.files {
		total += c.size
		switch name := nameOf(uint32(n+1), fileSuffix); {
		case n == len(s.files)-1 && c.void > 0:
			r.Void = append(r.Void, s.torn)
		case c.void > 0:
			r.Void = append(r.Void, Void{name, c.size, c.void, "declared by the next file"})
		}
	}
	told := int64(0)
	err = s.walkAll(dir, func(e *Event, off int64, _ int, t tip) error {
		if r.Lines == 0 {
			r.First = e.Time
		}
		r.Lines++
		r.Bytes += t.size - off
		r.Kinds[e.Kind]++
		if progress != nil && (r.Bytes-told >= progressStep || r.Bytes == total) {
			told = r.Bytes
			progress(told, total)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Seq, r.Last, r.Until = s.tip.seq, hex.EncodeToString(s.tip.hash[:]), s.tip.time
	return r, nil
}

// Each calls do for each line that counts, in order, checking as Verify does. It
// stops with the first error, which may be do's.
func Each(dir durable.Dir, do func(Place, *Event) error) error {
	s, err := inspect(dir)
	if err != nil {
		return err
	}
	return s.walkAll(dir, func(e *Event, off int64, line int, t tip) error {
		return do(Place{nameOf(t.file, fileSuffix), line, off}, e)
	})
}
