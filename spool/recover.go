package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"signdrop/appliance/reason"
	"signdrop/spool/durable"
)

// Recover returns what lies in work/: the items that were claimed and not
// retired when the appliance stopped or crashed, once for each company. It is called
// before Next, again after SetCompanies: a company whose directories were out of
// order may have been opened only now. The states that it can find, and what becomes
// of them:
//
//	NAME and NAME.sig       claimed                 an item
//	NAME, sig in the inbox  crash within Claim      the signature is claimed too, an item
//	NAME alone              crash within Retire,    an item with Data and the refusal
//	                        or the partner took     signature-missing: the caller answers it
//	                        its signature back      if it is known, or Unclaims it
//	NAME, still written to  claimed before          put back into the inbox
//	NAME.sig, NAME in the   crash within Claim or   the signature is put back
//	  inbox                 Unclaim
//	NAME.sig alone          crash within Retire     the signature follows its request
//	.alone-NAME.sig         a claimed signature     an item
//	                        without its request
//	.forget-…               crash within Retire     erased, and no item: its reason was
//	                        after Forget            published for good before
//
// Of several signatures each is treated as NAME.sig is here. So an item can lack
// some of those that it was decided with, if the crash came within Retire: what is
// on record for its bytes is to be asked for before they are counted. It can also
// have some that came after it was claimed.
func (s *Spool) Recover() ([]*Item, error) {
	s.mu.Lock()
	opened := map[string]*company{}
	for _, c := range s.opened {
		opened[c.name] = c
	}
	s.opened = nil
	s.mu.Unlock()
	if len(opened) == 0 {
		return nil, nil
	}
	// One listing tells which of them have anything there: not ten thousand.
	var found []*company
	err := durable.Walk(s.work, func(e durable.Entry) error {
		if c := opened[e.Name]; c != nil {
			found = append(found, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing work: %w", err)
	}
	var items []*Item
	for _, c := range found {
		if err := s.hold(c); err != nil {
			// Its requests are safe where they are, and the other companies are not
			// kept waiting for it.
			s.cfg.Warn(c.name, "opening the directories; what was claimed before waits until they are in order", err)
			s.mu.Lock()
			s.failed = append(s.failed, c)
			s.mu.Unlock()
			continue
		}
		its, err := s.recover(c)
		s.letGo(c)
		if err != nil {
			return nil, fmt.Errorf("recovering what company %s had asked: %w", c.name, err)
		}
		items = append(items, its...)
	}
	return items, nil
}

func (s *Spool) recover(c *company) ([]*Item, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.makeWork(); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	more := map[string][]string{} // labels of the signatures that lie in work/
	s.mu.Lock()
	busy := maps.Clone(s.busy)
	s.mu.Unlock()
	err := durable.Walk(c.work, func(e durable.Entry) error {
		// A company that was let go and named again can have items that are out.
		key := keyOf(c.name, strings.TrimPrefix(e.Name, alone))
		request, label, isSig := sigOf(e.Name)
		if isSig {
			key = c.name + "/" + request
		}
		if _, out := busy[key]; out {
			return nil
		}
		names[e.Name] = true
		if isSig && label != "" {
			more[request] = append(more[request], label)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var items []*Item
	for name := range names {
		if strings.HasPrefix(name, forgetting) {
			if err := s.erase(c, name); err != nil {
				return nil, err
			}
			continue
		}
		if rest, ok := strings.CutPrefix(name, alone); ok {
			it, err := c.readAlone(name, rest)
			if err != nil {
				return nil, err
			}
			items = append(items, it)
			continue
		}
		if request, _, ok := sigOf(name); ok {
			if !names[request] {
				if err := s.sendAfter(c, request, name); err != nil {
					return nil, err
				}
			}
			continue
		}
		labels := more[name]
		if names[name+SigSuffix] {
			labels = append(labels, "")
		}
		it, err := s.readClaimed(c, name, union(labels, nil))
		if err == errChanging {
			// The partner still writes to it, through a handle from before the
			// claim. It goes back to where it can be waited for.
			it = &Item{Company: c.name, Name: name, co: c}
			for _, label := range union(labels, nil) {
				it.sigs = append(it.sigs, sigFile{label: label})
			}
			if err = s.unclaim(it); errors.Is(err, fs.ErrExist) {
				s.cfg.Warn(c.name, "a claimed file is being written to, and its place in the inbox is taken", err)
				err = nil
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items {
		it.Claimed, it.Recovered, it.Due = true, true, true
		s.send(it, keyOf(c.name, it.Name))
	}
	return items, nil
}

func (c *company) readAlone(name, rest string) (*Item, error) {
	info, err := c.work.Stat(name)
	if err != nil {
		return nil, err
	}
	it := &Item{Company: c.name, Name: rest, co: c}
	c.refuseName(it, info)
	return it, nil
}

// readClaimed reads a claimed request again, completing the claim if the crash came
// between its renames: labels are those of the signatures that were moved, and what
// lies in the inbox beside belongs to it as well.
func (s *Spool) readClaimed(c *company, name string, labels []string) (*Item, error) {
	beside, err := c.more(name)
	if err != nil {
		return nil, err
	}
	if _, typed := typeOf(DefaultTypes, name); typed {
		beside = append([]string{""}, beside...)
	}
	for _, label := range beside {
		if slices.Contains(labels, label) {
			continue
		}
		sig := sigName(name, label)
		err := c.inbox.Move(sig, c.work, sig)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c.labels.remove(name, label)
		labels = append(labels, label)
	}
	it, err := c.readIn(c.work, name, union(labels, nil))
	if err == nil && it != nil && it.Refusal != nil && it.Refusal.Code == reason.SignatureMissing {
		it.Data, err = durable.ReadFile(c.work, name, it.info.Size)
	}
	if err != nil {
		return nil, err
	}
	if it == nil {
		return nil, fmt.Errorf("reading work/%s/%s: %w", c.name, name, fs.ErrNotExist)
	}
	return it, nil
}

// sendAfter deals with a signature that a crash has left alone in work/: it goes
// where its request is.
func (s *Spool) sendAfter(c *company, request, sig string) error {
	if _, err := c.inbox.Stat(request); err == nil {
		err := c.work.Move(sig, c.inbox, sig)
		if errors.Is(err, fs.ErrExist) {
			return c.work.Remove(sig) // the partner has brought a newer one
		}
		if _, label, _ := sigOf(sig); err == nil && label != "" {
			c.labels.add(request, label)
		}
		c.stir()
		return err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := c.rejected.Stat(request); err == nil {
		if err := c.work.Move(sig, c.rejected, sig); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return s.archive(c, sig, "signature-"+sig)
}

// Left counts what lies in the inboxes: files that wait to become complete, and
// files that are ignored because their names say that they are unfinished. It calls each
// for those that wait.
func (s *Spool) Left(each func(company, name string)) (waiting, ignored int, err error) {
	s.mu.Lock()
	order := append([]*company(nil), s.order...)
	s.mu.Unlock()
	for _, c := range order {
		inbox, err := durable.SubPath(c.root, "spool", c.name, "inbox")
		if err != nil {
			s.cfg.Warn(c.name, "counting what is left in the inbox", err)
			continue
		}
		err = durable.Walk(inbox, func(e durable.Entry) error {
			if Unfinished(e.Name) {
				ignored++
			} else {
				waiting++
				each(c.name, e.Name)
			}
			return nil
		})
		inbox.Close()
		if err != nil {
			return 0, 0, err
		}
	}
	return waiting, ignored, nil
}
