// Package durable is the only code of signdrop that makes names durable. It
// holds the small set of file-system calls that the appliance makes, as an
// interface, so that the same code runs on Linux and on the model file system
// of the crash tests, which forgets what was not synced.
//
// # The rules
//
// A directory is a handle, and a name is one component of it: no path is ever
// resolved through something that another user could have replaced. Opening
// never follows a symbolic link, never crosses into another file system and
// never blocks on a FIFO (openat2(2), RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
// RESOLVE_NO_XDEV).
//
// A new file is created exclusively and written while nobody can see it under
// its final name. It gets its final name by Move, which never replaces. What
// Move or Create did to a name survives a power cut only after Dir.Sync on each
// directory concerned, or after FS.Sync (syncfs(2)), which covers the data and
// the names of everything at once: one call for a whole group of files.
//
// A failed sync says that data may be lost although it still can be read, and a
// second sync would report success (Rebello et al., "Can Applications Recover
// from fsync Failures?", USENIX ATC 2020). The caller must throw away what it
// wrote and write it anew from its source, to other files; it must never call
// sync again and believe it.
package durable

import (
	"errors"
	"io"
	"io/fs"
)

// Errors that callers test for with errors.Is, beside fs.ErrNotExist,
// fs.ErrExist and fs.ErrPermission.
var (
	// ErrNotRegular: the name is a link, directory, FIFO, socket or device
	// where a regular file (or, from Sub, a directory) was wanted.
	ErrNotRegular = errors.New("not of the expected file type")

	// ErrNoSpace: the disk or the quota is full (ENOSPC, EDQUOT).
	ErrNoSpace = errors.New("no space left on the data volume")
)

// Info is what stat tells of a name or an open file.
type Info struct {
	Mode  fs.FileMode // type and permission bits
	Size  int64       // bytes
	Ino   uint64
	Nlink uint64
	MTime int64 // nanoseconds since 1970, set at will by the file's owner
	CTime int64 // nanoseconds since 1970, set by the kernel at each change
	UID   uint32
	GID   uint32
}

// Same reports whether both describe the same file with the same content, as
// far as stat can tell: the inode, the size and the time of the last write.
func (i Info) Same(o Info) bool {
	return i.Ino == o.Ino && i.Size == o.Size && i.MTime == o.MTime
}

// File is an open regular file. It is not safe for concurrent use.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	Stat() (Info, error)

	// Sync makes the file's data durable, not its name. See the package
	// comment for what a failure means.
	Sync() error

	// Truncate takes all bytes from the file (ftruncate(2) to nothing).
	Truncate() error

	// Chown gives the file to the group gid.
	Chown(gid uint32) error

	Close() error
}

// Entry is one name of a directory.
type Entry struct {
	Name string
	Type fs.FileMode // type bits only; fs.ModeIrregular where the file system does not say
}

// Entries walks a directory without holding it in memory.
type Entries interface {
	// Next returns up to n further entries, at least one, in no order, never "."
	// and "..". An n below 1 is fs.ErrInvalid.
	// It returns io.EOF and no entries at the end. A name that is added or
	// removed during the walk may or may not be seen; every other name is seen
	// once.
	Next(n int) ([]Entry, error)
	Close() error
}

// Dir is an open directory. Every name is one component: an empty name, one
// with a slash, "." and ".." are refused with fs.ErrInvalid. A Dir may be used
// by several goroutines.
type Dir interface {
	// Open opens a regular file for reading. Anything else is ErrNotRegular. A
	// file on which another process holds a lease is EAGAIN at once; opening it has
	// told the holder to give the lease up.
	Open(name string) (File, error)

	// OpenWrite opens a regular file for writing over what it holds. It is meant
	// for a secret that must not stay on the disk, and for an upload that was cut
	// off and is gone on with: what is durable here is otherwise never changed in
	// place.
	OpenWrite(name string) (File, error)

	// Create creates a file for writing that did not exist (O_EXCL).
	Create(name string, perm fs.FileMode) (File, error)

	// Mkdir creates a directory that did not exist.
	Mkdir(name string, perm fs.FileMode) error

	// Sub opens a directory below.
	Sub(name string) (Dir, error)

	// Stat describes the name itself, never what a link points to.
	Stat(name string) (Info, error)

	// StatIn describes sub/name, a name in a directory below, in one call and without
	// a handle of that directory. It says whether something has changed, never what
	// it is: unlike all other calls it may follow a link that has the name sub.
	StatIn(sub, name string) (Info, error)

	// StatDir describes the directory that the handle holds, whatever name it
	// has by now.
	StatDir() (Info, error)

	// Move renames name to to/toName and fails with fs.ErrExist where that name
	// is taken (renameat2(2), RENAME_NOREPLACE). Like every rename it happens
	// wholly or not at all, also across a crash.
	Move(name string, to Dir, toName string) error

	// Replace renames name to toName in the same directory, replacing what is
	// there. For state files only; an answer is never replaced.
	Replace(name, toName string) error

	// MoveOver renames name to to/toName, replacing what is there (renameat(2)). For
	// files that may be lost only; an answer is never replaced.
	MoveOver(name string, to Dir, toName string) error

	// Remove removes a name that is not a directory.
	Remove(name string) error

	// RemoveDir removes an empty directory.
	RemoveDir(name string) error

	// Entries starts a walk over the directory.
	Entries() (Entries, error)

	// Sync makes the names in the directory durable.
	Sync() error

	Close() error
}

