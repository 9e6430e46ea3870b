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
	poll        = time.Second // where there are no events, after a few times
	pollFirst   = 100 * time.Millisecond
	pollBesides = 5 * time.Second
)

// waiter looks for the answers to the parcels that have no verdict yet.
type waiter struct {
	*submit
	rejected *rejectedNames
	byAnswer map[string]*parcel // by name in the outbox
	left     int
}

// await settles the parcels as their verdicts come, until there are none left or
// ctx is done.
func (s *submit) await(ctx context.Context, rejected *rejectedNames) error {
	w := &waiter{submit: s, rejected: rejected, byAnswer: map[string]*parcel{}}
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
	s.site.until(ctx)
	every, most := pollFirst, poll
	var events chan fsnotify.Event
	var troubles chan error
	if s.site.events() {
		if fw, err := fsnotify.NewBufferedWatcher(4096); err == nil {
			defer fw.Close()
			if errors.Join(fw.Add(s.site.path(boxOutbox, "")), fw.Add(s.site.path(boxRejected, ""))) == nil {
				events, troubles, every, most = fw.Events, fw.Errors, pollBesides, pollBesides
			}
		}
	}
	s.bar.begin("files answered")
	w.show()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for err := w.list(); w.left > 0; {
		if ctx.Err() != nil {
			w.giveUp() // whatever was under way was ended by that
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case ev := <-events:
			if ev.Has(fsnotify.Create) {
				err = w.look(filepath.Base(filepath.Dir(ev.Name)), filepath.Base(ev.Name))
			}
		case <-troubles:
			err = w.list() // events were lost
		case <-tick.C:
			err = w.list()
			every = min(2*every, most)
			tick.Reset(every)
		}
	}
	return nil
}

// list looks at all names that lie there.
func (w *waiter) list() error {
	for _, box := range []string{boxOutbox, boxRejected} {
		if err := w.site.each(box, func(name string) error { return w.look(box, name) }); err != nil {
			return fmt.Errorf("looking for answers: %w", err)
		}
	}
	return nil
}

// look settles the parcel whose verdict a name is, if it is one.
func (w *waiter) look(box, name string) error {
	if box == boxOutbox {
		p := w.byAnswer[name]
		if p == nil || p.verdict != pending {
			return nil
		}
		digest, err := digestIn(w.site, box, name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && digest != p.digest {
			return nil
		}
		if err != nil {
			return err
		}
		w.found(p, answered, box, name)
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
		a, err := w.rejected.read(p, reason)
		if err != nil {
			return err
		}
		if a != nil && !(isCopy && a.Request == "") {
			w.found(p, refused, box, reason)
		}
	}
	return nil
}

func (w *waiter) found(p *parcel, v verdict, box, name string) {
	w.left--
	w.read(p, v, box, name)
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
