package journal

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"signdrop/spool/durable"
)

// chunk is how much is read at once from a file that is read through.
const chunk = 256 << 10

// counted says what counts of one file.
type counted struct {
	size int64 // its first bytes that count
	void int64 // bytes behind them, as declared or, of the newest file, as found
	disk int64 // bytes of the file at present
}

// survey is what a first look at a journal found: which bytes of which file count.
type survey struct {
	*listing
	files []counted // of file 1, 2, …
	tip   tip       // the end of what counts
	torn  Void      // what follows it; no File where nothing does
}

// Void is a stretch of bytes that do not count.
type Void struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

// inspect reads the names, the borders between the files, and the newest file, and
// finds the end of the journal. Older files are not read through.
func inspect(dir durable.Dir) (*survey, error) {
	l, err := list(dir)
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	s := &survey{listing: l}
	var first tip // behind the first line of the file
	for n := uint32(1); n <= l.newest(); n++ {
		if first, err = s.border(dir, n); err != nil {
			return nil, err
		}
	}
	if l.newest() == 0 {
		return s, nil
	}
	return s, s.newest(dir, first)
}

// open opens a file of the journal for reading and gives its size.
func open(dir durable.Dir, n uint32) (durable.File, int64, error) {
	f, err := dir.Open(nameOf(n, fileSuffix))
	if err != nil {
		return nil, 0, &readError{err}
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, &readError{err}
	}
	return f, info.Size, nil
}

// border reads the first line of file n, holds what it says about the file before
// against that file, and returns the tip behind it.
func (s *survey) border(dir durable.Dir, n uint32) (tip, error) {
	f, size, err := open(dir, n)
	if err != nil {
		return tip{}, err
	}
	defer f.Close()
	line, err := lineAt(f, 0, size)
	if err != nil {
		return tip{}, fault(n, 1, 0, err)
	}
	e, err := ParseLine(line)
	if err != nil {
		return tip{}, fault(n, 1, 0, err)
	}
	t := tip{file: n}
	if n == 1 {
		if e.Previous != nil || e.Kind != kindStart {
			return tip{}, fault(n, 1, 0, errors.New("the first file does not begin with a start event"))
		}
	} else if t, err = s.declared(dir, n, e); err != nil {
		return tip{}, err
	}
	if _, err := t.follow(line); err != nil {
		return tip{}, fault(n, 1, 0, err)
	}
	s.files = append(s.files, counted{disk: size})
	return t, nil
}

// declared checks what the first line of file n says about file n-1, notes it, and
// returns the tip that the line must follow.
//
// The file may have fewer void bytes than were declared: a failed sync may have lost
// them. It must not have more.
func (s *survey) declared(dir durable.Dir, n uint32, e *Event) (tip, error) {
	before := &s.files[n-2]
	p := e.Previous
	if p == nil || p.File != nameOf(n-1, fileSuffix) {
		return tip{}, fault(n, 1, 0, errors.New("the first line does not name the file before"))
	}
	if before.disk < p.Size || before.disk > p.Size+p.Void {
		return tip{}, fault(n-1, 0, 0, fmt.Errorf("the file has %d bytes, but its successor says %d and %d that do not count",
			before.disk, p.Size, p.Void))
	}
	before.size, before.void = p.Size, p.Void
	f, _, err := open(dir, n-1)
	if err != nil {
		return tip{}, err
	}
	defer f.Close()
	last, start, err := lineBefore(f, p.Size)
	if err != nil {
		return tip{}, fault(n-1, 0, p.Size, err)
	}
	le, err := ParseLine(last)
	if err != nil {
		return tip{}, fault(n-1, 0, start, err)
	}
	if hash := sha256.Sum256(last); hash != e.Prev {
		return tip{}, fault(n-1, 0, start, fmt.Errorf("the last line that counts has the SHA-256 %x, but the next file says %x", hash, e.Prev))
	}
	return tip{file: n, hash: e.Prev, seq: le.Seq, time: le.Time}, nil
}

