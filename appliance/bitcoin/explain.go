package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
)

// keyless owns no keys.
type keyless struct{}

func (keyless) Knows([4]byte) bool { return false }
func (keyless) Owns(Key) bool      { return false }

// explain checks an answer against its PSBT, and a finished transaction with the
// script engine. What the PSBT does not prove is the appliance's word and is said to
// be: which outputs are change, which inputs the company's, and on which network the
// addresses are.
func explain(a *answer.Answer) *ledger.Finding {
	f := &ledger.Finding{}
	problem := func(format string, args ...any) { f.Problems = append(f.Problems, fmt.Sprintf(format, args...)) }
	var r Report
	if err := json.Unmarshal(a.Own["bitcoin"], &r, json.RejectUnknownMembers(true)); err != nil || r.Description == nil {
		problem("what it says of Bitcoin cannot be read")
		return f
	}
	if a.Operation != "payment" || a.Wallet+a.Address+a.PublicKey+a.Algorithm+a.Payload+a.Signature != "" || len(a.NotCovered)+len(a.AlsoMeans) > 0 || a.Submit != nil {
		problem("it has members that no answer to a payment has, or is said to be something else")
	}
	d := r.Description
	raw, final, err := products(a, &r)
	if err != nil {
		problem("%v", err)
		return f
	}
	p, err := parse(raw, answerTimes)
	if err != nil {
		problem("its PSBT cannot be read: %v", err)
		return f
	}
	t, err := p.open(d)
	if err != nil {
		problem("its PSBT cannot be checked: %v", err)
		return f
	}
	f.Signed = len(r.Signed) > 0
	if !f.Signed {
		problem("it has no signature")
	}
	told := map[Signed]bool{}
	for _, s := range r.Signed {
		// A key may sign several leaves of an input, each with a signature of its own.
		this := Signed{Input: s.Input, Key: s.Key, Signature: s.Signature}
		if !t.holds(s) || s.Wallet == "" || !t.ins[s.Input].ours || told[this] {
			f.Signed = false
			problem("the signature of input %d does not verify, or is not in the PSBT as it is said", s.Input)
		}
		told[this] = true
	}
	checked := t.Describe()
	for _, wrong := range t.differences(checked, d) {
		problem("its %s is not that of the PSBT", wrong)
	}
	if checked.Complete {
		t.explainFinal(final, checked, problem)
	} else if len(final) > 0 {
		problem("it has a transaction, and signatures are missing")
	}
	f.Fields = t.fields(checked)
	return f
}

// differences are the names of the members that do not follow from the PSBT.
func (t *Tx) differences(checked, said *Description) (names []string) {
	c, s := *checked, *said
	// Which of several ways to spend is meant where none is complete, only the owner of
	// the keys knows: what is missing there, and the size of it, is an estimate.
	vague := slices.ContainsFunc(t.ins, func(in *input) bool { _, complete := in.best(); return !in.final && !complete && len(in.spends) != 1 })
	if vague && sameMissing(c.Missing, s.Missing) {
		c.Missing, c.VSize, c.FeeRate = s.Missing, s.VSize, s.FeeRate
	}
	x, y := reflect.ValueOf(c), reflect.ValueOf(s)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}

// sameMissing reports whether the same inputs lack signatures.
func sameMissing(a, b []Missing) bool {
	return slices.EqualFunc(a, b, func(x, y Missing) bool { return x.Input == y.Input })
}

// fields say in words what somebody should look at who is about to broadcast it.
func (t *Tx) fields(d *Description) []ledger.Field {
	var w words
	w.add("network", "%s (says the appliance)", d.Network)
	w.inputs(t, d)
	for i, o := range d.Outputs {
		if o.Change {
			w.output("change", i, o, " (says the appliance)")
		} else {
			w.output("pays", i, o, "")
		}
	}
	w.fee(t, d)
	for i, in := range d.Inputs {
		if in.Ours {
			w.sighash(i, in.Sighash, "is signed")
		}
	}
	w.timing(d)
	if !d.Complete {
		var inputs []string
		for _, m := range d.Missing {
			inputs = append(inputs, fmt.Sprint(m.Input))
		}
		w.add("incomplete", "signatures of others are missing at input %s: nothing to broadcast yet", strings.Join(inputs, ", "))
	} else {
		w.add("complete", "every input was run and is accepted; -final.txn, or the member transaction, is what to broadcast")
	}
	return w
}

