package appliance_test

import (
	"fmt"
	"strings"
	"testing"

	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// TestAbortBindsNothing: an all-or-nothing batch that contradicts itself, or what
// was bound before, leaves no binding behind.
func TestAbortBindsNothing(t *testing.T) {
	r := newRig(t)
	r.serve()
	bind := func(wallet, address string) string {
		return fmt.Sprintf(`{"type":"wallet.bind","wallet":%q,"address":%q}`, wallet, testbed.Address(address)) + "\n"
	}
	const abort = `{"type":"batch","on_error":"abort"}` + "\n"
	w, v, u := r.wallet("P-256"), r.wallet("P-384"), r.wallet("P-521")
	for i, c := range []struct {
		lines string
		line  int
	}{
		{bind(w, "a") + bind(w, "b"), 3},                                                      // one wallet, two addresses
		{bind(w, "a") + bind(v, "a"), 3},                                                      // one address, two wallets
		{bind(w, "a") + string(testbed.DataRequest("W_none", "x")), 3},                        // something else is wrong
		{string(testbed.DataRequest(w, "x")) + bind(w, "a") + bind(v, "b") + bind(u, "a"), 5}, //
	} {
		name := fmt.Sprintf("b%d", i)
		r.drop(r.acme, name+".jsonl", []byte(abort+c.lines))
		if got := r.reason(name); got.Line != c.line {
			t.Errorf("%s: refused for line %d, want %d: %+v", name, got.Line, c.line, got)
		}
	}
	// None is bound: other addresses are taken.
	r.drop(r.acme, "good.jsonl", []byte(abort+bind(w, "c")+bind(v, "a")+bind(u, "b")+bind(w, "c")))
	if got := string(r.wait("spool", "acme", "outbox", "good.result.jsonl")); strings.Count(got, `"verdict":"bound"`) != 4 {
		t.Errorf("got %s", got)
	}
	// Without abort the first line has it.
	r.drop(r.acme, "each.jsonl", []byte(bind(w, "c")+bind(w, "d")))
	got := string(r.wait("spool", "acme", "outbox", "each.result.jsonl"))
	if strings.Count(got, `"verdict":"bound"`) != 1 || strings.Count(got, string(reason.WalletBound)) != 1 {
		t.Errorf("got %s", got)
	}
	r.check(false)
}
