package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"signdrop/spool/durable"
)

// Head is the end of what is durable of a journal. What lies before it never
// changes, so that it can be copied while the journal is written.
type Head struct {
	File uint32    // number of the newest file
	Size int64     // so many bytes of that count
	Seq  uint64    // of the last line within them
	Hash [32]byte  // its SHA-256
	Time time.Time // its time
}

// Head returns how far the journal is durable at this moment. Any goroutine may ask.
func (j *Journal) Head() Head { return *j.reached.Load() }

// reach makes the end of what counts known.
func (j *Journal) reach() {
	t := j.synced
	j.reached.Store(&Head{t.file, t.size, t.seq, t.hash, t.time})
}

// FileName is the name of the file with this number.
func FileName(n uint32) string { return nameOf(n, fileSuffix) }

// FileNumber is the number of the file with this name; ok is false for any other.
func FileNumber(name string) (n uint32, ok bool) { return parseName(name, fileSuffix) }

// WriteHead makes the head of a journal that was copied up to h, in place of one that
// is there. Nothing is synced.
func WriteHead(dir durable.Dir, h Head) error {
	name := nameOf(h.File, headSuffix)
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing the journal's head: %w", err)
	}
	t := tip{file: h.File, size: h.Size, hash: h.Hash}
	if err := durable.WriteNew(dir, name, 0o400, newHead(t)); err != nil {
		return fmt.Errorf("writing the journal's head: %w", err)
	}
	return nil
}
