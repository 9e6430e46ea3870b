package spool

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/appliance/reason"
	"signdrop/spool/durable"
)

// company is one partner's set of directories. Their handles are open while
// somebody needs them and a while longer; see handles.go.
type company struct {
	spool *Spool
	name  string
	root  durable.Dir // the data directory

	// Guarded by Spool.mu.
	pins   int           // who needs the handles: items that are out, a walk, a look
	place  *list.Element // among those that have handles, nil without
	gone   bool          // no longer named: its handles close with the last pin
	listed bool          // among those that Next walks through

	// mu is held for reading while a handle is in use, for writing while
	// handles are opened, closed, or exchanged because a directory was replaced. Who
	// holds it has a pin.
	mu                       sync.RWMutex
	inbox, outbox, rejected  durable.Dir
	inInfo, outInfo, rejInfo durable.Info // as they were last opened
	looked                   time.Time    // when that was
	gid                      uint32       // group of the outbox
	foreign                  bool         // new files do not get that group by themselves

	// work is made when it is first needed. It stays the same while a claimed item
	// is out, which reads it without the lock.
	workMu sync.Mutex
	work   durable.Dir

	archiveMu sync.Mutex  // guards the following; held while something is put there
	archive   durable.Dir // made when it is first needed
	day       durable.Dir // where retired requests go at present
	dayName   string
	dayCount  int

	// Owned by Next.
	walk    durable.Entries // nil: the next call begins one
	round   int             // Spool.round when the walk began
	began   time.Time       // when the walk began
	at      durable.Info    // what the inbox was then
	waiting bool            // it has seen something that may become ready

	// seen holds what waits in the inbox although it looks complete, so that
	// it is not read again before it changes or is due. Owned by Next and
	// Return.
	seenMu sync.Mutex
	seen   map[string]seen
	quiet  durable.Info // of an inbox in which nothing waits, zero if that is not known

	labels labels // of the further signatures in the inbox
}

type seen struct {
	file   durable.Info
	sigs   []sigFile
	looked time.Time
}

// again is how soon an item that was due and could not be dealt with is looked at
// once more, although it has not changed; and how long the directories of a company
// are taken for those that were opened.
const again = time.Second

// grain is more than the file system's clock may lag behind ours: a directory that
// was changed at a time that is so long ago shows each further change by another
// time.
const grain = time.Second

// maxSeen bounds the memory of one company's files that do not verify.
const maxSeen = 4096

// archivePortion is how many files go into one directory of the archive, so
// that no directory grows without end and adding to it stays cheap.
const archivePortion = 8192

// partnersDirs are what a company must have.
var partnersDirs = []string{"inbox", "outbox", "rejected"}

// openCompany says whether a company has its directories. It opens none of them.
func (s *Spool) openCompany(name string) (*company, error) {
	c := &company{spool: s, name: name, root: s.root}
	for _, what := range partnersDirs {
		info, err := s.partners.StatIn(name, what)
		if err == nil && !info.Mode.IsDir() {
			err = fmt.Errorf("%s: %w", what, durable.ErrNotRegular)
		}
		if err != nil {
			return nil, err
		}
		if what == "inbox" {
			c.inInfo = info // what a watcher may watch already
		}
	}
	return c, nil
}

