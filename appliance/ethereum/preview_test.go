package ethereum

import (
	"fmt"
	"strings"
	"testing"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// previewHolds: what is said before something is signed is what is said afterwards, but
// for what follows from who signs.
func previewHolds(t testing.TB, tx ledger.Tx, after *ledger.Finding) {
	t.Helper()
	pre := preview(tx, nil)
	if len(pre.Refusals) > 0 {
		t.Fatalf("it cannot be read again: %v", pre.Refusals)
	}
	fields := pre.Fields
	if tx.(*Tx).body != nil {
		last := len(fields) - 1
		if fields[last].Name != "used up" {
			t.Fatalf("it does not say what it uses up: %v", fields)
		}
		fields = fields[:last]
	}
	want := after.Fields[1:] // from
	if tx.(*Tx).transaction() {
		last := len(want) - 1
		if want[last].Name != "hash" {
			t.Fatalf("the hash is not the last: %v", want)
		}
		want = want[:last] // it follows from the signature
	}
	if tx.(*Tx).from != nil {
		fields = fields[1:]
	}
	if len(fields) != len(want) {
		t.Fatalf("before %v, after %v", fields, want)
	}
	for i, f := range fields {
		if f != want[i] && (f.Name != want[i].Name || f.Name != "contract") {
			t.Fatalf("before %v, after %v", f, want[i])
		}
	}
}

// TestPreview: for each operation; and what the careful rules refuse.
func TestPreview(t *testing.T) {
	careful, err := Ledger.Rules(nil)
	if err != nil {
		t.Fatal(err)
	}
	from := `"from":"0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"`
	for _, c := range []struct {
		object string
		code   reason.Code
		want   []string
	}{
		{plain, "", []string{"used up: nonce "}},
		{with(t, plain, `{"nonce":"9","chain_id":"5",`+from+`}`), "", []string{
			"from: 0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F (refused if the wallet's address is another)\n",
			"chain_id: 5\nnonce: 9\n", "used up: nonce 9 of the wallet on chain 5: nothing else is signed for it\n"}},
		{with(t, plain, `{"to":null,"create":true,"data":"0x6000"}`), "", []string{"contract: is created, at an address that follows from who signs\n"}},
		{with(t, plain, `{"to":null,"create":true,"data":"0x6000",`+from+`}`), "", []string{"contract: 0x"}},
		{with(t, plain, `{"operation":"legacy","gas_price":"7","max_fee_per_gas":null,"max_priority_fee_per_gas":null}`), "", []string{"gas_price: 7\n"}},
		{mail, "", []string{"typed_data: {"}},
		{`{"operation":"message","text":"a\nb"}`, "", []string{"text: a\nb\n"}},
		{`{"operation":"message","bytes":"0x61"}`, "", []string{"bytes: 0x61\n"}},
		{`{"operation":"hash","hash":"0x` + strings.Repeat("11", 32) + `"}`, reason.PolicyForbids, []string{"means: nobody here can know: it can be a transaction of the account\n"}},
		{`{"operation":"authorization","chain_id":"1","nonce":"9","address":"` + payee + `"}`, "", []string{"means: the account gets the code at this address: that code commands"}},
		{`{"operation":"authorization","chain_id":"0","nonce":"9","address":"` + payee + `"}`, reason.PolicyForbids, []string{"at this address on every chain: "}},
	} {
		tx, err := Ledger.Parse([]byte(c.object))
		if err != nil {
			t.Fatalf("%s: %v", c.object, err)
		}
		pre := preview(tx, careful)
		code := reason.Code("")
		for _, err := range pre.Refusals {
			ref, _ := reason.As(err)
			code += ref.Code
		}
		if code != c.code {
			t.Errorf("%s: %v, want %q", c.object, pre.Refusals, c.code)
		}
		text := ""
		for _, f := range pre.Fields {
			text += fmt.Sprintf("%s: %s\n", f.Name, f.Value)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q:\n%s", c.object, want, text)
			}
		}
	}
	for _, v := range vectors {
		tx, err := Ledger.Parse([]byte(v.request))
		if err != nil {
			t.Fatal(err)
		}
		previewHolds(t, tx, explain(signed(t, v.key, v.request)))
	}
}
