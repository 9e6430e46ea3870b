package appliance

import (
	"errors"
	"fmt"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/metacoin"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// judgeImport checks a key that was made elsewhere before anything is done.
func (a *Appliance) judgeImport(c *company, o *outcome) error {
	if o.req.Mnemonic != nil {
		return a.judgeWords(o)
	}
	key, err := keyfs.ParsePrivateKey(o.req.PrivateKey)
	if err == nil {
		key, err = key.On(hd.Network(o.req.Network))
	}
	if err != nil {
		return reason.New(reason.FieldInvalid, "give PEM, SEC 1 (EC PRIVATE KEY) or PKCS#8 (PRIVATE KEY), on P-256, P-384, P-521 or secp256k1, or a key in WIF for a compressed public key (it begins with K, L or c), or a master key as xprv or tprv, of the network that is named",
			"this is not a private key that can be imported").At("private_key")
	}
	if o.req.Address == "" {
		return nil
	}
	if key.Network() != "" {
		return reason.New(reason.FieldUnknown, "leave the address out", "an HD wallet has no address of Metacoin").At("address")
	}
	if !metacoin.ValidAddress(o.req.Address) {
		return reason.New(reason.FieldInvalid, "copy the address that Metacoin gave", "this is not a Metacoin address").At("address")
	}
	if key.Curve() == keyfs.Secp256k1 {
		return reason.New(reason.CurveUnsuitable, "leave the address out", "Metacoin does not accept keys on secp256k1").At("address")
	}
	other, err := a.keys.ByAddress(c.name, o.req.Address)
	if err == nil && other.PublicPEM() != key.PublicPEM() {
		return walletBound()
	}
	if err != nil && !errors.Is(err, keyfs.ErrUnknown) {
		return err
	}
	return nil
}

// importWallet makes a wallet of a key that was made elsewhere, and binds it.
func (a *Appliance) importWallet(c *company, o *outcome, file [32]byte) error {
	if o.req.Address != "" {
		// The same key may have been imported and bound before; then that wallet it is.
		if w, err := a.keys.ByAddress(c.name, o.req.Address); err == nil {
			if w.ID() != walletID(a.seed, c.name, file, o.head.Line) {
				o.refuseWith(walletBound())
				return nil
			}
		}
	}
	defer clear(o.req.PrivateKey)
	ws, err := a.keys.Import(c.name, []keyfs.ImportSpec{{
		ID: walletID(a.seed, c.name, file, o.head.Line), PrivateKeyPEM: o.req.PrivateKey, NotAfter: o.req.WalletNotAfter,
		Network: hd.Network(o.req.Network),
	}}, a.vol)
	if fault := a.keyFault(c, o, err); fault != nil || o.refusal != nil {
		return fault
	}
	w := ws[0]
	if o.req.Address != "" {
		w, err = a.keys.Bind(c.name, w.ID(), o.req.Address)
		if errors.Is(err, keyfs.ErrBound) {
			o.refuseWith(walletBound())
			return nil
		}
		if fault := a.keyFault(c, o, err); fault != nil || o.refusal != nil {
			return fault
		}
	}
	o.wallet = w
	ans := walletAnswer(o)
	members := []answer.Member{{Name: "wallet", Value: ans.Wallet}, {Name: "address", Value: o.req.Address},
		{Name: "curve", Value: ans.Curve}, {Name: "public_key", Value: ans.PublicKey}}
	if w.HD() {
		tree, err := treeMembers(w)
		if err != nil {
			a.keyTrouble(c, o, err)
			return nil
		}
		members = append(members, tree...)
	}
	o.done("imported", append(members, answer.Member{Name: "not_after", Value: zulu(w.NotAfter())})...)
	return nil
}

// keyFault turns damage of a wallet's files into a refusal. Any other error is a
// fault for which the appliance must stop.
func (a *Appliance) keyFault(c *company, o *outcome, err error) error {
	if damaged := (*keyfs.Damaged)(nil); errors.As(err, &damaged) {
		a.keyTrouble(c, o, err)
		return nil
	}
	if errors.Is(err, keyfs.ErrInvalid) || errors.Is(err, keyfs.ErrOther) {
		a.log.Error().Err(err).Str("company", c.name).Str("type", o.req.Type).Msg("a request that was judged well formed is not")
		o.refusal = reason.New(reason.FieldInvalid, "check its values; the appliance's log names the cause", "the request cannot be carried out")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.req.Type, err)
	}
	return nil
}