// words are what is said of a transaction, before and after it is signed.
type words []ledger.Field

func (w *words) add(name, format string, args ...any) {
	*w = append(*w, ledger.Field{Name: name, Value: fmt.Sprintf(format, args...)})
}

func (w *words) inputs(t *Tx, d *Description) {
	stated := 0
	for _, in := range d.Inputs {
		if !in.Proven {
			stated++
		}
	}
	w.add("inputs", "%d, together %s BTC", len(d.Inputs), coins(t.in))
	if stated > 0 {
		w.add("not proven", "the amounts of %d inputs, and so the fee, are as the PSBT says", stated)
	}
}

// output says who gets what; word is what there is to add.
func (w *words) output(kind string, i int, o Output, word string) {
	to := o.Address
	if to == "" {
		to = o.Type + " " + o.Script
	}
	w.add(kind, "output %d: %s BTC to %s%s", i, coins(o.Amount), to, word)
}

func (w *words) fee(t *Tx, d *Description) {
	about := ""
	if d.Estimated {
		about = "about "
	}
	of := t.in - t.fee
	if d.Paid > 0 {
		of = d.Paid
	}
	share := ""
	if of > 0 {
		what := "is paid"
		if d.Paid == 0 {
			what = "comes back"
		}
		share = fmt.Sprintf(", %.2f %% of what %s", 100*float64(t.fee)/float64(of), what)
	}
	w.add("fee", "%s BTC, %s%s sat/vB%s", coins(d.Fee), about, d.FeeRate, share)
}

// sighash says what a signature leaves open; is is "is signed".
func (w *words) sighash(i int, name, is string) {
	if name != sighashNames[sighashAll] && name != sighashNames[sighashDefault] {
		w.add("not covered", "input %d %s with %s: whoever has the transaction can change what that leaves open", i, is, name)
	}
}

func (w *words) timing(d *Description) {
	switch {
	case d.LockTime >= 500_000_000:
		w.add("not before", "%d, in seconds since 1970 (date -ud @%d)", d.LockTime, d.LockTime)
	case d.LockTime > 0:
		w.add("not before", "block %d", d.LockTime)
	}
	if d.RBF {
		w.add("replaceable", "until it is in a block, by one that pays a higher fee (BIP-125)")
	}
	if d.TxID != "" {
		w.add("txid", "%s", d.TxID)
	}
}

// coins writes an amount in BTC.
func coins(satoshi int64) string {
	return fmt.Sprintf("%d.%08d", satoshi/100_000_000, satoshi%100_000_000)
}

// products finds the PSBT and the transaction, in the answer or beside it.
func products(a *answer.Answer, r *Report) (psbt, final []byte, err error) {
	if r.PSBT != "" {
		if psbt, err = base64.StdEncoding.DecodeString(r.PSBT); err != nil {
			return nil, nil, fmt.Errorf("its PSBT is not base64")
		}
		final = []byte(r.Transaction)
		if len(a.Files) > 0 || len(a.Beside) > 0 {
			return nil, nil, fmt.Errorf("it has its PSBT twice")
		}
	} else {
		if r.Transaction != "" {
			return nil, nil, fmt.Errorf("it has a transaction without a PSBT")
		}
		psbt, final = a.Beside["-part.psbt"], a.Beside["-final.txn"]
		want := []string{"-part.psbt"}
		if r.Complete {
			psbt, want = a.Beside["-signed.psbt"], []string{"-signed.psbt", "-final.txn"}
		}
		if !slices.EqualFunc(a.Files, want, func(e answer.FileEntry, name string) bool { return e.Ending == name }) {
			return nil, nil, fmt.Errorf("it does not name the files of such an answer: %v", want)
		}
		if r.Complete && final == nil {
			return nil, nil, fmt.Errorf("its transaction is not there: put the files that it names beside it")
		}
	}
	if psbt == nil {
		return nil, nil, fmt.Errorf("its PSBT is not there: put the files that it names beside it")
	}
	final, err = hex.DecodeString(string(bytes.TrimSpace(final)))
	if err != nil {
		return nil, nil, fmt.Errorf("its transaction is not hexadecimal")
	}
	return psbt, final, nil
}

