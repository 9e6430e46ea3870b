package keyfs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/keyfs/hd"
)

// A Bitcoin transaction names the keys that sign it by the fingerprint of a master key
// and a path, by a public key, or by nothing but the script of the output that is
// spent. Which wallet of a company that is, an index in memory tells. It is made of the
// company's wallet.json files when it is first asked for, since most companies never
// ask, and kept up to date by whatever makes wallets. No key is read for it.

// bitcoinIndexes are the indexes of the companies that were asked about.
type bitcoinIndexes struct {
	mu sync.Mutex // never held for long: whoever makes wallets waits for it
	by map[string]*bitcoinIndex
}

// bitcoinIndex finds the ids of one company's wallets.
type bitcoinIndex struct {
	making sync.Mutex // held while it is made

	// Guarded by bitcoinIndexes.mu.
	made bool
	late []record // of wallets that were made since making it began
	lost []string // ids of wallets whose wallet.json could not be understood

	masters map[hd.Fingerprint][]string // HD wallets
	keys    map[[32]byte][]string       // single keys, by the x coordinate
	hashes  map[[20]byte][]string       // single keys, by what their scripts hold: see hashesOf
}

// ByFingerprint returns the company's HD wallets with this fingerprint of the master
// key, in the order of their ids: none if there is none. Wallets whose wallet.json cannot be
// read when the index is made are left out, see Unread.
// Errors: ErrInvalid, ErrUnknown (the company), *Damaged (one that was found: to leave
// it out would make its keys somebody else's); any other is the disk's.
func (s *Store) ByFingerprint(company string, f hd.Fingerprint) ([]*Wallet, error) {
	return s.byBitcoin(company, func(x *bitcoinIndex) []string { return x.masters[f] })
}

// ByPublicKey is ByFingerprint for wallets with a single key on secp256k1: pub has 33
// bytes, or 32 for taproot's form, which is that of both keys with this x.
func (s *Store) ByPublicKey(company string, pub []byte) ([]*Wallet, error) {
	if len(pub) != 32 && (len(pub) != 33 || pub[0] != 2 && pub[0] != 3) {
		return nil, fmt.Errorf("a public key of %d bytes: %w", len(pub), ErrInvalid)
	}
	ws, err := s.byBitcoin(company, func(x *bitcoinIndex) []string { return x.keys[[32]byte(pub[len(pub)-32:])] })
	if len(pub) == 32 {
		return ws, err
	}
	return slices.DeleteFunc(ws, func(w *Wallet) bool {
		key, kerr := w.Secp256k1Key()
		return kerr != nil || key.SerializeCompressed()[0] != pub[0]
	}), err
}

// ByScript is ByPublicKey for the script of an output: P2PKH, P2WPKH and P2SH of
// P2WPKH. Others find nothing: taproot's inputs name their internal key.
func (s *Store) ByScript(company string, script []byte) ([]*Wallet, error) {
	hash, form, ok := hashIn(script)
	if !ok {
		return nil, nil
	}
	ws, err := s.byBitcoin(company, func(x *bitcoinIndex) []string { return x.hashes[hash] })
	return slices.DeleteFunc(ws, func(w *Wallet) bool {
		key, kerr := w.Secp256k1Key()
		return kerr != nil || !bytes.Equal(form.Output(key), script)
	}), err
}

// hashIn is the hash that a script of one of these forms holds.
func hashIn(script []byte) (hash [20]byte, form hd.Script, ok bool) {
	cut := func(head, tail string) bool {
		if len(script) != len(head)+20+len(tail) || string(script[:len(head)]) != head || string(script[len(head)+20:]) != tail {
			return false
		}
		hash = [20]byte(script[len(head):])
		return true
	}
	switch {
	case cut("\x76\xa9\x14", "\x88\xac"):
		return hash, hd.P2PKH, true
	case cut("\x00\x14", ""):
		return hash, hd.P2WPKH, true
	case cut("\xa9\x14", "\x87"):
		return hash, hd.P2SHP2WPKH, true
	}
	return hash, "", false
}

// hashesOf are the hashes in the scripts of a key.
func hashesOf(pub *btcec.PublicKey) (key, script [20]byte) {
	key = [20]byte(address.Hash160(pub.SerializeCompressed()))
	return key, [20]byte(address.Hash160(append([]byte{0, 20}, key[:]...)))
}