// Space says how much room the data volume has.
type Space struct {
	Free  uint64 // bytes an unprivileged process may still write
	Total uint64 // bytes
	Files uint64 // inodes left; 0 where the file system has no such limit
}

// FS is one data volume.
type FS interface {
	// Root opens the top directory of the volume.
	Root() (Dir, error)

	// Sync makes everything on the volume durable, data and names (syncfs(2)). A
	// failure is reported once and concerns whatever anybody wrote on the volume
	// since the last success, not only what the caller wrote: a later call, also
	// one by another goroutine, may succeed although data of its own was lost.
	Sync() error

	// Space asks how much room there is.
	Space() (Space, error)
}

// Walk calls f for every entry of d, reading them in portions.
func Walk(d Dir, f func(Entry) error) error {
	es, err := d.Entries()
	if err != nil {
		return err
	}
	defer es.Close()
	for {
		part, err := es.Next(512)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range part {
			if err := f(e); err != nil {
				return err
			}
		}
	}
}

// ReadFile reads a regular file of at most max bytes. A larger one is an error.
func ReadFile(d Dir, name string, max int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size > max {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("the file is larger than it may be")}
	}
	return ReadAll(f, info.Size)
}

// ReadAll reads an open file that had size bytes when it was looked at. The
// result is longer than size by one byte if the file has grown since, and
// shorter if it has shrunk.
func ReadAll(f File, size int64) ([]byte, error) {
	buf := make([]byte, size+1)
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	return buf[:n], nil
}

// WriteNew creates a file and writes data to it. Nothing is synced. If it fails
// the file is removed again.
func WriteNew(d Dir, name string, perm fs.FileMode, data []byte) error {
	f, err := d.Create(name, perm)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Close()
	} else {
		f.Close()
	}
	if err != nil {
		d.Remove(name)
	}
	return err
}

// WriteSynced is WriteNew with the file's data synced; its name is not.
func WriteSynced(d Dir, name string, perm fs.FileMode, data []byte) error {
	f, err := d.Create(name, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.Remove(name)
	}
	return err
}

// ReplaceFile gives name new content in one durable step: it writes
// "."+name+".new", syncs it, renames it over name and syncs the directory. After a
// crash name has the old or the new content, whole. A ".new" file that a crash
// left behind is removed first.
func ReplaceFile(d Dir, name string, perm fs.FileMode, data []byte) error {
	tmp := "." + name + ".new"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := WriteSynced(d, tmp, perm, data); err != nil {
		return err
	}
	if err := d.Replace(tmp, name); err != nil {
		d.Remove(tmp)
		return err
	}
	return d.Sync()
}

// SubMake opens the directory name below d and makes it first, durably, where it
// does not exist. One that exists is taken for durable, so a process that starts
// calls FS.Sync before it relies on what an earlier one may have left unsynced.
func SubMake(d Dir, name string, perm fs.FileMode) (Dir, error) {
	sub, err := d.Sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	if err := d.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := d.Sync(); err != nil {
		return nil, err
	}
	return d.Sub(name)
}

// SubPath opens a directory several levels below d, each component as Sub does.
func SubPath(d Dir, names ...string) (Dir, error) {
	cur := d
	for _, n := range names {
		next, err := cur.Sub(n)
		if cur != d {
			cur.Close()
		}
		if err != nil {
			return nil, err
		}
		cur = next
	}
	return cur, nil
}
