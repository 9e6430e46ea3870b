package appliance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// commit puts a group of decided tasks on record and publishes it. Tasks of
// earlier groups whose publication this makes durable are retired. An error is
// final: the appliance must stop.
func (a *Appliance) commit(group []*task) error {
	for failures := 0; ; {
		err := a.record(group)
		if err == nil {
			break
		}
		// Nothing of the group is visible. What was written is thrown away, as
		// after a failed sync nobody knows what the disk holds, and written anew.
		for _, t := range group {
			a.spool.Unmake(t.it)
		}
		if aerr := a.journal.Abandon(); aerr != nil {
			return fmt.Errorf("%w; starting a new journal file: %w", err, aerr)
		}
		if errors.Is(err, durable.ErrNoSpace) {
			return fmt.Errorf("recording: %w (make room and start again: the requests are kept)", err)
		}
		if failures++; failures > 1 {
			return fmt.Errorf("recording, a second time: %w", err)
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
		a.count(t)
	}
	// What was published before this group's sync is durable now.
	if err := a.retire(); err != nil {
		return err
	}
	return a.publish(group)
}

// record makes the answers, writes the journal and makes both durable.
//
// Crash: before the sync has returned, the answers are files in work/.made, which
// the next start removes, and the journal has a torn tail or whole entries. The
// requests are in work/ and are answered again: from the journal where it has the
// entries, anew where it has not.
func (a *Appliance) record(group []*task) error {
	var events []*journal.Event
	for _, t := range group {
		if err := a.spool.Make(t.it, t.refused, t.product); err != nil {
			return err
		}
		events = append(events, t.events...)
	}
	if len(events) > 0 {
		if err := a.journal.Write(events); err != nil {
			return err
		}
	}
	a.counts.Syncs++
	return a.vol.Sync()
}

// publish makes the answers visible.
//
// Crash: some are visible and some are not; all are on record. The requests are in
// work/ and are answered again with the same bytes.
func (a *Appliance) publish(group []*task) error {
	var again []*task
	for _, t := range group {
		err := a.spool.Publish(t.it)
		switch {
		case err == nil:
			a.published = append(a.published, t)
		case errors.Is(err, spool.ErrTaken):
			// On record, and kept back: the partner gets it by asking again
			// under another name.
			a.spool.Unmake(t.it)
			u := &task{it: t.it, digest: t.digest}
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
	if len(again) > 0 {
		return a.commit(again)
	}
	return nil
}

// settle makes what was published durable and retires it. It is called when
// nothing else is to be done.
func (a *Appliance) settle() error {
	if len(a.stuck) > 0 {
		stuck := a.stuck
		a.stuck = nil
		if err := a.publish(stuck); err != nil {
			return err
		}
	}
	if len(a.published) == 0 {
		return nil
	}
	a.counts.Syncs++
	if err := a.vol.Sync(); err != nil {
		// What was published may be lost with the next power cut, so nothing is
		// retired: the next start publishes it again.
		return fmt.Errorf("syncing what was published: %w", err)
	}
	return a.retire()
}

// retire puts away the requests whose answers are visible for good.
func (a *Appliance) retire() error {
	for i, t := range a.published {
		tag := hex.EncodeToString(t.digest[:8])
		if err := a.spool.Retire(t.it, tag); err != nil {
			a.published = a.published[i:]
			return err
		}
	}
	a.published = a.published[:0]
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
