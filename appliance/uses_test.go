package appliance_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// TestListCounts: wallet.list says how often each wallet signed and when last, also
// after a restart that finds no index. What is answered again or refused is no
// signature.
func TestListCounts(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w, idle := r.wallet("P-256"), r.wallet("P-384")
	lists := 0
	list := func() map[string]answer.WalletEntry {
		t.Helper()
		lists++
		// Another request each time: the same one has the same answer.
		got := r.answer(fmt.Sprintf("list%d.json", lists), []byte(`{"type":"wallet.list"}`+strings.Repeat("\n", lists)))
		m := map[string]answer.WalletEntry{}
		for _, e := range got.Wallets {
			m[e.Wallet] = e
		}
		return m
	}
	want := func(signed uint64) (last string) {
		t.Helper()
		l := list()
		if l[w].Signed != signed || (l[w].LastSigned != "") != (signed > 0) {
			t.Errorf("the wallet: %+v; want %d signatures", l[w], signed)
		}
		if l[idle].Signed != 0 || l[idle].LastSigned != "" {
			t.Errorf("the idle wallet: %+v", l[idle])
		}
		return l[w].LastSigned
	}
	want(0)
	if raw := r.wait("spool", "acme", "outbox", "list1.result.json"); bytes.Count(raw, []byte(`"signed":0`)) != 2 || bytes.Contains(raw, []byte("last_signed")) {
		t.Errorf("answer: %s", raw)
	}

	before := time.Now().Truncate(time.Second)
	pay := testbed.Transfer(w, "pay")
	r.answer("pay.json", pay)
	last, err := time.Parse(time.RFC3339, want(1))
	if err != nil || last.Before(before) || last.After(time.Now()) {
		t.Errorf("last signed at %v, %v", last, err)
	}
	r.answer("again.json", pay)
	want(1)
	r.drop(r.acme, "rival.json", []byte(strings.Replace(string(pay), `"amount":"1`, `"amount":"2`, 1)))
	if got := r.reason("rival"); got.Code != string(reason.NonceUsed) {
		t.Errorf("refused as %s", got.Code)
	}
	want(1)

	// Two of the three lines are signed; of a batch that is refused as a whole none is.
	one, two := string(testbed.DataRequest(w, "1")), string(testbed.DataRequest(w, "2"))
	r.drop(r.acme, "run.jsonl", []byte(`{"type":"batch","count":3}`+"\n"+one+`{"type":"no"}`+"\n"+two))
	r.wait("spool", "acme", "outbox", "run.result.jsonl")
	want(3)
	r.drop(r.acme, "all.jsonl", []byte(`{"type":"batch","count":2,"on_error":"abort"}`+"\n"+one+`{"type":"no"}`+"\n"))
	r.reason("all")
	newest := want(3)

	stop()
	segments, err := filepath.Glob(r.path("index", "*"))
	r.ok(err)
	if len(segments) == 0 {
		t.Error("there was no index")
	}
	for _, name := range segments {
		r.ok(os.Remove(name))
	}
	stop = r.serve()
	if got := want(3); got != newest {
		t.Errorf("last signed at %s, was %s", got, newest)
	}
	r.answer("more.json", testbed.Transfer(w, "more"))
	want(4)
	stop()
	r.check(true)
}

// TestListAddresses: wallet.list tells the addresses that follow from a key, and the
// answers that sign show the same.
func TestListAddresses(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	k1, p256 := r.wallet("secp256k1"), r.wallet("P-256")
	got := r.answer("list.json", []byte(`{"type":"wallet.list"}`))
	signed := r.answer("pay.json", testbed.EthereumTransfer(k1, "pay", 1))
	for _, e := range got.Wallets {
		switch e.Wallet {
		case k1:
			if e.Addresses["ethereum"] == "" || e.Addresses["ethereum"] != signed.Address {
				t.Errorf("listed as %+v, signed as %s", e, signed.Address)
			}
		case p256:
			if e.Addresses != nil {
				t.Errorf("on P-256: %+v", e)
			}
		}
	}
	stop()
	r.check(true)
}
