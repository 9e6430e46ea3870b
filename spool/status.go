package spool

import (
	"errors"
	"fmt"
	"io/fs"

	"signdrop/spool/durable"
)

// Status tells the partner how a request stands that is not answered yet: data
// becomes outbox/NAME.status.json, where NAME is the request's without its ending,
// in place of what was told before. Where the same bytes lie there it does nothing,
// and anything that is not a regular file is an error and stays. An item's status
// goes when its answer is published; requests that share the name of their answer
// share the status.
//
// It is a courtesy: it is not synced, and a power cut may lose it or leave it with
// other bytes, until it is told again.
func (s *Spool) Status(it *Item, data []byte) error {
	if _, typed := typeOf(DefaultTypes, it.Name); !typed {
		return fmt.Errorf("telling the status of %s: its name is not a request's", it.SafeName())
	}
	it.told = true
	c, name := it.co, StatusName(it.Name)
	there := func() (same bool, err error) {
		c.mu.RLock()
		defer c.mu.RUnlock()
		info, err := c.outbox.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err == nil && !info.Mode.IsRegular() {
			err = fmt.Errorf("%s lies in the outbox: remove it: %w", name, durable.ErrNotRegular)
		}
		if err != nil {
			return false, err
		}
		same, err = equal(c.outbox, name, [][]byte{data})
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return same, err
	}
	same, err := there()
	if err != nil {
		return fmt.Errorf("looking at the status: %w", err)
	}
	if same {
		return nil
	}
	made, err := s.write(c, [][]byte{data})
	if err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	c.mu.RLock()
	err = s.made.MoveOver(made, c.outbox, name)
	c.mu.RUnlock()
	if err != nil {
		s.unwrite(c, made)
		return fmt.Errorf("publishing the status: %w", err)
	}
	return nil
}

// unstatus removes what Status has told.
func (s *Spool) unstatus(it *Item) {
	if _, typed := typeOf(DefaultTypes, it.Name); !typed {
		return
	}
	outbox, name := it.co.outbox, StatusName(it.Name)
	info, err := outbox.Stat(name)
	if err == nil && info.Mode.IsRegular() {
		err = outbox.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Warn(it.Company, "removing the status of a request that is answered", err)
	}
}
