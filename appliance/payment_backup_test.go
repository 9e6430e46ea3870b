package appliance_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
	"signdrop/keyfs/hd"
	"signdrop/spool"
)

// TestBackupPayments: a restored appliance has the trees of keys, knows which coins and
// nonces are used up, and gives the answers of before with every file that lies beside.
func TestBackupPayments(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(`{"replace":true}`), 0o600))
	y := &treasury{rig: r, serve: r.serve}
	stop := y.serve()
	main, id := y.tree(y.acme, "main", "cold")
	words := y.sealed("words", `{"type":"wallet.import","mnemonic":"`+vectorWords+`","network":"main"}`)
	imported, err := testbed.Accounts(words)
	y.ok(err)
	ether := y.rig.wallet("secp256k1")
	spend := func(coin string, change int64, n byte) []byte {
		a := main[hd.P2WPKH]
		return testbed.NewPayment().Spend(coin, 100_000, hd.P2WPKH, a.Key(0, 3)).Pay(50_000, n).Change(change, hd.P2WPKH, a.Key(1, 3)).PSBT()
	}
	asked := map[string][]byte{}
	answers := map[string][][]byte{}
	all := func(r *rig, name string) (files [][]byte) {
		files = append(files, r.wait("spool", "acme", "outbox", spool.AnswerName(name)))
		for _, ending := range []string{"-signed.psbt", "-part.psbt", "-final.txn"} {
			data, _ := os.ReadFile(r.path("spool", "acme", "outbox", spool.FurtherName(name, ending)))
			files = append(files, data)
		}
		return files
	}
	ask := func(name string, data []byte) {
		t.Helper()
		r.drop(r.acme, name, data)
		asked[name], answers[name] = data, all(r, name)
	}
	shared := testbed.NewPayment().SpendShared("shared", 100_000, 2, main[hd.P2WPKH].Key(0, 5), testbed.Stranger("bob")).Pay(99_000, 7).PSBT()
	ask("coin.psbt", spend("coin", 49_000, 7))
	ask("part.psbt", shared)
	ask("phrase.psbt", payment(imported[hd.P2TR], "words", 1).PSBT())
	ask("raised.json", inJSON(spend("coin", 48_000, 7), `,"replace":true`))
	ask("run.jsonl", append(inJSON(spend("line", 49_000, 7), ""), append([]byte("\n"), testbed.EthereumTransfer(ether, "line", 1)...)...))
	ask("ether.json", testbed.EthereumTransfer(ether, "ether", 2))
	full, first := r.backup("full", "")
	ask("later.psbt", spend("later", 49_000, 7))
	_, second := r.backup("inc", full.Backup)
	stop()

	n, rep := r.restored(first, second)
	z := &treasury{rig: n, serve: n.serve}
	stop = z.serve()
	n.accept(rep)
	for name, want := range answers {
		n.drop(n.acme, name, asked[name])
		for i, got := range all(n, name) {
			if !bytes.Equal(got, want[i]) {
				t.Errorf("%s, file %d: the restored appliance answers\n%q\ninstead of\n%q", name, i, got, want[i])
			}
		}
	}
	for _, coin := range []string{"coin", "line", "later"} {
		z.refused(coin+" to another", ".psbt", spend(coin, 49_000, 8), reason.NonceUsed, "inputs[0]")
		z.refused(coin+" to another, on purpose", ".json", inJSON(spend(coin, 49_000, 8), `,"replace":true`), reason.NonceUsed, "inputs[0]")
	}
	z.refused("a nonce", ".json", bytes.Replace(testbed.EthereumTransfer(ether, "other", 2), []byte(`"value":"1`), []byte(`"value":"2`), 1), reason.NonceUsed, "ethereum.nonce")
	if a, _ := z.ask(z.acme, ".json", inJSON(spend("later", 47_000, 7), `,"replace":true`)); a.Verdict != "signed" {
		t.Errorf("a higher fee for what was signed before: %s: %s", a.Code, a.Message)
	}
	if got := z.signed(spend("fresh", 49_000, 9), 1, true); got.Signed[0].Wallet != id {
		t.Errorf("signed by %s, want %s", got.Signed[0].Wallet, id)
	}
	z.signed(payment(imported[hd.P2WPKH], "fresh words", 2).PSBT(), 1, true)
	told := n.answer("told.json", fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,"script":"p2wpkh","index":3}`, id))
	if len(told.Addresses) != 1 || told.Addresses[0].PublicKey != fmt.Sprintf("%x", main[hd.P2WPKH].Key(0, 3).Public.SerializeCompressed()) {
		t.Errorf("addresses: %+v", told.Addresses)
	}
	stop()
}
