package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// Peek reads the first bytes, at most max, of a file that was not read as a
// request: one without a signature, with a wrong name or too large. It returns nil
// for what is not a regular file or may not be read, and fs.ErrNotExist for what is
// gone.
func (s *Spool) Peek(it *Item, max int64) ([]byte, error) {
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	d, name := c.inbox, it.Name
	if it.Claimed {
		d, name = c.work, it.workName()
	}
	f, err := d.Open(name)
	switch {
	case errors.Is(err, durable.ErrNotRegular), errors.Is(err, fs.ErrPermission),
		errors.Is(err, unix.EAGAIN): // another process's lease
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("peeking into a file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("peeking into a file: %w", err)
	}
	buf := make([]byte, min(info.Size, max))
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("peeking into a file: %w", err)
	}
	return buf[:n], nil
}

// Forget marks an item whose bytes must not stay: Retire overwrites them and
// removes the file, where it would else keep it in rejected/ or in the archive. The
// signatures and the reason are kept as always. What is not a regular file is kept
// too.
//
// The mark is in memory: an item that is recovered after a crash has its bytes
// still, gets the reason that was published (see Reason), and must be marked again.
// From the first zero on the file is called .forget-… in work/, and Recover ends
// what was begun: nobody sees half of it.
//
// Overwriting is the best that can be done through a file system. One that copies on
// write, a journal of data, a snapshot or the cells of an SSD may keep the old bytes:
// a secret that came in the clear is to be taken for known.
func (s *Spool) Forget(it *Item) { it.forget = true }

// forgetting begins the name in work/ of a file that is being erased.
const forgetting = ".forget-"

// forget erases the item's file, or puts it away as always if it is not a regular
// file.
//
// Crash: before the sync the file has its bytes and either name; after it, it has
// the name by which Recover knows what is to be done.
func (s *Spool) forget(it *Item, away func(name, suffix string) error) error {
	work := it.co.work
	info, err := work.Stat(it.workName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // erased before a crash
	}
	if err != nil {
		return fmt.Errorf("erasing a file: %w", err)
	}
	if !info.Mode.IsRegular() {
		return away(it.workName(), "")
	}
	// The number of its inode, since a longer name might not fit.
	name := fmt.Sprintf("%s%x", forgetting, info.Ino)
	err = work.Move(it.workName(), work, name)
	if errors.Is(err, fs.ErrExist) {
		// Another name of the same file.
		if err = s.erase(it.co, name); err == nil {
			err = work.Move(it.workName(), work, name)
		}
	}
	if err == nil {
		err = work.Sync()
	}
	if err != nil {
		return fmt.Errorf("erasing a file: %w", err)
	}
	return s.erase(it.co, name)
}

// erase overwrites a file in work/ and removes it.
func (s *Spool) erase(c *company, name string) error {
	if err := overwrite(c.work, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Warn(c.name, "overwriting a secret that came in the clear; the file is removed, but its bytes may stay on the disk", err)
	}
	if err := c.work.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("erasing a file: %w", err)
	}
	return nil
}

// maxErase bounds what is overwritten, in bytes: the zeros of a sparse terabyte
// would fill the disk. It is as much as the largest request.
const maxErase = 68 << 20

// overwrite puts zeros in place of a file's bytes, durably, and takes them away. A
// file with another name is left as it is: it may be somebody else's, linked into
// the inbox to have it destroyed.
func overwrite(d durable.Dir, name string) (err error) {
	f, err := d.OpenWrite(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Nlink > 1 {
		return errors.New("the file has another name elsewhere")
	}
	zeros := make([]byte, 64<<10)
	for off, end := int64(0), min(info.Size, maxErase); off < end; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Truncate()
}
