package spool

import (
	"slices"

	"signdrop/spool/durable"
)

// A company with handles has up to six directories open. Of ten thousand companies
// few are busy at a time, so handles are opened when they are needed and closed when
// others are needed more.

// maxOpen is how many companies keep their handles although nobody needs them.
// Those that are pinned keep them in any case.
const maxOpen = 256

// maxWalks is how many inboxes are in the middle of a walk, each with a handle more.
// The walk that began first is given up then, and begun anew later.
const maxWalks = 64

// hold pins a company and opens its directories.
func (s *Spool) hold(c *company) error {
	s.mu.Lock()
	s.pin(c)
	s.mu.Unlock()
	c.mu.RLock()
	open := c.inbox != nil
	c.mu.RUnlock()
	if open {
		return nil
	}
	if err := c.refresh(); err != nil {
		s.letGo(c)
		return err
	}
	return nil
}

// letGo ends what hold began. c.mu is not held.
func (s *Spool) letGo(c *company) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unpin(c)
}

// pin keeps a company's handles from being closed. s.mu is held, as for the next two.
func (s *Spool) pin(c *company) {
	c.pins++
	if c.place == nil {
		c.place = s.open.PushFront(c)
	} else {
		s.open.MoveToFront(c.place)
	}
}

// unpin closes the handles of a company that is gone, and of those that were not
// needed for the longest time if there are too many.
func (s *Spool) unpin(c *company) {
	c.pins--
	if c.gone && c.pins == 0 {
		s.shut(c)
	}
	for e := s.open.Back(); e != nil && s.open.Len() > maxOpen; {
		last := e.Value.(*company)
		e = e.Prev()
		if last.pins == 0 {
			s.shut(last)
		}
	}
}

// shut closes a company's handles. Nobody uses them, as that takes a pin, so it does
// not wait.
func (s *Spool) shut(c *company) {
	if c.place != nil {
		s.open.Remove(c.place)
		c.place = nil
	}
	c.close()
}

// close closes all handles, waiting for those that use them.
func (c *company) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workMu.Lock()
	defer c.workMu.Unlock()
	c.archiveMu.Lock()
	defer c.archiveMu.Unlock()
	for _, d := range []*durable.Dir{&c.inbox, &c.outbox, &c.rejected, &c.work, &c.archive, &c.day} {
		if *d != nil {
			(*d).Close()
			*d = nil
		}
	}
}

// isQuiet reports whether nothing has come into an inbox since a walk found nothing
// there. It costs one system call at most.
func (s *Spool) isQuiet(c *company) bool {
	c.seenMu.Lock()
	quiet := c.quiet
	c.seenMu.Unlock()
	if quiet.Ino == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partners == nil {
		return false
	}
	now, err := s.partners.StatIn(c.name, "inbox")
	return err == nil && now.Ino == quiet.Ino && now.MTime == quiet.MTime && now.CTime == quiet.CTime
}

// beginWalk opens an inbox to be walked through. The walk has a pin.
func (s *Spool) beginWalk(c *company) error {
	s.mu.Lock()
	s.pin(c)
	c.round = s.round
	s.mu.Unlock()
	// First the time, then the directory's: what comes later has a later time.
	began := s.cfg.Now()
	err := c.refresh()
	if err == nil {
		c.mu.RLock()
		c.began, c.at, c.waiting = began, c.inInfo, false
		if s.cfg.Several(c.name) {
			err = c.labels.list(c.inbox)
		}
		if err == nil {
			c.walk, err = c.inbox.Entries()
		}
		c.mu.RUnlock()
	}
	if err != nil {
		c.walk = nil
		s.letGo(c)
		return err
	}
	s.walking = append(s.walking, c)
	if len(s.walking) > maxWalks {
		s.endWalk(s.walking[0])
	}
	return nil
}

// endWalk closes a walk, at its end or before.
func (s *Spool) endWalk(c *company) {
	c.walk.Close()
	c.walk = nil
	s.walking = slices.DeleteFunc(s.walking, func(o *company) bool { return o == c })
	s.letGo(c)
}

// endWalksOfGone ends the walks of companies that are no longer named.
func (s *Spool) endWalksOfGone() {
	for _, c := range slices.Clone(s.walking) {
		s.mu.Lock()
		gone := c.gone
		s.mu.Unlock()
		if gone {
			s.endWalk(c)
		}
	}
}

// enlist has Next walk through a company's inbox.
func (s *Spool) enlist(c *company) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enlistLocked(c)
}

func (s *Spool) enlistLocked(c *company) {
	if c.listed || c.gone {
		return
	}
	c.listed = true
	s.turns = append(s.turns, c)
	s.live++
	s.found = s.found || s.passing // it may have come too late for this pass
}

// compact takes those out of the list of turns that have left it.
func (s *Spool) compact() {
	n, turn := 0, 0
	for i, c := range s.turns {
		if i == s.turn {
			turn = n
		}
		if c != nil {
			s.turns[n] = c
			n++
		}
	}
	if s.turn >= len(s.turns) {
		turn = 0
	}
	clear(s.turns[n:])
	s.turns, s.turn = s.turns[:n], turn
}

// lookAgain has Next look at all inboxes.
func (s *Spool) lookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enlistAll()
}

// enlistAll has every inbox walked through from now on: walks that have ended in
// the pass under way, and those that have begun, do not count. s.mu is held.
func (s *Spool) enlistAll() {
	for _, c := range s.order {
		s.enlistLocked(c)
	}
	s.round++
	s.found = s.found || s.passing
}

// noteReplaced remembers that a company's inbox is another directory than before.
func (s *Spool) noteReplaced(company string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replaced == nil {
		s.replaced = map[string]bool{}
	}
	s.replaced[company] = true
}

// takeReplaced returns the companies that noteReplaced was told of since.
func (s *Spool) takeReplaced() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.replaced
	s.replaced = nil
	return r
}
