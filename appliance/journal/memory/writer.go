package memory

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"signdrop/spool/durable"
)

// writer writes a segment file, record by record in the order of the keys.
type writer struct {
	file   durable.File
	buf    []byte // full pages not written yet
	page   [pageSize]byte
	n      int // records on page
	pages  int
	count  int64
	fence  []byte
	filter filter

	// Bytes after which the file is synced, 0 for at the end only. The appliance
	// syncs the whole volume for each group that it commits, and would wait for
	// everything that a merge has written since.
	every    int
	unsynced int
}

const (
	writeSize = 256 << 10
	syncEvery = 1 << 20
)

func newWriter(f durable.File, keys int64, every int) *writer {
	w := &writer{file: f, filter: newFilter(keys), every: every, buf: make([]byte, 0, writeSize+pageSize)}
	// The header's place; a file without a header is no segment.
	w.buf = append(w.buf, w.page[:]...)
	return w
}

func (w *writer) put(e Entry) error {
	if w.n == 0 {
		w.fence = append(w.fence, e.Key[:]...)
	}
	copy(w.page[w.n*recordSize:], e.Key[:])
	binary.BigEndian.PutUint64(w.page[w.n*recordSize+keySize:], e.At)
	w.filter.add(e.Key)
	w.count++
	if w.n++; w.n == perPage {
		return w.endPage()
	}
	return nil
}

func (w *writer) endPage() error {
	clear(w.page[w.n*recordSize:])
	binary.BigEndian.PutUint64(w.page[4080:], uint64(w.pages))
	seal(&w.page)
	w.buf = append(w.buf, w.page[:]...)
	w.pages++
	w.n = 0
	if len(w.buf) < writeSize {
		return nil
	}
	return w.write()
}

func (w *writer) write() error {
	if _, err := w.file.Write(w.buf); err != nil {
		return err
	}
	w.unsynced += len(w.buf)
	w.buf = w.buf[:0]
	if w.every > 0 && w.unsynced >= w.every {
		w.unsynced = 0
		return w.file.Sync()
	}
	return nil
}

// finish writes what is left and the header, and syncs the file.
func (w *writer) finish(from, to Mark) error {
	if w.n > 0 {
		if err := w.endPage(); err != nil {
			return err
		}
	}
	crc := crc32.Update(crc32.Checksum(w.fence, castagnoli), castagnoli, w.filter)
	for _, part := range [][]byte{w.fence, w.filter} {
		for chunk := range slices.Chunk(part, writeSize) {
			if err := w.write(); err != nil {
				return err
			}
			w.buf = append(w.buf, chunk...)
		}
	}
	if err := w.write(); err != nil {
		return err
	}
	var h [pageSize]byte
	be := binary.BigEndian
	copy(h[:], magic)
	be.PutUint64(h[16:], from.At)
	copy(h[24:], from.Hash[:])
	be.PutUint64(h[56:], to.At)
	copy(h[64:], to.Hash[:])
	be.PutUint64(h[96:], uint64(w.count))
	be.PutUint64(h[104:], uint64(w.pages))
	be.PutUint64(h[112:], uint64(len(w.filter)))
	be.PutUint32(h[120:], crc)
	seal(&h)
	if _, err := w.file.WriteAt(h[:], 0); err != nil {
		return err
	}
	return w.file.Sync()
}

// writeSegment makes a segment of the records that fill puts, at most keys of
// them, durably, and opens it. If it fails nothing is left behind, as far as the
// file system allows.
func (x *Index) writeSegment(from, to Mark, keys int64, fill func(*writer) error) (*segment, error) {
	// A name of its own for each attempt: after a failed sync nothing is retried
	// on the same file.
	x.serial++
	temp := fmt.Sprintf("%d%s", x.serial, newSuffix)
	name := segmentName(from.At, to.At)
	err := x.writeFile(temp, from, to, keys, fill)
	if err == nil {
		err = x.dir.Move(temp, x.dir, name)
	}
	if err == nil {
		err = x.dir.Sync()
	}
	var s *segment
	if err == nil {
		s, err = openSegment(x.dir, name)
	}
	if err != nil {
		x.dir.Remove(temp)
		x.dir.Remove(name) // a move that reports failure may have happened
		return nil, err
	}
	return s, nil
}

func (x *Index) writeFile(temp string, from, to Mark, keys int64, fill func(*writer) error) error {
	f, err := x.dir.Create(temp, 0o600)
	if err != nil {
		return err
	}
	every := 0
	if x.running {
		every = syncEvery
	}
	w := newWriter(f, keys, every)
	if err = fill(w); err == nil {
		err = w.finish(from, to)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