// Unread looks again at those of the company's wallets of which it is not known what
// they are, since their wallet.json was damaged, and takes in those that were mended.
// lost says what is wrong with the first of the others, nil for none. Errors: as
// ByFingerprint.
func (s *Store) Unread(company string) (lost *Damaged, err error) {
	ids, err := s.bitcoin.find(s, company, func(x *bitcoinIndex) []string { return x.lost })
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	for _, id := range ids {
		rec, err := s.readRecord(comp, walletID{company, id})
		if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
			if lost == nil {
				lost = damaged
			}
			continue
		}
		if err != nil && !errors.Is(err, ErrUnknown) {
			return nil, err
		}
		s.bitcoin.found(company, id, rec, err == nil)
	}
	return lost, nil
}

// found takes a wallet from those that are lost.
func (b *bitcoinIndexes) found(company, id string, rec record, there bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.by[company]
	x.lost = slices.DeleteFunc(x.lost, func(l string) bool { return l == id })
	if there {
		x.add(rec)
	}
}

func (s *Store) byBitcoin(company string, find func(*bitcoinIndex) []string) ([]*Wallet, error) {
	if !ValidCompany(company) {
		return nil, fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	ids, err := s.bitcoin.find(s, company, find)
	if err != nil {
		return nil, err
	}
	var ws []*Wallet
	for _, id := range ids {
		w, err := s.Lookup(company, id)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ws = append(ws, w)
	}
	return ws, nil
}

// find asks a company's index, which it makes if need be.
func (b *bitcoinIndexes) find(s *Store, company string, find func(*bitcoinIndex) []string) ([]string, error) {
	x := b.of(company)
	if err := b.ensure(s, company, x); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(find(x)), nil
}

func (b *bitcoinIndexes) of(company string) *bitcoinIndex {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.by[company]
	if x == nil {
		if b.by == nil {
			b.by = map[string]*bitcoinIndex{}
		}
		x = &bitcoinIndex{masters: map[hd.Fingerprint][]string{}, keys: map[[32]byte][]string{}, hashes: map[[20]byte][]string{}}
		b.by[company] = x
	}
	return x
}

// ensure makes the index unless that was done. Of the wallets that are made meanwhile
// some are seen in the directory, and all of them come late.
func (b *bitcoinIndexes) ensure(s *Store, company string, x *bitcoinIndex) error {
	x.making.Lock()
	defer x.making.Unlock()
	b.mu.Lock()
	made := x.made
	b.mu.Unlock()
	if made {
		return nil
	}
	comp, err := s.company(company)
	if err != nil {
		return err
	}
	defer comp.Close()
	ids, err := idsAfter(comp, "")
	if err != nil {
		return fmt.Errorf("listing the wallets of company %s: %w", company, err)
	}
	var recs []record
	var lost []string
	for _, id := range ids {
		rec, err := s.readRecord(comp, walletID{company, id})
		if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
			lost = append(lost, id) // it could not sign either
			continue
		}
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return err
		}
		if rec.Curve == Secp256k1 {
			recs = append(recs, rec)
		}
	}
	for _, rec := range recs {
		x.add(rec) // nobody else looks at it before it is made
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rec := range x.late {
		x.add(rec)
	}
	x.late, x.lost, x.made = nil, lost, true
	return nil
}

// add takes in a wallet that was made, or found made.
func (b *bitcoinIndexes) add(id walletID, rec record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch x := b.by[id.company]; {
	case x == nil:
	case x.made:
		x.add(rec)
	default:
		x.late = append(x.late, rec)
	}
}

func (x *bitcoinIndex) add(rec record) {
	if rec.Kind == kindHD {
		f, _ := hd.ParseFingerprint(rec.Fingerprint)
		x.masters[f] = insert(x.masters[f], rec.ID)
		return
	}
	if rec.Curve != Secp256k1 {
		return
	}
	pub, err := secpOf(rec.PublicKey)
	if err != nil {
		return // damage, which Lookup tells of
	}
	at := [32]byte(hd.XOnly(pub))
	x.keys[at] = insert(x.keys[at], rec.ID)
	key, script := hashesOf(pub)
	x.hashes[key] = insert(x.hashes[key], rec.ID)
	x.hashes[script] = insert(x.hashes[script], rec.ID)
}

// insert puts an id into a list in order, once.
func insert(list []string, id string) []string {
	i, found := slices.BinarySearch(list, id)
	if found {
		return list
	}
	return slices.Insert(list, i, id)
}

// secpOf is the key in a PEM that encodePublic wrote: its last 65 bytes are the point.
func secpOf(text string) (*btcec.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || len(block.Bytes) < 65 {
		return nil, errPoint
	}
	return btcec.ParsePubKey(block.Bytes[len(block.Bytes)-65:])
}
