package door

import (
	"sync"
	"time"

	"signdrop/spool/durable"
)

// usage is how much waits in one inbox. It is counted anew when it is old, and in
// between what uploads add is added. It is a limit for fairness and may be off by
// what comes within a moment; the reserve of the disk is what the appliance relies
// on.
type usage struct {
	maxBytes int64
	maxFiles int

	mu    sync.Mutex
	bytes int64
	files int
	at    time.Time
}

const (
	usageOld   = 2 * time.Second        // count again before relying on it
	usageFresh = 200 * time.Millisecond // do not count again before refusing
)

func (u *usage) stale() {
	u.mu.Lock()
	u.at = time.Time{}
	u.mu.Unlock()
}

// take adds to what waits, or refuses with errQuota.
func (u *usage) take(inbox durable.Dir, bytes int64, files int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.count(inbox, usageOld); err != nil {
		return err
	}
	if u.over(bytes, files) {
		if err := u.count(inbox, usageFresh); err != nil {
			return err
		}
		if u.over(bytes, files) {
			return errQuota
		}
	}
	u.bytes += bytes
	u.files += files
	return nil
}

func (u *usage) over(bytes int64, files int) bool {
	return u.bytes+bytes > u.maxBytes || u.files+files > u.maxFiles
}

// now returns what waits.
func (u *usage) now(inbox durable.Dir) (bytes int64, files int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err = u.count(inbox, usageFresh)
	return u.bytes, u.files, err
}

func (u *usage) count(inbox durable.Dir, old time.Duration) error {
	if time.Since(u.at) < old {
		return nil
	}
	var bytes int64
	files := 0
	err := durable.Walk(inbox, func(e durable.Entry) error {
		files++
		// Beyond the limit only that it is one matters.
		if files <= u.maxFiles {
			if info, err := inbox.Stat(e.Name); err == nil {
				bytes += info.Size
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.bytes, u.files, u.at = bytes, files, time.Now()
	return nil
}

// space watches over the reserve of the disk.
type space struct {
	vol     durable.FS
	reserve uint64

	mu    sync.Mutex
	at    time.Time
	space durable.Space
	err   error
}

// minInodes is twice what the appliance wants to have free.
const minInodes = 8192

// check refuses when the disk is nearly full.
func (s *space) check() error {
	sp, err := s.now()
	if err != nil {
		return err
	}
	if sp.Free < s.reserve || sp.Files != 0 && sp.Files < minInodes {
		return errNoSpace
	}
	return nil
}

func (s *space) now() (durable.Space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) > 100*time.Millisecond {
		s.space, s.err = s.vol.Space()
		s.at = time.Now()
	}
	return s.space, s.err
}
