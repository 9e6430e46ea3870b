package proof

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/metacoin"
)

// Field is a value of what was signed with its name in a request.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Finding is what there is to say of one answer.
type Finding struct {
	Answer   *answer.Answer
	Signed   bool     // it brings a signature, and that verifies
	Problems []string // why it must not be trusted; none if it is sound

	Fields     []Field // of the signed text, where they can be told
	NotCovered []string
	AlsoMeans  []string
}

// verdicts are those of the answers, by type. A line of a batch can be any of them.
var verdicts = map[string]string{
	answer.TypeSign: "signed", answer.TypeRefusal: "refused", answer.TypeBatch: "answered",
	answer.TypeCreate: "created", answer.TypeBind: "bound", "wallet.import.result": "imported",
	"wallet.address.result": "derived", "wallet.list.result": "listed", "wallet.disable.result": "disabled", "wallet.enable.result": "enabled",
	"datakey.create.result": "created", "encrypt.result": "encrypted", "decrypt.result": "decrypted",

	"company.create.result": "created", "company.update.result": "updated", "company.disable.result": "disabled", "company.enable.result": "enabled",
	"company.list.result": "listed", "policy.set.result": "set", "admins.set.result": "set", "backup.result": "made", "restore.accept.result": "accepted",
}

// Check checks one answer by itself. pinned is the key that must have signed, nil
// if none is known.
func Check(a *answer.Answer, pinned *Key) *Finding {
	f := &Finding{Answer: a, NotCovered: a.NotCovered, AlsoMeans: a.AlsoMeans}
	if verdict, known := verdicts[a.Type]; !known {
		f.problem("the type %q is not known: a newer signdrop may know it", a.Type)
	} else if a.Verdict != verdict {
		f.problem("the verdict of a %s is %q", a.Type, a.Verdict)
	}
	switch a.Type {
	case answer.TypeSign:
		if !only(a) {
			f.problem("it says more than the answer to a signature's request does")
		}
		if a.Ledger != "" {
			f.ledger(pinned)
			break
		}
		f.signature(pinned)
		f.text()
	case answer.TypeCreate, answer.TypeBind, "wallet.import.result":
		key, err := ParseKey([]byte(a.PublicKey))
		if err != nil {
			f.problem("%v", err)
		} else if pinned != nil && !key.Equal(pinned) {
			f.problem("the wallet's key is not the one that was given to compare with")
		}
	}
	return f
}

// only reports whether an answer with a signature has no members but its own. What else
// it said would be shown to people, and nobody has signed it.
func only(a *answer.Answer) bool {
	return reflect.DeepEqual(a, &answer.Answer{
		Type: a.Type, Line: a.Line, Verdict: a.Verdict, Reference: a.Reference, Request: a.Request,
		Wallet: a.Wallet, Address: a.Address, PublicKey: a.PublicKey, Algorithm: a.Algorithm, Operation: a.Operation,
		Payload: a.Payload, Signature: a.Signature, NotCovered: a.NotCovered, AlsoMeans: a.AlsoMeans, Submit: a.Submit,
		Ledger: a.Ledger, Own: a.Own, Files: a.Files, Beside: a.Beside,
	})
}

func (f *Finding) problem(format string, args ...any) {
	f.Problems = append(f.Problems, fmt.Sprintf(format, args...))
}

func (f *Finding) signature(pinned *Key) {
	a := f.Answer
	key, err := ParseKey([]byte(a.PublicKey))
	if err == nil {
		err = Verify(key, a.Algorithm, a.Payload, a.Signature)
	}
	if err != nil {
		f.problem("%v", err)
		return
	}
	f.Signed = true
	if pinned != nil && !key.Equal(pinned) {
		f.problem("another key signed than the one that was given to compare with")
	}
}

// ledger has the answer's ledger explain it.
func (f *Finding) ledger(pinned *Key) {
	a := f.Answer
	l := ledgers.Find(a.Ledger)
	if l == nil || l.Explain == nil {
		f.problem("the ledger %q is not known: a newer signdrop may know it", a.Ledger)
		return
	}
	found := l.Explain(a)
	f.Signed = found.Signed
	for _, field := range found.Fields {
		f.Fields = append(f.Fields, Field(field))
	}
	f.Problems = append(f.Problems, found.Problems...)
	if pinned == nil || !f.Signed {
		return
	}
	if a.PublicKey == "" {
		f.problem("it cannot be compared with one key: its inputs have keys of their own")
		return
	}
	if key, err := ParseKey([]byte(a.PublicKey)); err != nil || !key.Equal(pinned) {
		f.problem("another key signed than the one that was given to compare with")
	}
}

// text takes the signed text apart. What an answer says beside the text, nobody
// has signed: where it contradicts the text, or says less than we know, the text
// and we are right.
func (f *Finding) text() {
	a := f.Answer
	if a.Operation == "" {
		return // data: the text is what it is
	}
	rows := operations()[a.Operation]
	if len(rows) == 0 {
		f.problem("Metacoin has no operation %q that we know: a newer signdrop may know it", a.Operation)
		return
	}
	var row *metacoin.Operation
	values := strings.Split(a.Payload, "|")
	for i := range rows {
		if strings.Contains(rows[i].Text, "[].") {
			row = &rows[i] // a list has as many values as it has
			values = nil
			break
		}
		if strings.Count(rows[i].Text, "|") == len(values)-1 {
			row = &rows[i]
			break
		}
	}
	if row == nil {
		f.problem("the text is not that of a %s, which is %s", a.Operation, rows[0].Text)
		return
	}
	f.NotCovered = union(f.NotCovered, row.NotCovered)
	if values == nil {
		return // what else a list means depends on its length
	}
	f.AlsoMeans = union(f.AlsoMeans, row.AlsoMeans)
	for i, name := range strings.Split(row.Text, "|") {
		f.Fields = append(f.Fields, Field{name, values[i]})
		if a.Submit == nil {
			continue
		}
		if v, there := a.Submit.Form[name]; there && v != values[i] {
			f.problem("submit has %s %q and the signed text has %q", name, v, values[i])
		}
	}
}

// operations are the rows of the ledger's table by name.
var operations = sync.OnceValue(func() map[string][]metacoin.Operation {
	byName := map[string][]metacoin.Operation{}
	for _, op := range metacoin.Operations() {
		if op.Dispatched {
			byName[op.Name] = append(byName[op.Name], op)
		}
	}
	return byName
})

func union(a, b []string) []string {
	a = slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
