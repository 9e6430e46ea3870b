package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"signdrop/spool/durable"
)

// Errors of lines.next about what the file holds, as opposed to one of reading it.
var (
	errUnfinished = errors.New("the line has no end")
	errTooLong    = fmt.Errorf("the line is longer than %d bytes", MaxLine)
)

// readError is an error of reading a file, as opposed to one about what it holds. A
// line that cannot be read must never be taken for a torn one.
type readError struct{ err error }

func (e *readError) Error() string { return "reading the journal: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// lines reads a file line by line.
type lines struct {
	f     durable.File
	limit int64 // bytes of the file that are to be read
	start int64 // offset of the line that next gave
	off   int64 // offset behind it
	line  int   // its number in the file, from 1; right only if the reading began at 0
	buf   []byte
	r     int // buf[r:] is not given out yet and ends at the offset off+len(buf[r:])
}

// newLines reads from the offset from up to the offset limit, size bytes at a time.
func newLines(f durable.File, from, limit int64, size int) *lines {
	size = max(512, int(min(int64(size), limit-from)))
	return &lines{f: f, off: from, limit: limit, buf: make([]byte, 0, size)}
}

// next gives the next line without its newline, valid until the next call. It
// returns io.EOF at the limit.
func (l *lines) next() ([]byte, error) {
	searched := 0
	for {
		rest := l.buf[l.r:]
		if i := bytes.IndexByte(rest[searched:], '\n'); i >= 0 {
			n := searched + i
			if n > MaxLine {
				return nil, errTooLong
			}
			l.start, l.off, l.r = l.off, l.off+int64(n)+1, l.r+n+1
			l.line++
			return rest[:n], nil
		}
		searched = len(rest)
		if searched > MaxLine {
			return nil, errTooLong
		}
		more, err := l.fill()
		if err != nil {
			return nil, err
		}
		if !more && searched > 0 {
			return nil, errUnfinished
		}
		if !more {
			return nil, io.EOF
		}
	}
}

// fill reads on. It reports false at the limit.
func (l *lines) fill() (bool, error) {
	left := l.limit - l.off - int64(len(l.buf)-l.r)
	if left <= 0 {
		return false, nil
	}
	n := copy(l.buf[:cap(l.buf)], l.buf[l.r:])
	l.buf, l.r = l.buf[:n], 0
	if n > cap(l.buf)/2 {
		l.buf = append(make([]byte, 0, 2*cap(l.buf)), l.buf...)
	}
	room := l.buf[n:cap(l.buf)]
	if int64(len(room)) > left {
		room = room[:left]
	}
	got, err := l.f.ReadAt(room, l.off+int64(n))
	l.buf = l.buf[:n+got]
	if err != nil && err != io.EOF {
		return false, &readError{err}
	}
	return got > 0, nil
}

// lineAt reads the line that begins at off.
func lineAt(f durable.File, off, limit int64) ([]byte, error) {
	return newLines(f, off, limit, 4096).next()
}

// lineBefore reads the line whose newline is the byte before end, and says where it
// begins.
func lineBefore(f durable.File, end int64) (line []byte, start int64, err error) {
	for size := int64(4096); ; size *= 4 {
		from := max(0, end-size)
		b := make([]byte, end-from)
		if _, err := f.ReadAt(b, from); err == io.EOF || len(b) == 0 {
			return nil, 0, errUnfinished
		} else if err != nil {
			return nil, 0, &readError{err}
		}
		if b[len(b)-1] != '\n' {
			return nil, 0, errUnfinished
		}
		b = b[:len(b)-1]
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 || from == 0 {
			return b[i+1:], from + int64(i) + 1, nil
		}
		if size > MaxLine {
			return nil, 0, errTooLong
		}
	}
}

// tip is where the chain stands after a line.
type tip struct {
	file uint32
	size int64     // bytes of the file up to here
	hash [32]byte  // of the line
	seq  uint64    // of the line; 0: not known
	time time.Time // of the line
}

// follow parses the next line and moves the tip behind it. If the line does not
// follow, the tip stays.
func (t *tip) follow(line []byte) (*Event, error) {
	e, err := ParseLine(line)
	switch {
	case err != nil:
		return nil, err
	case e.opens() != (t.size == 0):
		return nil, fmt.Errorf("an event of kind %q cannot stand there", e.Kind)
	case e.Prev != t.hash:
		return nil, fmt.Errorf("the chain is broken: prev is %x, but the line before has the SHA-256 %x", e.Prev, t.hash)
	case e.Seq != t.seq+1 && (t.seq != 0 || t.hash == [32]byte{}):
		return nil, fmt.Errorf("seq is %d after %d", e.Seq, t.seq)
	case e.Time.Before(t.time):
		return nil, errors.New("time goes back")
	}
	t.hash, t.seq, t.time = sha256.Sum256(line), e.Seq, e.Time
	t.size += int64(len(line)) + 1
	return e, nil
}
