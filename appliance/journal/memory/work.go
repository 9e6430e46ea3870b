package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// fanIn is how many neighbours of about the same size are merged.
const fanIn = 4

// top is the level from which on segments are left as they are: 64 times FlushAt,
// 4 million entries or 100 MB. That bounds what one merge writes, and with the
// filters a further segment costs a lookup only a tenth of a microsecond.
const top = 3

// level is 0 for a segment of less than 4 tables, 1 for less than 16, 2 for less
// than 64.
func (x *Index) level(s *segment) int {
	l := 0
	for n := s.count / fanIn; n >= int64(x.o.FlushAt) && l < top; n /= fanIn {
		l++
	}
	return l
}

// run is the background goroutine. Start begins it, Close ends it.
func (x *Index) run() {
	defer close(x.done)
	for {
		select {
		case <-x.stop:
			return
		case <-x.kick:
			x.work()
		}
	}
}

// wakeUp tells the goroutine that there is work.
func (x *Index) wakeUp() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

func (x *Index) stopping() bool {
	select {
	case <-x.stop:
		return true
	default:
		return false
	}
}

// work writes the frozen tables and merges what should be merged. After a failure
// it leaves the rest for the next time.
func (x *Index) work() {
	for x.flush() || x.merge() {
	}
}

// flush writes the oldest frozen table as a segment. It reports whether it did.
func (x *Index) flush() bool {
	x.mu.RLock()
	var t *table
	if len(x.frozen) > 0 && !x.broken {
		t = x.frozen[0]
	}
	x.mu.RUnlock()
	if t == nil {
		return false
	}
	sorted := make([]Entry, 0, len(t.entries))
	for k, at := range t.entries {
		sorted = append(sorted, Entry{k, at})
	}
	slices.SortFunc(sorted, func(a, b Entry) int { return compare(a.Key, b.Key) })
	s, err := x.writeSegment(t.from, t.to, int64(len(sorted)), func(w *writer) error {
		for _, e := range sorted {
			if err := w.put(e); err != nil {
				return err
			}
		}
		return nil
	})
	return x.settle("writing the index", s, err, func() {
		x.frozen = slices.Clone(x.frozen[1:])
		x.segs = append(slices.Clone(x.segs), s)
	})
}

// settle notes how the attempt to make segment s ended and, if it was good, puts s
// in place under the lock.
func (x *Index) settle(step string, s *segment, err error, put func()) bool {
	x.mu.Lock()
	x.failure = err
	broken := x.broken
	if err == nil && !broken {
		put()
	}
	x.settled.Broadcast()
	x.mu.Unlock()
	switch {
	case err == nil && broken:
		// Discarded meanwhile: what s was made of may be the damage.
		s.close()
		err = x.dir.Remove(s.name)
		if err == nil {
			return false
		}
	case err == nil:
		return true
	case err == errStopped:
		return false
	}
	x.o.Report(fmt.Errorf("%s: %w", step, err))
	return false
}

// errStopped says that a merge was given up because the index is being closed.
var errStopped = errors.New("stopped")

// pick chooses the neighbours that should be merged: of the lowest level of which
// fanIn lie together, with nothing above that level between them, the newest.
func (x *Index) pick() []*segment {
	x.mu.RLock()
	segs, broken := x.segs, x.broken
	x.mu.RUnlock()
	if broken {
		return nil
	}
	for l := range top {
		from, to, n := 0, 0, 0 // n of level l lie in segs[from:to]
		for i := len(segs) - 1; i >= 0 && (n < fanIn || x.level(segs[i]) <= l); i-- {
			switch sl := x.level(segs[i]); {
			case sl > l:
				n = 0
			case sl == l:
				if n == 0 {
					to = i + 1
				}
				from, n = i, n+1
			}
		}
		if n >= fanIn {
			return segs[from:to]
		}
	}
	return nil
}

