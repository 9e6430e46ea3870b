package appliance

import (
	"errors"
	"fmt"
	"slices"

	"signdrop/appliance/answer"
	"signdrop/appliance/bitcoin"
	"signdrop/appliance/ledger"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
	"signdrop/spool"
)

// Payments are Bitcoin's transactions. They name the keys that they want instead of a
// wallet, and may want several of several wallets.

// judgePayment checks a PSBT with the company's keys and rules, and finds its wallets.
func (a *Appliance) judgePayment(c *company, o *outcome, p *bitcoin.PSBT) error {
	rules, ok := c.policy.Rules(bitcoin.Ledger.Name).(*bitcoin.Rules)
	if !ok {
		return errors.New("internal error: there are no rules for Bitcoin")
	}
	keys := &purse{keys: a.keys, company: c.name, singles: map[string]*keyfs.Wallet{}, trees: map[string]*keyfs.Wallet{}, branches: map[string]*hd.Public{}}
	r := *rules
	if r.Network == "" {
		r.Network = keys.networkOf(p)
	}
	keys.network = r.Network
	lost, err := a.keys.Unread(c.name)
	if err != nil {
		return err
	}
	tx, err := p.Check(r, keys)
	if keys.err != nil {
		return keys.err // what Check made of it is of no worth
	}
	if ref, ok := reason.As(err); ok && ref.Code == reason.NothingToSign && lost != nil {
		return lost // it may be the wallet's: that is no verdict for good
	}
	if err != nil && keys.foreign {
		return reason.New(reason.NetworkMismatch, "make it for "+r.Network+", with wallets of that network alone", "a key is that of a wallet for another network")
	}
	if err != nil {
		return err
	}
	var ws []*keyfs.Wallet
	var which []int
	for _, want := range tx.Wants() {
		w := keys.of(want.Key)
		if !w.HD() && rules.Network != r.Network && r.Network != networks[hd.Main] {
			// Money could be passed off as a test: anybody may name a wallet in a PSBT.
			return reason.New(reason.NetworkMismatch, "let the policy name the network, or spend from HD wallets alone",
				"a single key signs for a test network only if the policy says so").At(fmt.Sprintf("inputs[%d]", want.Input))
		}
		i := slices.IndexFunc(ws, func(have *keyfs.Wallet) bool { return have.ID() == w.ID() })
		if i < 0 {
			i, ws = len(ws), append(ws, w)
		}
		which = append(which, i)
	}
	o.wallet, o.others = ws[0], ws[1:]
	views := make([]policy.Wallet, len(ws))
	for i, w := range ws {
		views[i] = walletView(c, w)
	}
	o.req.Tx = bitcoin.NewPayment(p, tx, which)
	o.plan, err = policy.NewPlan(o.req, views[0], views[1:]...)
	return err
}

// purse is a company's keys, as a PSBT is checked with them.
type purse struct {
	keys    *keyfs.Store
	company string
	network string
	err     error // the disk's, or a refusal: everything was answered with no since
	foreign bool  // a key was answered with no because its wallet is for another network

	// The wallets by the keys that were found to be theirs: those that are named without
	// an origin, and those of trees, by origin and key. The same key can be both.
	singles map[string]*keyfs.Wallet
	trees   map[string]*keyfs.Wallet

	branches map[string]*hd.Public // by wallet and path, all but the last step
	known    map[[4]byte][]*keyfs.Wallet
	tries    int // of keys on branches
}

// networks are the names that Bitcoin's package has for those of wallets.
var networks = map[hd.Network]string{hd.Main: "mainnet", hd.Test: "testnet", hd.Regtest: "regtest"}

// of returns the wallet of a key that is to sign.
func (k *purse) of(key bitcoin.Key) *keyfs.Wallet {
	if len(key.Path) == 0 {
		return k.singles[string(key.Public)]
	}
	return k.trees[originOf(key)]
}

func originOf(key bitcoin.Key) string { return key.Origin() + " " + string(key.Public) }

// fits reports whether a wallet's keys may sign on the network.
func (k *purse) fits(w *keyfs.Wallet) bool {
	own := networks[w.Network()]
	return own == k.network || own == "testnet" && k.network == "signet"
}

// networkOf is that of the first HD wallet that the PSBT names, or the main network. A
// wallet of another beside it is refused. Wallets of the same words have the same
// fingerprint on every network; the keys' paths tell which is meant.
func (k *purse) networkOf(p *bitcoin.PSBT) string {
	for _, f := range p.Fingerprints() {
		ws := k.masters(f)
		for _, w := range ws {
			if n := networks[w.Network()]; p.Fits(n) {
				return n
			}
		}
		if len(ws) > 0 {
			return networks[ws[0].Network()]
		}
	}
	return networks[hd.Main]
}

func (k *purse) masters(f [4]byte) []*keyfs.Wallet {
	ws, seen := k.known[f]
	if !seen && k.err == nil {
		ws, k.err = k.keys.ByFingerprint(k.company, hd.Fingerprint(f))
		if k.known == nil {
			k.known = map[[4]byte][]*keyfs.Wallet{}
		}
		if len(k.known) < maxKnown {
			k.known[f] = ws
		}
	}
	return ws
}

// maxKnown bounds what a hostile PSBT can have remembered.
const maxKnown = 10_000

