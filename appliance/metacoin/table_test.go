package metacoin_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
)

// fact is what the published sources say of one operation, read by hand and by
// running them: chaincode 0e78fc1 (mainnet) and 569b17e (testnet), node ce1ac97,
// bridge bab9ecd and faf3572. It has the ledger's names, not ours.
type fact struct {
	Operation     string
	Ledger        string // "" where both branches agree
	Dispatched    bool
	Signer        string
	SignedFields  []string `json:"signed_fields"`
	Unsigned      []string `json:"unsigned_fields"`
	StateNotBound []string `json:"state_not_bound"`
	Nonce         string   `json:"nonce_field"`
	Signature     string   `json:"signature_field"`
	Method        string
	Path          string
	Same          []string `json:"same_payload_as"`
}

// Where the table knows more than the facts, and why.
var (
	moreTwins = map[string][]string{
		"mrc100_reward":    {"token_update"}, // to one player: token|address|amount|tag|key
		"mrc401_sell":      {"token_register"},
		"mrc401_unsell":    {"token_register"},
		"mrc401_auction":   {"token_register"},
		"mrc401_unauction": {"token_register"},
	}
	moreUncovered = map[string][]string{
		// The node demands creator, so it is in the form; mainnet's published
		// chaincode ignores it, a newer one takes it for the signer.
		"mrc401_create mainnet": {"creator"},
		"mrc401_update mainnet": {"creator"},
	}
	// What the bridge makes up has no name in a request.
	generated = map[string]string{
		"generated:mrc030id":  "the poll's id, which the bridge makes up",
		"generated:mrc100key": "the record's key, which the bridge makes up",
	}
)

func TestTable(t *testing.T) {
	data, err := os.ReadFile("testdata/operations.json")
	if err != nil {
		t.Fatal(err)
	}
	var facts []fact
	if err := json.Unmarshal(data, &facts); err != nil {
		t.Fatal(err)
	}
	if len(facts) == 0 {
		t.Fatal("no facts")
	}
	table := map[string]metacoin.Operation{}
	for _, op := range metacoin.Operations() {
		key := op.Name + " " + op.Ledger
		if _, twice := table[key]; twice {
			t.Errorf("%s: twice in the table", key)
		}
		table[key] = op
	}
	if len(table) != len(facts) {
		t.Errorf("the table has %d rows, the facts %d", len(table), len(facts))
	}
	for _, f := range facts {
		key := f.Operation + " " + f.Ledger
		op, ok := table[key]
		if !ok {
			t.Errorf("%s: not in the table", key)
			continue
		}
		if op.Dispatched != f.Dispatched {
			t.Errorf("%s: Dispatched: got %v, want %v", key, op.Dispatched, f.Dispatched)
		}
		if f.Dispatched {
			compare(t, key, op, f)
		}
	}
}

func compare(t *testing.T, key string, op metacoin.Operation, f fact) {
	// The request of a payment states its one entry of the list.
	ours := func(name string) string {
		if name == f.Nonce {
			return "nonce"
		}
		if op.Name == "mrc100_payment" {
			return strings.TrimPrefix(name, "userlist[].")
		}
		if g, ok := generated[name]; ok {
			return g
		}
		return name
	}
	equal := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s: got %q, want %q", key, what, got, want)
		}
	}
	sameSet := func(what string, got []string, want ...[]string) {
		t.Helper()
		g, w := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(slices.Concat(want...)))
		if !slices.Equal(g, w) {
			t.Errorf("%s: %s: got %q, want %q", key, what, g, w)
		}
	}
	each := func(names []string) []string {
		var out []string
		for _, n := range names {
			out = append(out, ours(n))
		}
		return out
	}
	equal("Text", op.Text, strings.Join(each(f.SignedFields), "|"))
	equal("Signer", op.Signer, ours(f.Signer))
	equal("Nonce", op.Nonce, f.Nonce)
	equal("Signature", op.Signature, f.Signature)
	equal("Method", op.Method, f.Method)
	equal("Path", op.Path, f.Path)
	sameSet("AlsoMeans", op.AlsoMeans, f.Same, moreTwins[op.Name])
	sameSet("NotCovered", op.NotCovered, each(f.Unsigned), f.StateNotBound, moreUncovered[key])
}