// setStatus disables or enables a wallet.
func (a *Appliance) setStatus(c *company, o *outcome) error {
	status, verdict := keyfs.StatusDisabled, "disabled"
	if o.req.Type == request.WalletEnable {
		status, verdict = keyfs.StatusActive, "enabled"
	}
	w, err := a.keys.SetStatus(c.name, o.wallet.ID(), status)
	if fault := a.keyFault(c, o, err); fault != nil || o.refusal != nil {
		return fault
	}
	o.wallet = w
	o.done(verdict, answer.Member{Name: "company", Value: o.req.Company}, answer.Member{Name: "wallet", Value: w.ID()},
		answer.Member{Name: "status", Value: status})
	return nil
}

// rebind is an administrators' correction of a wallet's address.
func (a *Appliance) rebind(c *company, o *outcome) error {
	w, err := a.keys.Rebind(c.name, o.wallet.ID(), o.req.Address)
	if errors.Is(err, keyfs.ErrBound) {
		o.refusal = reason.New(reason.WalletBound, "correct that wallet first", "the address belongs to another wallet").At("address")
		return nil
	}
	if fault := a.keyFault(c, o, err); fault != nil || o.refusal != nil {
		return fault
	}
	o.wallet = w
	o.done("bound", answer.Member{Name: "company", Value: o.req.Company}, answer.Member{Name: "wallet", Value: w.ID()},
		answer.Member{Name: "address", Value: w.Address()}, answer.Member{Name: "curve", Value: string(w.Curve())},
		answer.Member{Name: "public_key", Value: w.PublicPEM()})
	return nil
}

// addresses are those that ledgers compute from a wallet's key, nil for none.
func addresses(w ledger.Wallet) map[string]string {
	var m map[string]string
	for _, l := range ledgers.All {
		if l.Addresses == nil {
			continue
		}
		for _, a := range l.Addresses(w) {
			if m == nil {
				m = map[string]string{}
			}
			m[a.Name] = a.Value
		}
	}
	return m
}

// listWallets answers wallet.list.
func (a *Appliance) listWallets(c *company, o *outcome) error {
	limit := o.req.Limit
	if limit == 0 {
		limit = request.MaxPage
	}
	ws, err := a.keys.List(c.name, o.req.After, limit+1)
	if errors.Is(err, keyfs.ErrInvalid) {
		o.refusal = reason.New(reason.FieldInvalid, "give a wallet's id", "this is not an id").At("after")
		return nil
	}
	if err != nil {
		return fmt.Errorf("wallet.list: %w", err)
	}
	next := ""
	if len(ws) > limit {
		ws = ws[:limit]
		next = ws[limit-1].ID
	}
	list := []answer.WalletEntry{}
	for _, w := range ws {
		e := answer.WalletEntry{
			Wallet: w.ID, Address: w.Address, Curve: string(w.Curve), PublicKey: w.PublicPEM,
			Network: string(w.Network), Master: w.Fingerprint,
			Status: keyfs.StatusActive, NotAfter: zulu(w.NotAfter),
		}
		if w.Network != "" {
			e.Kind = request.KindHD // its master key signs nothing and has no address
		} else {
			e.Addresses = addresses(ledger.Wallet{ID: w.ID, Curve: string(w.Curve), PublicPEM: w.PublicPEM, Address: w.Address})
		}
		var last time.Time
		if e.Signed, last, err = a.journal.Uses(c.name, w.ID); err != nil {
			return fmt.Errorf("wallet.list: %w", err)
		}
		e.LastSigned = zulu(last)
		switch {
		case w.Damage != nil:
			a.log.Error().Err(w.Damage).Str("company", c.name).Msg("wallet cannot be used")
			e.Status = "damaged"
		case !w.Active:
			e.Status = keyfs.StatusDisabled
		}
		list = append(list, e)
	}
	o.done("listed", answer.Member{Name: "wallets", Value: list}, answer.Member{Name: "next", Value: next})
	return nil
}
