package door

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"signdrop/spool/durable"
)

// tree is what one SFTP session sees: /inbox, /outbox and /rejected of its company.
// It implements pkg/sftp's handlers. Paths come cleaned and absolute; they are
// taken apart here and never given to the kernel whole.
type tree struct {
	sn   *session
	dirs map[string]durable.Dir
}

// sftp serves one channel. heard is called for each packet.
func (sn *session) sftp(ch io.ReadWriteCloser, heard func()) error {
	top, err := sn.srv.vol.Root()
	if err != nil {
		return err
	}
	defer top.Close()
	t := &tree{sn: sn, dirs: map[string]durable.Dir{}}
	defer func() {
		for _, d := range t.dirs {
			d.Close()
		}
	}()
	for _, b := range boxes {
		if t.dirs[b], err = durable.SubPath(top, sn.company, b); err != nil {
			delete(t.dirs, b)
			sn.log.Error().Err(err).Msg("SFTP door: the company's directories cannot be opened; run signdrop init, and look at their groups")
			return err
		}
	}
	f := newFrames(ch, func() error { return sn.room.sync(t) }, heard)
	return sftp.NewRequestServer(f, sftp.Handlers{FileGet: t, FilePut: t, FileCmd: t, FileList: t}).Serve()
}

// place takes a path apart: box is "" for the top, name "" for a box itself.
func place(path string) (box, name string, err error) {
	if path == "/" {
		return "", "", nil
	}
	box, name, deeper := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if deeper && (name == "" || strings.Contains(name, "/")) {
		return "", "", errNoFile
	}
	for _, b := range boxes {
		if b == box {
			return box, name, nil
		}
	}
	return "", "", errNoFile
}

// file is place for a path that must be a file's.
func file(path string) (box, name string, err error) {
	box, name, err = place(path)
	if err == nil && name == "" {
		err = errDenied
	}
	return box, name, err
}

// handle takes one of the handles that a connection and a company may have.
func (t *tree) handle() (release func(), err error) {
	set := &t.sn.srv.set
	mine, all := &t.sn.handles, &t.sn.room.handles
	if mine.Add(1) > int64(set.MaxHandles) {
		mine.Add(-1)
		return nil, errHandles
	}
	if all.Add(1) > int64(set.MaxCompanyHandles) {
		mine.Add(-1)
		all.Add(-1)
		return nil, errHandles
	}
	return sync.OnceFunc(func() {
		mine.Add(-1)
		all.Add(-1)
	}), nil
}

// Filewrite implements sftp.FileWriter.
func (t *tree) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	box, name, err := file(r.Filepath)
	if err != nil {
		return nil, err
	}
	if box != boxInbox {
		return nil, errDenied
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	f := r.Pflags()
	release, err := t.handle()
	if err != nil {
		return nil, err
	}
	u, err := t.sn.room.begin(t, name, openFlags{f.Creat, f.Trunc, f.Excl && f.Creat, f.Append})
	if err != nil {
		release()
		return nil, t.tell(err)
	}
	u.released = release
	return u, nil
}

// Fileread implements sftp.FileReader.
func (t *tree) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	box, name, err := file(r.Filepath)
	if err != nil {
		return nil, err
	}
	if box == boxInbox {
		return nil, errDenied
	}
	release, err := t.handle()
	if err != nil {
		return nil, err
	}
	f, err := t.dirs[box].Open(name)
	if err != nil {
		release()
		return nil, t.tell(err)
	}
	return &download{tree: t, file: f, released: release}, nil
}

// download is a file that is read.
type download struct {
	tree     *tree
	released func()

	mu     sync.Mutex
	file   durable.File
	closed bool
}

// ReadAt implements io.ReaderAt. Several goroutines of pkg/sftp's read at once.
func (d *download) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.EOF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.file.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = d.tree.tell(err)
	}
	return n, err
}

// Close implements io.Closer.
func (d *download) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.released()
	return d.file.Close()
}

// Filecmd implements sftp.FileCmder.
func (t *tree) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		return t.setstat(r)
	case "Rename":
		return t.rename(r, false)
	case "Remove":
		return t.remove(r)
	case "Mkdir":
		if box, name, err := place(r.Filepath); err == nil && (box == "" || name == "") {
			return errExists
		}
		return errDenied
	case "Rmdir":
		return errDenied
	}
	return errNotDone
}

// PosixRename implements sftp.PosixRenameFileCmder.
func (t *tree) PosixRename(r *sftp.Request) error { return t.rename(r, true) }

func (t *tree) rename(r *sftp.Request, replace bool) error {
	fromBox, from, err := file(r.Filepath)
	if err != nil {
		return err
	}
	toBox, to, err := file(r.Target)
	if err != nil {
		return err
	}
	if fromBox != boxInbox || toBox != boxInbox {
		return errDenied
	}
	if err := errors.Join(checkName(from), checkName(to)); err != nil {
		return t.tell(err)
	}
	return t.tell(t.sn.room.rename(t.dirs[boxInbox], from, to, replace))
}

func (t *tree) remove(r *sftp.Request) error {
	box, name, err := file(r.Filepath)
	if err != nil {
		return err
	}
	if box == boxInbox {
		if checkName(name) != nil {
			return errNoFile
		}
		return t.tell(t.sn.room.remove(t.dirs[boxInbox], name))
	}
	info, err := regular(t.dirs[box], name)
	if err == nil && info == nil {
		err = errNoFile
	}
	if err == nil {
		err = t.dirs[box].Remove(name)
	}
	return t.tell(err)
}

// setstat accepts times, modes and owners for what exists and changes nothing:
// clients set them after each upload and take a refusal for a failed upload. A size
// is accepted if it is so already.
func (t *tree) setstat(r *sftp.Request) error {
	info, err := t.info(r.Filepath)
	if err != nil {
		return err
	}
	if r.AttrFlags().Size {
		a := r.Attributes()
		if a == nil || int64(a.Size) != info.Size() {
			return errNotDone
		}
	}
	return nil
}