// TestOperationsDescribed: each row says enough to make a request from.
func TestOperationsDescribed(t *testing.T) {
	for _, op := range metacoin.Operations() {
		if !op.Dispatched {
			if op.Note == "" || len(op.Fields) > 0 {
				t.Errorf("%s: a dead operation has a note and nothing else", op.Name)
			}
			continue
		}
		for _, f := range op.Fields {
			if f.Kind == "" || f.Limits == "" {
				t.Errorf("%s: field %s lacks its kind or limits", op.Name, f.Name)
			}
			if signed := slices.Contains(strings.Split(op.Text, "|"), f.Name) || strings.Contains(op.Text, f.Name+"[]"); signed != f.Signed {
				t.Errorf("%s: field %s: Signed: got %v, want %v", op.Name, f.Name, f.Signed, signed)
			}
			if f.Signed && slices.Contains(op.NotCovered, f.Name) {
				t.Errorf("%s: field %s is signed and not covered", op.Name, f.Name)
			}
		}
	}
}

// TestTwins looks for texts that the ledger would also take for another
// operation: the same number of values, each of a form that the other's field
// takes by the chaincode's own, laxer checks. AlsoMeans must name them all.
func TestTwins(t *testing.T) {
	for _, c := range accepted {
		tx := parse(t, c.request)
		values := strings.Split(tx.Text(), "|")
		for _, other := range metacoin.Operations() {
			names := strings.Split(other.Text, "|")
			switch {
			case !other.Dispatched, other.Name == tx.Operation(), len(names) != len(values),
				other.Ledger != "" && strings.Contains(c.request, `"ledger"`) && !strings.Contains(c.request, other.Ledger):
				continue
			}
			fits := true
			for i, name := range names {
				fits = fits && lax(other, name, values[i])
			}
			// The published bridge cannot carry an mrc020_set, and all that one
			// made of a transfer would do is store its words. The two sides of
			// a createtrade each end in the key of their own wallet, and the
			// chaincode refuses one wallet on both.
			known := other.Name == "mrc020_set" || strings.HasPrefix(other.Name, "mrc401_createtrade")
			if fits && !known && !slices.Contains(tx.AlsoMeans(), other.Name) {
				t.Errorf("%s: its text %s is also one of %s", tx.Operation(), tx.Text(), other.Name)
			}
		}
	}
}

// lax says whether the chaincode could take the value for that field.
func lax(op metacoin.Operation, name, value string) bool {
	name = strings.TrimPrefix(name, "userlist[].")
	if name == "nonce" {
		return true
	}
	i := slices.IndexFunc(op.Fields, func(f metacoin.OperationField) bool { return f.Name == name })
	if i < 0 { // a member of a reward's list
		return name != "address" || metacoin.ValidAddress(value)
	}
	f := op.Fields[i]
	switch f.Kind {
	case "address":
		return metacoin.ValidAddress(value) || value == "" && !f.Required
	case "token id", "amount", "price", "time", "number":
		return strings.Trim(value, "0123456789") == "" && (value != "" || !f.Required)
	case "id":
		if f.Name == "mrc401id" {
			return len(value) == 81 && strings.HasPrefix(value, "MRC400_")
		}
		prefix, _, _ := strings.Cut(f.Limits, " ")
		return len(value) == 40 && strings.HasPrefix(value, prefix)
	case "json array":
		return strings.HasPrefix(value, "[")
	case "json object":
		return strings.HasPrefix(value, "{")
	case "url":
		return strings.HasPrefix(value, "http") || op.Name == "token_update"
	}
	return true
}

// TestTwinsAgree: what AlsoMeans names has a text of the same form, unless a
// list makes it so.
func TestTwinsAgree(t *testing.T) {
	count := map[string]int{}
	for _, op := range metacoin.Operations() {
		count[op.Name] = strings.Count(op.Text, "|")
	}
	for _, c := range accepted {
		tx := parse(t, c.request)
		for _, other := range tx.AlsoMeans() {
			if n, ok := count[other]; !ok || n != strings.Count(tx.Text(), "|") {
				t.Errorf("%s: %s has another number of values", tx.Operation(), other)
			}
		}
	}
}