// merge merges one stretch of segments. It reports whether it did.
//
// Crash: before the new name is durable, nothing has happened. After that the old
// segments lie within the new one, and Open removes them.
func (x *Index) merge() bool {
	old := x.pick()
	if old == nil {
		return false
	}
	var keys int64
	for _, s := range old {
		keys += s.count
	}
	// A small merge is finished also when the index is being closed, or a program that
	// always runs for a moment only would leave ever more small segments.
	stoppable := keys > int64(fanIn*x.o.FlushAt)
	if stoppable && x.stopping() {
		return false
	}
	from, to := old[0].from, old[len(old)-1].to
	s, err := x.writeSegment(from, to, keys, func(w *writer) error { return x.mergeInto(w, old, stoppable) })
	var damage *damagedError
	if errors.As(err, &damage) {
		x.Discard(damage.err)
	}
	ok := x.settle("merging the index", s, err, func() {
		i := slices.Index(x.segs, old[0])
		x.segs = slices.Concat(x.segs[:i], []*segment{s}, x.segs[i+len(old):])
	})
	if !ok {
		return false
	}
	for _, o := range old {
		o.close()
		if err := x.dir.Remove(o.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.o.Report(fmt.Errorf("removing a merged index file: %w", err))
		}
	}
	return true
}

// damagedError is a failure to read a segment, as opposed to one to write.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// mergeInto writes the records of neighbouring segments, oldest first, in the order
// of their keys, and of several with one key the one that counts.
func (x *Index) mergeInto(w *writer, old []*segment, stoppable bool) error {
	var cursors []*cursor // oldest first
	for _, s := range old {
		c := &cursor{seg: s, buf: make([]byte, cursorPages*pageSize)}
		more, err := c.next()
		if err != nil {
			return err
		}
		if more {
			cursors = append(cursors, c)
		}
	}
	for n := 0; len(cursors) > 0; n++ {
		if n%(1<<16) == 0 && stoppable && x.stopping() {
			return errStopped
		}
		least := cursors[0].cur
		for _, c := range cursors[1:] {
			if d := compare(c.cur.Key, least.Key); d < 0 || d == 0 && least.Key.latest() {
				least = c.cur
			}
		}
		if err := w.put(least); err != nil {
			return err
		}
		for i := 0; i < len(cursors); i++ {
			if cursors[i].cur.Key != least.Key {
				continue
			}
			more, err := cursors[i].next()
			if err != nil {
				return err
			}
			if !more {
				cursors = slices.Delete(cursors, i, i+1)
				i--
			}
		}
	}
	return nil
}

const cursorPages = 16

// cursor reads the records of a segment in order, 16 pages at a time.
type cursor struct {
	seg  *segment
	buf  []byte
	page int // number of the page after those in buf
	left int // pages in buf that are still to be read, the current one included
	rec  int // next record of the current page
	cur  Entry
}

// next moves on to the next record. It reports false at the end.
func (c *cursor) next() (bool, error) {
	if c.left > 0 && c.rec == c.seg.records(c.page-c.left) {
		c.left--
		c.rec = 0
	}
	if c.left == 0 {
		if c.page == c.seg.pages() {
			return false, nil
		}
		if err := c.fill(); err != nil {
			return false, &damagedError{err}
		}
	}
	at := (c.filled()-c.left)*pageSize + c.rec*recordSize
	c.cur = Entry{Key(c.buf[at:][:keySize]), binary.BigEndian.Uint64(c.buf[at+keySize:])}
	c.rec++
	return true, nil
}

// filled is how many pages were read into buf last.
func (c *cursor) filled() int { return len(c.buf) / pageSize }

func (c *cursor) fill() error {
	n := min(cursorPages, c.seg.pages()-c.page)
	c.buf = c.buf[:n*pageSize]
	c.seg.mu.Lock()
	_, err := c.seg.file.ReadAt(c.buf, pageSize*int64(1+c.page))
	c.seg.mu.Unlock()
	if err != nil {
		return err
	}
	for i := range n {
		if err := c.seg.checkPage((*[pageSize]byte)(c.buf[i*pageSize:]), c.page+i); err != nil {
			return err
		}
	}
	c.page += n
	c.left = n
	return nil
}
