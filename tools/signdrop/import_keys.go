package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"signdrop/appliance/auth"
	"signdrop/appliance/metacoin"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/spool/durable"
	"signdrop/tools/signdrop/walletkms"
)

// listed reports whether a key is among the administrators'.
func (m *mover) listed(s setup.Signer) (bool, error) {
	d, err := durable.SubPath(m.db, "admins")
	if err != nil {
		return false, err
	}
	defer d.Close()
	text, err := durable.ReadFile(d, "allowed_signers", auth.MaxSigners)
	if err != nil {
		return false, err
	}
	line, err := auth.Line(s.Key, "")
	if err != nil {
		return false, err
	}
	return strings.Contains(string(text), strings.TrimSpace(line)), nil
}

var errNoCompany = errors.New("its company is not there: see the line of the company; one that is not in the dump cannot come")

// together is how many wallets are made at once: they share the syncs of the disk.
const together = 1000

// candidate is a wallet that can come over.
type candidate struct {
	walletkms.Wallet
	company, id string // here
	old         string // company and id there
}

func (m *mover) moveWallets(ctx context.Context) error {
	// By company, in the order of the dump.
	byCompany := map[string][]candidate{}
	var order []string
	for _, w := range m.dump.Wallets {
		c := candidate{Wallet: w, company: walletkms.CompanyName(w.Company), id: walletkms.WalletID(w.Company, w.ID), old: w.Company + ":" + w.ID}
		m.unknown(w.Entry, kindWallet, c.old)
		if err := m.checkWallet(w); err != nil {
			m.fail(c.Entry, kindWallet, c.old, c.id, err)
			continue
		}
		if byCompany[c.company] == nil {
			order = append(order, c.company)
		}
		byCompany[c.company] = append(byCompany[c.company], c)
	}
	done := 0
	for _, company := range order {
		list := byCompany[company]
		for len(list) > 0 {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("stopped; run it again to go on: %w", err)
			}
			n := min(together, len(list))
			if err := m.moveSome(company, list[:n]); err != nil {
				return err
			}
			list = list[n:]
			done += n
			m.progress.set(int64(done), "")
		}
	}
	return nil
}

// checkWallet says why an entry cannot become a wallet.
func (m *mover) checkWallet(w walletkms.Wallet) error {
	if w.Err != nil {
		return w.Err
	}
	if !m.companies[w.Company] {
		return errNoCompany
	}
	_, err := keyfs.ParsePrivateKey([]byte(w.PrivatePEM))
	return err
}

// moveSome makes wallets of one company and binds them. Its error ends the import;
// trouble with one wallet becomes its line.
func (m *mover) moveSome(company string, list []candidate) error {
	var specs []keyfs.ImportSpec
	there := map[string]*keyfs.Wallet{}
	for _, c := range list {
		w, err := m.keys.Lookup(company, c.id)
		if err == nil {
			there[c.id] = w
		} else if !errors.Is(err, keyfs.ErrUnknown) && !ofOne(err) {
			return err
		}
		specs = append(specs, keyfs.ImportSpec{ID: c.id, PrivateKeyPEM: []byte(c.PrivatePEM)})
	}
	made := make([]*keyfs.Wallet, len(list))
	if !m.dry {
		// All at once, and one by one only where one of them is in the way.
		ws, err := m.keys.Import(company, specs, m.vol)
		if err != nil && !ofOne(err) {
			return err
		}
		copy(made, ws)
	}
	for i, c := range list {
		var err error
		if m.dry {
			err = m.tellWallet(c, specs[i], there[c.id])
		} else {
			err = m.moveWallet(c, specs[i], there[c.id], made[i])
		}
		if err != nil {
			return err
		}
		clear(specs[i].PrivateKeyPEM)
	}
	return nil
}

// ofOne reports whether an error concerns one wallet or data key, and the others
// can go on.
func ofOne(err error) bool {
	var damaged *keyfs.Damaged
	return errors.As(err, &damaged) || errors.Is(err, keyfs.ErrOther) || errors.Is(err, keyfs.ErrBound) ||
		errors.Is(err, keyfs.ErrPrivateKey) || errors.Is(err, datakey.ErrPrivateKey)
}

