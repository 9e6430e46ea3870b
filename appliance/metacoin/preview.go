package metacoin

import (
	"fmt"

	"signdrop/appliance/ledger"
)

// preview says what would be signed, field by field, and what would not.
func preview(tx ledger.Tx, _ ledger.Rules) *ledger.Preview {
	t, ok := tx.(*Tx)
	if !ok {
		return &ledger.Preview{}
	}
	pre := &ledger.Preview{NotCovered: t.NotCovered(), AlsoMeans: t.AlsoMeans()}
	add := func(name, value string) {
		if value != "" {
			pre.Fields = append(pre.Fields, ledger.Field{Name: name, Value: value})
		}
	}
	signed := [maxFields]bool{}
	for _, i := range t.op.signed {
		signed[i] = true
		name := t.op.fields[i].name
		if t.op.join == nil || name != t.op.list {
			add(name, t.values[i])
			continue
		}
		for row := range t.rows.len() {
			for _, member := range t.op.join {
				add(fmt.Sprintf("%s[%d].%s", name, row, member), t.rows.at(row, t.column(name, member)))
			}
		}
	}
	for i, f := range t.op.fields {
		if !signed[i] && t.values[i] != "" {
			add(f.name, t.values[i]+" (not signed)")
		}
	}
	if t.Signer() == "" {
		add("signed by", "whom only the ledger knows ("+t.op.signer+")")
	}
	if t.Nonce() != "" {
		add("used up", "the wallet's nonce: nothing else is signed for it")
	}
	add("note", t.op.note)
	add("cannot succeed", t.op.broken)
	return pre
}
