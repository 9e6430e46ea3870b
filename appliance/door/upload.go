package door

import (
	"errors"
	"io/fs"
	"math"
	"sync"

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

	mu   sync.Mutex
	file durable.File // nil once it is closed
	got  extents      // which bytes are there
	size int64        // the end of the last byte
	err  error        // why it cannot be finished any more
	cut  bool         // the connection was lost
}

// create begins an upload from nothing. part is what an earlier one left.
func (u *upload) create(part *durable.Info) error {
	if part != nil {
		if err := u.inbox.Remove(hidden + u.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		u.room.usage.stale()
	}
	if err := u.room.usage.take(u.inbox, 0, 1); err != nil {
		return err
	}
	f, err := u.inbox.Create(hidden+u.name, 0o640)
	u.file = f
	return err
}

// resume goes on with what an earlier upload left, or with a file that waits, which
// is taken back first: while it grows it must not be taken for whole. If the
// appliance was quicker there is no such file any more.
func (u *upload) resume(finished, part *durable.Info) error {
	if !newer(part, finished) {
		if part != nil {
			if err := u.inbox.Remove(hidden + u.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := u.inbox.Move(u.name, u.inbox, hidden+u.name); err != nil {
			return err
		}
	}
	f, err := u.inbox.OpenWrite(hidden + u.name)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	u.file, u.size = f, info.Size
	u.got.add(0, info.Size)
	return nil
}

// WriteAt implements io.WriterAt. Writes come in any order and from several
// goroutines.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
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
	end := off + int64(len(p))
	if end > u.size {
		if err := u.room.srv.space.check(); err != nil {
			return 0, err
		}
		if err := u.room.usage.take(u.inbox, end-u.size, 0); err != nil {
			return 0, err
		}
		u.size = end
	}
	n, err := u.file.WriteAt(p, off)
	if err == nil && !u.got.add(off, end) {
		err = refuse(sftp.ErrSSHFxFailure, "the file is written in too many pieces")
	}
	return n, err
}

// flush makes what was written durable.
func (u *upload) flush() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file == nil || u.err != nil {
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
	if err != nil || whole == 0 {
		u.discard()
		return
	}
	u.file.Close()
	u.file = nil
	u.room.usage.stale()
}

// Close finishes the upload: when it returns nil the file lies in the inbox for
// good. Otherwise nothing of it is visible to the appliance.
func (u *upload) Close() error {
	defer u.released()
	info, err := u.finish()
	r := u.room
	r.mu.Lock()
	if r.uploads[u.name] != u {
		r.mu.Unlock()
		if err == nil {
			err = errTaken
		}
		return err
	}
	delete(r.uploads, u.name)
	if err == nil {
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