// newest finds the end of the newest file. first is the tip behind its first line.
func (s *survey) newest(dir durable.Dir, first tip) error {
	name, err := s.headName()
	if err != nil {
		return err
	}
	h, err := readHead(dir, name, first.file)
	if err != nil {
		return err
	}
	f, size, err := open(dir, first.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if size < h.durable.size {
		return fault(first.file, 0, size, fmt.Errorf("the file was shortened: its head says that %d bytes of it were durable", h.durable.size))
	}
	l := newLines(f, first.size, size, chunk)
	l.line = 1
	end, err := first.reach(l, h.durable)
	if err != nil {
		return err
	}
	reason := "written after the last group that was durable"
	if h.group.size > h.durable.size {
		end, reason, err = endOf(l, end, h.group)
	}
	if err != nil {
		return err
	}
	c := &s.files[first.file-1]
	c.size, c.void = end.size, size-end.size
	s.tip = end
	if c.void > 0 {
		s.torn = Void{nameOf(first.file, fileSuffix), end.size, c.void, reason}
	}
	return nil
}

// endOf finds out whether the last group is there, behind what is durable for
// certain. It was written with the head that announces it and was synced with it: if
// it is not there as announced, its sync has not come to its end, nothing of it was
// made visible, and none of it counts.
func endOf(l *lines, from, group tip) (tip, string, error) {
	t, err := from.reach(l, group)
	if re := (*readError)(nil); errors.As(err, &re) {
		return tip{}, "", err
	}
	if err != nil {
		return from, fmt.Sprintf("the last group was not written to its end (%v)", err), nil
	}
	return t, "written after the last group", nil
}

// reach reads on from the tip to the place that a head names. The lines must be
// there, chained, and end with the head's hash. It returns the tip there.
func (t tip) reach(l *lines, to tip) (tip, error) {
	var last []byte
	for t.size < to.size {
		line, err := l.next()
		if err != nil {
			return tip{}, fault(to.file, l.line+1, l.off, err)
		}
		if prev, ok := prevOf(line); !ok || prev != t.hash {
			return tip{}, fault(to.file, l.line, l.start, errors.New("the chain is broken: this line or the one before was altered"))
		}
		t.hash, t.seq, t.size, last = sha256.Sum256(line), t.seq+1, l.off, line
	}
	if t.size != to.size || t.hash != to.hash {
		return tip{}, fault(to.file, l.line, l.start, fmt.Errorf("the line is not the one that ends at byte %d by the head", to.size))
	}
	if last != nil {
		e, err := ParseLine(last)
		if err == nil && e.Seq != t.seq {
			err = fmt.Errorf("seq is %d, but by the lines before it should be %d", e.Seq, t.seq)
		}
		if err != nil {
			return tip{}, fault(to.file, l.line, l.start, err)
		}
		t.time = e.Time
	}
	return t, nil
}

// covers says whether the journal has the hash at the place of a mark.
func (s *survey) covers(dir durable.Dir, at uint64, hash [32]byte) (bool, error) {
	n, off := placeOf(at)
	if n == 0 || int(n) > len(s.files) || off > s.files[n-1].size {
		return false, nil
	}
	f, _, err := open(dir, n)
	if err != nil {
		return false, err
	}
	defer f.Close()
	line, _, err := lineBefore(f, off)
	if re := (*readError)(nil); errors.As(err, &re) {
		return false, err
	}
	return err == nil && sha256.Sum256(line) == hash, nil
}

// walk reads all lines that count, from the tip on, strictly, and calls do for each
// with its offset, its number in the file and the tip behind it. The number is right
// where the reading of a file began at its beginning.
func (s *survey) walk(dir durable.Dir, from tip, do func(e *Event, off int64, line int, t tip) error) error {
	t := from
	if t.file == 0 {
		t.file = 1
	}
	for {
		if int(t.file) > len(s.files) {
			return nil
		}
		if err := s.walkFile(dir, &t, do); err != nil {
			return err
		}
		t.file, t.size = t.file+1, 0
	}
}

func (s *survey) walkFile(dir durable.Dir, t *tip, do func(e *Event, off int64, line int, t tip) error) error {
	limit := s.files[t.file-1].size
	if t.size == limit {
		return nil
	}
	f, _, err := open(dir, t.file)
	if err != nil {
		return err
	}
	defer f.Close()
	l := newLines(f, t.size, limit, chunk)
	kind := ""
	for t.size < limit {
		line, err := l.next()
		if err != nil {
			return fault(t.file, l.line+1, l.off, err)
		}
		e, err := t.follow(line)
		if err != nil {
			return fault(t.file, l.line, l.start, err)
		}
		if err := do(e, l.start, l.line, *t); err != nil {
			return err
		}
		kind = e.Kind
	}
	if kind == kindLine {
		return fault(t.file, l.line, l.start, errors.New("lines of a batch end without their verdict"))
	}
	return nil
}