// refresh opens the partner's directories, anew where they have been replaced
// since: a handle would otherwise go on looking at a directory that nobody
// writes to any more.
func (c *company) refresh() error {
	now := c.spool.cfg.Now()
	own, err := durable.SubPath(c.root, "spool", c.name)
	if err != nil {
		return err
	}
	defer own.Close()
	in, inInfo, err := openDir(own, "inbox")
	if err != nil {
		return err
	}
	out, outInfo, err := openDir(own, "outbox")
	if err != nil {
		in.Close()
		return err
	}
	rej, rejInfo, err := openDir(own, "rejected")
	if err != nil {
		in.Close()
		out.Close()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	replaced := c.inInfo.Ino != 0 && c.inInfo.Ino != inInfo.Ino
	// The group may have been changed in place: answers are given to it.
	same := c.inInfo.Ino == inInfo.Ino && c.outInfo.Ino == outInfo.Ino && c.rejInfo.Ino == rejInfo.Ino && c.gid == outInfo.GID
	c.inInfo, c.outInfo, c.rejInfo, c.looked = inInfo, outInfo, rejInfo, now
	if replaced {
		c.spool.noteReplaced(c.name)
	}
	if c.inbox != nil && same {
		return errors.Join(in.Close(), out.Close(), rej.Close())
	}
	for _, d := range []durable.Dir{c.inbox, c.outbox, c.rejected} {
		if d != nil {
			d.Close()
		}
	}
	c.inbox, c.outbox, c.rejected = in, out, rej
	c.labels.forget()
	c.gid = outInfo.GID
	c.foreign = c.spool.gid != outInfo.GID
	return nil
}

func openDir(in durable.Dir, name string) (durable.Dir, durable.Info, error) {
	d, err := in.Sub(name)
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

// makeWork opens work/<company> and makes it if need be. That needs no sync: a
// request that is moved there before the directory is durable is still in the inbox
// if that is lost.
func (c *company) makeWork() error {
	c.workMu.Lock()
	defer c.workMu.Unlock()
	if c.work != nil {
		return nil
	}
	var err error
	c.work, err = subMakeLazy(c.spool.work, c.name)
	return err
}

// next reads the next portion of the inbox. At the end of a walk it reports end,
// and the next call begins another; and quiet if nothing waits there, as far as one
// look at the directory can tell, so that it can be left alone for a while.
func (c *company) next(s *Spool) (part []durable.Entry, end, quiet bool, err error) {
	if c.walk == nil {
		if s.isQuiet(c) {
			return nil, true, true, nil
		}
		if err := s.beginWalk(c); err != nil {
			return nil, true, false, err
		}
	}
	part, err = c.walk.Next(portion)
	if err == nil {
		for _, e := range part {
			c.waiting = c.waiting || !Unfinished(e.Name)
		}
		return part, false, false, nil
	}
	if err == io.EOF {
		err, quiet = nil, c.settled()
	}
	s.endWalk(c)
	return nil, true, quiet, err
}

// settled notes, at the end of a complete walk, whether the inbox needs no further
// one until its times change. A change in the very grain of time in which the walk
// began would not show by them, so they must be older.
func (c *company) settled() bool {
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	last := max(c.at.MTime, c.at.CTime)
	if c.waiting || c.began.UnixNano()-last <= int64(grain) {
		c.quiet = durable.Info{}
		return false
	}
	c.quiet = c.at
	return true
}

// stir makes Next walk through the inbox again, whatever its times say.
func (c *company) stir() {
	c.seenMu.Lock()
	c.quiet = durable.Info{}
	c.seenMu.Unlock()
	c.spool.enlist(c)
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
	more, err := c.more(name)
	if err != nil {
		return nil, false, err
	}
	it, err = c.readIn(c.inbox, name, more)
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
func still(it *Item, now time.Time, wait time.Duration) bool { return it.Quiet(now) >= wait }

// remember notes that the item, as it is now, did not verify.
func (c *company) remember(it *Item, now time.Time) {
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	if len(c.seen) >= maxSeen {
		clear(c.seen) // they are read once more; no harm
	}
	if c.seen == nil {
		c.seen = map[string]seen{}
	}
	c.seen[it.Name] = seen{it.info, it.sigs, now}
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
		var sigs []sigFile
		sigs, err = c.statSigs(name)
		if err == nil && file == old.file && slices.Equal(sigs, old.sigs) {
			it := Item{info: file, sigs: sigs}
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

// target is the name under which a name of the inbox is looked at: a signature
// stands for the request that it belongs to.
func (c *company) target(name string) string {
	request, label, ok := sigOf(name)
	switch {
	case !ok, label != "" && !c.spool.cfg.Several(c.name):
		return name
	case label == "":
		return request
	}
	c.labels.add(request, label)
	if c.spool.out(c.name + "/" + request) {
		return request
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if _, err := c.inbox.Stat(request); errors.Is(err, fs.ErrNotExist) {
		return name // one of several that wait for it, each for itself
	}
	return request
}

// keyOf is what the item of a name in work/ is known by while it is out.
func keyOf(company, name string) string {
	if request, label, ok := sigOf(name); ok && label == "" {
		name = request
	}
	return company + "/" + name
}

// more lists the labels of a request's further signatures, one more than are
// allowed if there are too many.
func (c *company) more(name string) ([]string, error) {
	if _, typed := typeOf(DefaultTypes, name); !typed || !c.spool.cfg.Several(c.name) {
		return nil, nil
	}
	if err := c.labels.ensure(c.inbox); err != nil {
		return nil, err
	}
	return c.labels.get(name, maxMore+1), nil
}

// statSigs looks at a request's signatures in the inbox.
func (c *company) statSigs(name string) ([]sigFile, error) {
	more, err := c.more(name)
	if err != nil {
		return nil, err
	}
	var sigs []sigFile
	for _, label := range append([]string{""}, more...) {
		info, err := c.inbox.Stat(sigName(name, label))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sigs = append(sigs, sigFile{label, info})
	}
	return sigs, nil
}

func labelsOf(sigs []sigFile) []string {
	var list []string
	for _, f := range sigs {
		list = append(list, f.label)
	}
	return list
}

// readIn reads a name and its signatures in d, which is the inbox or work; more are
// the labels of those that may be there beside NAME.sig. It returns nil if the name
// is gone. What is wrong with the files themselves is the item's Refusal.
func (c *company) readIn(d durable.Dir, name string, more []string) (*Item, error) {
	it := &Item{Company: c.name, Name: name, co: c}
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
	// The signatures are read before the request: without one its bytes are not
	// needed.
	for i, label := range append([]string{""}, more...) {
		if i > 0 && label == "" {
			continue
		}
		if err := it.readSig(d, label); err != nil {
			return nil, err
		}
	}
	switch {
	case it.Refusal != nil:
		return it, nil
	case len(it.sigs) == 0:
		it.Refusal = reason.New(reason.SignatureMissing,
			"sign the file with ssh-keygen -Y sign -n request@signdrop and drop both",
			"no file %s%s came", name, SigSuffix)
		return it, nil
	case len(it.More) > maxMore:
		it.More = nil
		it.Refusal = reason.New(reason.TooLarge, fmt.Sprintf("%d further signatures are the limit", maxMore),
			"the file has more signatures than it may have")
		return it, nil
	}
	if it.Data, err = readWhole(f, info); err != nil {
		return nil, err
	}
	return it, nil
}

// readSig reads one of the item's signatures, if it is there.
func (it *Item) readSig(d durable.Dir, label string) error {
	f, refusal, info, err := open(d, sigName(it.Name, label), maxSig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if f != nil {
		defer f.Close()
	}
	it.sigs = append(it.sigs, sigFile{label, info})
	if it.Refusal == nil {
		it.Refusal = refusal
	}
	if it.Refusal != nil {
		it.Sig, it.More = nil, nil
		return nil
	}
	data, err := readWhole(f, info)
	if err != nil {
		return err
	}
	if label == "" {
		it.Sig = data
	} else {
		it.More = append(it.More, Signature{label, data})
	}
	return nil
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
	c.refuseName(it, info)
	return it, nil
}

// refuseName says what is wrong with a file whose name cannot be a request's. That
// of a further signature is one whose request is missing, or in other companies a
// name like any other; in both cases work/ must not take it for one that came with
// its request.
func (c *company) refuseName(it *Item, info durable.Info) {
	it.info = info
	request, label, ok := sigOf(it.Name)
	it.noFile = ok
	switch {
	case ok && (label == "" || c.spool.cfg.Several(c.name)):
		it.Refusal = signatureAlone(request)
	case info.Mode.Type() != 0:
		it.Refusal = notAFile(info.Mode)
	default:
		it.Refusal = reason.New(reason.NameNotAllowed,
			"use letters, digits, dot, dash and underscore, at most 200, ending in .json, .jsonl or .psbt",
			"the name is not one that a request may have")
	}
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
// and is then still in work/. anew says that the handles are not to be trusted.
func (c *company) archiveDir(now time.Time, anew bool) (durable.Dir, error) {
	now = now.UTC()
	dayName := now.Format("2006-01-02")
	if !anew && c.day != nil && c.dayName == dayName && c.dayCount < archivePortion {
		c.dayCount++
		return c.day, nil
	}
	if c.archive == nil || anew {
		archive, err := subMakeLazy(c.root, "archive")
		if err != nil {
			return nil, err
		}
		defer archive.Close()
		own, err := subMakeLazy(archive, c.name)
		if err != nil {
			return nil, err
		}
		if c.archive != nil {
			c.archive.Close()
		}
		c.archive = own
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
