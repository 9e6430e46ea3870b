package metacoin_test

import (
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
)

// previewHolds: the fields begin with what is signed, in its order, without what is
// empty.
func previewHolds(t testing.TB, tx *metacoin.Tx, values []string) {
	t.Helper()
	pre := metacoin.Ledger.Preview(tx, nil)
	values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
	var said []string
	for _, f := range pre.Fields {
		said = append(said, f.Value)
	}
	if len(said) < len(values) || !slices.Equal(said[:len(values)], values) {
		t.Fatalf("%q is signed, and said are %v", values, pre.Fields)
	}
	if len(pre.Refusals) > 0 || !slices.Equal(pre.NotCovered, tx.NotCovered()) || !slices.Equal(pre.AlsoMeans, tx.AlsoMeans()) {
		t.Fatalf("%+v", pre)
	}
}

// TestPreview: what is signed, what is not, and what its user should know.
func TestPreview(t *testing.T) {
	for _, c := range []struct {
		request string
		want    []string
	}{
		{`"operation":"transfer","from":"{A}","to":"{B}","token":"0","amount":"100","nonce":"{N}","memo":"x"`,
			[]string{"token=0\namount=100\nnonce=", "memo=x (not signed)\n", "used up=the wallet's nonce", "note=whoever submits it can lock"}},
		{`"operation":"token_burn","token":"17","amount":"5","nonce":"{N}"`, []string{"signed by=whom only the ledger knows (state:token.owner)\n"}},
	} {
		tx, err := metacoin.Parse([]byte("{" + expand(c.request) + "}"))
		if err != nil {
			t.Fatalf("%s: %v", c.request, err)
		}
		text := ""
		for _, f := range metacoin.Ledger.Preview(tx, nil).Fields {
			text += f.Name + "=" + f.Value + "\n"
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q:\n%s", c.request, want, text)
			}
		}
	}
}
