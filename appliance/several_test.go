package appliance_test

import (
	"fmt"
	"strings"
	"testing"

	"signdrop/appliance/answer"
	_ "signdrop/appliance/ledgers/pairtest" // a ledger whose requests have several signatures
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// pairRequest asks for a signature of each text; texts and what they use up have the
// same names.
func pairRequest(wallet, reference string, texts ...string) string {
	return fmt.Sprintf(`{"type":"sign","wallet":%q,"reference":%q,"pair":{"operation":"pair","texts":[%s],"uses":[%[3]s]}}`+"\n",
		wallet, reference, `"`+strings.Join(texts, `","`)+`"`)
}

// TestSeveralSignatures: a request may have several signatures. All are on record and
// counted, the answer is made again of them, and what they use up is used up.
func TestSeveralSignatures(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.wallet("P-256")
	verify := func(a *answer.Answer, n int) {
		t.Helper()
		texts, sigs := strings.Split(a.Payload, "|"), strings.Split(a.Signature, " ")
		if len(texts) != n || len(sigs) != n {
			t.Fatalf("%d texts and %d signatures, want %d", len(texts), len(sigs), n)
		}
		for i, sig := range sigs {
			one := &answer.Answer{PublicKey: a.PublicKey, Algorithm: a.Algorithm, Payload: texts[i], Signature: sig}
			if err := testbed.VerifyAnswer(one); err != nil {
				t.Errorf("signature %d: %v", i, err)
			}
		}
	}
	outbox := func(name string) string {
		t.Helper()
		return string(r.wait("spool", "acme", "outbox", name))
	}
	three := []byte(pairRequest(w, "three", "a", "b", "c"))
	verify(r.answer("three.json", three), 3)
	verify(r.answer("one.json", []byte(pairRequest(w, "one", "d"))), 1)
	batch := []byte(`{"type":"batch","count":4}` + "\n" + pairRequest(w, "1", "e", "f") + string(testbed.Transfer(w, "pay")) +
		pairRequest(w, "2", "g", "a", "h") + pairRequest(w, "3", "a", "i", "j"))
	r.drop(r.acme, "run.jsonl", batch)
	lines := strings.SplitAfter(outbox("run.result.jsonl"), "\n")
	verify(r.parse([]byte(lines[1])), 2)
	// The text "a" was signed for the use "a": the same once more is no other.
	verify(r.parse([]byte(lines[3])), 3)
	verify(r.parse([]byte(lines[4])), 3)

	// Another text for a use that is used up, at any place, and nothing of it is signed.
	other := strings.Replace(pairRequest(w, "other", "k", "b"), `"texts":["k","b"]`, `"texts":["k","B"]`, 1)
	r.drop(r.acme, "other.json", []byte(other))
	if got := r.reason("other"); got.Code != string(reason.NonceUsed) || got.Field != "pair.uses[1]" {
		t.Errorf("refused as %s at %s", got.Code, got.Field)
	}
	verify(r.answer("free.json", []byte(strings.Replace(pairRequest(w, "free", "k"), `"texts":["k"]`, `"texts":["K"]`, 1))), 1)
	list := r.answer("list.json", []byte(`{"type":"wallet.list"}`))
	if got := list.Wallets[0].Signed; got != 3+1+2+1+3+3+1 {
		t.Errorf("%d signatures are counted", got)
	}

	// Made again, before and after a restart.
	for i := range 2 {
		r.drop(r.acme, fmt.Sprintf("three%d.json", i), three)
		r.drop(r.acme, fmt.Sprintf("run%d.jsonl", i), batch)
		if outbox(fmt.Sprintf("three%d.result.json", i)) != outbox("three.result.json") {
			t.Error("another answer to a request that was answered before")
		}
		if outbox(fmt.Sprintf("run%d.result.jsonl", i)) != outbox("run.result.jsonl") {
			t.Error("another answer to a batch that was answered before")
		}
		stop()
		if i == 0 {
			stop = r.serve()
		}
	}
	if rep := r.check(true); rep.Signed != 14 {
		t.Errorf("%d signatures are on record", rep.Signed)
	}
}
