package guest

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// ramdisk writes an initramfs: a cpio archive of the kind "newc" (kernel,
// Documentation/driver-api/early-userspace/buffer-format.rst). Everything is root's.
type ramdisk struct {
	w     *bufio.Writer
	inode int
	dirs  map[string]bool
	err   error // the first one; close returns it
}

func newRamdisk(w io.Writer) *ramdisk {
	return &ramdisk{w: bufio.NewWriter(w), dirs: map[string]bool{".": true, "/": true}}
}

// entry adds an entry with size bytes of data. name has no slash at its beginning.
func (r *ramdisk) entry(name string, mode uint32, size int64, data io.Reader) {
	if r.err != nil {
		return
	}
	r.inode++
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		r.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	r.pad(copyTo(r.w, head+name+"\x00", &r.err))
	if data != nil {
		n, err := io.Copy(r.w, data)
		if err == nil && n != size {
			err = fmt.Errorf("%s has %d bytes, not %d", name, n, size)
		}
		if r.err == nil {
			r.err = err
		}
		r.pad(n)
	}
}

func copyTo(w io.Writer, s string, first *error) int64 {
	n, err := io.WriteString(w, s)
	if *first == nil {
		*first = err
	}
	return int64(n)
}

// pad fills up to a multiple of 4.
func (r *ramdisk) pad(n int64) { copyTo(r.w, "\x00\x00\x00"[:(4-n%4)%4], &r.err) }

// The kinds of entries, as in stat(2).
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
)

// dir adds a directory and those above it, unless they are there.
func (r *ramdisk) dir(name string) {
	name = path.Clean(name)
	if r.dirs[name] {
		return
	}
	r.dirs[name] = true
	r.dir(path.Dir(name))
	r.entry(name, cpioDir|0o755, 0, nil)
}

// file adds a file of this machine.
func (r *ramdisk) file(name, from string, mode fs.FileMode) {
	f, err := os.Open(from)
	if err == nil {
		defer f.Close()
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil {
			r.reader(name, f, info.Size(), mode)
			return
		}
	}
	if r.err == nil {
		r.err = err
	}
}

func (r *ramdisk) reader(name string, data io.Reader, size int64, mode fs.FileMode) {
	r.dir(path.Dir(name))
	r.entry(name, cpioFile|uint32(mode.Perm()), size, data)
}

// tree adds all files and directories below a directory of this machine.
func (r *ramdisk) tree(name, from string) {
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		at := path.Join(name, filepath.ToSlash(rel))
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			r.dir(at)
		case d.Type().IsRegular():
			r.file(at, p, info.Mode())
		default:
			return fmt.Errorf("%s is neither a file nor a directory", p)
		}
		return nil
	})
	if r.err == nil {
		r.err = err
	}
}

func (r *ramdisk) close() error {
	r.entry("TRAILER!!!", 0, 0, nil)
	if err := r.w.Flush(); r.err == nil {
		r.err = err
	}
	return r.err
}
