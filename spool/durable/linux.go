package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Disk is a data volume on Linux.
type Disk struct {
	root int // O_PATH-free directory descriptor of the volume's top
	path string
}

// OpenDisk opens the directory path as a data volume. It refuses a kernel that
// is older than Linux 5.8, whose syncfs(2) keeps write errors to itself, and a
// network or FUSE file system, whose syncfs and inotify promise nothing.
func OpenDisk(path string) (*Disk, error) {
	if err := checkKernel(); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening data volume: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	if err := checkKind(fd, path); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Disk{root: fd, path: path}, nil
}

func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("asking for the kernel version: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("reading kernel version %q: %w", release, err)
	}
	if major < 5 || major == 5 && minor < 8 {
		return fmt.Errorf("kernel %s is too old: syncfs reports write errors from Linux 5.8 on; use a newer kernel", release)
	}
	return nil
}

// Magic numbers of statfs(2) for file systems that cannot hold the volume.
var unfitKinds = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.FUSE_SUPER_MAGIC: "FUSE",
	unix.V9FS_MAGIC:       "9p",
	unix.CEPH_SUPER_MAGIC: "Ceph",
	unix.AFS_SUPER_MAGIC:  "AFS",
}

func checkKind(fd int, path string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", path, err)
	}
	if kind, unfit := unfitKinds[int64(uint32(st.Type))]; unfit {
		return fmt.Errorf("%s lies on %s, which does not keep what it says is synced: use a local file system (ext4, XFS, Btrfs)", path, kind)
	}
	return nil
}

// Path is the path that OpenDisk was given, for messages and for watching.
func (d *Disk) Path() string { return d.path }

// Root implements FS.
func (d *Disk) Root() (Dir, error) {
	fd, err := openat2(d.root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path, Err: errno(err)}
	}
	return &dir{fd: fd, path: d.path}, nil
}

// Sync implements FS.
func (d *Disk) Sync() error {
	return wrap("syncfs", d.path, retry(func() error { return unix.Syncfs(d.root) }))
}

// Space implements FS.
func (d *Disk) Space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.root, &st); err != nil {
		return Space{}, wrap("statfs", d.path, err)
	}
	bs := uint64(st.Bsize)
	return Space{Free: st.Bavail * bs, Total: st.Blocks * bs, Files: st.Ffree}, nil
}

// Close closes the volume. Open files and directories stay usable.
func (d *Disk) Close() error { return unix.Close(d.root) }

// exdevTries is how often openat2 is asked again after EXDEV.
const exdevTries = 10

// openat2 opens name below dirfd without ever following a link, leaving the
// directory or its file system, or waiting for a FIFO's other end.
//
// EXDEV has two causes: a mount point, which stays one, and a name that was moved
// to another directory while the kernel resolved it, so that RESOLVE_BENEATH no
// longer holds; asking again tells them apart. EAGAIN is not asked again: a single
// component cannot have the cause that openat2(2) gives for it, and the other one,
// another process's lease on the file (F_SETLEASE), would keep us waiting for as
// long as the kernel grants the holder, 45 s.
func openat2(dirfd int, name string, flags int, perm fs.FileMode) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY),
		Mode:    uint64(perm.Perm()),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	for exdev := 0; ; {
		fd, err := unix.Openat2(dirfd, name, &how)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EXDEV && exdev < exdevTries:
			exdev++
			continue
		case err == unix.ENOSYS:
			return openAlike(dirfd, name, how)
		}
		return fd, err
	}
}

// openAlike does what openat2 does here where a sandbox or an emulator does not
// let openat2(2) through. For a name of one component, and others do not come
// here, O_NOFOLLOW alone keeps from leaving the directory by a link; a mount point
// shows by its device.
func openAlike(dirfd int, name string, how unix.OpenHow) (int, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(dirfd, name, int(how.Flags), uint32(how.Mode))
		return err
	})
	if err != nil {
		return -1, err
	}
	var in, st unix.Stat_t
	err = errors.Join(unix.Fstat(dirfd, &in), unix.Fstat(fd, &st))
	if err == nil && in.Dev != st.Dev {
		err = unix.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// closeOnce closes a descriptor and forgets its number, which the next open gets:
// whoever goes on with a closed handle gets EBADF, not somebody else's file.
func closeOnce(fd *int) error {
	old := *fd
	*fd = -1
	return unix.Close(old)
}

// errno gives the kernel's error the meaning that callers test for.
func errno(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENXIO),
		errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w (%w)", ErrNotRegular, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w (%w)", ErrNoSpace, err)
	}
	return err
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: errno(err)}
}

