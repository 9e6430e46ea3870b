package bitcoin

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// claimed are the keys of somebody who believes a PSBT: whatever says that it comes
// from one of these master keys is his, on the paths that he uses.
type claimed func(fingerprint [4]byte) bool

func (c claimed) Knows(fingerprint [4]byte) bool { return c(fingerprint) }
func (claimed) Owns(k Key) bool                  { return k.Near() }

// Limits of what is said one by one, so that a hostile PSBT does not bury the rest.
const (
	maxMasters = 16 // master keys that are looked at; each is one Check
	maxSpends  = 20 // inputs
	maxNamed   = 10 // numbers or fingerprints in a row
)

// preview says what a PSBT asks for. It knows none of the keys: it finds what is
// refused whosever they are, and runs Check once for each master key that the inputs
// name, as if that one were the company's and everything said of it were true.
func preview(tx ledger.Tx, rules ledger.Rules) *ledger.Preview {
	pre := &ledger.Preview{}
	p, ok := tx.(*PSBT)
	if !ok {
		return pre
	}
	r, ok := rules.(*Rules)
	if !ok {
		r = &Rules{}
	}
	if err := p.preview(*r, pre); err != nil {
		pre.Refusals = append(pre.Refusals, err)
	}
	return pre
}

func (p *PSBT) preview(r Rules, pre *ledger.Preview) (err error) {
	defer refusePanic(&err)
	w := (*words)(&pre.Fields)
	why := "as you or the policy say"
	if r.Network == "" {
		r.Network, why = p.network()
	}
	w.add("network", "%s (%s)", r.Network, why)

	d := &Description{Network: r.Network, Outputs: make([]Output, len(p.outputs))}
	said := make([]string, len(p.outputs))
	owners := p.Fingerprints()
	for i := range p.outputs {
		d.Outputs[i].Change, said[i] = p.claim(i, owners)
	}
	t, err := p.open(d)
	if err != nil {
		p.bare(w, networks[r.Network], said)
		return err
	}
	claims := d.Outputs
	d = t.Describe()
	t.rules = r

	w.inputs(t, d)
	for i, in := range d.Inputs[:min(len(d.Inputs), maxSpends)] {
		of, word := in.Address, ""
		if of == "" {
			of = in.Type + " " + in.Script
		}
		if !in.Proven {
			word = " (the PSBT says, without proof)"
		}
		w.add("spends", "input %d: %s BTC of %s, %s%s", i, coins(in.Amount), of, in.Spends, word)
	}
	if more := len(d.Inputs) - maxSpends; more > 0 {
		w.add("spends", "and %d more", more)
	}
	for i, o := range d.Outputs {
		if said[i] == "" {
			said[i] = t.back(i)
		}
		kind := "pays"
		if claims[i].Change {
			kind = "says change"
		}
		w.output(kind, i, o, said[i])
	}
	w.fee(t, d)
	for i, in := range t.ins {
		if in.final {
			continue
		}
		name := in.sighashName()
		if name == "" {
			name = fmt.Sprintf("the unknown type %#x", in.sighash)
		}
		w.sighash(i, name, "is to be signed")
	}
	w.timing(d)
	t.previewSigned(w)

	refusals := p.previewWanted(r, t, w)
	w.add("used up", "what the inputs spend: nothing else is signed for it")
	// What comes back is not known. If all of it is paid the limit is the highest.
	t.paid = t.in - t.fee
	if err := t.checkFee(keyless{}); err != nil {
		return err
	}
	pre.Refusals = refusals
	return nil
}

// network is the one that the keys of the inputs are for, and why it is assumed.
func (p *PSBT) network() (name, why string) {
	main, test := !p.Fits("testnet"), !p.Fits("mainnet")
	switch {
	case main && test:
		return "mainnet", "assumed; the PSBT's keys are for several"
	case test:
		return "testnet", "assumed, since its keys are for a test network; addresses of regtest begin in another way"
	case main:
		return "mainnet", "its keys are for this one"
	}
	return "mainnet", "assumed; nothing in the PSBT tells"
}

// claim is what the PSBT says of an output by the keys that it names for it: whether it
// is change of the inputs' owners, the master keys that these name. That a key comes
// from its master key is what nobody here can know.
func (p *PSBT) claim(i int, owners [][4]byte) (change bool, word string) {
	m := p.outputs[i]
	named, _ := m.origins(outDerivation, outTapDerivation)
	if len(named) == 0 {
		return false, ""
	}
	var masters [][4]byte
	keys := map[string]bool{}
	for _, k := range named {
		keys[string(k.Public)] = true
		if !slices.Contains(masters, k.Fingerprint) {
			masters = append(masters, k.Fingerprint)
		}
	}
	who := fingerprints(masters)
	all, some := pays(p.tx.TxOut[i].PkScript, m, keys)
	switch {
	case !some:
		return false, " (the PSBT names a key of " + who + " for it, and it does not pay to that key)"
	case !all:
		return false, " (says the PSBT: " + who + " has a part in it)"
	case !slices.ContainsFunc(owners, func(f [4]byte) bool { return slices.Contains(masters, f) }):
		return false, " (says the PSBT: to " + who + ", of which no input is)"
	}
	return true, " (says the PSBT: change of " + who + ")"
}

