package door

import (
	"errors"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pkg/sftp"

	"signdrop/spool/durable"
)

// upload is one file that a client writes. It implements io.WriterAt, io.Closer and
// sftp.TransferError.
type upload struct {
	room  *room
	tree  *tree
	inbox durable.Dir
	name  string
	excl  bool
	least int64 // nothing before this may be written
	// released gives the handle back.
	released func()

	// untouched says that nothing has been written yet to what is resumed: it lies
	// where it lay. It changes with mu; for what waits, with the room's lock too.
	untouched atomic.Bool

	mu    sync.Mutex
	file  durable.File  // nil once it is closed
	waits *durable.Info // the file that waits under name, to be taken back at the first write
	taken bool          // it has been taken back
	wrote bool          // something was written
	got   extents       // which bytes are there
	size  int64         // the end of the last byte
	err   error         // why it cannot be finished any more
	cut   bool          // the connection was lost
}

// Modes of an unfinished upload. One that is written may have holes of which nobody
// knows after a SIGKILL: only what keep has cut and synced can be resumed.
const (
	written  = 0o600
	finished = 0o640
)

// resumable reports whether an upload may go on with part. nil is no part.
func resumable(part *durable.Info) bool {
	return part != nil && part.Mode.Perm()&0o040 != 0
}

// chmod sets the mode of f where the file system has modes.
func chmod(f durable.File, perm fs.FileMode) error {
	if c, ok := f.(durable.Cutter); ok {
		return c.Chmod(perm)
	}
	return nil
}

// create begins an upload from nothing. part is what an earlier one left.
func (u *upload) create(part *durable.Info) error {
	more := 1
	if part != nil {
		more = 0
	}
	if err := u.room.usage.take(u.inbox, 0, more); err != nil {
		return err
	}
	if part != nil {
		if err := u.inbox.Remove(hidden + u.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		u.room.usage.stale()
	}
	f, err := u.inbox.Create(hidden+u.name, written)
	u.file = f
	return err
}

// resume goes on with what an earlier upload left, or with a file that waits. Until
// something is written nothing changes: a connection that is cut before leaves a
// request where the appliance finds it.
func (u *upload) resume(whole, part *durable.Info) error {
	name, want := hidden+u.name, part
	if !newer(part, whole) {
		name, want, u.waits = u.name, whole, whole
	}
	f, err := u.inbox.OpenWrite(name)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Ino != want.Ino {
		err = errNoFile // exchanged at this moment
	}
	if err != nil {
		f.Close()
		return err
	}
	u.file, u.size = f, info.Size
	u.got.add(0, info.Size)
	u.untouched.Store(true)
	return nil
}

// touch comes before the first write to what is resumed. A file that waits is taken
// back: while it grows it must not be taken for whole. If the appliance was quicker
// there is no such file any more. Called with the room's lock and u.mu.
//
// Crash: the file is hidden and whole, as an upload that was cut off is.
func (u *upload) touch() error {
	if u.waits != nil {
		// An unfinished upload that is older than the file is obsolete.
		if err := u.inbox.MoveOver(u.name, u.inbox, hidden+u.name); err != nil {
			return err
		}
		info, err := u.inbox.Stat(hidden + u.name)
		if err == nil && info.Ino != u.waits.Ino {
			err = errNoFile
		}
		if err == nil {
			err = chmod(u.file, written)
		}
		if err != nil {
			return errors.Join(err, u.inbox.Move(hidden+u.name, u.inbox, u.name))
		}
		u.taken = true
	} else if err := chmod(u.file, written); err != nil {
		return err
	}
	u.untouched.Store(false)
	return nil
}

// WriteAt implements io.WriterAt. Writes come in any order and from several
// goroutines.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	if u.untouched.Load() {
		u.room.mu.Lock()
		defer u.room.mu.Unlock()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return 0, u.err
	}
	if u.file == nil {
		return 0, errNoFile
	}
	n, err := u.write(p, off)
	if err != nil {
		// Clients that do not look at every answer close the file as if
		// nothing had been: it must not be taken for whole.
		u.err = u.tree.tell(err)
	}
	return n, u.err
}

func (u *upload) write(p []byte, off int64) (int, error) {
	set := &u.room.srv.set
	if off < 0 || off > math.MaxInt64-int64(len(p)) || off+int64(len(p)) > set.MaxFile {
		return 0, refuse(sftp.ErrSSHFxFailure, "the file is larger than %d bytes", set.MaxFile)
	}
	if off < u.least {
		return 0, refuse(sftp.ErrSSHFxOpUnsupported, "to append, give the offset in the file")
	}
	if len(p) == 0 {
		return 0, nil
	}
	// Also of what lies before the end: there may be a hole that takes up room only
	// now.
	if err := u.room.srv.space.check(); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	if end > u.size {
		if err := u.room.usage.take(u.inbox, end-u.size, 0); err != nil {
			return 0, err
		}
	}
	if u.untouched.Load() {
		if err := u.touch(); err != nil {
			return 0, err
		}
	}
	u.size = max(u.size, end)
	n, err := u.file.WriteAt(p, off)
	u.wrote = u.wrote || n > 0
	if err == nil && !u.got.add(off, end) {
		err = refuse(sftp.ErrSSHFxFailure, "the file is written in too many pieces")
	}
	return n, err
}

// flush makes what was written durable.
func (u *upload) flush() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file == nil || u.err != nil || u.untouched.Load() {
		return u.err
	}
	if err := u.file.Sync(); err != nil {
		u.err = u.tree.tell(err)
		u.discard()
	}
	return u.err
}

