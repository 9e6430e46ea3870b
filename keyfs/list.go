package keyfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

// Summary is what a wallet's wallet.json says.
type Summary struct {
	ID      string
	Curve   Curve
	Network hd.Network // of an HD wallet, "" for others

	Fingerprint string // of an HD wallet's master key
	PublicPEM   string
	Active      bool
	NotAfter    time.Time // the zero Time for none
	Address     string    // "" for none

	// Damage says why wallet.json cannot be read; all but the ID is unset then.
	// The key is not looked at.
	Damage *Damaged
}

// List returns up to max wallets of a company in the order of their ids, beginning
// after the id after, "" for the first. An empty list is the end. It reads no key,
// so that it serves for 100,000 wallets; each call walks all their names, so a
// large max is cheaper than a small one. Between two calls wallets may be made;
// none is seen twice.
//
// Errors: ErrInvalid, ErrUnknown (the company); any other is the disk's.
func (s *Store) List(company, after string, max int) ([]Summary, error) {
	if !ValidCompany(company) {
		return nil, fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	if max < 1 {
		return nil, fmt.Errorf("a list of %d wallets: %w", max, ErrInvalid)
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	ids, err := idsAfter(comp, after)
	if err != nil {
		return nil, fmt.Errorf("listing the wallets of company %s: %w", company, err)
	}
	list := make([]Summary, 0, min(max, len(ids)))
	for _, id := range ids[:min(max, len(ids))] {
		rec, err := s.readRecord(comp, walletID{company, id})
		if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
			list = append(list, Summary{ID: id, Damage: damaged})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the wallets of company %s: %w", company, err)
		}
		list = append(list, Summary{
			ID: id, Curve: rec.Curve, Network: rec.Network, Fingerprint: rec.Fingerprint, PublicPEM: rec.PublicKey,
			Active: rec.Status == statusActive, NotAfter: rec.notAfter(), Address: rec.Address,
		})
	}
	return list, nil
}

// idsAfter returns the ids of a company's wallets that come after one, in order.
func idsAfter(comp durable.Dir, after string) ([]string, error) {
	dir, err := comp.Sub("wallets")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has none yet
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var ids []string
	err = durable.Walk(dir, func(e durable.Entry) error {
		if e.Name > after && ValidID(e.Name) { // the others are temporary
			ids = append(ids, e.Name)
		}
		return nil
	})
	slices.Sort(ids)
	return ids, err
}
