package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"signdrop/spool"
)

// How often the directories are listed. Events come at once, but not for what is
// mounted from elsewhere, and the kernel may lose some.
const (
	poll        = time.Second // where there are no events
	pollBesides = 5 * time.Second
)

// waiter looks for the answers to the parcels that have no verdict yet.
type waiter struct {
	*submit
	outbox   string
	rejected *rejectedNames
	byAnswer map[string]*parcel // by name in the outbox
	left     int
}

// await settles the parcels as their verdicts come, until there are none left or
// ctx is done.
func (s *submit) await(ctx context.Context, rejected *rejectedNames) error {
	w := &waiter{submit: s, outbox: filepath.Join(s.dir, "outbox"), rejected: rejected, byAnswer: map[string]*parcel{}}
	for _, p := range s.parcels {
		if p.verdict == pending {
			w.byAnswer[spool.AnswerName(p.name)] = p
			w.left++
		}
	}
	if w.left == 0 {
		return nil
	}
	// Watching begins before the first listing, so that nothing falls between. It
	// may not be possible here; polling goes on without it.
	every := poll
	var events chan fsnotify.Event
	var troubles chan error
	if fw, err := fsnotify.NewBufferedWatcher(4096); err == nil {
		defer fw.Close()
		if errors.Join(fw.Add(w.outbox), fw.Add(rejected.dir)) == nil {
			events, troubles, every = fw.Events, fw.Errors, pollBesides
		}
	}
	s.bar.begin("files answered")
	w.show()
	tick := time.NewTicker(every)
	defer tick.Stop()
	if err := w.list(); err != nil {
		return err
	}
	for w.left > 0 {
		var err error
		select {
		case <-ctx.Done():
			w.giveUp()
			return nil
		case ev := <-events:
			if ev.Has(fsnotify.Create) {
				err = w.look(filepath.Dir(ev.Name), filepath.Base(ev.Name))
			}
		case <-troubles:
			err = w.list() // events were lost
		case <-tick.C:
			err = w.list()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list looks at all names that lie there.
func (w *waiter) list() error {
	for _, dir := range []string{w.outbox, w.rejected.dir} {
		if err := eachName(dir, func(name string) error { return w.look(dir, name) }); err != nil {
			return fmt.Errorf("looking for answers: %w", err)
		}
	}
	return nil
}

// look settles the parcel whose verdict a name is, if it is one.
func (w *waiter) look(dir, name string) error {
	if dir == w.outbox {
		p := w.byAnswer[name]
		if p == nil || p.verdict != pending {
			return nil
		}
		path := filepath.Join(dir, name)
		digest, err := digestIn(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && digest != p.digest {
			return nil
		}
		if err != nil {
			return err
		}
		w.found(p, answered, path)
		return nil
	}
	if w.rejected.before[name] {
		return nil
	}
	// A copy that is new tells that its reason is meant anew, be it an old one. A
	// file that the appliance did not read, being too large for one, has no digest
	// in its reason; that must be new itself.
	reason, isCopy, of := w.rejected.about(name)
	for _, p := range of {
		if p.verdict != pending {
			continue
		}
		path, a, err := w.rejected.read(p, reason)
		if err != nil {
			return err
		}
		if path != "" && !(isCopy && a.Request == "") {
			w.found(p, refused, path)
		}
	}
	return nil
}

func (w *waiter) found(p *parcel, v verdict, path string) {
	w.left--
	w.read(p, v, path)
	w.show()
}

func (w *waiter) show() {
	note := ""
	if w.refused > 0 {
		note = fmt.Sprintf("%d refused", w.refused)
	}
	w.bar.set(int64(len(w.parcels)-w.left), note)
}

func (w *waiter) giveUp() {
	for _, p := range w.parcels {
		if p.verdict == pending {
			w.left--
			w.settle(p, waiting, "")
		}
	}
}