// StatVFS implements sftp.StatVFSFileCmder: it answers the quota.
func (t *tree) StatVFS(r *sftp.Request) (*sftp.StatVFS, error) {
	if _, _, err := place(r.Filepath); err != nil {
		return nil, err
	}
	set := &t.sn.srv.set
	bytes, files, err := t.sn.room.usage.now(t.dirs[boxInbox])
	if err != nil {
		return nil, t.tell(err)
	}
	free := max(set.MaxBytes-bytes, 0)
	if sp, err := t.sn.srv.space.now(); err == nil {
		if sp.Free < set.Reserve {
			free = 0
		} else {
			free = int64(min(uint64(free), sp.Free-set.Reserve))
		}
	}
	left := uint64(max(set.MaxFiles-files, 0))
	const block = 4096
	blocks := uint64(free / block)
	return &sftp.StatVFS{
		Bsize: block, Frsize: block, Blocks: uint64((set.MaxBytes + block - 1) / block), Bfree: blocks, Bavail: blocks,
		Files: uint64(set.MaxFiles), Ffree: left, Favail: left, Namemax: maxUnfinished,
	}, nil
}

// Filelist implements sftp.FileLister, for listing and for stat.
func (t *tree) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "Stat" {
		info, err := t.info(r.Filepath)
		if err != nil {
			return nil, err
		}
		return listOf{info}, nil
	}
	if r.Method != "List" {
		return nil, errNotDone // readlink: there are no links
	}
	box, name, err := place(r.Filepath)
	if err != nil {
		return nil, err
	}
	if name != "" {
		return nil, errDenied
	}
	if box == "" {
		var l listOf
		for _, b := range boxes {
			info, err := t.info("/" + b)
			if err != nil {
				return nil, err
			}
			l = append(l, info)
		}
		return l, nil
	}
	release, err := t.handle()
	if err != nil {
		return nil, err
	}
	es, err := t.dirs[box].Entries()
	if err != nil {
		release()
		return nil, t.tell(err)
	}
	return &listing{tree: t, box: box, entries: es, released: release}, nil
}

// info describes a path.
func (t *tree) info(path string) (fs.FileInfo, error) {
	box, name, err := place(path)
	if err != nil {
		return nil, err
	}
	if box == "" {
		return fileInfo{name: "/", dir: true, mtime: time.Unix(0, 0)}, nil
	}
	if name == "" {
		info, err := t.dirs[box].StatDir()
		if err != nil {
			return nil, t.tell(err)
		}
		return fileInfo{name: box, dir: true, mtime: time.Unix(0, info.MTime)}, nil
	}
	var info durable.Info
	if box == boxInbox {
		if checkName(name) != nil {
			return nil, errNoFile
		}
		info, err = t.sn.room.stat(t.dirs[box], name)
	} else {
		info, err = t.dirs[box].Stat(name)
		if err == nil && !info.Mode.IsRegular() {
			err = errNoFile
		}
	}
	if err != nil {
		return nil, t.tell(err)
	}
	return infoOf(name, info), nil
}

func infoOf(name string, info durable.Info) fs.FileInfo {
	return fileInfo{name: name, size: info.Size, mtime: time.Unix(0, info.MTime)}
}

// fileInfo is what partners are told of a file. Owners are not.
type fileInfo struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (f fileInfo) Name() string       { return f.name }
func (f fileInfo) Size() int64        { return f.size }
func (f fileInfo) ModTime() time.Time { return f.mtime }
func (f fileInfo) IsDir() bool        { return f.dir }
func (f fileInfo) Sys() any           { return nil }

func (f fileInfo) Mode() fs.FileMode {
	if f.dir {
		return fs.ModeDir | 0o770
	}
	return 0o640
}

// listOf is a list that is known.
type listOf []fs.FileInfo

// ListAt implements sftp.ListerAt.
func (l listOf) ListAt(into []os.FileInfo, off int64) (int, error) {
	if off >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(into, l[off:])
	if n < len(into) {
		return n, io.EOF
	}
	return n, nil
}

// listing walks a directory, however large it is, a portion at a time.
type listing struct {
	tree     *tree
	box      string
	entries  durable.Entries
	released func()
	once     sync.Once
}

// ListAt implements sftp.ListerAt. It is called in order, by one goroutine.
func (l *listing) ListAt(into []os.FileInfo, _ int64) (int, error) {
	n := 0
	for n == 0 {
		part, err := l.entries.Next(len(into))
		if err == io.EOF {
			return 0, io.EOF
		}
		if err != nil {
			return 0, l.tree.tell(err)
		}
		for _, e := range part {
			if info := l.look(e.Name); info != nil && n < len(into) {
				into[n] = info
				n++
			}
		}
	}
	return n, nil
}

// look describes one name as the partner sees it, nil if they do not.
func (l *listing) look(onDisk string) fs.FileInfo {
	d := l.tree.dirs[l.box]
	name, part := onDisk, false
	if l.box == boxInbox {
		name, part = strings.CutPrefix(onDisk, hidden)
	}
	info, err := d.Stat(onDisk)
	if err != nil || !info.Mode.IsRegular() {
		return nil
	}
	if part {
		if _, err := d.Stat(name); err == nil {
			return nil // it is listed under the name that waits
		}
		if !resumable(&info) && !l.tree.sn.room.open(name) {
			return nil
		}
	}
	return infoOf(name, info)
}

// Close implements io.Closer.
func (l *listing) Close() error {
	l.once.Do(func() {
		l.released()
		l.entries.Close()
	})
	return nil
}
