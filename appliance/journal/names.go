package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"signdrop/spool/durable"
)

// Suffixes of the names in the journal's directory, after eight digits.
const (
	fileSuffix    = ".jsonl"
	headSuffix    = ".head"
	newFileSuffix = ".jsonl.new" // a file that is being begun
	newHeadSuffix = ".head.new"
)

func nameOf(n uint32, suffix string) string { return fmt.Sprintf("%08d%s", n, suffix) }

// parseName gives the number of a name with the given suffix.
func parseName(name, suffix string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && n > 0
}

// listing is what lies in the journal's directory.
type listing struct {
	files    []uint32 // in order
	heads    []uint32
	newFiles []uint32
	newHeads []uint32
	strange  []string // names that are none of ours, in order
}

func list(dir durable.Dir) (*listing, error) {
	l := &listing{}
	err := durable.Walk(dir, func(e durable.Entry) error {
		for _, k := range []struct {
			suffix string
			to     *[]uint32
		}{{fileSuffix, &l.files}, {headSuffix, &l.heads}, {newFileSuffix, &l.newFiles}, {newHeadSuffix, &l.newHeads}} {
			if n, ok := parseName(e.Name, k.suffix); ok {
				*k.to = append(*k.to, n)
				return nil
			}
		}
		l.strange = append(l.strange, e.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the journal's directory: %w", err)
	}
	slices.Sort(l.files)
	slices.Sort(l.heads)
	slices.Sort(l.newHeads)
	slices.Sort(l.newFiles)
	slices.Sort(l.strange)
	return l, nil
}

// newest is the number of the newest file, 0 without one.
func (l *listing) newest() uint32 {
	if len(l.files) == 0 {
		return 0
	}
	return l.files[len(l.files)-1]
}

// check compares the names with the table of legal states in the package comment.
func (l *listing) check() error {
	n := l.newest()
	for i, f := range l.files {
		if want := uint32(i + 1); f != want {
			return missing(nameOf(want, fileSuffix))
		}
	}
	begun := slices.Contains(l.newFiles, n+1)
	for _, h := range l.heads {
		if h > n+1 || h == n+1 && !begun {
			return missing(nameOf(h, fileSuffix))
		}
	}
	for _, h := range l.newHeads {
		if h > n+1 {
			return missing(nameOf(h-1, fileSuffix))
		}
	}
	for _, f := range l.newFiles {
		if f != n+1 {
			return &Fault{File: nameOf(f, newFileSuffix), What: "a file that is being begun cannot have this number"}
		}
	}
	if _, err := l.headName(); err != nil {
		return err
	}
	return nil
}

func missing(name string) error {
	return &Fault{File: name, What: "the file is missing; restore the journal from a copy"}
}

// headName is the name under which the head of the newest file lies.
func (l *listing) headName() (string, error) {
	n := l.newest()
	moved, waits := slices.Contains(l.heads, n), slices.Contains(l.newHeads, n)
	switch {
	case n == 0:
		return "", nil
	case moved && !waits:
		return nameOf(n, headSuffix), nil
	case waits && !moved:
		return nameOf(n, newHeadSuffix), nil
	case moved:
		return "", &Fault{File: nameOf(n, newHeadSuffix), What: "the head is there under two names"}
	}
	return "", missing(nameOf(n, headSuffix))
}

// Fault says that the journal is not in order: something is missing, cut off or
// altered. It is never returned for a disk that cannot be read.
type Fault struct {
	File   string // in the journal's directory
	Line   int    // from 1; 0: not known
	Offset int64  // of the line, in bytes; for a file as a whole 0
	What   string
}

func (f *Fault) Error() string {
	s := "journal file " + f.File
	if f.Line > 0 {
		s += fmt.Sprintf(", line %d", f.Line)
	}
	if f.Line > 0 || f.Offset > 0 {
		s += fmt.Sprintf(", byte %d", f.Offset)
	}
	return s + ": " + f.What
}

// fault makes a Fault of an error about what a file holds, and leaves an error of
// reading it as it is.
func fault(file uint32, line int, off int64, err error) error {
	if re := (*readError)(nil); errors.As(err, &re) {
		return err
	}
	if err == io.EOF {
		err = errors.New("the file ends here")
	}
	return &Fault{nameOf(file, fileSuffix), line, off, err.Error()}
}
