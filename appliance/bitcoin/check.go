package bitcoin

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

// Tx is a transaction that Check has checked. It is not for several goroutines
// at once.
type Tx struct {
	psbt    *PSBT
	rules   Rules
	net     network
	tx      *wire.MsgTx // without signatures
	global  *keymap
	ins     []*input
	outs    []*output
	wants   []Want
	digests *digester

	verified *txscript.SigCache // signatures that were added

	in, fee, paid int64 // satoshi
	shared        int64 // of paid, to scripts in which the company has a part
}

// An output is what Check finds out about one output.
type output struct {
	kind   string
	change bool
}

const (
	maxMoney          = 21_000_000 * 100_000_000 // satoshi
	defaultFeePercent = 10

	// maxLegacyHashing limits the bytes that the digests of the original
	// protocol go through, whose cost grows with the square of the inputs.
	maxLegacyHashing = 512 << 20

	// maxTaprootHashing limits the bytes that the digests in finished Taproot inputs go
	// through, each of which covers anew what it chooses of the annex and an output.
	maxTaprootHashing = 512 << 20

	// maxSignatures limits the signatures that are made for a transaction, and those
	// that its scripts check. Scripts of others can check a hundred in as many bytes.
	// Nodes relay no transaction with more (MAX_STANDARD_TX_SIGOPS_COST).
	maxSignatures = 16_000
)

