package spool

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
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
}

// Watch starts to watch inboxes below the data directory; Cover says which. wake
// is called, from another goroutine, when Next has something to look at. It must
// not block.
func Watch(s *Spool, data string, wake func()) (*Watcher, error) {
	fw, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		return nil, fmt.Errorf("starting to watch: %w", err)
	}
	w := &Watcher{spool: s, data: data, wake: wake, w: fw}
	w.done.Add(1)
	go w.run()
	return w, nil
}

// Cover makes sure that the inboxes of exactly these companies are watched, also
// where one was replaced since it was last called: a dead watch says nothing of
// its death. It is cheap and meant to be called before each walk.
func (w *Watcher) Cover(companies []string) error {
	var errs []error
	want := map[string]bool{}
	for _, c := range companies {
		want[w.inbox(c)] = true
		// Add renews the watch; for a directory that is watched already the
		// kernel answers with the same watch.
		if err := w.w.Add(w.inbox(c)); err != nil {
			errs = append(errs, fmt.Errorf("watching the inbox of company %s: %w", c, err))
		}
	}
	for _, p := range w.w.WatchList() {
		if !want[p] {
			w.w.Remove(p)
		}
	}
	return errors.Join(errs...)
}

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
			// Overflow, or something worse. Whatever it was, Next walks through
			// everything when the hints are used up.
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
