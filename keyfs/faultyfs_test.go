package keyfs_test

import (
	"errors"
	"io/fs"
	"sync"

	"signdrop/spool/durable"
)

// How a call goes wrong.
type failure int

const (
	notDone   failure = iota // it fails and does nothing; a write writes half
	reported                 // it is done, and reports a failure
	killed                   // it does nothing, and neither does any later one: the process has ended
	wouldFail                // number of failures
)

func (f failure) String() string {
	return []string{"not done", "done but reported failed", "killed"}[f]
}

var errInjected = errors.New("injected failure")

// faultyFS is a volume of which the call number at goes wrong, counted from 1
// over all calls to the volume, its directories and files, Close excepted. It
// syncs nothing, since its tests cut no power. It is a plain volume, and counts,
// as long as at is 0.
type faultyFS struct {
	durable.FS
	how failure
	at  int
	uid map[string]uint32 // owner to report of files by name, "." for directories

	// stall is called before each call is made, unless it is nil.
	stall func(call string)

	mu    sync.Mutex
	count int
	log   []string // every call, as "move .W_1.new W_1"
}

func (f *faultyFS) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// stop makes the volume a plain one again and returns the calls that were made.
func (f *faultyFS) stop() []string {
	log := f.log
	f.start(0, 0)
	return log
}

// start begins to count, and to fail at call number at.
func (f *faultyFS) start(at int, how failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.how, f.count, f.log = at, how, 0, nil
}

// next counts a call and says whether it is to be done and whether to be
// reported as failed.
func (f *faultyFS) next(call string) (do, fail bool) {
	if f.stall != nil {
		f.stall(call)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	f.log = append(f.log, call)
	switch {
	case f.at == 0 || f.count < f.at, f.count > f.at && f.how != killed:
		return true, false
	case f.how == reported:
		return true, true
	}
	return false, true
}

// call makes a call that returns an error only.
func (f *faultyFS) call(name string, g func() error) error {
	do, fail := f.next(name)
	var err error
	if do {
		err = g()
	}
	if fail {
		return errInjected
	}
	return err
}

// call1 makes a call that returns a value, and undoes what it gave where it is
// reported as failed.
func call1[T any](f *faultyFS, name string, g func() (T, error), undo func(T)) (T, error) {
	do, fail := f.next(name)
	var v, zero T
	var err error
	if do {
		v, err = g()
	}
	if fail {
		if do && err == nil && undo != nil {
			undo(v)
		}
		return zero, errInjected
	}
	return v, err
}

func (f *faultyFS) Root() (durable.Dir, error) {
	d, err := f.FS.Root()
	if err != nil {
		return nil, err
	}
	return &faultyDir{d, f}, nil
}

func (f *faultyFS) Sync() error { return f.call("syncfs", func() error { return nil }) }

type faultyDir struct {
	durable.Dir
	f *faultyFS
}

func (d *faultyDir) file(call, name string, g func() (durable.File, error)) (durable.File, error) {
	file, err := call1(d.f, call+" "+name, g, func(x durable.File) { x.Close() })
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, d.f, name}, nil
}

func (d *faultyDir) Open(name string) (durable.File, error) {
	return d.file("open", name, func() (durable.File, error) { return d.Dir.Open(name) })
}

func (d *faultyDir) Create(name string, perm fs.FileMode) (durable.File, error) {
	return d.file("create", name, func() (durable.File, error) { return d.Dir.Create(name, perm) })
}

func (d *faultyDir) Mkdir(name string, perm fs.FileMode) error {
	return d.f.call("mkdir "+name, func() error { return d.Dir.Mkdir(name, perm) })
}

func (d *faultyDir) Sub(name string) (durable.Dir, error) {
	sub, err := call1(d.f, "sub "+name, func() (durable.Dir, error) { return d.Dir.Sub(name) },
		func(x durable.Dir) { x.Close() })
	if err != nil {
		return nil, err
	}
	return &faultyDir{sub, d.f}, nil
}

func (d *faultyDir) Stat(name string) (durable.Info, error) {
	return call1(d.f, "stat "+name, func() (durable.Info, error) { return d.Dir.Stat(name) }, nil)
}

func (d *faultyDir) StatDir() (durable.Info, error) {
	info, err := d.Dir.StatDir()
	if uid, ok := d.f.uid["."]; ok {
		info.UID = uid
	}
	return info, err
}

func (d *faultyDir) Move(name string, to durable.Dir, toName string) error {
	return d.f.call("move "+name+" "+toName, func() error {
		return d.Dir.Move(name, to.(*faultyDir).Dir, toName)
	})
}

func (d *faultyDir) Replace(name, toName string) error {
	return d.f.call("replace "+name+" "+toName, func() error { return d.Dir.Replace(name, toName) })
}

func (d *faultyDir) Remove(name string) error {
	return d.f.call("remove "+name, func() error { return d.Dir.Remove(name) })
}

func (d *faultyDir) RemoveDir(name string) error {
	return d.f.call("rmdir "+name, func() error { return d.Dir.RemoveDir(name) })
}

func (d *faultyDir) Sync() error { return d.f.call("syncdir", func() error { return nil }) }

type faultyFile struct {
	durable.File
	f    *faultyFS
	name string
}

func (x *faultyFile) Read(p []byte) (int, error) {
	return call1(x.f, "read "+x.name, func() (int, error) { return x.File.Read(p) }, nil)
}

func (x *faultyFile) Write(p []byte) (int, error) {
	do, fail := x.f.next("write " + x.name)
	switch {
	case !fail:
		return x.File.Write(p)
	case do:
		x.File.Write(p)
	case x.f.how == notDone:
		x.File.Write(p[:len(p)/2])
	}
	return 0, errInjected
}

func (x *faultyFile) Stat() (durable.Info, error) {
	info, err := call1(x.f, "fstat "+x.name, x.File.Stat, nil)
	if uid, ok := x.f.uid[x.name]; ok {
		info.UID = uid
	}
	return info, err
}

func (x *faultyFile) Sync() error { return x.f.call("sync "+x.name, func() error { return nil }) }

// Close is never counted, so that none stays open; that of a file may still be
// reported as failed.
func (x *faultyFile) Close() error {
	err := x.File.Close()
	if ferr := x.f.call("close "+x.name, func() error { return nil }); ferr != nil {
		return ferr
	}
	return err
}
