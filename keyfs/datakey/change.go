package datakey

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// SetStatus sets a data key's status, keyfs.StatusActive or keyfs.StatusDisabled, and
// returns the key with it. It returns when that is durable. After a crash the key has
// the old or the new status. A Key that somebody holds from before keeps its own.
//
// Errors: those of Lookup, and keyfs.ErrRestart.
func (s *Store) SetStatus(company, id, status string) (*Key, error) {
	if status != keyfs.StatusActive && status != keyfs.StatusDisabled {
		return nil, fmt.Errorf("status %q is neither %s nor %s: %w", status, keyfs.StatusActive, keyfs.StatusDisabled, keyfs.ErrInvalid)
	}
	if err := check(company, id); err != nil {
		return nil, err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if s.stopped != nil {
		return nil, fmt.Errorf("%w (%w)", keyfs.ErrRestart, s.stopped)
	}
	old, err := s.Lookup(company, id)
	if err != nil {
		return nil, err
	}
	dir, err := s.open(company, id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	changed := *old
	changed.rec.Status = status
	if changed.rec == old.rec {
		// A predecessor may have been killed before it had synced the directory.
		if err := dir.Sync(); err != nil {
			return nil, s.stop(fmt.Errorf("syncing data key %s: %w", old, err))
		}
		return old, nil
	}
	text := changed.rec.encode()
	if err := durable.ReplaceFile(dir, recordFile, 0o400, text); err != nil {
		err = fmt.Errorf("writing data key %s: %w", old, err)
		dir.Remove(temp(recordFile)) // where ReplaceFile writes; the next would remove it
		// Either nothing has happened, or the new content is seen and may not be
		// durable.
		now, rerr := durable.ReadFile(dir, recordFile, maxFile)
		if rerr != nil || bytes.Equal(now, text) {
			return nil, s.stop(err)
		}
		return nil, err
	}
	return &changed, nil
}

// stop makes err the reason for keyfs.ErrRestart. The caller holds s.write.
func (s *Store) stop(err error) error {
	s.stopped = err
	return fmt.Errorf("%w (%w)", keyfs.ErrRestart, err)
}

// Summary is a data key in a list.
type Summary struct {
	ID     string
	Key    *Key           // nil where Damage says why
	Damage *keyfs.Damaged // of datakey.json; key.pem is not looked at
}

// List returns up to max data keys of a company in the order of their ids, beginning
// after the id after, "" for the first. An empty list is the end. It reads no
// private key.
//
// Errors: keyfs.ErrInvalid, ErrUnknown (the company); any other is the disk's.
func (s *Store) List(company, after string, max int) ([]Summary, error) {
	if !keyfs.ValidCompany(company) {
		return nil, fmt.Errorf("company %q: %w", company, keyfs.ErrInvalid)
	}
	if max < 1 {
		return nil, fmt.Errorf("a list of %d data keys: %w", max, keyfs.ErrInvalid)
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	dir, err := comp.Sub(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has none yet
	}
	if err != nil {
		return nil, fmt.Errorf("listing the data keys of company %s: %w", company, err)
	}
	defer dir.Close()
	var ids []string
	if err := durable.Walk(dir, func(e durable.Entry) error {
		if e.Name > after && ValidID(e.Name) { // the others are temporary
			ids = append(ids, e.Name)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("listing the data keys of company %s: %w", company, err)
	}
	slices.Sort(ids)
	var list []Summary
	for _, id := range ids[:min(max, len(ids))] {
		k, err := s.Lookup(company, id)
		var damaged *keyfs.Damaged
		if err != nil && !errors.As(err, &damaged) {
			return nil, err
		}
		list = append(list, Summary{id, k, damaged})
	}
	return list, nil
}
