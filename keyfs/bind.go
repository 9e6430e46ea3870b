package keyfs

import (
	"bytes"
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
// taken for other wallets. Giving it away would take it from a wallet whose
// wallet.json came back from an older backup.
func (s *Store) Bind(company, id, address string) (*Wallet, error) {
	if err := errors.Join(checkID(company, id), checkAddress(company, address)); err != nil {
		return nil, err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	w, err := s.load(walletID{company, id})
	if err != nil {
		return nil, err
	}
	if w.Address() != "" && w.Address() != address {
		return nil, fmt.Errorf("wallet %s has the address %s: %w", w.id, w.Address(), ErrBound)
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	if err := s.claim(comp, w, address); err != nil {
		return nil, err
	}
	// Crash here: the address belongs to this wallet, which does not say so.

	dir, err := durable.SubPath(comp, "wallets", id)
	if err != nil {
		return nil, fmt.Errorf("opening wallet %s: %w", w.id, err)
	}
	defer dir.Close()
	w, err = s.setAddress(dir, w, address)
	if err != nil {
		return nil, err
	}
	s.cache.replace(w)
	return w, nil
}

// claim makes the address file that names the wallet, durably, or finds it made.
func (s *Store) claim(comp durable.Dir, w *Wallet, address string) error {
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
		err = fmt.Errorf("address %s belongs to another wallet: %w", address, ErrBound)
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
		return "", err
	}
	id, whole := strings.CutSuffix(string(b), "\n")
	if !whole || !ValidID(id) {
		return "", &Damaged{at, "does not hold a wallet's id", restore}
	}
	return id, nil
}

// setAddress writes the address into wallet.json, durably, and returns the
// wallet that has it.
func (s *Store) setAddress(dir durable.Dir, w *Wallet, address string) (*Wallet, error) {
	if w.Address() == address {
		// A predecessor may have been killed after it replaced wallet.json and
		// before it had synced the directory.
		if err := dir.Sync(); err != nil {
			return nil, s.stop(fmt.Errorf("syncing wallet %s: %w", w.id, err))
		}
		return w, nil
	}
	bound := *w
	bound.rec.Address = address
	text := bound.rec.encode()
	if err := durable.ReplaceFile(dir, walletFile, 0o400, text); err != nil {
		err = fmt.Errorf("writing wallet %s: %w", w.id, err)
		dir.Remove(temp(walletFile)) // where ReplaceFile writes; the next would remove it
		// Either nothing has happened, or the new content is seen and may not be
		// durable.
		now, rerr := durable.ReadFile(dir, walletFile, maxFile)
		if rerr != nil || bytes.Equal(now, text) {
			return nil, s.stop(err)
		}
		return nil, err
	}
	return &bound, nil
}
