package keyfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"signdrop/spool/durable"
)

// Bind gives a wallet its address on a ledger, for good, and returns the wallet
// with it. It returns when that is durable. Doing it again with the same address
// is a success.
//
// Errors: ErrInvalid, ErrUnknown, ErrBound, *Damaged, ErrRestart; any other is
// the disk's.
//
// The file under addresses is made first. Its name belongs to the first wallet
// that takes it, since Move never replaces: two wallets can never both have the
// address. If the machine stops before wallet.json follows, the address is taken
// and finds nothing until the same Bind is done again. The other order would
// leave a wallet that says it has the address while another may still take it.
//
// BUG: when a Bind is left unfinished so and never done again, the address stays
// taken for other wallets, until a Rebind takes it. Giving it away sooner would
// take it from a wallet whose wallet.json came back from an older backup.
func (s *Store) Bind(company, id, address string) (*Wallet, error) {
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
	if w.Address() != "" && w.Address() != address {
		return nil, fmt.Errorf("wallet %s has the address %s: %w", w.id, w.Address(), ErrBound)
	}
	if err := s.claim(comp, w, address, false); err != nil {
		return nil, err
	}
	// Crash here: the address belongs to this wallet, which does not say so.

	rec := w.rec
	rec.Address = address
	if w, err = s.rewrite(comp, w, rec); err != nil {
		return nil, err
	}
	s.cache.replace(w, true)
	return w, nil
}

// claim makes the address file that names the wallet, durably, or finds it made.
// A file that does not count is replaced; force says that a Bind which was not
// finished does not count either.
func (s *Store) claim(comp durable.Dir, w *Wallet, address string, force bool) error {
	dir, err := subMake(comp, "addresses")
	if err != nil {
		return err
	}
	defer dir.Close()
	owner, err := s.readClaim(dir, w.id.company, address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writeClaim(dir, address, w.id.id)
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("address %s: %w", address, ErrBound)
		}
	case err == nil && owner != w.id.id:
		err = s.takeOver(comp, dir, w, owner, address, force)
	}
	if err != nil {
		return err
	}
	// Crash here: the claim is seen, and a power cut may take it back. That is
	// why both are synced where it was found made, too: a predecessor may have
	// been killed here, or before it had synced the directory's own name.
	if err := dir.Sync(); err != nil {
		return s.stop(fmt.Errorf("syncing the name of address %s: %w", address, err))
	}
	if err := comp.Sync(); err != nil {
		return s.stop(fmt.Errorf("syncing the name of the addresses: %w", err))
	}
	return nil
}

// takeOver makes the address file of another wallet name this one, unless that
// wallet has the address, or may have it: without force, one that says nothing of
// an address has it (see the BUG of Bind).
//
// Crash: the file names the one or the other. Neither has the address then.
func (s *Store) takeOver(comp, dir durable.Dir, w *Wallet, owner, address string, force bool) error {
	rec, err := s.readRecord(comp, walletID{w.id.company, owner})
	if errors.Is(err, ErrUnknown) {
		return &Damaged{addressPath(w.id.company, address), "names a wallet that does not exist", restoreFolder}
	}
	if err != nil {
		return err
	}
	if rec.Address == address || rec.Address == "" && !force {
		return fmt.Errorf("address %s belongs to another wallet: %w", address, ErrBound)
	}
	if err := s.replaceFile(dir, address, []byte(w.id.id+"\n")); err != nil {
		return fmt.Errorf("writing address %s: %w", address, err)
	}
	return nil
}

// writeClaim makes the address file, whole or not at all.
func writeClaim(dir durable.Dir, address, id string) error {
	tmp := temp(address)
	// A crash left it: nobody has read it, and it may be cut off.
	if err := dir.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what is left of address %s: %w", address, err)
	}
	err := durable.WriteSynced(dir, tmp, 0o400, []byte(id+"\n"))
	// Crash here: a temporary file, which the next Bind of the address removes.
	if err == nil {
		err = dir.Move(tmp, dir, address)
	}
	if err != nil {
		dir.Remove(tmp)
		return fmt.Errorf("writing address %s: %w", address, err)
	}
	return nil
}

// readClaim returns the id in an address file. An error that wraps
// fs.ErrNotExist says that there is none.
func (s *Store) readClaim(dir durable.Dir, company, address string) (string, error) {
	if _, err := dir.Stat(address); err != nil {
		return "", fmt.Errorf("looking for address %s: %w", address, err)
	}
	at := addressPath(company, address)
	const restore = "restore it from the backup"
	b, err := s.read(dir, address, at, 0o022, restore)
	if err != nil {
		if _, serr := dir.Stat(address); errors.Is(serr, fs.ErrNotExist) {
			// A Rebind has removed it meanwhile.
			return "", fmt.Errorf("looking for address %s: %w", address, serr)
		}
		return "", err
	}
	id, whole := strings.CutSuffix(string(b), "\n")
	if !whole || !ValidID(id) {
		return "", &Damaged{at, "does not hold a wallet's id", restore}
	}
	return id, nil
}
