package modelfs

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// handle is an open file, directory or walk.
type handle struct {
	v          *Volume
	generation int
	node       *node
	path       string // as opened, for messages
	closed     bool
}

// opening makes the call that opens what do finds.
func (v *Volume) opening(by *handle, op Op, path string, do func() (*node, error)) (*handle, error) {
	var h *handle
	err := v.call(by, op, path, func() error {
		n, err := do()
		if err != nil {
			return err
		}
		h = &handle{v: v, generation: v.generation, node: n, path: path}
		v.handles[h] = struct{}{}
		return nil
	}, effects{})
	if err == nil {
		return h, nil
	}
	if h != nil { // the call reports a failure, so nobody will close it
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.handles, h)
	}
	return nil, err
}

func (h *handle) call(op Op, path string, do func() error) error {
	return h.v.call(h, op, path, do, effects{})
}

func (h *handle) stat() (durable.Info, error) {
	var info durable.Info
	err := h.call(OpStatOpen, h.path, func() error { info = h.node.info(); return nil })
	return info, err
}

func (h *handle) Close() error {
	shut := func() {
		h.closed = true
		delete(h.v.handles, h)
	}
	return h.v.call(h, OpClose, h.path, func() error { shut(); return nil }, effects{failed: shut})
}

// notRegular gives the kernel's error the meaning that it has in durable.
func notRegular(err unix.Errno) error { return fmt.Errorf("%w (%w)", durable.ErrNotRegular, err) }

var errFull = fmt.Errorf("%w (%w)", durable.ErrNoSpace, unix.ENOSPC)

// nameMax is the longest name in bytes.
const nameMax = 255

// checkName refuses what durable refuses before it asks the kernel.
func checkName(op Op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return failure(op, name, fs.ErrInvalid)
	}
	return nil
}

// dir implements durable.Dir.
type dir struct{ *handle }

