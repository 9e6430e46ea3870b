package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
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
// script engine. What the PSBT does not prove, such as which outputs are change, is
// the appliance's word and is said to be.
func explain(a *answer.Answer) *ledger.Finding {
	f := &ledger.Finding{}
	problem := func(format string, args ...any) { f.Problems = append(f.Problems, fmt.Sprintf(format, args...)) }
	var r Report
	if err := json.Unmarshal(a.Own["bitcoin"], &r, json.RejectUnknownMembers(true)); err != nil || r.Description == nil {
		problem("what it says of Bitcoin cannot be read")
		return f
	}
	d := r.Description
	raw, final, err := products(a, &r)
	if err != nil {
		problem("%v", err)
		return f
	}
	p, err := Parse(raw)
	if err != nil {
		problem("its PSBT cannot be read: %v", err)
		return f
	}
	t, err := p.open(d.Network)
	if err != nil {
		problem("its PSBT cannot be checked: %v", err)
		return f
	}
	checked := t.Describe()
	f.Signed = len(r.Signed) > 0
	for _, s := range r.Signed {
		if !t.holds(s) {
			f.Signed = false
			problem("the signature of input %d does not verify", s.Input)
		}
	}
	for i := range checked.Outputs {
		// Whose an output is only the appliance can know.
		if i < len(d.Outputs) {
			checked.Outputs[i].Change = d.Outputs[i].Change
		}
	}
	if checked.Fee != d.Fee || checked.TxID != d.TxID && d.TxID != "" || !sameOutputs(checked.Outputs, d.Outputs) {
		problem("fee, outputs or txid are not those of the PSBT")
	}
	if d.Complete {
		t.explainFinal(final, problem)
	}
	add := func(name, format string, args ...any) {
		f.Fields = append(f.Fields, ledger.Field{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	add("network", "%s", d.Network)
	for _, o := range checked.Outputs {
		to := o.Address
		if to == "" {
			to = o.Type + " " + o.Script
		}
		kind := "pays"
		if o.Change {
			kind = "change (says the appliance)"
		}
		add(kind, "%s BTC to %s", coins(o.Amount), to)
	}
	add("fee", "%s BTC, %s sat/vB", coins(d.Fee), d.FeeRate)
	if d.TxID != "" {
		add("txid", "%s", d.TxID)
	}
	if !d.Complete {
		var inputs []string
		for _, m := range d.Missing {
			inputs = append(inputs, fmt.Sprint(m.Input))
		}
		add("incomplete", "signatures of others are missing at input %s: nothing to broadcast yet", strings.Join(inputs, ", "))
	}
	return f
}

// coins writes an amount in BTC.
func coins(satoshi int64) string {
	return fmt.Sprintf("%d.%08d", satoshi/100_000_000, satoshi%100_000_000)
}

func sameOutputs(a, b []Output) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// products finds the PSBT and the transaction, in the answer or beside it.
func products(a *answer.Answer, r *Report) (psbt, final []byte, err error) {
	if r.PSBT != "" {
		if psbt, err = base64.StdEncoding.DecodeString(r.PSBT); err != nil {
			return nil, nil, fmt.Errorf("its PSBT is not base64")
		}
		final = []byte(r.Transaction)
	}
	for ending, data := range a.Beside {
		if ending == "-final.txn" {
			final = data
		} else {
			psbt = data
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
	q, err := Parse(raw)
	return err == nil && q.tx.TxHash() == p.tx.TxHash()
}

// open is Check for somebody who has no keys and judges nothing: it finds what is
// spent and whether the signatures verify that are there.
func (p *PSBT) open(name string) (t *Tx, err error) {
	defer refusePanic(&err)
	net, ok := networks[name]
	if !ok {
		return nil, fmt.Errorf("there is no network %q", name)
	}
	t = &Tx{psbt: p, rules: Rules{Network: name}, net: net, tx: p.tx.Copy(), global: p.global.clone()}
	for _, step := range []func(Keys) error{t.checkInputs, t.checkAmounts, t.checkOrigins, t.checkOutputs, t.checkSighashes, t.checkSignatures} {
		if err := step(keyless{}); err != nil {
			return nil, err
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
			if there := in.fields.at(way.field(k)); bytes.Equal(k, key) && there != nil && bytes.HasPrefix(there, sig) && len(there) <= len(sig)+1 {
				return true
			}
		}
	}
	return false
}

// explainFinal runs a finished transaction.
func (t *Tx) explainFinal(raw []byte, problem func(string, ...any)) {
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
	for i := range t.ins {
		if err := t.run(final, i); err != nil {
			problem("input %d of its transaction is not accepted: %v", i, err)
		}
	}
}