// checkName refuses what is not one component of a path.
func checkName(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

type dir struct {
	fd   int
	path string // as opened, for messages only
}

func (d *dir) in(name string) string { return d.path + "/" + name }

func (d *dir) Open(name string) (File, error) { return d.open(name, unix.O_RDONLY) }

func (d *dir) OpenWrite(name string) (File, error) { return d.open(name, unix.O_RDWR) }

func (d *dir) open(name string, flags int) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	fd, err := openat2(d.fd, name, flags, 0)
	if err == unix.EACCES {
		// A device on a volume mounted nodev, or a FIFO that is not for us.
		if info, serr := d.Stat(name); serr == nil && !info.Mode.IsRegular() {
			err = fmt.Errorf("%w (%v)", ErrNotRegular, err)
		}
	}
	if err != nil {
		return nil, wrap("open", d.in(name), err)
	}
	f := &file{fd: fd, dir: d, name: name}
	info, err := f.Stat()
	if err == nil && !info.Mode.IsRegular() {
		err = wrap("open", d.in(name), ErrNotRegular)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f.info, f.fresh = info, true
	return f, nil
}

func (d *dir) Create(name string, perm fs.FileMode) (File, error) {
	if err := checkName("create", name); err != nil {
		return nil, err
	}
	fd, err := openat2(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return nil, wrap("create", d.in(name), err)
	}
	return &file{fd: fd, dir: d, name: name}, nil
}

func (d *dir) Mkdir(name string, perm fs.FileMode) error {
	if err := checkName("mkdir", name); err != nil {
		return err
	}
	return wrap("mkdir", d.in(name), unix.Mkdirat(d.fd, name, uint32(perm.Perm())))
}

func (d *dir) Sub(name string) (Dir, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	fd, err := openat2(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, wrap("open", d.in(name), err)
	}
	return &dir{fd: fd, path: d.in(name)}, nil
}

func (d *dir) Stat(name string) (Info, error) {
	if err := checkName("stat", name); err != nil {
		return Info{}, err
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		// ENAMETOOLONG and the like stay as they are: no such name can exist.
		return Info{}, &fs.PathError{Op: "stat", Path: d.in(name), Err: err}
	}
	return infoOf(&st), nil
}

func (d *dir) StatIn(sub, name string) (Info, error) {
	if err := errors.Join(checkName("stat", sub), checkName("stat", name)); err != nil {
		return Info{}, err
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(d.fd, sub+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return Info{}, &fs.PathError{Op: "stat", Path: d.in(sub + "/" + name), Err: err}
	}
	return infoOf(&st), nil
}

func (d *dir) StatDir() (Info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(d.fd, "", &st, unix.AT_EMPTY_PATH) }); err != nil {
		return Info{}, wrap("stat", d.path, err)
	}
	return infoOf(&st), nil
}

func (d *dir) Move(name string, to Dir, toName string) error {
	if err := errors.Join(checkName("move", name), checkName("move", toName)); err != nil {
		return err
	}
	t, ok := to.(*dir)
	if !ok {
		return &fs.PathError{Op: "move", Path: d.in(name), Err: errors.New("internal error: target is on another kind of volume")}
	}
	err := retry(func() error {
		return unix.Renameat2(d.fd, name, t.fd, toName, unix.RENAME_NOREPLACE)
	})
	return wrap("move", d.in(name)+" to "+t.in(toName), err)
}

func (d *dir) Replace(name, toName string) error {
	if err := errors.Join(checkName("replace", name), checkName("replace", toName)); err != nil {
		return err
	}
	return wrap("replace", d.in(toName), retry(func() error { return unix.Renameat(d.fd, name, d.fd, toName) }))
}