func (d *dir) in(name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

// lookup finds what has the name.
func (d *dir) lookup(name string) (*node, error) { return d.v.lookup(d.node, name) }

func (v *Volume) lookup(in *node, name string) (*node, error) {
	if len(name) > nameMax {
		return nil, unix.ENAMETOOLONG
	}
	if n := v.nodes[in.names[name]]; n != nil {
		return n, nil
	}
	return nil, unix.ENOENT
}

// lookupFree makes sure that the name can be given to something.
func (d *dir) lookupFree(name string) error {
	_, err := d.lookup(name)
	switch {
	case err == nil:
		return unix.EEXIST
	case errors.Is(err, unix.ENOENT) && d.node.nlink > 0:
		return nil
	}
	return err
}

func (d *dir) Open(name string) (durable.File, error) { return d.open(name, false) }

func (d *dir) OpenWrite(name string) (durable.File, error) { return d.open(name, true) }

func (d *dir) open(name string, writable bool) (durable.File, error) {
	if err := checkName(OpOpen, name); err != nil {
		return nil, err
	}
	h, err := d.v.opening(d.handle, OpOpen, d.in(name), func() (*node, error) {
		n, err := d.lookup(name)
		switch {
		case err != nil:
			return nil, err
		case n.mode.Type() == fs.ModeSymlink:
			return nil, notRegular(unix.ELOOP)
		case !n.mode.IsRegular():
			return nil, durable.ErrNotRegular
		}
		return n, nil
	})
	if err != nil {
		return nil, err
	}
	return &file{handle: h, writable: writable}, nil
}

func (d *dir) Create(name string, perm fs.FileMode) (durable.File, error) {
	if err := checkName(OpCreate, name); err != nil {
		return nil, err
	}
	h, err := d.v.opening(d.handle, OpCreate, d.in(name), func() (*node, error) {
		return d.make(OpCreate, name, perm.Perm())
	})
	if err != nil {
		return nil, err
	}
	return &file{handle: h, writable: true}, nil
}

func (d *dir) Mkdir(name string, perm fs.FileMode) error {
	if err := checkName(OpMkdir, name); err != nil {
		return err
	}
	return d.call(OpMkdir, d.in(name), func() error {
		_, err := d.make(OpMkdir, name, fs.ModeDir|perm.Perm())
		return err
	})
}

func (d *dir) make(op Op, name string, mode fs.FileMode) (*node, error) {
	if err := d.lookupFree(name); err != nil {
		return nil, err
	}
	if d.v.free() == 0 {
		return nil, errFull
	}
	n, _ := d.v.create(string(op)+" "+d.in(name), d.node, name, mode)
	return n, nil
}

// create gives a new inode a name.
func (v *Volume) create(what string, in *node, name string, mode fs.FileMode) (*node, *record) {
	n := v.newNode(mode, in)
	r := v.record(what, change{dir: in.ino, name: name, after: n.ino})
	if mode.IsDir() {
		n.made = r.id
	}
	return n, r
}

func (d *dir) Sub(name string) (durable.Dir, error) {
	if err := checkName(OpSub, name); err != nil {
		return nil, err
	}
	h, err := d.v.opening(d.handle, OpSub, d.in(name), func() (*node, error) {
		n, err := d.lookup(name)
		if err == nil && !n.mode.IsDir() {
			err = notRegular(unix.ENOTDIR)
		}
		return n, err
	})
	if err != nil {
		return nil, err
	}
	return &dir{h}, nil
}

func (d *dir) Stat(name string) (durable.Info, error) {
	if err := checkName(OpStat, name); err != nil {
		return durable.Info{}, err
	}
	var info durable.Info
	err := d.call(OpStat, d.in(name), func() error {
		n, err := d.lookup(name)
		if err == nil {
			info = n.info()
		}
		return err
	})
	return info, err
}

func (d *dir) StatIn(sub, name string) (durable.Info, error) {
	if err := errors.Join(checkName(OpStat, sub), checkName(OpStat, name)); err != nil {
		return durable.Info{}, err
	}
	var info durable.Info
	err := d.call(OpStat, d.in(sub+"/"+name), func() error {
		in, err := d.lookup(sub)
		if err == nil && !in.mode.IsDir() {
			err = unix.ENOTDIR
		}
		if err != nil {
			return err
		}
		n, err := d.v.lookup(in, name)
		if err == nil {
			info = n.info()
		}
		return err
	})
	return info, err
}

func (d *dir) StatDir() (durable.Info, error) { return d.stat() }

func (d *dir) Move(name string, to durable.Dir, toName string) error {
	if err := errors.Join(checkName(OpMove, name), checkName(OpMove, toName)); err != nil {
		return err
	}
	t, ok := to.(*dir)
	if !ok || t.v != d.v {
		return failure(OpMove, d.in(name), errors.New("internal error: target is on another volume"))
	}
	both := d.in(name) + " to " + t.in(toName)
	return d.call(OpMove, both, func() error {
		if err := d.v.usable(t.handle); err != nil {
			return err
		}
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		if err := t.lookupFree(toName); err != nil {
			return err
		}
		if n.mode.IsDir() && slices.Contains(d.v.above(t.node.ino), n) {
			return unix.EINVAL
		}
		d.v.record("move "+both,
			change{dir: d.node.ino, name: name, before: n.ino},
			change{dir: t.node.ino, name: toName, after: n.ino})
		return nil
	})
}

func (d *dir) Replace(name, toName string) error {
	if err := errors.Join(checkName(OpReplace, name), checkName(OpReplace, toName)); err != nil {
		return err
	}
	both := d.in(name) + " to " + d.in(toName)
	return d.call(OpReplace, both, func() error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		_, err = d.v.rename("replace "+both, d.node, name, n, d.node, toName)
		return err
	})
}

func (d *dir) MoveOver(name string, to durable.Dir, toName string) error {
	if err := errors.Join(checkName(OpReplace, name), checkName(OpReplace, toName)); err != nil {
		return err
	}
	t, ok := to.(*dir)
	if !ok || t.v != d.v {
		return failure(OpReplace, d.in(name), errors.New("internal error: target is on another volume"))
	}
	both := d.in(name) + " to " + t.in(toName)
	return d.call(OpReplace, both, func() error {
		if err := d.v.usable(t.handle); err != nil {
			return err
		}
		n, err := d.lookup(name)
		switch {
		case err != nil:
			return err
		case t.node.nlink == 0:
			return unix.ENOENT
		case n.mode.IsDir() && slices.Contains(d.v.above(t.node.ino), n):
			return unix.EINVAL
		}
		_, err = d.v.rename("replace "+both, d.node, name, n, t.node, toName)
		return err
	})
}

// rename does what rename(2) does. The record is nil where there is nothing to do.
func (v *Volume) rename(what string, from *node, name string, n *node, to *node, toName string) (*record, error) {
	second := change{dir: to.ino, name: toName, after: n.ino}
	there, err := v.lookup(to, toName)
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return nil, err
	case there == n:
		return nil, nil // two names of one file: rename(2) keeps both
	case there.mode.IsDir() && !n.mode.IsDir():
		return nil, notRegular(unix.EISDIR)
	case n.mode.IsDir() && !there.mode.IsDir():
		return nil, notRegular(unix.ENOTDIR)
	case len(there.names) > 0:
		return nil, unix.ENOTEMPTY
	default:
		second.before = there.ino
	}
	return v.record(what, change{dir: from.ino, name: name, before: n.ino}, second), nil
}

