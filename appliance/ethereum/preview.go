package ethereum

import (
	"strconv"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// preview says what would be signed. It starts from the very bytes, as explain does for
// an answer, and reads them with the same decoder.
func preview(tx ledger.Tx, rules ledger.Rules) *ledger.Preview {
	pre := &ledger.Preview{}
	t, ok := tx.(*Tx)
	if !ok {
		return pre
	}
	e := &explainer{f: &ledger.Finding{}, payload: t.signed}
	if err := e.preview(t); err != nil {
		pre.Refusals = append(pre.Refusals, reason.New(reason.RequestMalformed, "make it anew, and tell us",
			"what would be signed cannot be read again: %v", err).At("ethereum"))
	}
	if t.body != nil {
		e.add("used up", "nonce "+strconv.FormatUint(t.nonce, 10)+" of the wallet on chain "+strconv.FormatUint(t.chain, 10)+": nothing else is signed for it")
	}
	pre.Fields = e.f.Fields
	if rules != nil {
		if err := rules.Allow(t); err != nil {
			pre.Refusals = append(pre.Refusals, err)
		}
	}
	return pre
}

func (e *explainer) preview(t *Tx) error {
	if t.from != nil {
		e.own.From = t.from.String()
		e.add("from", e.own.From+" (refused if the wallet's address is another)")
	}
	digest := t.digest()
	switch t.op {
	case opAuthorization:
		return e.authorization(digest)
	case opMessage:
		if t.text {
			text := string(t.message)
			e.own.Text = &text
		}
		return e.message()
	case opTypedData:
		e.own.Typed = t.typed.raw
		return e.typed()
	case opHash:
		e.hash(digest)
		return nil
	}
	get, chain, err := takeApart(t.op, t.signed)
	if err != nil {
		return err
	}
	return e.meaning(get, chain)
}