func (d *dir) MoveOver(name string, to Dir, toName string) error {
	if err := errors.Join(checkName("move", name), checkName("move", toName)); err != nil {
		return err
	}
	t, ok := to.(*dir)
	if !ok {
		return &fs.PathError{Op: "move", Path: d.in(name), Err: errors.New("internal error: target is on another kind of volume")}
	}
	err := retry(func() error { return unix.Renameat(d.fd, name, t.fd, toName) })
	return wrap("move", d.in(name)+" to "+t.in(toName), err)
}

func (d *dir) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	return wrap("remove", d.in(name), retry(func() error { return unix.Unlinkat(d.fd, name, 0) }))
}

func (d *dir) RemoveDir(name string) error {
	if err := checkName("rmdir", name); err != nil {
		return err
	}
	return wrap("rmdir", d.in(name), retry(func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) }))
}

func (d *dir) Entries() (Entries, error) {
	// A descriptor of its own: the walk's position belongs to the description.
	fd, err := openat2(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, wrap("open", d.path, err)
	}
	return &entries{f: os.NewFile(uintptr(fd), d.path)}, nil
}

func (d *dir) Sync() error {
	return wrap("fsync", d.path, retry(func() error { return unix.Fsync(d.fd) }))
}

func (d *dir) Close() error { return wrap("close", d.path, closeOnce(&d.fd)) }

// entries walks by way of os.File, which reads directories in portions.
type entries struct {
	mu sync.Mutex
	f  *os.File
}

func (e *entries) Next(n int) ([]Entry, error) {
	if n < 1 { // os.File.ReadDir would take it for "all"
		return nil, &fs.PathError{Op: "readdir", Path: e.f.Name(), Err: fs.ErrInvalid}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list, err := e.f.ReadDir(n)
	if len(list) == 0 && err != nil {
		if err != io.EOF {
			err = &fs.PathError{Op: "readdir", Path: e.f.Name(), Err: errno(err)}
		}
		return nil, err
	}
	out := make([]Entry, len(list))
	for i, l := range list {
		out[i] = Entry{Name: l.Name(), Type: l.Type()}
	}
	return out, nil
}

func (e *entries) Close() error { return e.f.Close() }

// file is an open file. It does not go through os.File: regular files never
// block, and the runtime's poller costs a third of a small read.
type file struct {
	fd    int
	dir   *dir
	name  string
	info  Info // what Open saw
	fresh bool // info is still to be given out
}

func (f *file) path() string { return f.dir.in(f.name) }

func (f *file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	f.fresh = false
	for {
		n, err := unix.Read(f.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, wrap("read", f.path(), err)
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fresh = false
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("read", f.path(), err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *file) Write(p []byte) (int, error) {
	f.fresh = false
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("write", f.path(), err)
		}
		done += n
	}
	return done, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fresh = false
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("write", f.path(), err)
		}
		done += n
	}
	return done, nil
}

// Stat gives out what Open saw if nothing was done with the file in between, so
// that the common open-stat-read costs one fstat, and asks the kernel otherwise.
func (f *file) Stat() (Info, error) {
	if f.fresh {
		f.fresh = false
		return f.info, nil
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(f.fd, "", &st, unix.AT_EMPTY_PATH) }); err != nil {
		return Info{}, wrap("stat", f.path(), err)
	}
	return infoOf(&st), nil
}

func (f *file) Sync() error {
	return wrap("fsync", f.path(), retry(func() error { return unix.Fsync(f.fd) }))
}

func (f *file) Truncate() error {
	f.fresh = false
	return wrap("truncate", f.path(), retry(func() error { return unix.Ftruncate(f.fd, 0) }))
}

func (f *file) Chown(gid uint32) error {
	f.fresh = false
	return wrap("chown", f.path(), retry(func() error { return unix.Fchown(f.fd, -1, int(gid)) }))
}

func (f *file) Close() error { return wrap("close", f.path(), closeOnce(&f.fd)) }

func infoOf(st *unix.Stat_t) Info {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	if st.Mode&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	return Info{
		Mode: mode, Size: st.Size, Ino: st.Ino, Nlink: uint64(st.Nlink),
		MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), UID: st.Uid, GID: st.Gid,
	}
}
