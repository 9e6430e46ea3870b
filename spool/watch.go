package spool

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Watcher turns what the kernel tells of the inboxes into hints. It may miss
// anything at any time (inotify(7): the queue overflows, watches die with their
// directories, other machines' changes are not seen): the walks of Next are what
// makes the appliance right, hints only make it quick.
type Watcher struct {
	spool *Spool
	data  string // path of the data directory
	wake  func()
	w     *fsnotify.Watcher
	done  sync.WaitGroup
	renew atomic.Bool // events were lost, and with them perhaps the death of a watch
	full  bool        // the kernel allows no further watch; owned by Cover

	add func(path string) error // w.Add, but for tests
}

// Watch starts to watch inboxes below the data directory; Cover says which. wake
// is called, from another goroutine, when Next has something to look at. It must
// not block.
func Watch(s *Spool, data string, wake func()) (*Watcher, error) {
	fw, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		return nil, fmt.Errorf("starting to watch: %w", err)
	}
	w := &Watcher{spool: s, data: data, wake: wake, w: fw, add: fw.Add}
	w.done.Add(1)
	go w.run()
	return w, nil
}

// Cover makes sure that the inboxes of exactly these companies are watched, also
// where one was replaced since it was last called. It asks the kernel only for
// watches that there are not, so it is cheap and meant to be called before each walk.
//
// Where the kernel allows no further watch (fs.inotify.max_user_watches, ErrFull) it
// says so once; the inboxes that are not watched are walked through, and whether
// there is room again is tried with one of them at each call.
func (w *Watcher) Cover(companies []string) error {
	var errs []error
	replaced, renew := w.spool.takeReplaced(), w.renew.Swap(false)
	watched := map[string]bool{}
	for _, p := range w.w.WatchList() {
		watched[p] = true
	}
	want := make(map[string]bool, len(companies))
	for _, c := range companies {
		want[w.inbox(c)] = true
	}
	for p := range watched {
		if !want[p] {
			w.w.Remove(p)
		}
	}
	wasFull := w.full
	w.full = false
	for _, c := range companies {
		p := w.inbox(c)
		if !renew && !replaced[c] && watched[p] {
			continue
		}
		if w.full {
			if watched[p] {
				w.spool.noteReplaced(c) // to be renewed when there is room
			}
			continue
		}
		// For a directory that is watched already the kernel answers with the same
		// watch.
		err := w.add(p)
		switch {
		case errors.Is(err, unix.ENOSPC):
			w.full = true
			if !wasFull {
				errs = append(errs, fmt.Errorf("watching the inbox of company %s, and others: %w: raise fs.inotify.max_user_watches", c, ErrFull))
			}
		case err != nil:
			errs = append(errs, fmt.Errorf("watching the inbox of company %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// ErrFull: the kernel allows no further watch.
var ErrFull = errors.New("the kernel allows no further watch")

func (w *Watcher) inbox(company string) string {
	return filepath.Join(w.data, "spool", company, "inbox")
}

// run owns the watcher's channels until Close.
func (w *Watcher) run() {
	defer w.done.Done()
	for {
		select {
		case ev, ok := <-w.w.Events:
			if !ok {
				return
			}
			// What leaves the inbox needs no look; most of it leaves by our own hand.
			if !ev.Has(fsnotify.Create) && !ev.Has(fsnotify.Write) {
				continue
			}
			dir, name := filepath.Split(ev.Name)
			w.spool.Hint(filepath.Base(filepath.Dir(filepath.Clean(dir))), name)
			w.wake()
		case _, ok := <-w.w.Errors:
			if !ok {
				return
			}
			// Overflow, or something worse. Whatever it was, Next looks at
			// everything when the hints are used up.
			w.renew.Store(true)
			w.spool.lookAgain()
			w.wake()
		}
	}
}

// Close stops watching and waits for the goroutine to end.
func (w *Watcher) Close() error {
	err := w.w.Close()
	w.done.Wait()
	return err
}