// moveWallet makes a wallet, unless made is it, and binds it. before is the wallet
// as it was, nil if it was not there.
func (m *mover) moveWallet(c candidate, spec keyfs.ImportSpec, before, made *keyfs.Wallet) error {
	const kind = kindWallet
	if made == nil {
		ws, err := m.keys.Import(c.company, []keyfs.ImportSpec{spec}, m.vol)
		if err != nil {
			if !ofOne(err) {
				return err
			}
			m.fail(c.Entry, kind, c.old, c.id, err)
			return nil
		}
		made = ws[0]
	}
	if !metacoin.ValidAddress(c.Address) {
		m.fail(c.Entry, kind, c.old, c.id, errNotAddress)
		return nil
	}
	if m.isThere(c, before) {
		return nil
	}
	if _, err := m.keys.Bind(c.company, made.ID(), c.Address); err != nil {
		if !ofOne(err) {
			return err
		}
		m.fail(c.Entry, kind, c.old, c.id, fmt.Errorf("the key is there, and not bound to %s: %w", c.Address, err))
		return nil
	}
	m.row(c.Entry, kind, c.old, c.id, stateMade, c.Address)
	return nil
}

// isThere notes a wallet that was there with an address. It may have been given
// another one since.
func (m *mover) isThere(c candidate, before *keyfs.Wallet) bool {
	if before == nil || before.Address() == "" {
		return false
	}
	note := before.Address()
	if note != c.Address {
		note += " (the dump says " + c.Address + ")"
	}
	m.row(c.Entry, kindWallet, c.old, c.id, stateThere, note)
	return true
}

var errNotAddress = errors.New("the key comes over, and its address does not: it is not one of Metacoin's")

// tellWallet says what would become of a wallet.
func (m *mover) tellWallet(c candidate, spec keyfs.ImportSpec, before *keyfs.Wallet) error {
	const kind = kindWallet
	key, err := keyfs.ParsePrivateKey(spec.PrivateKeyPEM)
	if err != nil {
		return fmt.Errorf("internal error: %w", err) // checkWallet has read it
	}
	if before != nil && before.PublicPEM() != key.PublicPEM() {
		m.fail(c.Entry, kind, c.old, c.id, fmt.Errorf("it is there with another key: %w", keyfs.ErrOther))
		return nil
	}
	if !metacoin.ValidAddress(c.Address) {
		m.fail(c.Entry, kind, c.old, c.id, errNotAddress)
		return nil
	}
	if m.isThere(c, before) {
		return nil
	}
	// The address may belong to another wallet, here or in the dump.
	at := [2]string{c.company, c.Address}
	other, err := m.keys.ByAddress(c.company, c.Address)
	if err == nil && other.ID() != c.id || m.addresses[at] {
		m.fail(c.Entry, kind, c.old, c.id, fmt.Errorf("the key comes over, and its address does not: another wallet has it: %w", keyfs.ErrBound))
		return nil
	}
	if err != nil && !errors.Is(err, keyfs.ErrUnknown) && !ofOne(err) {
		return err
	}
	m.addresses[at] = true
	m.row(c.Entry, kind, c.old, c.id, stateComes, c.Address)
	return nil
}

func (m *mover) moveDataKeys(ctx context.Context) error {
	const kind = kindDataKey
	for _, k := range m.dump.DataKeys {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped; run it again to go on: %w", err)
		}
		m.unknown(k.Entry, kind, k.ID)
		if k.Err != nil {
			m.fail(k.Entry, kind, k.ID, "", k.Err)
			continue
		}
		company, id := walletkms.CompanyName(k.Company), walletkms.DataKeyID(k.Company, k.ID)
		old := k.Company + ":" + k.ID
		if !m.companies[k.Company] {
			m.fail(k.Entry, kind, old, id, errNoCompany)
			continue
		}
		spec := datakey.ImportSpec{
			ID: id, Name: k.Name, EncryptedPEM: []byte(k.EncryptedPEM), PublicPEM: []byte(k.PublicPEM),
			Disabled: k.Status != walletkms.StatusNormal,
		}
		note := k.Name
		if !datakey.ValidName(k.Name) {
			spec.Name, note = "", "its name cannot be kept"
		}
		if spec.Disabled {
			note = strings.TrimSpace(fmt.Sprintf("%s (status %d: disabled)", note, k.Status))
		}
		_, err := m.dkeys.Lookup(company, id)
		state := stateThere
		if errors.Is(err, keyfs.ErrUnknown) {
			state, err = m.fresh(), nil
		}
		if err == nil {
			if m.dry {
				err = datakey.Check(spec)
			} else {
				_, err = m.dkeys.Import(company, spec, m.vol)
			}
		}
		if err != nil {
			if !ofOne(err) {
				return err
			}
			m.fail(k.Entry, kind, old, id, err)
			continue
		}
		m.row(k.Entry, kind, old, id, state, note)
	}
	return nil
}