func (d *dir) Remove(name string) error { return d.remove(OpRemove, name) }

func (d *dir) RemoveDir(name string) error { return d.remove(OpRmdir, name) }

func (d *dir) remove(op Op, name string) error {
	if err := checkName(op, name); err != nil {
		return err
	}
	return d.call(op, d.in(name), func() error {
		n, err := d.lookup(name)
		switch {
		case err != nil:
			return err
		case op == OpRemove && n.mode.IsDir():
			return notRegular(unix.EISDIR)
		case op == OpRmdir && !n.mode.IsDir():
			return notRegular(unix.ENOTDIR)
		case len(n.names) > 0:
			return unix.ENOTEMPTY
		}
		d.v.record(string(op)+" "+d.in(name), change{dir: d.node.ino, name: name, before: n.ino})
		return nil
	})
}

// Entries gives the names that are there now, whatever happens to them during the
// walk. Their order is that of a hash, so that nothing can come to rely on it.
func (d *dir) Entries() (durable.Entries, error) {
	h, err := d.v.opening(d.handle, OpReaddir, d.path, func() (*node, error) { return d.node, nil })
	if err != nil {
		return nil, err
	}
	return &entries{handle: h}, nil
}

func (d *dir) Sync() error {
	return d.call(OpSyncDir, d.path, func() error { d.v.syncDir(d.node); return nil })
}

// entries implements durable.Entries.
type entries struct {
	*handle
	begun bool
	rest  []durable.Entry
}

func (e *entries) Next(n int) ([]durable.Entry, error) {
	var part []durable.Entry
	err := e.call(OpReaddir, e.path, func() error {
		switch {
		case n < 1:
			return fs.ErrInvalid
		case e.node.nlink == 0:
			return unix.ENOENT
		case !e.begun:
			e.begun, e.rest = true, e.v.list(e.node)
		}
		n = min(n, len(e.rest))
		part, e.rest = e.rest[:n:n], e.rest[n:]
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(part) == 0:
		return nil, io.EOF
	}
	return part, nil
}

func (v *Volume) list(d *node) []durable.Entry {
	type hashed struct {
		hash  uint64
		entry durable.Entry
	}
	all := make([]hashed, 0, len(d.names))
	for name, ino := range d.names {
		h := fnv.New64a()
		io.WriteString(h, name)
		all = append(all, hashed{h.Sum64(), durable.Entry{Name: name, Type: v.nodes[ino].mode.Type()}})
	}
	slices.SortFunc(all, func(a, b hashed) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.entry.Name, b.entry.Name))
	})
	list := make([]durable.Entry, len(all))
	for i, a := range all {
		list[i] = a.entry
	}
	return list
}

// file implements durable.File.
type file struct {
	*handle
	writable bool
	off      int64
}

func (f *file) Stat() (durable.Info, error) { return f.stat() }

func (f *file) Read(p []byte) (int, error) {
	n, err := f.read(p, f.off)
	f.off += int64(n)
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.read(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// read gives io.EOF as it is, since callers compare it with ==.
func (f *file) read(p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var end error
	err = f.call(OpRead, f.path, func() error {
		if off < 0 {
			return unix.EINVAL
		}
		n, end = f.node.readAt(p, off)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, end
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.write(p, f.off)
	f.off += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) { return f.write(p, off) }

func (f *file) write(p []byte, off int64) (n int, err error) {
	err = f.v.call(f.handle, OpWrite, f.path, func() error {
		switch {
		case !f.writable:
			return unix.EBADF
		case off < 0:
			return unix.EINVAL
		}
		n = f.v.write(f.node, p, off)
		if n < len(p) {
			return errFull
		}
		return nil
	}, effects{half: func() {
		if f.writable && off >= 0 {
			f.v.write(f.node, p[:len(p)/2], off)
		}
	}})
	return n, err
}

// Truncate has no half way: a crash within it is a crash before it.
func (f *file) Truncate() error {
	return f.call(OpTruncate, f.path, func() error {
		if !f.writable {
			return unix.EINVAL
		}
		f.v.truncate(f.node)
		return nil
	})
}

func (f *file) Sync() error {
	return f.v.call(f.handle, OpSync, f.path, func() error { f.v.flush(f.node); return nil },
		effects{failed: f.node.loseWrites})
}

func (f *file) Chown(gid uint32) error {
	return f.call(OpChown, f.path, func() error {
		f.v.unsynced(f.node)
		f.node.gid, f.node.ctime = gid, f.v.now()
		return nil
	})
}
