package main

import (
	"strings"
	"testing"

	"signdrop/appliance/answer"
	"signdrop/appliance/request"
	"signdrop/tools/signdrop/proof"
)

// TestAsked: an answer is for a request if it is for this payment, from the account and the
// wallet that the request names. The payload of a transaction holds no sender: the very
// same one can be signed by somebody else.
func TestAsked(t *testing.T) {
	const sender, thief = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F", "0x3535353535353535353535353535353535353535"
	text := `{"type":"sign","reference":"r","wallet":"W_1","ethereum":{"operation":"legacy","chain_id":"1","nonce":"9","from":"` + sender + `","to":"` + thief + `","value":"1","gas_limit":"21000","gas_price":"1"}}`
	r, err := request.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	a := &asked{digest: "d", single: r}
	good := answer.Answer{Type: answer.TypeSign, Request: "d", Reference: "r", Wallet: "W_1", Address: sender, Ledger: "ethereum", Payload: r.Tx.Payload()}
	for _, c := range []struct {
		change func(*answer.Answer)
		want   string
	}{
		{func(*answer.Answer) {}, ""},
		{func(a *answer.Answer) { a.Request = "e" }, "not the answer to the request"},
		{func(a *answer.Answer) { a.Address = thief }, "the transaction is not that of the request"},
		{func(a *answer.Answer) { a.Payload += "00" }, "the signed text is not what the request asked for"},
		{func(a *answer.Answer) { a.Wallet = "W_2" }, "the wallet is not that of the request"},
		{func(a *answer.Answer) { a.Reference = "s" }, "the reference is not the request's"},
	} {
		ans := good
		c.change(&ans)
		f := &proof.Finding{Answer: &ans}
		a.check(f)
		if got := strings.Join(f.Problems, "; "); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("the problems are %q, want %q", got, c.want)
		}
	}
}

// TestHeadline: in the one line that a batch's answer has, no value can be taken for several.
func TestHeadline(t *testing.T) {
	f := &proof.Finding{
		Answer: &answer.Answer{Type: answer.TypeSign, Line: 2, Operation: "message"},
		Fields: []proof.Field{{Name: "text", Value: "pay to=0x35 \"value\"\nnow"}, {Name: "as", Value: "a\nb"}, {Name: "to", Value: "0x36"}},
	}
	if got, want := headline(f), `good signature, message text="pay to=0x35 \"value\"\nnow" as=a\nb to=0x36`; got != want {
		t.Errorf("the line is\n%s, want\n%s", got, want)
	}
}
