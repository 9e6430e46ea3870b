package appliance_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
	"signdrop/appliance/setup"
)

// Published: the words and keys of the vectors of BIP-32, 49, 84 and 86.
const (
	vectorWords = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
	vectorXprv  = "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC8w35uxmGoggxtQTPvfUu"
	vectorWIF   = "KyZpNDKnfs94vbrwhJneDi77V6jF64PWPF8x5cdJb8ifgg2DUc9d"
)

// sealed drops an encrypted request and returns its answer.
func (r *rig) sealed(name, text string) *answer.Answer {
	r.t.Helper()
	id, err := setup.ReadIdentity(r.root, nil)
	r.ok(err)
	r.drop(r.acme, name+".json.age", sealFor(id.Recipient(), text))
	return r.parse(r.wait("spool", "acme", "outbox", name+".result.json"))
}

// TestHDCreate: the answer tells what a watching wallet needs, and is the same after a
// start; addresses follow from it.
func TestHDCreate(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	create := []byte(`{"type":"wallet.create","kind":"hd","network":"test","reference":"cold"}`)
	a := r.answer("hd.json", create)
	if a.Verdict != "created" || a.Kind != "hd" || a.Network != "test" || len(a.Fingerprint) != 8 || a.Curve != "secp256k1" || len(a.Accounts) != 4 || a.Submit != nil {
		t.Fatalf("answer is %+v", a)
	}
	for i, want := range []struct{ script, path, begin string }{
		{"p2pkh", "m/44h/1h/0h", "pkh(["}, {"p2sh-p2wpkh", "m/49h/1h/0h", "sh(wpkh(["},
		{"p2wpkh", "m/84h/1h/0h", "wpkh(["}, {"p2tr", "m/86h/1h/0h", "tr(["},
	} {
		e := a.Accounts[i]
		if e.Script != want.script || e.Path != want.path || !strings.HasPrefix(e.XPub, "tpub") ||
			!strings.HasPrefix(e.Descriptor, want.begin+a.Fingerprint+strings.TrimPrefix(want.path, "m")+"]"+e.XPub+"/<0;1>/*)") {
			t.Errorf("account %+v", e)
		}
	}
	first := r.wait("spool", "acme", "outbox", "hd.result.json")
	ask := fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,"script":"p2wpkh","number":100}`, a.Wallet)
	list := r.answer("addr.json", ask)
	if list.Verdict != "derived" || len(list.Addresses) != 100 || list.Addresses[99].Path != "m/84h/1h/0h/0/99" || !strings.HasPrefix(list.Addresses[0].Address, "tb1q") {
		t.Errorf("addresses: %+v", list)
	}
	addresses := r.wait("spool", "acme", "outbox", "addr.result.json")
	stop()
	stop = r.serve()
	r.drop(r.acme, "hd2.json", create)
	r.drop(r.acme, "addr2.json", ask)
	if again := r.wait("spool", "acme", "outbox", "hd2.result.json"); !bytes.Equal(again, first) {
		t.Errorf("the same request has two answers:\n%s%s", first, again)
	}
	if again := r.wait("spool", "acme", "outbox", "addr2.result.json"); !bytes.Equal(again, addresses) {
		t.Errorf("the same request has two answers:\n%s%s", addresses, again)
	}
	for name, req := range map[string]string{
		"data": `{"type":"sign","wallet":%q,"data":{"text":"x","hash":"sha256"}}`,
		"bind": `{"type":"wallet.bind","wallet":%q,"address":"MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e"}`,
	} {
		r.drop(r.acme, name+".json", fmt.Appendf(nil, req, a.Wallet))
		if why := r.reason(name); why.Code != string(reason.FieldInvalid) || why.Field != "wallet" {
			t.Errorf("%s: %+v", name, why)
		}
	}
	entries := r.answer("list.json", []byte(`{"type":"wallet.list"}`)).Wallets
	if len(entries) != 1 || entries[0].Kind != "hd" || entries[0].Network != "test" || entries[0].Master != a.Fingerprint {
		t.Errorf("list %+v", entries)
	}
	stop()
	if rep := r.check(true); rep.Signed != 0 {
		t.Error("a master key has signed")
	}
	key, err := os.ReadFile(r.path("db", "companies", "acme", "wallets", a.Wallet, "key.pem"))
	r.ok(err)
	r.nowhere(keyBody(string(key)), "key.pem")
}

// TestBitcoinImports: words, an extended key and a key in WIF come encrypted, and their
// addresses are those of the BIPs.
func TestBitcoinImports(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	words := r.sealed("words", `{"type":"wallet.import","mnemonic":"`+vectorWords+`","network":"main"}`)
	xprv := r.sealed("xprv", `{"type":"wallet.import","private_key":"`+vectorXprv+`"}`)
	wif := r.sealed("wif", `{"type":"wallet.import","private_key":"`+vectorWIF+`"}`)
	if words.Verdict != "imported" || words.Fingerprint != "73c5da0a" || words.Kind != "hd" || words.Network != "main" || len(words.Accounts) != 4 {
		t.Errorf("words: %+v", words)
	}
	if xprv.Fingerprint != words.Fingerprint || xprv.Accounts[3] != words.Accounts[3] {
		t.Errorf("xprv: %+v", xprv)
	}
	if wif.Kind != "" || wif.Curve != "secp256k1" || wif.Accounts != nil {
		t.Errorf("WIF: %+v", wif)
	}
	phrase := r.sealed("phrase", `{"type":"wallet.import","mnemonic":"`+vectorWords+`","passphrase":"TREZOR","network":"regtest"}`)
	if phrase.Fingerprint != "b4e3f5ed" || phrase.Network != "regtest" {
		t.Errorf("words with a passphrase: %+v", phrase)
	}
	for i, c := range []struct{ wallet, rest, address, path string }{
		{words.Wallet, `"script":"p2pkh"`, "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA", "m/44h/0h/0h/0/0"},
		{words.Wallet, `"script":"p2wpkh","index":1`, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g", "m/84h/0h/0h/0/1"},
		{xprv.Wallet, `"script":"p2wpkh","change":true,"account":0`, "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el", "m/84h/0h/0h/1/0"},
		{xprv.Wallet, `"script":"p2tr","network":"main"`, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr", "m/86h/0h/0h/0/0"},
		{wif.Wallet, `"script":"p2wpkh"`, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", ""},
	} {
		a := r.answer(fmt.Sprintf("a%d.json", i), fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,%s}`, c.wallet, c.rest))
		if len(a.Addresses) != 1 || a.Addresses[0].Address != c.address || a.Addresses[0].Path != c.path {
			t.Errorf("%s: %+v", c.rest, a.Addresses)
		}
	}
	nist := r.wallet("P-256")
	for i, c := range []struct {
		wallet, rest, field string
		code                reason.Code
	}{
		{words.Wallet, `"script":"p2sh"`, "script", reason.FieldInvalid},
		{words.Wallet, `"script":"p2tr","network":"test"`, "network", reason.FieldInvalid},
		{words.Wallet, `"script":"p2tr","index":2147483647`, "index", reason.FieldInvalid},
		{words.Wallet, `"script":"p2tr","index":1000000`, "index", reason.FieldInvalid},
		{words.Wallet, `"script":"p2tr","index":999999,"number":2`, "index", reason.FieldInvalid},
		{wif.Wallet, `"script":"p2tr","index":1`, "index", reason.FieldInvalid},
		{nist, `"script":"p2tr"`, "wallet", reason.CurveUnsuitable},
		{"W_nobody", `"script":"p2tr"`, "wallet", reason.WalletUnknown},
	} {
		name := fmt.Sprintf("no%d", i)
		r.drop(r.acme, name+".json", fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,%s}`, c.wallet, c.rest))
		if a := r.reason(name); a.Code != string(c.code) || a.Field != c.field {
			t.Errorf("%s: %+v", c.rest, a)
		}
	}
	id, err := setup.ReadIdentity(r.root, nil)
	r.ok(err)
	for name, req := range map[string]string{
		"badwords": `{"type":"wallet.import","mnemonic":"` + strings.Replace(vectorWords, "about", "zoo", 1) + `","network":"main"}`,
		"badwif":   `{"type":"wallet.import","private_key":"` + vectorWIF + `","network":"test"}`,
		"account":  `{"type":"wallet.import","private_key":"xprv9xgqHN7yz9MwCkxsBPN5qetuNdQSUttZNKw1dcYTV4mkaAFiBVGQziHs3NRSWMkCzvgjEe3n9xV8oYywvM8at9yRqyaZVz6TYYhX98VjsUk"}`,
	} {
		r.ok(r.acme.Drop(r.root, name+".json.age", sealFor(id.Recipient(), req)))
		if a := r.reason(name); a.Code != string(reason.FieldInvalid) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	stop()
	r.check(true)
	for _, secret := range []string{vectorWords[:40], vectorXprv, vectorWIF} {
		r.nowhere(secret, "")
	}
}

// TestBitcoinSecretsInTheClear are wiped, whatever file they come in.
func TestBitcoinSecretsInTheClear(t *testing.T) {
	r := newRig(t)
	r.cfg.Still = soon
	stop := r.serve()
	for name, text := range map[string]string{
		"words.json": `{"type":"wallet.import","mnemonic":"` + vectorWords + `","network":"main"}`,
		"xprv.json":  `{"type":"wallet.import","private_key":"` + vectorXprv + `"}`,
		"note.json":  `{"type":"sign","wallet":"W_1","data":{"text":"the key is ` + vectorWIF + `","hash":"sha256"}}`,
		"coin.psbt":  vectorXprv,
	} {
		r.ok(r.acme.Drop(r.root, name, []byte(text)))
		base, _, _ := strings.Cut(name, ".")
		if a := r.reason(base); a.Code != string(reason.SecretInTheClear) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	r.put("acme", "backup.txt", []byte(strings.ReplaceAll(vectorWords, " ", "\n")))
	if a := r.reason("backup.txt"); a.Code != string(reason.SecretInTheClear) {
		t.Errorf("backup.txt: %+v", a)
	}
	r.until("all is wiped", func() bool {
		list, err := os.ReadDir(r.path("work", "acme"))
		return err == nil && len(list) == 0
	})
	stop()
	for _, secret := range []string{vectorWords[:40], strings.ReplaceAll(vectorWords[:40], " ", "\n"), vectorXprv, vectorWIF} {
		r.nowhere(secret, "")
	}
}

// TestWalletAddressInBatch: in order, and as many as lists.
func TestWalletAddressInBatch(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	defer stop()
	w := r.answer("hd.json", []byte(`{"type":"wallet.create","kind":"hd","network":"main"}`)).Wallet
	line := fmt.Sprintf(`{"type":"wallet.address","wallet":%q,"script":"p2tr"}`+"\n", w)
	r.drop(r.acme, "run.jsonl", []byte(line+`{"type":"wallet.create","kind":"hd","network":"regtest"}`+"\n"))
	answers := strings.Split(strings.TrimSpace(string(r.wait("spool", "acme", "outbox", "run.result.jsonl"))), "\n")
	if len(answers) != 2 {
		t.Fatal(answers)
	}
	if a := r.parse([]byte(answers[0])); len(a.Addresses) != 1 || a.Line != 1 {
		t.Errorf("first line: %s", answers[0])
	}
	if a := r.parse([]byte(answers[1])); a.Kind != "hd" || len(a.Accounts) != 4 {
		t.Errorf("second line: %s", answers[1])
	}
	r.ok(r.acme.Drop(r.root, "again.jsonl", []byte(line+`{"type":"wallet.create","kind":"hd","network":"regtest"}`+"\n")))
	if again := r.wait("spool", "acme", "outbox", "again.result.jsonl"); string(again) != strings.Join(answers, "\n")+"\n" {
		t.Errorf("the same batch has another answer:\n%s", again)
	}
	r.ok(r.acme.Drop(r.root, "many.jsonl", []byte(strings.Repeat(line, 17))))
	if a := r.reason("many"); a.Code != string(reason.BatchTooLong) {
		t.Errorf("17 lines: %+v", a)
	}
}
