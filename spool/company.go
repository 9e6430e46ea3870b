package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/appliance/reason"
	"signdrop/spool/durable"
)

// company is one partner's set of directories.
type company struct {
	name string
	root durable.Dir // the data directory

	// mu is held for reading while a handle is in use, for writing while
	// handles are exchanged because a directory was replaced.
	mu                       sync.RWMutex
	inbox, outbox, rejected  durable.Dir
	inInfo, outInfo, rejInfo durable.Info
	gid                      uint32 // group of the outbox
	foreign                  bool   // new files do not get that group by themselves
	work                     durable.Dir
	archive                  durable.Dir

	archiveMu sync.Mutex  // guards the following; held while something is put there
	day       durable.Dir // where retired requests go at present
	dayName   string
	dayCount  int

	walk durable.Entries // owned by Next

	// seen holds what waits in the inbox although it looks complete, so that
	// it is not read again before it changes or is due. Owned by Next and
	// Return.
	seenMu sync.Mutex
	seen   map[string]pair
}

type pair struct {
	file, sig durable.Info
	looked    time.Time
}

// again is how soon an item that was due and could not be dealt with is looked at
// once more, although it has not changed.
const again = time.Second

// maxSeen bounds the memory of one company's files that do not verify.
const maxSeen = 4096

// archivePortion is how many files go into one directory of the archive, so
// that no directory grows without end and adding to it stays cheap.
const archivePortion = 8192