// discard removes what came: after a failed sync any of it may be lost, and would
// seem to be there at the next one.
func (u *upload) discard() {
	u.file.Close()
	u.file = nil
	u.inbox.Remove(hidden + u.name)
	u.room.usage.stale()
}

// TransferError implements sftp.TransferError: the connection was lost, and Close
// comes next without the client having asked for it.
func (u *upload) TransferError(error) {
	u.mu.Lock()
	u.cut = true
	u.mu.Unlock()
}

// abandon ends an upload before its time and keeps what came of it. Called with the
// room's lock.
func (u *upload) abandon(why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = why
	}
	u.keep()
}

// keep closes the file and leaves of it what came without a gap, to be resumed. It
// is synced, so that what a later upload goes on with is what came. (A power cut
// before that may leave other bytes; then the request's signature does not verify.)
func (u *upload) keep() {
	if u.file == nil {
		return
	}
	if !u.wrote && (u.untouched.Load() || u.taken) {
		u.giveBack()
		return
	}
	whole := u.got.prefix()
	err := error(nil)
	if info, serr := u.file.Stat(); serr != nil || info.Size != whole {
		err = errors.New("it cannot be cut")
		if c, ok := u.file.(durable.Cutter); ok {
			err = c.Cut(whole)
		}
	}
	if err == nil && whole > 0 {
		err = u.file.Sync()
	}
	if err == nil && whole > 0 {
		err = chmod(u.file, finished)
	}
	if err != nil || whole == 0 {
		u.discard()
		return
	}
	u.file.Close()
	u.file = nil
	u.room.usage.stale()
}

// giveBack closes a file that was resumed and to which nothing was written, where it
// lay before.
func (u *upload) giveBack() {
	if u.taken {
		err := chmod(u.file, finished)
		if err == nil {
			err = u.inbox.Move(hidden+u.name, u.inbox, u.name)
		}
		if err != nil {
			u.tree.tell(err) // it can still be resumed
		}
	}
	u.file.Close()
	u.file = nil
}

// Close finishes the upload: when it returns nil the file lies in the inbox for
// good. Otherwise nothing of it is visible to the appliance, unless it was the sync
// of the directory that failed: then the file is there, and may not be any more after
// a power cut.
func (u *upload) Close() error {
	defer u.released()
	info, err := u.finish()
	r := u.room
	r.mu.Lock()
	delete(r.held, u)
	if r.uploads[u.name] != u {
		r.mu.Unlock()
		if err == nil {
			err = errTaken
		}
		return err
	}
	delete(r.uploads, u.name)
	if err == nil && (u.waits == nil || u.taken) {
		err = u.publish(info)
	}
	r.mu.Unlock()
	if err != nil {
		return u.tree.tell(err)
	}
	// Crash before this: the file is there under its name or its hidden one, and
	// the client does not know.
	if err := u.inbox.Sync(); err != nil {
		return u.tree.tell(err)
	}
	u.tree.sn.log.Info().Str("file", u.name).Int64("bytes", info.Size).Msg("SFTP upload")
	return nil
}

// finish makes the file's data durable and closes it.
func (u *upload) finish() (durable.Info, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil && u.cut {
		u.err = errors.New("the connection was lost")
	}
	if whole := u.got.prefix(); u.err == nil && whole != u.size {
		u.err = refuse(sftp.ErrSSHFxFailure, "the bytes from %d on were not all written", whole)
	}
	if u.err != nil || u.file == nil {
		u.keep()
		return durable.Info{}, u.err
	}
	info, err := u.file.Stat()
	if u.untouched.Load() && u.waits != nil {
		u.giveBack()
		return info, err
	}
	if err == nil {
		err = chmod(u.file, finished)
	}
	if err == nil {
		err = u.file.Sync()
	}
	if err != nil {
		u.err = u.tree.tell(err)
		u.discard()
		return durable.Info{}, u.err
	}
	err = u.file.Close()
	u.file = nil
	if err != nil {
		u.err = u.tree.tell(err)
		u.inbox.Remove(hidden + u.name)
	}
	return info, u.err
}

// publish gives the file its name in one step. Called with the room's lock.
func (u *upload) publish(info durable.Info) error {
	var err error
	if u.excl {
		err = u.inbox.Move(hidden+u.name, u.inbox, u.name)
	} else {
		err = u.inbox.Replace(hidden+u.name, u.name)
	}
	if err != nil {
		return err
	}
	u.room.accepted(u.name, "", info)
	return nil
}

// extents are the parts of a file that have been written: from, to, from, to, …,
// sorted, with gaps in between.
type extents struct{ ends []int64 }

// maxExtents bounds how scattered a file may be while it is written.
const maxExtents = 1024

// add notes the bytes from to to, exclusive. It reports false when there are too
// many gaps.
func (e *extents) add(from, to int64) bool {
	if from >= to {
		return true
	}
	// Most writes go on where the last one ended.
	if n := len(e.ends); n > 0 && e.ends[n-1] == from {
		e.ends[n-1] = to
		return true
	}
	out := make([]int64, 0, len(e.ends)+2)
	i := 0
	for ; i < len(e.ends) && e.ends[i+1] < from; i += 2 {
		out = append(out, e.ends[i], e.ends[i+1])
	}
	for ; i < len(e.ends) && e.ends[i] <= to; i += 2 {
		from, to = min(from, e.ends[i]), max(to, e.ends[i+1])
	}
	out = append(append(out, from, to), e.ends[i:]...)
	e.ends = out
	return len(e.ends) <= 2*maxExtents
}

// prefix is how many bytes there are from the beginning without a gap.
func (e *extents) prefix() int64 {
	if len(e.ends) == 0 || e.ends[0] != 0 {
		return 0
	}
	return e.ends[1]
}