// AnsweredBy reports whether an answer is about the PSBT's transaction, whatever
// signatures either has.
func (p *PSBT) AnsweredBy(a *answer.Answer) bool {
	var r Report
	if err := json.Unmarshal(a.Own["bitcoin"], &r); err != nil || r.Description == nil {
		return false
	}
	raw, _, err := products(a, &r)
	if err != nil {
		return false
	}
	q, err := parse(raw, answerTimes)
	return err == nil && q.tx.TxHash() == p.tx.TxHash()
}

// open is Check for somebody who has no keys and judges nothing: it finds what is
// spent and whether the signatures verify that are there. What only the appliance can
// know it takes from the answer.
func (p *PSBT) open(d *Description) (t *Tx, err error) {
	defer refusePanic(&err, func() { t = nil })
	net, ok := networks[d.Network]
	if !ok {
		return nil, fmt.Errorf("there is no network %q", d.Network)
	}
	t = &Tx{psbt: p, rules: Rules{Network: d.Network}, net: net, tx: p.tx.Copy(), global: p.global.clone()}
	for _, step := range []func(Keys) error{t.checkInputs, t.checkAmounts, t.checkOrigins, t.checkOutputs, t.checkSighashes, t.checkSignatures} {
		if err := step(keyless{}); err != nil {
			return nil, err
		}
	}
	for i, in := range t.ins {
		in.ours = i < len(d.Inputs) && d.Inputs[i].Ours
	}
	for i, o := range t.outs {
		// Nobody can spend data.
		if o.change = i < len(d.Outputs) && d.Outputs[i].Change && o.kind != kindData; o.change {
			t.paid -= t.tx.TxOut[i].Value
		}
	}
	return t, nil
}

// holds reports whether the PSBT has the signature at that input for that key. That it
// verifies, checkSignatures has seen.
func (t *Tx) holds(s Signed) bool {
	key, err := hex.DecodeString(s.Key)
	sig, serr := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil || serr != nil || s.Input < 0 || s.Input >= len(t.ins) || len(sig) == 0 {
		return false
	}
	in := t.ins[s.Input]
	for _, way := range in.spends {
		for _, k := range way.keys {
			if !bytes.Equal(k, key) {
				continue
			}
			there := in.fields.at(way.field(k))
			if !bytes.HasPrefix(there, sig) {
				continue
			}
			// Behind it stands the sighash type, which Taproot's DEFAULT lacks.
			if len(there) == len(sig)+1 && (!way.schnorr || len(sig) == 64) || way.schnorr && len(there) == 64 && len(sig) == 64 {
				return true
			}
		}
	}
	return false
}

// explainFinal runs a finished transaction.
func (t *Tx) explainFinal(raw []byte, d *Description, problem func(string, ...any)) {
	final := wire.NewMsgTx(0)
	if err := final.Deserialize(bytes.NewReader(raw)); err != nil || final.SerializeSize() != len(raw) {
		problem("its transaction cannot be read")
		return
	}
	bare := final.Copy()
	for _, in := range bare.TxIn {
		in.SignatureScript, in.Witness = nil, nil
	}
	if bare.TxHash() != t.tx.TxHash() {
		problem("its transaction is not that of the PSBT")
		return
	}
	if final.WitnessHash().String() != d.WTxID {
		problem("its transaction has other signatures than the PSBT")
	}
	for i := range t.ins {
		if err := t.run(final, i); err != nil {
			problem("input %d of its transaction is not accepted: %v", i, err)
		}
	}
}