// back says that an output goes where an input comes from, if it does.
func (t *Tx) back(i int) string {
	for j, in := range t.ins {
		if string(in.spent.PkScript) == string(t.tx.TxOut[i].PkScript) {
			return fmt.Sprintf(" (the address of input %d)", j)
		}
	}
	return ""
}

// bare says what can be said of a PSBT whose inputs cannot be read: whom it pays.
func (p *PSBT) bare(w *words, net network, said []string) {
	t := &Tx{net: net}
	w.add("inputs", "%d", len(p.inputs))
	for i, o := range p.tx.TxOut {
		x := Output{Amount: o.Value, Type: kindOf(o.PkScript, p.outputs[i].get(outRedeem))}
		x.Address, x.Script = t.name(o.PkScript)
		if x.Amount < 0 || x.Amount > maxMoney {
			x.Amount = 0
			said[i] = fmt.Sprintf(" (an amount that cannot be: %d satoshi)%s", o.Value, said[i])
		}
		w.output("pays", i, x, said[i])
	}
}

// previewSigned tells of the signatures that are there. They were verified.
func (t *Tx) previewSigned(w *words) {
	n := 0
	var signed, final []int
	for i, in := range t.ins {
		if in.final {
			final = append(final, i)
			continue
		}
		have := 0
		for _, s := range in.spends {
			_, m := in.signatures(s)
			have += m
		}
		if n += have; have > 0 {
			signed = append(signed, i)
		}
	}
	if n > 0 {
		w.add("signed already", "%s; %d verified", numbers(signed), n)
	}
	if len(final) > 0 {
		w.add("signed already", "%s; finished by another program, and not looked at here", numbers(final))
	}
}

// previewWanted tells what each master key is asked for, and gives the refusals if
// every one is refused, and nobody else can be meant.
func (p *PSBT) previewWanted(r Rules, t *Tx, w *words) (refusals []error) {
	var nameless []int
	waiting := false
	for i, in := range t.ins {
		named, _ := in.fields.origins(inDerivation, inTapDerivation)
		waiting = waiting || !in.final
		if !in.final && len(named) == 0 {
			nameless = append(nameless, i)
		}
	}
	if !waiting {
		return append(refusals, t.plan(keyless{}))
	}
	masters := p.Fingerprints()
	any := len(masters) > maxMasters
	if any {
		w.add("wanted", "signatures of %s, more than are looked at here", fingerprints(masters))
		masters = nil
	}
	for _, f := range masters {
		c, err := p.Check(r, claimed(func(x [4]byte) bool { return x == f }))
		if err == nil {
			any = true
			w.add("wanted", "%x: %s", f, c.wanted())
			continue
		}
		ref, ok := reason.As(err)
		if !ok {
			return append(refusals, err)
		}
		if !slices.ContainsFunc(refusals, func(e error) bool { return e.Error() == err.Error() }) {
			refusals = append(refusals, err)
		}
		where := ""
		if ref.Field != "" {
			where = ref.Field + ": "
		}
		w.add("wanted", "%x: refused if it is yours: %s: %s%s", f, ref.Code, where, ref.Message)
	}
	if len(nameless) > 0 {
		w.add("wanted", "%s: no master key is named; a wallet with a single key may be meant", numbers(nameless))
		any = true
	}
	if !any {
		// Who owns all that is named pays less to others, and may pay nothing.
		if c, err := p.Check(r, claimed(func([4]byte) bool { return true })); err == nil {
			any = true
			w.add("wanted", "all of them, if all are yours, and where change goes too: %s", c.wanted())
		}
	}
	if any {
		return nil
	}
	return refusals
}

// wanted says which signatures are wanted, and whether that is all.
func (t *Tx) wanted() string {
	var inputs []int
	made := map[*spend]int{}
	for _, w := range t.wants {
		if n := len(inputs); n == 0 || inputs[n-1] != w.Input {
			inputs = append(inputs, w.Input)
		}
		made[t.ins[w.Input].spendOf(w.field)]++
	}
	then := "with that it is complete"
	for _, in := range t.ins {
		complete := func(s *spend) bool { _, have := in.signatures(s); return have+made[s] >= s.need }
		if !in.final && !slices.ContainsFunc(in.spends, complete) {
			then = "others have to sign too"
		}
	}
	return fmt.Sprintf("%s, %s; %s", signatures(len(t.wants)), numbers(inputs), then)
}

func signatures(n int) string {
	if n == 1 {
		return "1 signature"
	}
	return fmt.Sprintf("%d signatures", n)
}

// numbers names inputs by their numbers, which count from 0.
func numbers(ns []int) string {
	text, more := "", ""
	if len(ns) > maxNamed {
		ns, more = ns[:maxNamed], fmt.Sprintf(" and %d more", len(ns)-maxNamed)
	}
	for i, n := range ns {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(n)
	}
	return "input " + text + more
}

// fingerprints names master keys.
func fingerprints(list [][4]byte) string {
	var names []string
	for _, f := range list[:min(len(list), maxNamed)] {
		names = append(names, hex.EncodeToString(f[:]))
	}
	text := strings.Join(names, ", ")
	if more := len(list) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
