package keyfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"signdrop/spool/durable"
)

// The two values of a wallet's status, for SetStatus.
const (
	StatusActive   = statusActive
	StatusDisabled = statusDisabled
)

// SetStatus sets a wallet's status, StatusActive or StatusDisabled, and returns the
// wallet with it. It returns when that is durable. A wallet that has the status
// already stays as it is. After a crash the wallet has the old or the new one.
//
// A Wallet that somebody holds from before keeps its status: whoever must not sign
// with a disabled wallet looks it up again.
//
// Errors: ErrInvalid, ErrUnknown, *Damaged, ErrRestart; any other is the disk's.
func (s *Store) SetStatus(company, id, status string) (*Wallet, error) {
	if err := checkID(company, id); err != nil {
		return nil, err
	}
	if status != statusActive && status != statusDisabled {
		return nil, fmt.Errorf("status %q is neither %s nor %s: %w", status, statusActive, statusDisabled, ErrInvalid)
	}
	s.write.Lock()
	defer s.write.Unlock()
	w, comp, err := s.toChange(company, id)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	rec := w.rec
	rec.Status = status
	if w, err = s.rewrite(comp, w, rec); err != nil {
		return nil, err
	}
	s.cache.replace(w, false)
	return w, nil
}

// toChange reads a wallet from its files, whatever is in memory, and opens its
// company. The caller holds s.write.
func (s *Store) toChange(company, id string) (*Wallet, durable.Dir, error) {
	if err := s.ready(); err != nil {
		return nil, nil, err
	}
	w, err := s.load(walletID{company, id})
	if err != nil {
		return nil, nil, err
	}
	comp, err := s.company(company)
	return w, comp, err
}

// Rebind gives a wallet another address than the one it has, if any, and returns
// the wallet with it. It returns when that is durable, and the file of the old
// address is gone. It is an administrator's correction: Bind is for good.
//
// The new address must be free, or the wallet's own. It is free too if its file
// names a wallet that has no address, or another one: a Bind or Rebind that was
// begun and not finished.
//
// After a crash the wallet has the old or the new address, and the other one is
// free for Bind. Doing it again completes it.
//
// Errors: those of Bind.
func (s *Store) Rebind(company, id, address string) (*Wallet, error) {
	if err := errors.Join(checkID(company, id), checkAddress(company, address)); err != nil {
		return nil, err
	}
	s.write.Lock()
	defer s.write.Unlock()
	w, comp, err := s.toChange(company, id)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	if err := s.claim(comp, w, address, true); err != nil {
		return nil, err
	}
	// Crash here: the new address has a file, which does not count since the
	// wallet has the old one.

	old := w.Address()
	rec := w.rec
	rec.Address = address
	if w, err = s.rewrite(comp, w, rec); err != nil {
		return nil, err
	}
	s.cache.replace(w, true)
	// Crash here: the wallet has the new address. The old one still has a file,
	// which does not count any more.

	if old == address {
		err = s.dropClaims(comp, w)
	} else if old != "" {
		err = s.dropClaim(comp, w, old)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// dropClaims removes the address files that name the wallet and are not its
// address: what a Rebind that was not finished may have left, it is not known
// under which names. It reads them all.
func (s *Store) dropClaims(comp durable.Dir, w *Wallet) error {
	dir, err := comp.Sub("addresses")
	if err != nil {
		return fmt.Errorf("opening the addresses of company %s: %w", w.id.company, err)
	}
	defer dir.Close()
	var addresses []string
	if err := durable.Walk(dir, func(e durable.Entry) error {
		if ValidAddress(e.Name) && e.Name != w.Address() {
			addresses = append(addresses, e.Name)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("listing the addresses of company %s: %w", w.id.company, err)
	}
	for _, a := range addresses {
		owner, err := s.readClaim(dir, w.id.company, a)
		if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
			continue // somebody else's trouble
		}
		if err != nil {
			return err
		}
		if owner != w.id.id {
			continue
		}
		if err := s.dropClaim(comp, w, a); err != nil {
			return err
		}
	}
	return nil
}

// dropClaim removes the file of an address that the wallet had.
func (s *Store) dropClaim(comp durable.Dir, w *Wallet, old string) error {
	dir, err := comp.Sub("addresses")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the addresses of company %s: %w", w.id.company, err)
	}
	defer dir.Close()
	owner, err := s.readClaim(dir, w.id.company, old)
	if errors.Is(err, fs.ErrNotExist) || err == nil && owner != w.id.id {
		return nil
	}
	if err == nil {
		err = dir.Remove(old)
	}
	if err != nil {
		return fmt.Errorf("wallet %s has its new address; removing the file of the old one, %s: %w; do it again", w.id, old, err)
	}
	if err := dir.Sync(); err != nil {
		return s.stop(fmt.Errorf("syncing that address %s is gone: %w", old, err))
	}
	return nil
}

// rewrite gives a wallet's wallet.json another content, durably, and returns the
// wallet that it is then.
//
// Crash: wallet.json has the old or the new content, whole.
func (s *Store) rewrite(comp durable.Dir, w *Wallet, rec record) (*Wallet, error) {
	dir, err := durable.SubPath(comp, "wallets", w.id.id)
	if err != nil {
		return nil, fmt.Errorf("opening wallet %s: %w", w.id, err)
	}
	defer dir.Close()
	if rec == w.rec {
		// A predecessor may have been killed after it replaced wallet.json and
		// before it had synced the directory.
		if err := dir.Sync(); err != nil {
			return nil, s.stop(fmt.Errorf("syncing wallet %s: %w", w.id, err))
		}
		return w, nil
	}
	changed := *w
	changed.rec = rec
	if err := s.replaceFile(dir, walletFile, rec.encode()); err != nil {
		return nil, fmt.Errorf("writing wallet %s: %w", w.id, err)
	}
	return &changed, nil
}

// replaceFile is durable.ReplaceFile for a file of at most maxFile bytes. After an
// error either nothing has happened, or the new content is seen and may not be
// durable, which is ErrRestart.
func (s *Store) replaceFile(dir durable.Dir, name string, text []byte) error {
	err := durable.ReplaceFile(dir, name, 0o400, text)
	if err == nil {
		return nil
	}
	dir.Remove(temp(name)) // where ReplaceFile writes; the next would remove it
	now, rerr := durable.ReadFile(dir, name, maxFile)
	if rerr != nil || bytes.Equal(now, text) {
		return s.stop(err)
	}
	return err
}