// Check checks what a careful signer checks, and computes what is to be signed.
// Nothing but it makes a Tx. The refusals are those of the reason codes from
// input-twice on, and too-large. It may be called again with other rules.
func (p *PSBT) Check(rules Rules, keys Keys) (t *Tx, err error) {
	defer refusePanic(&err, func() { t = nil })
	if rules.Network == "" {
		rules.Network = Networks[0]
	}
	net, ok := networks[rules.Network]
	if !ok {
		return nil, fmt.Errorf("checking a PSBT: network %q is none of %v", rules.Network, Networks)
	}
	t = &Tx{psbt: p, rules: rules, net: net, tx: p.tx.Copy(), global: p.global.clone()}
	for _, step := range []func(Keys) error{
		t.checkInputs, t.checkAmounts, t.checkOrigins, t.checkOutputs, t.checkFee, t.plan, t.checkProofs,
		t.checkSighashes, t.checkSignatures,
	} {
		if err := step(keys); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func at(r *reason.Refusal, list string, i int) error {
	return r.At(fmt.Sprintf("%s[%d]", list, i))
}

// checkInputs finds what each input spends.
func (t *Tx) checkInputs(Keys) error {
	if len(t.tx.TxIn) == 0 || len(t.tx.TxOut) == 0 {
		return reason.New(reason.NothingToSign, "add inputs and outputs", "the transaction has no inputs or no outputs")
	}
	seen := make(map[wire.OutPoint]bool, len(t.tx.TxIn))
	legacy, checks, taproot := 0, 0, 0
	for i, txIn := range t.tx.TxIn {
		out := txIn.PreviousOutPoint
		if seen[out] || out.Hash == (chainhash.Hash{}) {
			return at(reason.New(reason.InputTwice, "make it anew", "it spends what another input spends, or what cannot exist"), "inputs", i)
		}
		seen[out] = true
		in := &input{fields: t.psbt.inputs[i].clone()}
		if v := in.fields.get(inSighash); v != nil {
			in.sighash, in.sighashSet = u32(v), true
		}
		if r := in.readSpent(out); r != nil {
			return at(r, "inputs", i)
		}
		if r := in.readScripts(); r != nil {
			return at(r, "inputs", i)
		}
		n := in.checks()
		checks += n
		if in.kind == kindP2PKH || in.kind == kindP2SH || in.kind == kindUnknown {
			legacy += max(n, 1)
		}
		if in.final && in.kind == kindP2TR {
			taproot += n * in.anew(t.tx, i)
		}
		t.ins = append(t.ins, in)
	}
	if checks > maxSignatures {
		return tooManySignatures()
	}
	if legacy*t.tx.SerializeSizeStripped() > maxLegacyHashing {
		return reason.New(reason.TooLarge, "split the payment, or spend from addresses with segregated witness",
			"the transaction has too many inputs without segregated witness for its size")
	}
	if taproot > maxTaprootHashing {
		return reason.New(reason.TooLarge, "split the payment", "the finished Taproot inputs check too many signatures for the size of their annexes and outputs")
	}
	return nil
}

func tooManySignatures() error {
	return reason.New(reason.TooLarge, "split the payment", "the transaction wants more than %d signatures, or has scripts that check more", maxSignatures)
}

// checkAmounts adds up.
func (t *Tx) checkAmounts(Keys) error {
	var out int64
	for i, in := range t.ins {
		if v := in.spent.Value; v < 0 || v > maxMoney || t.in+v > maxMoney {
			return at(reason.New(reason.AmountInvalid, "make it anew", "the inputs are more than there can be"), "inputs", i)
		}
		t.in += in.spent.Value
	}
	for i, o := range t.tx.TxOut {
		if v := o.Value; v < 0 || v > maxMoney || out+v > maxMoney {
			return at(reason.New(reason.AmountInvalid, "make it anew", "the outputs are more than there can be"), "outputs", i)
		}
		out += o.Value
	}
	if t.fee = t.in - out; t.fee < 0 {
		return reason.New(reason.AmountInvalid, "make it anew", "the outputs pay more than the inputs bring")
	}
	return nil
}

// checkOrigins finds the keys that are ours, and what only says so.
func (t *Tx) checkOrigins(keys Keys) error {
	for _, p := range t.global.pairs {
		if p.kind() == globalXpub && !t.net.fitsXpub([4]byte(p.data())) {
			return reason.New(reason.NetworkMismatch, "make it for "+t.rules.Network, "an extended public key is for another network")
		}
	}
	singles, _ := keys.(Singles)
	for i, in := range t.ins {
		if in.final {
			continue
		}
		in.owned = map[string]Key{}
		in.findSingles(singles)
		named, atRoot := in.fields.origins(inDerivation, inTapDerivation)
		spending := map[string]bool{}
		for _, s := range in.spends {
			for _, key := range s.keys {
				spending[string(key)] = true
			}
		}
		for j, k := range named {
			if !keys.Knows(k.Fingerprint) {
				continue
			}
			if in.internal != nil && bytes.Equal(k.Public, schnorr.SerializePubKey(in.internal)) {
				k.Point = in.internal
			}
			if !owns(keys, &k) {
				return at(notOurs(reason.OriginFalse, k), "inputs", i)
			}
			if !t.net.fits(k.Path) {
				return at(reason.New(reason.NetworkMismatch, "make it for "+t.rules.Network, "a key's path is for another network"), "inputs", i)
			}
			// A leaf that is not in the PSBT may hold a Taproot key.
			if len(in.spends) > 0 && (len(k.Public) != 32 || atRoot[j]) && !spending[string(k.Public)] {
				return at(reason.New(reason.OriginFalse, "make it anew with the wallet's own keys",
					"a key of the company's is named that the output's script does not have"), "inputs", i)
			}
			in.owned[string(k.Public)] = k
		}
	}
	return nil
}

// notOurs says why a key with the origin of one of ours is not used.
func notOurs(code reason.Code, k Key) *reason.Refusal {
	if !k.Near() {
		return reason.New(code, fmt.Sprintf("use keys whose path has at most %d steps, the last of them not hardened and below %d", maxSteps, MaxIndex),
			"a key names one of the company's wallets as its origin, on a path that the appliance signs nothing for")
	}
	return reason.New(code, "make it anew with the wallet's own keys", "a key names one of the company's wallets as its origin and is not its key")
}

// findSingles finds the keys of wallets that have one key, with or without an origin
// that the PSBT gives them.
func (in *input) findSingles(keys Singles) {
	if keys == nil {
		return
	}
	for _, s := range in.spends {
		if len(s.keys) == 0 && !s.schnorr {
			if key := keys.SingleOf(in.spent.PkScript); key != nil {
				s.keys = [][]byte{key}
			}
		}
		for _, key := range s.keys {
			if keys.OwnsSingle(key) {
				in.owned[string(key)] = Key{Public: key}
			}
		}
	}
}

// checkOutputs tells change from payments. An output that says it is change and
// is not is refused.
func (t *Tx) checkOutputs(keys Keys) error {
	from := t.places() // less what goes back there
	for i, txOut := range t.tx.TxOut {
		m := t.psbt.outputs[i]
		o := &output{kind: kindOf(txOut.PkScript, m.get(outRedeem))}
		t.outs = append(t.outs, o)
		named, _ := m.origins(outDerivation, outTapDerivation)
		owned, distant := map[string]bool{}, map[string]bool{}
		var below []Key // owned, of trees
		singles, _ := keys.(Singles)
		if singles != nil && singles.SingleOf(txOut.PkScript) != nil {
			o.change = true
			continue
		}
		for _, k := range named {
			if singles != nil && singles.OwnsSingle(k.Public) {
				owned[string(k.Public)] = true
				continue
			}
			if !keys.Knows(k.Fingerprint) {
				continue
			}
			if !owns(keys, &k) {
				return at(notOurs(reason.ChangeFalse, k), "outputs", i)
			}
			if !t.net.fits(k.Path) {
				return at(reason.New(reason.NetworkMismatch, "make it for "+t.rules.Network, "a key's path is for another network"), "outputs", i)
			}
			if place, is := far(k); is {
				distant[place] = true
			}
			owned[string(k.Public)] = true
			below = append(below, k)
		}
		// No more than comes from there: who writes the PSBT could send a little there
		// first, to spend it beside the rest.
		for place := range distant {
			if from[place] -= txOut.Value; from[place] < 0 {
				return at(reason.New(reason.ChangeFalse, "let change go to an account that is spent from, or to an account and a chain below 1000",
					"its key lies on a path on which nobody would look for it"), "outputs", i)
			}
		}
		if len(owned) > 0 {
			all, ok := pays(txOut.PkScript, m, owned)
			if !ok {
				return at(changeFalse("its script is not that of the company's key which it names"), "outputs", i)
			}
			o.change = all && together(below, from)
			if !o.change {
				t.shared += txOut.Value
			}
		}
		if !o.change {
			t.paid += txOut.Value
		}
	}
	return nil
}

// Limits of the paths of change that lies in no account that the transaction spends from.
const (
	usualSteps  = 6
	usualNumber = 1000 // of all steps but the last
)

// places are the origins of the accounts and of the chains that our keys are spent from,
// one and two steps above the keys, with the satoshi that come from there. A key that is
// named and spends nothing is no part of it: the input may be anybody's.
func (t *Tx) places() map[string]int64 {
	m := map[string]int64{}
	for _, in := range t.ins {
		here := map[string]bool{}
		for _, s := range in.spends {
			for _, key := range s.keys {
				k := in.owned[string(key)]
				for up := 1; up <= 2 && up <= len(k.Path); up++ {
					here[above(k, up)] = true
				}
			}
		}
		for place := range here {
			m[place] += in.spent.Value
		}
	}
	return m
}

func above(k Key, steps int) string {
	k.Path = k.Path[:len(k.Path)-steps]
	return k.Origin()
}

// far names the place that the transaction has to spend from for who has the wallet and
// nothing else to find coins at a key of ours: the chain, or where that has a usual number
// the account. Where all numbers are usual there is none. What lies elsewhere is not lost,
// but as good as that until somebody tells the path, which whoever wrote the PSBT could
// sell.
func far(k Key) (place string, is bool) {
	n := len(k.Path)
	usual := func(path []uint32) bool {
		return !slices.ContainsFunc(path, func(step uint32) bool { return step&^hardened >= usualNumber })
	}
	switch {
	case n < 2 || n <= usualSteps && usual(k.Path[:n-1]):
		return "", false
	case usual(k.Path[n-2 : n-1]):
		return above(k, 2), true
	}
	return above(k, 1), true
}

// together reports whether who has the wallets would find the script of several keys of
// ours again: all have the same number in accounts that are spent from, as multisigs
// have. Of others there are too many to try.
func together(keys []Key, from map[string]int64) bool {
	last := func(k Key) []uint32 { return k.Path[max(len(k.Path)-1, 0):] }
	return len(keys) < 2 || !slices.ContainsFunc(keys, func(k Key) bool {
		_, spent := from[above(k, min(len(k.Path), 2))]
		return !spent || !slices.Equal(last(k), last(keys[0]))
	})
}

// usualLeaves is how many leaves the tree of change may have, whose shape nobody could
// guess otherwise.
const usualLeaves = 8

func changeFalse(format string, args ...any) *reason.Refusal {
	return reason.New(reason.ChangeFalse, "make it anew with the wallet's own keys", format, args...)
}

// pays holds an output's script against the keys of ours that the PSBT names for
// it. all: nobody else's key can spend it; ok: one of ours has a part in it.
func pays(script []byte, m *keymap, owned map[string]bool) (all, ok bool) {
	if output := p2tr(script); output != nil {
		return paysTaproot(output, m, owned)
	}
	redeem, witness := m.get(outRedeem), m.get(outWitness)
	program := script
	if hash := p2sh(script); hash != nil {
		if !bytes.Equal(hash, hash160(redeem)) {
			// Without a redeem script P2WPKH is the only thing that it can be.
			for key := range owned {
				nested := append([]byte{0, 20}, hash160([]byte(key))...)
				if redeem == nil && len(key) == 33 && bytes.Equal(hash, hash160(nested)) {
					return true, true
				}
			}
			return false, false
		}
		program = redeem
	}
	one := p2wpkh(program)
	if one == nil {
		one = p2pkh(script)
	}
	if one != nil {
		// Of 32 bytes is a key of Taproot, whose hash nobody can spend from.
		for key := range owned {
			if len(key) == 33 && bytes.Equal(hash160([]byte(key)), one) {
				return true, true
			}
		}
		return false, false
	}
	if hash := p2wsh(program); hash != nil {
		if !bytes.Equal(hash, sha(witness)) {
			return false, false
		}
		q, understood := readMultisig(witness)
		return owners(q, understood, owned)
	}
	q, understood := readRedeem(program)
	return owners(q, understood && p2sh(script) != nil, owned)
}

// owners tells whether all and whether any of a script's keys are owned. What we would
// not sign for is not all ours: of a script that is not understood q has the first keys
// alone, and what follows them may let anybody spend.
func owners(q quorum, understood bool, owned map[string]bool) (all, any bool) {
	all = understood && len(q.keys) > 0 && !q.keyTwice()
	for _, k := range q.keys {
		all = all && owned[string(k)]
		any = any || owned[string(k)]
	}
	return all, any
}

func paysTaproot(output []byte, m *keymap, owned map[string]bool) (all, ok bool) {
	internal := m.get(outTapKey)
	if internal == nil {
		return false, false
	}
	var scripts tree
	if v := m.get(outTapTree); v != nil {
		scripts, _ = treeRoot(v)
	}
	key, _, valid := taprootKey(internal, scripts.root)
	if !valid || !bytes.Equal(key, output) {
		return false, false
	}
	all = owned[string(internal)] && (scripts.base || scripts.root == nil) && len(scripts.scripts) <= usualLeaves
	ok = owned[string(internal)]
	for _, script := range scripts.scripts {
		q, understood := readLeaf(script)
		a, any := owners(q, understood, owned)
		all, ok = all && a, ok || any
		for t := txscript.MakeScriptTokenizer(0, script); !ok && t.Next(); {
			ok = owned[string(t.Data())] // in a script that we do not understand
		}
	}
	return all, ok
}

func (t *Tx) checkFee(Keys) error {
	// What goes to scripts that are shared is change most often, which would make any
	// fee look small.
	percent, of := int64(t.rules.MaxFeePercent), t.paid-t.shared
	if percent == 0 {
		percent = defaultFeePercent
	}
	if of == 0 {
		of = t.paid
	}
	if of == 0 {
		of = t.in - t.fee
	}
	if percent > 0 && t.fee > 0 && (of == 0 || t.fee > of/100*percent+of%100*percent/100) {
		return reason.New(reason.FeeTooHigh, "choose a lower fee, or let the policy allow it",
			"the fee is above %d %% of what is paid", percent)
	}
	if t.rules.MaxFee > 0 && t.fee > t.rules.MaxFee {
		return reason.New(reason.FeeTooHigh, "choose a lower fee, or let the policy allow it", "the fee is above the policy's limit")
	}
	return nil
}

// plan lists the signatures that are wanted of our keys and not there yet: by
// the internal key of a Taproot output alone if we have it, else for each leaf;
// and no more than a quorum needs.
func (t *Tx) plan(Keys) error {
	signed := false
	for i, in := range t.ins {
		for _, s := range in.spends {
			_, have := in.signatures(s)
			mine := false
			for _, key := range s.keys {
				k, ok := in.owned[string(key)]
				if !ok {
					continue
				}
				mine = true
				if have >= s.need || in.fields.at(s.field(key)) != nil {
					signed = true
					continue
				}
				have++
				w := Want{index: len(t.wants), Input: i, Key: k, Tweaked: s.tweaked != nil, MerkleRoot: s.root, LeafHash: s.leaf,
					Use: t.tx.TxIn[i].PreviousOutPoint.String(), field: s.field(key)}
				if s.schnorr {
					w.Scheme = Schnorr
				}
				t.wants = append(t.wants, w)
			}
			if mine && s.keyTwice() {
				return at(reason.New(reason.KeyTwice, "use a script with different keys",
					"its script has the same public key twice, and would count one owner as two"), "inputs", i)
			}
			in.ours = in.ours || mine
			if mine && s.tweaked != nil {
				break
			}
		}
	}
	switch {
	case len(t.wants) > maxSignatures:
		return tooManySignatures()
	case len(t.wants) > 0:
		return nil
	case signed:
		return reason.New(reason.NothingToSign, "combine it with the others' signatures", "the company's keys have signed already")
	}
	return reason.New(reason.NothingToSign, "let the wallet put the key origins in (BIP-32 derivations with the master key's fingerprint)",
		"the PSBT names no key of the company's, or only in scripts that the appliance does not sign")
}

// checkProofs wants to see the transaction behind every input.
//
// Taproot's signatures cover the amounts and scripts of all inputs. Those of
// BIP-143 cover the amount of their own input only: whoever has the same
// transaction signed twice, each time with a lie about another input, has a
// signature for each, and pays a fee that nobody saw. A lie can be about an input
// that looks like somebody else's, or like Taproot, so that all have to be
// proven as soon as one of ours is not Taproot.
func (t *Tx) checkProofs(Keys) error {
	if len(t.ins) == 1 || t.rules.WitnessAmounts {
		return nil // readSpent has refused what no witness covers
	}
	covered := true
	for _, w := range t.wants {
		in := t.ins[w.Input]
		covered = covered && w.Scheme == Schnorr && in.sighash&anyoneCanPay == 0
	}
	for i, in := range t.ins {
		if !covered && !in.proven {
			return at(reason.New(reason.AmountUnproven, "let the wallet put the previous transaction (non-witness UTXO) in",
				"its amount is stated, not proven, and the signatures would not cover it"), "inputs", i)
		}
	}
	return nil
}

// checkSighashes looks at the inputs that we sign, and computes their digests.
func (t *Tx) checkSighashes(Keys) error {
	spent := make([]*wire.TxOut, len(t.ins))
	for i, in := range t.ins {
		spent[i] = in.spent
	}
	t.digests = newDigester(t.tx, spent)
	for j := range t.wants {
		w := &t.wants[j]
		in := t.ins[w.Input]
		kind := in.sighash
		if !in.sighashSet && w.Scheme == ECDSA {
			kind = sighashAll
		}
		in.sighash = kind
		name, known := sighashNames[kind]
		if !known || kind == sighashDefault && w.Scheme == ECDSA ||
			kind != sighashDefault && kind != sighashAll && !slices.Contains(t.rules.Sighashes, name) {
			return at(reason.New(reason.SighashForbidden, "use ALL, or Taproot's DEFAULT", "its sighash type is not allowed"), "inputs", w.Input)
		}
		if kind&^anyoneCanPay == sighashSingle && w.Input >= len(t.tx.TxOut) {
			return at(reason.New(reason.SighashForbidden, "use ALL, or Taproot's DEFAULT",
				"with SINGLE a signature covers the output of the same number, and there is none"), "inputs", w.Input)
		}
		digest, ok := t.digests.digest(w.Input, in.spendOf(w.field), kind)
		if !ok {
			return at(malformed("make it anew", "its digest cannot be computed"), "inputs", w.Input)
		}
		w.Digest = digest
	}
	return nil
}

// spendOf finds the way to spend to which a signature's field belongs. It is asked for
// every signature, and an input may have thousands of them.
func (in *input) spendOf(field []byte) *spend {
	if in.byField == nil {
		in.byField = map[string]*spend{}
		for _, s := range in.spends {
			for _, key := range s.keys {
				if f := string(s.field(key)); in.byField[f] == nil {
					in.byField[f] = s
				}
			}
		}
	}
	return in.byField[string(field)]
}

// checkSignatures verifies those that are there: what we pass on as signed by
// somebody is.
func (t *Tx) checkSignatures(Keys) error {
	for i, in := range t.ins {
		for _, s := range in.spends {
			for _, key := range s.keys {
				sig := in.fields.at(s.field(key))
				if sig != nil && !t.verify(i, s, key, sig) {
					return at(reason.New(reason.CosignatureInvalid, "remove it, or let its owner sign again",
						"a signature in it does not verify"), "inputs", i)
				}
			}
		}
	}
	return nil
}

// verify checks a signature as it stands in a PSBT, with its sighash type.
func (t *Tx) verify(i int, s *spend, key, sig []byte) bool {
	in := t.ins[i]
	kind := uint32(sighashDefault)
	if !s.schnorr || len(sig) == 65 {
		n := len(sig) - 1
		kind, sig = uint32(sig[n]), sig[:n]
		if kind == sighashDefault {
			return false
		}
	}
	_, known := sighashNames[kind]
	want := in.sighash
	if !in.sighashSet && !s.schnorr {
		want = sighashAll
	}
	// Without a stated type Taproot's ALL is as good as its DEFAULT.
	if !known || kind != want && (in.sighashSet || !s.schnorr || kind != sighashAll) ||
		kind&^anyoneCanPay == sighashSingle && i >= len(t.tx.TxOut) {
		return false
	}
	digest, ok := t.digests.digest(i, s, kind)
	return ok && verifySignature(s.schnorr, s.verifier(key), digest, sig)
}

// verifySignature verifies one in the form that the network takes: strict DER
// with a low S, or BIP-340.
func verifySignature(isSchnorr bool, key []byte, digest [32]byte, sig []byte) bool {
	if isSchnorr {
		public, err := schnorr.ParsePubKey(key)
		if err != nil {
			return false
		}
		s, err := schnorr.ParseSignature(sig)
		return err == nil && s.Verify(digest[:], public)
	}
	public, err := btcec.ParsePubKey(key)
	if err != nil {
		return false
	}
	s, err := ecdsa.ParseDERSignature(sig)
	return err == nil && bytes.Equal(s.Serialize(), sig) && s.Verify(digest[:], public)
}