func (s *Spool) openCompany(name string) (*company, error) {
	c := &company{name: name, root: s.root, seen: map[string]pair{}}
	work, err := s.root.Sub("work")
	if err != nil {
		return nil, err
	}
	defer work.Close()
	if c.work, err = durable.SubMake(work, name, 0o700); err != nil {
		return nil, err
	}
	archive, err := durable.SubMake(s.root, "archive", 0o700)
	if err != nil {
		c.stop()
		return nil, err
	}
	defer archive.Close()
	if c.archive, err = durable.SubMake(archive, name, 0o700); err == nil {
		err = c.refresh()
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// refresh opens the partner's directories, anew where they have been replaced
// since: a handle would otherwise go on looking at a directory that nobody
// writes to any more.
func (c *company) refresh() error {
	in, inInfo, err := c.open("inbox")
	if err != nil {
		return err
	}
	out, outInfo, err := c.open("outbox")
	if err != nil {
		in.Close()
		return err
	}
	rej, rejInfo, err := c.open("rejected")
	if err != nil {
		in.Close()
		out.Close()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The group may have been changed in place: answers are given to it.
	same := c.inInfo.Ino == inInfo.Ino && c.outInfo.Ino == outInfo.Ino && c.rejInfo.Ino == rejInfo.Ino && c.gid == outInfo.GID
	if c.inbox != nil && same {
		return errors.Join(in.Close(), out.Close(), rej.Close())
	}
	for _, d := range []durable.Dir{c.inbox, c.outbox, c.rejected} {
		if d != nil {
			d.Close()
		}
	}
	c.inbox, c.outbox, c.rejected = in, out, rej
	c.inInfo, c.outInfo, c.rejInfo = inInfo, outInfo, rejInfo
	c.gid = outInfo.GID
	own, err := c.work.StatDir()
	if err != nil {
		return err
	}
	c.foreign = own.GID != outInfo.GID
	return nil
}

func (c *company) open(what string) (durable.Dir, durable.Info, error) {
	d, err := durable.SubPath(c.root, "spool", c.name, what)
	if err != nil {
		return nil, durable.Info{}, err
	}
	info, err := d.StatDir()
	if err != nil {
		d.Close()
		return nil, durable.Info{}, err
	}
	return d, info, nil
}

// stop closes all handles, waiting for those that use them.
func (c *company) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.walk != nil {
		c.walk.Close()
		c.walk = nil
	}
	for _, d := range []durable.Dir{c.inbox, c.outbox, c.rejected, c.work, c.archive, c.day} {
		if d != nil {
			d.Close()
		}
	}
}

// next reads the next portion of the inbox. At the end of a walk it reports end,
// and the next call begins another.
func (c *company) next(s *Spool) (part []durable.Entry, end bool, err error) {
	if c.walk == nil {
		if err := c.refresh(); err != nil {
			return nil, true, err
		}
		c.mu.RLock()
		c.walk, err = c.inbox.Entries()
		c.mu.RUnlock()
		if err != nil {
			c.walk = nil
			return nil, true, err
		}
	}
	part, err = c.walk.Next(portion)
	if err == nil {
		return part, false, nil
	}
	c.walk.Close()
	c.walk = nil
	if err == io.EOF {
		err = nil
	}
	return nil, true, err
}

// read looks at a name of the inbox and returns an item if it is ready to be
// decided on: complete as far as the spool can see, or wrong for so long that it
// is due to be refused. Otherwise nil.
func (c *company) read(s *Spool, name string) (it *Item, soon bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	now := s.cfg.Now()
	if c.unchanged(name, now, s.cfg.Still) {
		return nil, false, nil
	}
	it, err = c.readIn(c.inbox, name)
	if err == errChanging {
		return nil, true, nil
	}
	if it == nil || err != nil {
		return nil, false, err
	}
	wait := s.cfg.Still
	if it.Refusal != nil {
		switch it.Refusal.Code {
		case reason.SignatureMissing, reason.SignatureAlone:
			wait = s.cfg.SigWait
		}
	}
	it.Due = still(it, now, wait)
	if it.Refusal != nil && !it.Due {
		return nil, it.Refusal.Code == reason.HardLinked && !still(it, now, time.Second), nil
	}
	return it, false, nil
}

// errChanging: the file was written to while it was read.
var errChanging = errors.New("the file is changing")

// still reports whether none of the item's files changed for wait. The change
// time is the kernel's: the partner cannot set it.
func still(it *Item, now time.Time, wait time.Duration) bool {
	last := it.info.CTime
	if !it.noSig {
		last = max(last, it.sigInfo.CTime)
	}
	return now.UnixNano()-last >= int64(wait)
}

// remember notes that the item, as it is now, did not verify.
func (c *company) remember(it *Item, now time.Time) {
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	if len(c.seen) >= maxSeen {
		clear(c.seen) // they are read once more; no harm
	}
	c.seen[it.Name] = pair{it.info, it.sigInfo, now}
}

// unchanged reports whether the name was looked at in vain before, has not
// changed since and is not due.
func (c *company) unchanged(name string, now time.Time, wait time.Duration) bool {
	c.seenMu.Lock()
	old, known := c.seen[name]
	c.seenMu.Unlock()
	if !known {
		return false
	}
	file, err := c.inbox.Stat(name)
	if err == nil {
		var sig durable.Info
		sig, err = c.inbox.Stat(name + SigSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			sig, err = durable.Info{}, nil
		}
		if err == nil && file == old.file && sig == old.sig {
			it := Item{info: file, sigInfo: sig}
			if since := now.Sub(old.looked); !still(&it, now, wait) || since >= 0 && since < again {
				return true
			}
		}
	}
	c.seenMu.Lock()
	delete(c.seen, name)
	c.seenMu.Unlock()
	return false
}

// readIn reads a name and its signature in d, which is the inbox or work. It
// returns nil if the name is gone. What is wrong with the file itself is the
// item's Refusal.
func (c *company) readIn(d durable.Dir, name string) (*Item, error) {
	it := &Item{Company: c.name, Name: name, co: c, noSig: true}
	t, typed := typeOf(DefaultTypes, name)
	if !typed {
		return c.readOther(d, it)
	}
	f, refusal, info, err := open(d, name, t.Max)
	if errors.Is(err, fs.ErrNotExist) {
		return c.readSigAlone(d, it)
	}
	if err != nil {
		return nil, err
	}
	it.info, it.Refusal = info, refusal
	if f != nil {
		defer f.Close()
	}
	// The signature is opened before the request is read: without one the
	// bytes are not needed.
	sf, sigRefusal, sigInfo, err := open(d, name+SigSuffix, maxSig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if it.Refusal == nil {
			it.Refusal = reason.New(reason.SignatureMissing,
				"sign the file with ssh-keygen -Y sign -n request@signdrop and drop both",
				"no file %s%s came", name, SigSuffix)
		}
		return it, nil
	case err != nil:
		return nil, err
	}
	it.noSig, it.sigInfo = false, sigInfo
	if sf != nil {
		defer sf.Close()
	}
	if it.Refusal == nil {
		it.Refusal = sigRefusal
	}
	if it.Refusal != nil {
		return it, nil
	}
	if it.Data, err = readWhole(f, info); err != nil {
		return nil, err
	}
	if it.Sig, err = readWhole(sf, sigInfo); err != nil {
		return nil, err
	}
	return it, nil
}

// readSigAlone makes the item for a signature whose request is not there.
func (c *company) readSigAlone(d durable.Dir, it *Item) (*Item, error) {
	info, err := d.Stat(it.Name + SigSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	missing := it.Name
	it.Name += SigSuffix
	it.info, it.noFile = info, true
	it.Refusal = signatureAlone(missing)
	return it, nil
}

func signatureAlone(missing string) *reason.Refusal {
	return reason.New(reason.SignatureAlone,
		"drop the request and its signature together", "no file %s came", missing)
}

// readOther makes the item for a name that cannot be a request.
func (c *company) readOther(d durable.Dir, it *Item) (*Item, error) {
	info, err := d.Stat(it.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	it.info = info
	if info.Mode.Type() != 0 {
		it.Refusal = notAFile(info.Mode)
		return it, nil
	}
	it.Refusal = reason.New(reason.NameNotAllowed,
		"use letters, digits, dot, dash and underscore, at most 200, ending in .json or .jsonl",
		"the name is not one that a request may have")
	return it, nil
}

// open opens a regular file and says what is wrong with it as such.
func open(d durable.Dir, name string, max int64) (durable.File, *reason.Refusal, durable.Info, error) {
	f, err := d.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, durable.Info{}, err
		}
		if errors.Is(err, unix.EAGAIN) {
			// Somebody holds a lease on it (fcntl(2), F_SETLEASE), or it is being
			// renamed at this moment.
			return nil, nil, durable.Info{}, errChanging
		}
		info, serr := d.Stat(name)
		if serr != nil {
			return nil, nil, durable.Info{}, serr
		}
		if info.Mode.Type() != 0 {
			return nil, notAFile(info.Mode), info, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, reason.New(reason.Unreadable,
				"let the appliance's user read the file", "the file may not be read"), info, nil
		}
		return nil, nil, info, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, durable.Info{}, err
	}
	var r *reason.Refusal
	switch {
	case info.Nlink > 1:
		// For a moment this is also how OpenSSH's server renames (link, then
		// unlink): refused only when it stays so.
		r = reason.New(reason.HardLinked, "copy the file instead of linking it", "the file has %d names", info.Nlink)
	case info.Size > max:
		r = reason.New(reason.TooLarge, fmt.Sprintf("the limit is %d bytes; split the file", max), "the file is larger than the limit")
	case info.Size == 0:
		r = reason.New(reason.Empty, "write the file whole and drop it again", "the file is empty")
	}
	if r != nil {
		f.Close()
		return nil, r, info, nil
	}
	return f, nil, info, nil
}

func notAFile(mode fs.FileMode) *reason.Refusal {
	kind := "special file"
	switch {
	case mode&fs.ModeDir != 0:
		kind = "directory"
	case mode&fs.ModeSymlink != 0:
		kind = "symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		kind = "FIFO"
	case mode&fs.ModeSocket != 0:
		kind = "socket"
	case mode&fs.ModeDevice != 0:
		kind = "device"
	}
	return reason.New(reason.NotAFile, "drop a regular file", "this is a %s", kind)
}

// readWhole reads a file that was info when it was opened, or fails with
// errChanging.
func readWhole(f durable.File, info durable.Info) ([]byte, error) {
	b, err := durable.ReadAll(f, info.Size)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != info.Size || !after.Same(info) {
		return nil, errChanging
	}
	return b, nil
}

// archiveDir is the directory to which requests are retired at present:
// archive/<company>/<day>/<time>. It needs no sync of its own: a request that is
// moved there before the directory is durable is lost from it together with it,
// and is then still in work/. anew says that the handle is not to be trusted.
func (c *company) archiveDir(now time.Time, anew bool) (durable.Dir, error) {
	now = now.UTC()
	dayName := now.Format("2006-01-02")
	if !anew && c.day != nil && c.dayName == dayName && c.dayCount < archivePortion {
		c.dayCount++
		return c.day, nil
	}
	day, err := subMakeLazy(c.archive, dayName)
	if err != nil {
		return nil, err
	}
	defer day.Close()
	d, err := subMakeLazy(day, now.Format("150405"))
	if err != nil {
		return nil, err
	}
	if c.day != nil {
		c.day.Close()
	}
	c.day, c.dayName, c.dayCount = d, dayName, 1
	return d, nil
}

func subMakeLazy(d durable.Dir, name string) (durable.Dir, error) {
	sub, err := d.Sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	if err := d.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return d.Sub(name)
}
