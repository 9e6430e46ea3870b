package door

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"signdrop/spool"
	"signdrop/spool/durable"
)

// The directories of a company, as partners see them.
const (
	boxInbox    = "inbox"
	boxOutbox   = "outbox"
	boxRejected = "rejected"
)

var boxes = []string{boxInbox, boxOutbox, boxRejected}

// hidden begins the name of an unfinished upload on disk.
const hidden = ".door-"

// Limits of names, in bytes: of what may become a request or its signature, and of
// what an uploader may call a file meanwhile.
const (
	maxFinished   = 204
	maxUnfinished = 240
)

// checkName refuses names that no request may have and no uploader needs. The
// spool would refuse them later; here the partner is told at once.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return errNoFile
	case strings.HasPrefix(name, hidden):
		return errDenied
	case len(name) > maxUnfinished:
		return refuse(errDenied.status, "the name is longer than %d bytes", maxUnfinished)
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < ' ' || c > '~' || c == '/' {
			return refuse(errDenied.status, "the name has characters beyond printable ASCII")
		}
	}
	if spool.Unfinished(name) {
		return nil
	}
	if len(name) > maxFinished {
		return refuse(errDenied.status, "the name is longer than %d bytes", maxFinished)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return refuse(errDenied.status, "a request's name has letters, digits, dot, dash and underscore only")
		}
	}
	return nil
}

// room is the state of one company that its sessions share.
type room struct {
	srv     *server
	company string
	usage   usage
	handles atomic.Int64

	// mu is held while names of the inbox are looked at and changed. It is taken
	// before an upload's own lock.
	mu      sync.Mutex
	uploads map[string]*upload // that are open, by name
	recent  map[string]recent  // that were accepted lately, by name
	// held are the uploads whose handle a client has, also those that somebody else
	// has ended.
	held map[*upload]bool
}

// recent is what stat tells of a file that the appliance may have taken already.
type recent struct {
	size  int64
	mtime int64 // nanoseconds since 1970
	from  string
	until time.Time
}

// maxRecent bounds the memory for names that were accepted.
const maxRecent = 4096

func newRoom(s *server, company string) *room {
	return &room{
		srv: s, company: company, uploads: map[string]*upload{}, recent: map[string]recent{}, held: map[*upload]bool{},
		usage: usage{maxBytes: s.set.MaxBytes, maxFiles: s.set.MaxFiles},
	}
}

// accepted remembers a name that a partner has just finished. Called with mu.
func (r *room) accepted(name, from string, info durable.Info) {
	now := r.srv.now()
	if len(r.recent) >= maxRecent {
		for n, e := range r.recent {
			if now.After(e.until) {
				delete(r.recent, n)
			}
		}
		if len(r.recent) >= maxRecent {
			clear(r.recent)
		}
	}
	r.recent[name] = recent{info.Size, info.MTime, from, now.Add(r.srv.set.Recent)}
}

// lately returns a name that was accepted lately. Called with mu.
func (r *room) lately(name string) (recent, bool) {
	e, ok := r.recent[name]
	return e, ok && r.srv.now().Before(e.until)
}

// begin opens an upload.
func (r *room) begin(t *tree, name string, f openFlags) (*upload, error) {
	if err := r.srv.space.check(); err != nil {
		return nil, err
	}
	inbox := t.dirs[boxInbox]
	r.mu.Lock()
	defer r.mu.Unlock()
	finished, err := regular(inbox, name)
	if err != nil {
		return nil, err
	}
	part, err := regular(inbox, hidden+name)
	if err != nil {
		return nil, err
	}
	old := r.uploads[name]
	left := old != nil || resumable(part)
	if f.excl && (finished != nil || left) {
		return nil, errExists
	}
	if !f.create && finished == nil && !left {
		return nil, errNoFile
	}
	// Whoever begins anew means that the earlier upload is dead: its connection
	// may hang for long before it is known to be.
	if old != nil {
		delete(r.uploads, name)
		old.abandon(errTaken)
		if finished, err = regular(inbox, name); err != nil {
			return nil, err
		}
		if part, err = regular(inbox, hidden+name); err != nil {
			return nil, err
		}
	}
	u := &upload{room: r, tree: t, inbox: inbox, name: name, excl: f.excl}
	if f.trunc || finished == nil && !resumable(part) {
		err = u.create(part)
	} else {
		err = u.resume(finished, part)
	}
	if err != nil {
		return nil, err
	}
	if f.append {
		// OpenSSH's reput asks to append and gives offsets nevertheless; a client
		// that counts from where the file ended would overwrite it.
		u.least = u.size
	}
	r.uploads[name] = u
	r.held[u] = true
	return u, nil
}

// openFlags are the flags of SSH_FXP_OPEN that matter for an upload.
type openFlags struct{ create, trunc, excl, append bool }

// regular describes a regular file, nil where there is none of that name.
func regular(d durable.Dir, name string) (*durable.Info, error) {
	info, err := d.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode.IsRegular() {
		return nil, errDenied
	}
	return &info, nil
}

// newer reports whether what an upload left is newer than the file that waits under
// its name.
func newer(part, finished *durable.Info) bool {
	return resumable(part) && (finished == nil || part.CTime >= finished.CTime)
}