// Knows implements bitcoin.Keys.
func (k *purse) Knows(fingerprint [4]byte) bool { return len(k.masters(fingerprint)) > 0 }

// maxBranches bounds the branches of trees that one PSBT may name keys on: each takes
// the master key and some tenths of a millisecond.
const maxBranches = 100

// maxTries bounds how often a key is looked for on a branch, 30 µs each. The 50,000 keys
// that fit into a PSBT need not as many; those of a company that has a hundred wallets of
// the same words would need millions.
const maxTries = 200_000

// Owns implements bitcoin.Keys.
func (k *purse) Owns(key bitcoin.Key) bool {
	if !key.Near() {
		return false
	}
	n, foreign := len(key.Path), false
	for _, w := range k.masters(key.Fingerprint) {
		if k.err != nil {
			return false
		}
		branch, err := k.branch(w, key.Path[:n-1])
		if err != nil {
			continue // no key is there
		}
		if k.tries++; k.tries > maxTries {
			k.err = reason.New(reason.TooLarge, "split the payment", "too many of the company's wallets have the fingerprint that its keys name")
			return false
		}
		if branch.HasChild(key.Path[n-1], key.Point, len(key.Public) == 32) {
			if !k.fits(w) {
				foreign = true
				continue
			}
			k.trees[originOf(key)] = w
			return true
		}
	}
	k.foreign = k.foreign || foreign
	return false
}

// branch derives what a key is a child of. Most of a transaction's keys have it in
// common.
func (k *purse) branch(w *keyfs.Wallet, path hd.Path) (*hd.Public, error) {
	name := w.ID() + path.String()
	branch := k.branches[name]
	if branch == nil {
		if len(k.branches) >= maxBranches {
			k.err = reason.New(reason.TooLarge, "split the payment", "its keys lie on more than %d branches of the company's wallets", maxBranches)
			return nil, k.err
		}
		var err error
		if branch, err = w.PublicAt(path); err != nil {
			return nil, err
		}
		k.branches[name] = branch
	}
	return branch, nil
}

// OwnsSingle implements bitcoin.Singles.
func (k *purse) OwnsSingle(public []byte) bool {
	if k.err != nil || len(public) != 32 && len(public) != 33 {
		return false
	}
	ws, err := k.keys.ByPublicKey(k.company, public)
	if err != nil {
		k.err = err
		return false
	}
	if len(ws) == 0 {
		return false
	}
	k.singles[string(public)] = ws[0]
	return true
}

// SingleOf implements bitcoin.Singles.
func (k *purse) SingleOf(script []byte) []byte {
	if k.err != nil {
		return nil
	}
	ws, err := k.keys.ByScript(k.company, script)
	if err != nil {
		k.err = err
	}
	if err != nil || len(ws) == 0 {
		return nil
	}
	key, err := ws[0].Secp256k1Key()
	if err != nil {
		return nil
	}
	return key.SerializeCompressed()
}

// inputSigners are the signers of a payment's wallets, by the wallet.
type inputSigners map[*keyfs.Wallet]*keyfs.InputSigner

func (s inputSigners) sign(w *keyfs.Wallet, in *ledger.Input, digest []byte) ([]byte, error) {
	if s[w] == nil {
		s[w] = w.InputSigner()
	}
	how := keyfs.Input{Scheme: keyfs.InputECDSA, Path: in.Path, Public: in.Public, Point: in.Point, Root: in.Root}
	switch {
	case in.Tweaked:
		how.Scheme = keyfs.InputTapKey
	case in.Schnorr:
		how.Scheme = keyfs.InputTapScript
	}
	return s[w].Sign(how, [32]byte(digest))
}

func (s inputSigners) wipe() {
	for _, signer := range s {
		signer.Wipe()
	}
}

// paid writes the answer to a payment. It is kept: to make it again would mean to check
// the PSBT with the wallets and rules of that time.
func (a *Appliance) paid(c *company, o *outcome, p *bitcoin.Payment, sigs []string) {
	ids := []string{o.wallet.ID()}
	for _, w := range o.others {
		ids = append(ids, w.ID())
	}
	report, files, err := p.Finish(ids, sigs, a.cfg.Recheck == keyfs.RecheckVerify)
	if err != nil {
		// The signatures are dropped here and never leave.
		o.approval.Release()
		o.approval = nil
		if fault := o.refuseWith(err); fault != nil {
			a.keyTrouble(c, o, fault)
		}
		return
	}
	members := []answer.Member{
		{Name: "operation", Value: p.Operation()}, {Name: "ledger", Value: p.Ledger()}, {Name: p.Ledger(), Value: report},
	}
	for _, f := range files {
		o.files = append(o.files, spool.File{Ending: f.Suffix, Data: f.Data})
	}
	if len(o.files) > 0 {
		members = append(members, filesMember(o.files))
	}
	o.answer, o.kept = answer.AppendResult(nil, o.head, "sign", "signed", members...), true
	a.signatures(o, sigs)
}

// refuseHD refuses an HD wallet where one with a single key is wanted.
func refuseHD(w *keyfs.Wallet) error {
	if !w.HD() {
		return nil
	}
	return reason.New(reason.FieldInvalid, "use a wallet with a single key", "an HD wallet signs Bitcoin transactions and nothing else").At("wallet")
}
