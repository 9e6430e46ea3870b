package spool

import (
	"errors"
	"fmt"
	"io/fs"

	"signdrop/spool/durable"
)

// handed is a file that goes out with an answer.
type handed struct {
	from durable.Dir
	name string
}

// Hand has the file from/name, which is too large to be made with the answer, moved
// into the outbox under its name when the item's answer is published. It must be
// durable, and its name no other answer's. The directory must stay open.
func (s *Spool) Hand(it *Item, from durable.Dir, name string) { it.hand = &handed{from, name} }

// handOver moves it there, before the answer that speaks of it.
//
// Crash: it is in one of the two places, and doing it again finds it.
func (s *Spool) handOver(it *Item) error {
	if it.hand == nil {
		return nil
	}
	from, name, c := it.hand.from, it.hand.name, it.co
	f, err := from.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was handed over before
	}
	if err == nil {
		if c.foreign {
			err = f.Chown(c.gid)
			if errors.Is(err, fs.ErrPermission) {
				s.cfg.Warn(c.name, "giving a file to the group of the outbox; add the appliance's user to that group", err)
				err = nil
			}
		}
		f.Close()
	}
	if err == nil {
		err = from.Move(name, c.outbox, name)
	}
	if err != nil {
		return fmt.Errorf("handing over %s: %w", name, err)
	}
	return nil
}
