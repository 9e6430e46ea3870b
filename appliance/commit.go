package appliance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// volume is the data volume. It counts the syncs that failed, whoever asked for
// them: the kernel tells of a lost page once, to one of those who sync at that
// moment, and the others must hear of it too.
type volume struct {
	durable.FS
	failed atomic.Uint64
}

func (v *volume) Sync() error {
	err := v.FS.Sync()
	if err != nil {
		v.failed.Add(1)
	}
	return err
}

// make writes the task's answer where nobody sees it.
func (a *Appliance) make(t *task) error {
	t.generation = a.vol.failed.Load()
	if t.kept && !t.refused {
		if err := a.keepAnswer(t); err != nil {
			return err
		}
	}
	err := a.spool.Make(t.it, t.refused, t.product, t.files...)
	t.made = err == nil
	return err
}

// unmake throws away what make wrote.
func (a *Appliance) unmake(t *task) {
	a.spool.Unmake(t.it)
	t.made = false
}

// commit puts a group of decided tasks on record, for good, and returns the tasks
// of earlier groups whose publication is for good now: they can be retired. An
// error is final: the appliance must stop.
func (a *Appliance) commit(group []*task) (done []*task, err error) {
	for failures := 0; ; {
		err := a.record(group)
		if err == nil {
			break
		}
		// Nothing of the group is visible. What was written is thrown away, as
		// after a failed sync nobody knows what the disk holds, and written anew.
		for _, t := range group {
			a.unmake(t)
		}
		if aerr := a.journal.Abandon(); aerr != nil {
			return nil, fmt.Errorf("%w; starting a new journal file: %w", err, aerr)
		}
		if errors.Is(err, durable.ErrNoSpace) {
			return nil, fmt.Errorf("recording: %w (make room and start again: the requests are kept)", err)
		}
		if failures++; failures > 1 {
			return nil, fmt.Errorf("recording, a second time: %w", err)
		}
		a.log.Error().Err(err).Msg("recording failed; doing it once more, to new files")
	}
	a.counts.Groups++
	a.journal.Synced()
	for _, t := range group {
		for _, ap := range t.approvals {
			ap.Release()
		}
		a.digests.release(t)
		if t.noted {
			a.forgetNote(t)
		}
		a.count(t)
	}
	done, a.published = a.published, nil
	return done, nil
}

// record makes the answers that are not made yet, writes the journal and makes
// both durable.
//
// Crash: before the sync has returned, the answers are files in work/.made, which
// the next start removes, and the journal has a torn tail or whole entries. The
// requests are in work/ and are answered again: from the journal where it has the
// entries, anew where it has not.
func (a *Appliance) record(group []*task) error {
	failed := a.vol.failed.Load()
	var events []*journal.Event
	for _, t := range group {
		if t.made && t.generation != failed {
			// A sync failed since it was written, and may have lost it.
			a.unmake(t)
		}
		if !t.made {
			if err := a.make(t); err != nil {
				return err
			}
		}
		events = append(events, t.events...)
	}
	if len(events) > 0 {
		if err := a.journal.Write(events); err != nil {
			return err
		}
	}
	return a.syncSince(failed)
}

// sync makes durable what was written before.
func (a *Appliance) sync() error { return a.syncSince(a.vol.failed.Load()) }

// syncSince is sync for what was written since so many syncs had failed.
func (a *Appliance) syncSince(failed uint64) error {
	a.counts.Syncs++
	err := a.vol.Sync()
	if err == nil && a.vol.failed.Load() != failed {
		err = errors.New("another sync has failed meanwhile")
	}
	return err
}

// publish makes the answers visible. It returns what has to be recorded anew,
// since another answer has taken the name. One goroutine at a time publishes, and
// nothing is synced meanwhile but new wallets and further files.
//
// Further files are durable before the first answer of the group is visible, so
// that no power cut can leave an answer that names what is not there. That takes one
// more sync for a group that has some.
//
// Crash: some are visible and some are not; all are on record. The requests are in
// work/ and are answered again with the same bytes.
func (a *Appliance) publish(group []*task) (again []*task) {
	errs := make([]error, len(group))
	laid := false
	for i, t := range group {
		var any bool
		any, errs[i] = a.spool.Lay(t.it)
		laid = laid || any
	}
	if laid {
		if err := a.sync(); err != nil {
			a.fail(fmt.Errorf("syncing further files of answers: %w", err))
			return nil // nothing of the group is retired: the next start publishes it
		}
	}
	for i, t := range group {
		err := errs[i]
		if err == nil {
			err = a.spool.Publish(t.it)
		}
		switch {
		case err == nil:
			a.published = append(a.published, t)
		case errors.Is(err, spool.ErrTaken):
			// On record, and kept back: the partner gets it by asking again
			// under another name.
			a.unmake(t)
			u := &task{it: t.it, digest: t.digest, size: t.size}
			u.refuse(nil, "", nameTaken())
			again = append(again, u)
		default:
			// The outbox is out of order or out of room; the others are not.
			a.log.Error().Err(err).Str("company", t.it.Company).Str("name", t.it.SafeName()).
				Msg("answer cannot be published; trying again")
			a.stuck = append(a.stuck, t)
		}
	}
	a.counts.Stuck = len(a.stuck)
	return again
}

// settle makes what was published durable, without a group, and returns the tasks
// that can be retired.
func (a *Appliance) settle() (done []*task, err error) {
	if len(a.published) == 0 {
		return nil, nil
	}
	if err = a.sync(); err != nil {
		// What was published may be lost with the next power cut, so nothing is
		// retired: the next start publishes it again.
		return nil, fmt.Errorf("syncing what was published: %w", err)
	}
	done, a.published = a.published, nil
	return done, nil
}

// retire puts away requests whose answers are visible for good.
func (a *Appliance) retire(done []*task) error {
	for _, t := range done {
		if err := a.spool.Retire(t.it, hex.EncodeToString(t.digest[:8])); err != nil {
			return err
		}
	}
	return nil
}

func (a *Appliance) count(t *task) {
	l := a.log.Debug()
	if t.refused {
		a.counts.Refused++
		l = a.log.Info()
	} else {
		a.counts.Answered++
	}
	for _, ev := range t.events {
		if ev.Signature != "" {
			a.counts.Signed++
		}
	}
	l = l.Str("company", t.it.Company).Str("name", t.it.SafeName())
	if n := len(t.events); n > 0 {
		ev := t.events[n-1]
		l = l.Str("verdict", ev.Kind).Str("by", ev.By).Str("code", ev.Code)
		if ev.Code != "" && !reason.Final(reason.Code(ev.Code)) {
			l = l.Bool("retry", true)
		}
	}
	l.Msg("file done")
}

func (a *Appliance) logRecovery(r *journal.Recovery) {
	a.log.Info().Interface("journal", r).Time("at", a.cfg.Now().Truncate(time.Second)).Msg("journal is in order")
}
