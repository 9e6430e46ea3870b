package appliance

import (
	"encoding/hex"
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/appliance/answer"
	"signdrop/appliance/bitcoin"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// What is said of wallets that hold bitcoins. All of it follows from the request and
// the wallet, so that it can be said again.

// treeMembers is what an HD wallet's creation or import tells of it beside its public
// key: the first account of each form of address.
func treeMembers(w *keyfs.Wallet) ([]answer.Member, error) {
	accounts := []answer.AccountEntry{}
	for _, s := range hd.Scripts {
		e, _, err := accountOf(w, s, 0)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, e)
	}
	return []answer.Member{
		{Name: "kind", Value: request.KindHD}, {Name: "network", Value: string(w.Network())},
		{Name: "fingerprint", Value: w.Fingerprint().String()}, {Name: "accounts", Value: accounts},
	}, nil
}

func accountOf(w *keyfs.Wallet, s hd.Script, number uint32) (answer.AccountEntry, *hd.Public, error) {
	path := hd.Account(s, w.Network(), number)
	pub, err := w.PublicAt(path)
	if err != nil {
		return answer.AccountEntry{}, nil, err
	}
	return answer.AccountEntry{
		Script: string(s), Path: path.String(), XPub: pub.String(w.Network()),
		Descriptor: hd.Descriptor(s, w.Fingerprint(), path, pub, w.Network()),
	}, pub, nil
}

// judgeWords makes the key that words stand for, in their place.
func (a *Appliance) judgeWords(o *outcome) error {
	req := o.req
	if req.Address != "" {
		return reason.New(reason.FieldUnknown, "leave the address out", "an HD wallet has no address of Metacoin").At("address")
	}
	key, err := keyfs.KeyOfWords(req.Mnemonic, req.Passphrase, hd.Network(req.Network))
	if err != nil {
		return reason.New(reason.FieldInvalid, "give 12, 15, 18, 21 or 24 English words of BIP-39 in lower case, and a passphrase of printable ASCII",
			"these are not words that can be imported, or one of them is wrong").At("mnemonic")
	}
	req.PrivateKey = key
	return nil
}

// checkAddresses refuses what no addresses can be told for.
func checkAddresses(o *outcome) error {
	req, w := o.req, o.wallet
	if !hd.Script(req.Script).Known() {
		return reason.New(reason.FieldInvalid, "use p2pkh, p2sh-p2wpkh, p2wpkh or p2tr", "there is no such form of address").At("script")
	}
	if w.HD() {
		if req.Network != "" && req.Network != string(w.Network()) {
			return reason.New(reason.FieldInvalid, "leave it out", "the wallet belongs to another network").At("network")
		}
		// What is paid to others could not be spent.
		if req.Index+max(req.Number, 1) > bitcoin.MaxIndex {
			return reason.New(reason.FieldInvalid, fmt.Sprintf("ask for those below %d, or use another account", bitcoin.MaxIndex),
				"nothing is signed for addresses from %d on", bitcoin.MaxIndex).At("index")
		}
		return nil
	}
	if w.Curve() != keyfs.Secp256k1 {
		return reason.New(reason.CurveUnsuitable, "use a wallet on secp256k1", "Bitcoin does not accept keys on this curve").At("wallet")
	}
	if req.Account != 0 || req.Change || req.Index != 0 || req.Number > 1 {
		return reason.New(reason.FieldInvalid, "leave account, change, index and number out", "the wallet has a single key").At("index")
	}
	return nil
}

// addresses answers wallet.address.
func (a *Appliance) addresses(c *company, o *outcome) {
	if err := a.addressed(o); err != nil {
		a.keyTrouble(c, o, err)
	}
}

func (a *Appliance) addressed(o *outcome) error {
	req, w, s := o.req, o.wallet, hd.Script(o.req.Script)
	network := w.Network()
	var account answer.AccountEntry
	var list []answer.AddressEntry
	add := func(pub *btcec.PublicKey, path string) {
		list = append(list, answer.AddressEntry{
			Address: s.Address(pub, network), Path: path, PublicKey: hex.EncodeToString(pub.SerializeCompressed()),
		})
	}
	if w.HD() {
		var pub *hd.Public
		var err error
		if account, pub, err = accountOf(w, s, uint32(req.Account)); err != nil {
			return err
		}
		chain := uint32(0)
		if req.Change {
			chain = 1
		}
		if pub, err = pub.Derive(hd.Path{chain}); err != nil {
			return err
		}
		base := hd.Account(s, network, uint32(req.Account)).Below(chain)
		for i := range uint32(max(req.Number, 1)) {
			key, err := pub.Derive(hd.Path{uint32(req.Index) + i})
			if err != nil {
				return err
			}
			add(key.Key(), base.Below(uint32(req.Index)+i).String())
		}
	} else {
		network = hd.Main
		if req.Network != "" {
			network = hd.Network(req.Network)
		}
		pub, err := w.Secp256k1Key()
		if err != nil {
			return err
		}
		account = answer.AccountEntry{Script: string(s), Descriptor: hd.KeyDescriptor(s, pub)}
		add(pub, "")
	}
	o.done("derived",
		answer.Member{Name: "wallet", Value: w.ID()}, answer.Member{Name: "network", Value: string(network)},
		answer.Member{Name: "accounts", Value: []answer.AccountEntry{account}}, answer.Member{Name: "addresses", Value: list})
	o.kept = false // it can be made again
	return nil
}