// open reports whether somebody is uploading name.
func (r *room) open(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uploads[name] != nil
}

// stat describes a name of the inbox as the partner sees it: what an upload would go
// on with, or what was accepted a moment ago.
func (r *room) stat(inbox durable.Dir, name string) (info durable.Info, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	finished, err := regular(inbox, name)
	if err != nil {
		return info, err
	}
	part, err := regular(inbox, hidden+name)
	if err != nil {
		return info, err
	}
	u := r.uploads[name]
	switch {
	case part != nil && (u != nil && !u.untouched.Load() || newer(part, finished)):
		return *part, nil
	case finished != nil:
		return *finished, nil
	}
	if e, ok := r.lately(name); ok {
		return durable.Info{Mode: 0o640, Size: e.size, MTime: e.mtime}, nil
	}
	return info, errNoFile
}

// remove removes a name of the inbox, finished or not.
func (r *room) remove(inbox durable.Dir, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.uploads[name]; u != nil {
		delete(r.uploads, name)
		u.abandon(refuse(errDenied.status, "the file has been removed"))
	}
	removed := false
	for _, n := range []string{name, hidden + name} {
		info, err := regular(inbox, n)
		if err == nil && info != nil {
			err = inbox.Remove(n)
			removed = removed || err == nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.usage.stale()
	if !removed {
		return errNoFile
	}
	return nil
}

// rename renames within the inbox. What was not uploaded to the end keeps its name:
// under another it would be taken for whole.
func (r *room) rename(inbox durable.Dir, from, to string, replace bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uploads[from] != nil || r.uploads[to] != nil {
		return errBusy
	}
	info, err := regular(inbox, from)
	if err != nil {
		return err
	}
	if info == nil {
		return r.renameMissing(inbox, from, to)
	}
	if from == to {
		return nil
	}
	if there, err := regular(inbox, to); err != nil {
		return err
	} else if there != nil && replace {
		err = inbox.Replace(from, to)
		if err != nil {
			return err
		}
	} else if err := inbox.Move(from, inbox, to); err != nil {
		return err
	}
	r.accepted(to, from, *info)
	delete(r.recent, from)
	// An unfinished upload under the new name is obsolete.
	if err := inbox.Remove(hidden + to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Crash before this: the file has one of its two names, whole.
	return inbox.Sync()
}

// renameMissing answers a rename whose source is not there. A client that lost the
// answer to its first try asks again, and is told that it is done.
func (r *room) renameMissing(inbox durable.Dir, from, to string) error {
	if e, ok := r.lately(to); ok && e.from == from {
		return inbox.Sync()
	}
	part, err := regular(inbox, hidden+from)
	if err != nil {
		return err
	}
	if resumable(part) {
		return refuse(errDenied.status, "the upload of this file was cut off: upload it again or resume it")
	}
	return errNoFile
}

// sync makes the open uploads of a session durable so far. It fails if another
// session has ended one of them.
func (r *room) sync(t *tree) error {
	r.mu.Lock()
	var mine []*upload
	for u := range r.held {
		if u.tree == t {
			mine = append(mine, u)
		}
	}
	r.mu.Unlock()
	for _, u := range mine {
		if err := u.flush(); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what earlier uploads left, when it has not changed for keep.
func (r *room) sweep(inbox durable.Dir, now time.Time, keep time.Duration) (removed int, err error) {
	err = durable.Walk(inbox, func(e durable.Entry) error {
		name, ok := strings.CutPrefix(e.Name, hidden)
		if !ok {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		info, err := inbox.Stat(e.Name)
		if err != nil || r.uploads[name] != nil || !info.Mode.IsRegular() || now.UnixNano()-info.CTime < int64(keep) {
			return nil
		}
		if err := inbox.Remove(e.Name); err != nil {
			return err
		}
		removed++
		return nil
	})
	r.usage.stale()
	return removed, err
}

// sweep removes the unfinished uploads of all companies that nobody resumed.
func (s *server) sweep(now time.Time) {
	top, err := s.vol.Root()
	if err != nil {
		s.quiet.Error().Err(err).Msg("SFTP door: looking for unfinished uploads")
		return
	}
	defer top.Close()
	// Also of those that may not log in any more.
	var names []string
	err = durable.Walk(top, func(e durable.Entry) error {
		if e.Type.IsDir() || e.Type == fs.ModeIrregular {
			names = append(names, e.Name)
		}
		return nil
	})
	if err != nil {
		s.quiet.Error().Err(err).Msg("SFTP door: looking for unfinished uploads")
	}
	for _, n := range names {
		inbox, err := durable.SubPath(top, n, boxInbox)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrNotRegular) {
			continue
		}
		removed := 0
		if err == nil {
			removed, err = s.room(n).sweep(inbox, now, s.set.Keep)
			inbox.Close()
		}
		if err != nil {
			s.quiet.Error().Str("company", n).Err(err).Msg("SFTP door: looking for unfinished uploads")
		}
		if removed > 0 {
			s.log.Info().Str("company", n).Int("files", removed).Msg("SFTP door: unfinished uploads removed")
		}
	}
}
