package appliance_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/checker"
	"signdrop/appliance/reason"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/keyfs/datakey"
)

// ann, bob and carl are administrators of the tests.
var ann, bob, carl = testbed.Named("admin", "ann"), testbed.Named("admin", "bob"), testbed.Named("admin", "carl")

// admins makes ann, bob and carl the administrators of a rig.
func (r *rig) admins(threshold int) {
	r.t.Helper()
	_, err := setup.Make(r.root, nil, setup.Plan{
		Admins: []setup.Signer{ann.Signer("ann"), bob.Signer("bob"), carl.Signer("carl")}, Threshold: threshold,
	})
	r.ok(err)
}

// put writes a file into an inbox in one step.
func (r *rig) put(company, name string, data []byte) {
	r.t.Helper()
	tmp := r.path("spool", company, "inbox", "."+name)
	r.ok(os.WriteFile(tmp, data, 0o600))
	r.ok(os.Rename(tmp, r.path("spool", company, "inbox", name)))
}

// command drops a command with the signatures of those who are given.
func (r *rig) command(name, text string, signers ...*testbed.Partner) {
	r.t.Helper()
	files := map[string][]byte{name: []byte(text)}
	for i, s := range signers {
		ns := auth.NamespaceAdmin
		if s.Company != "admin" {
			ns = auth.NamespaceApprove
		}
		files[fmt.Sprintf("%s.s%d.sig", name, i)] = s.SignAs([]byte(text), ns)
	}
	for name, data := range files { // in any order
		r.put("admin", name, data)
	}
	r.drops = append(r.drops, checker.Drop{Company: "admin", Name: name, Data: []byte(text)})
}

func (r *rig) done(name string) *answer.Answer {
	r.t.Helper()
	return r.parse(r.wait("spool", "admin", "outbox", answerName(name)))
}

func (r *rig) refusedCommand(name string, code reason.Code) *answer.Answer {
	r.t.Helper()
	got := r.parse(r.wait("spool", "admin", "rejected", strings.TrimSuffix(name, ".json")+".reason.json"))
	if got.Code != string(code) {
		r.t.Errorf("%s: refused as %s, want %s: %s", name, got.Code, code, got.Message)
	}
	if exists(r.path("spool", "admin", "outbox", answerName(name))) {
		r.t.Errorf("%s: has an answer too", name)
	}
	return got
}

func create(company string, keys ...*testbed.Partner) string {
	var list []string
	for _, k := range keys {
		list = append(list, fmt.Sprintf("%q", k.PublicKey()))
	}
	return fmt.Sprintf(`{"type":"company.create","company":%q,"name":"The %s","signers":[%s]}`, company, company, strings.Join(list, ","))
}

// TestCompanyLife: a company is made by two administrators, works, is changed with
// its own consent, stopped and started again.
func TestCompanyLife(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	stop := r.serve()
	beta := testbed.NewPartner("beta")

	// One signature is not enough, and twice the same key is one.
	text := create("beta", beta)
	r.put("admin", "beta.json", []byte(text))
	r.put("admin", "beta.json.sig", ann.SignAs([]byte(text), auth.NamespaceAdmin))
	r.put("admin", "beta.json.again.sig", ann.SignAs([]byte(text), auth.NamespaceAdmin))
	r.drops = append(r.drops, checker.Drop{Company: "admin", Name: "beta.json", Data: []byte(text)})
	status := r.wait("spool", "admin", "outbox", "beta.status.json")
	if !bytes.Contains(status, []byte("1 of 2 administrators")) {
		t.Errorf("status: %s", status)
	}
	if exists(r.path("db", "companies", "beta")) {
		t.Fatal("the company is there before it was approved")
	}
	// Neither a request's signature nor a stranger's counts.
	r.put("admin", "beta.json.req.sig", bob.Sign([]byte(text)))
	r.put("admin", "beta.json.who.sig", testbed.Named("admin", "mallory").SignAs([]byte(text), auth.NamespaceAdmin))
	r.until("the status tells of them", func() bool {
		data, _ := os.ReadFile(r.path("spool", "admin", "outbox", "beta.status.json"))
		return bytes.Contains(data, []byte("signature-namespace")) && bytes.Contains(data, []byte("signer-unknown"))
	})
	r.put("admin", "beta.json.bob.sig", bob.SignAs([]byte(text), auth.NamespaceAdmin))
	if got := r.done("beta.json"); got.Verdict != "created" || got.Company != "beta" || got.Title != "The beta" {
		t.Errorf("answer: %+v", got)
	}
	r.until("the status is gone", func() bool { return !exists(r.path("spool", "admin", "outbox", "beta.status.json")) })

	// It works.
	ask := func(name string, p *testbed.Partner, data string) *answer.Answer {
		t.Helper()
		r.drop(p, name, []byte(data))
		return r.parse(r.wait("spool", p.Company, "outbox", answerName(name)))
	}
	w := ask("w.json", beta, `{"type":"wallet.create","curve":"P-256"}`).Wallet
	ask("pay.json", beta, string(testbed.Transfer(w, "pay")))

	// The same name again.
	r.command("beta2.json", create("beta", beta), ann, bob)
	r.done("beta2.json") // the same bytes: the same answer, no second effect
	r.command("beta3.json", create("beta", ann), ann, bob)
	r.refusedCommand("beta3.json", reason.CompanyExists)

	// A change takes the company's consent.
	zoe := testbed.Named("beta", "zoe")
	update := fmt.Sprintf(`{"type":"company.update","company":"beta","signers":[%q]}`, zoe.PublicKey())
	r.command("update.json", update, ann, bob)
	if status := r.wait("spool", "admin", "outbox", "update.status.json"); !bytes.Contains(status, []byte("a signer of company beta")) {
		t.Errorf("status: %s", status)
	}
	r.put("admin", "update.json.beta.sig", beta.SignAs([]byte(update), auth.NamespaceApprove))
	if got := r.done("update.json"); got.Verdict != "updated" {
		t.Errorf("answer: %+v", got)
	}
	ask("by-zoe.json", zoe, string(testbed.Transfer(w, "by zoe")))
	r.until("the old signer is refused", func() bool {
		// A company's list may be a second old.
		name := fmt.Sprintf("old%d.json", len(r.drops))
		r.drop(beta, name, testbed.Transfer(w, name))
		r.until("a verdict", func() bool {
			return exists(r.path("spool", "beta", "outbox", answerName(name))) ||
				exists(r.path("spool", "beta", "rejected", strings.TrimSuffix(name, ".json")+".reason.json"))
		})
		return !exists(r.path("spool", "beta", "outbox", answerName(name)))
	})

	// Stopped and started again.
	r.command("stop.json", `{"type":"company.disable","company":"beta"}`, bob, carl)
	r.done("stop.json")
	r.drop(zoe, "late.json", testbed.Transfer(w, "late"))
	if got := r.parse(r.wait("spool", "beta", "rejected", "late.reason.json")); got.Code != string(reason.CompanyDisabled) {
		t.Errorf("refused as %s", got.Code)
	}
	r.command("list.json", `{"type":"company.list"}`, carl, ann)
	if got := r.done("list.json"); len(got.Companies) != 2 || got.Companies[1] != (answer.CompanyEntry{Company: "beta", Name: "The beta", Status: "disabled", Signers: 1}) {
		t.Errorf("list: %+v", got.Companies)
	}
	r.command("start.json", `{"type":"company.enable","company":"beta"}`, bob, carl)
	r.done("start.json")
	ask("late2.json", zoe, string(testbed.Transfer(w, "late")))

	// A policy.
	for i, c := range []struct{ policy, field string }{
		{`{"bitcoin":{"network":"main"}}`, "policy.bitcoin"}, {`{"ethereum":{"chains":[1]}}`, "policy.ethereum"},
		{`{"bitcoin":{"netwrok":"mainnet"}}`, "policy.bitcoin"}, {`{"data":"all"}`, "policy.data"}, {`{"max_age":""}`, "policy.max_age"},
		{`{"bitcoins":{}}`, "policy"}, {`{"metacoin":{}}`, "policy"}, {`{"data":null}`, "policy"},
	} {
		name := fmt.Sprintf("bad%d.json", i)
		r.command(name, `{"type":"policy.set","company":"beta","policy":`+c.policy+`}`, bob, carl)
		if got := r.refusedCommand(name, reason.FieldInvalid); got.Field != c.field || got.Hint == "" {
			t.Errorf("%s: refused at %q", c.policy, got.Field)
		}
	}
	r.command("policy.json", `{"type":"policy.set","company":"beta","policy":{"data":"none"}}`, bob, carl)
	r.done("policy.json")
	r.drop(zoe, "text.json", testbed.DataRequest(w, "x"))
	if got := r.parse(r.wait("spool", "beta", "rejected", "text.reason.json")); got.Code != string(reason.PolicyForbids) {
		t.Errorf("refused as %s", got.Code)
	}
	// The list is what it was, for the same bytes.
	r.command("list2.json", `{"type":"company.list"}`, carl, ann)
	r.done("list2.json")
	one, two := r.wait("spool", "admin", "outbox", "list.result.json"), r.wait("spool", "admin", "outbox", "list2.result.json")
	if !bytes.Equal(one, two) {
		t.Errorf("the same bytes have two answers:\n%s%s", one, two)
	}
	stop()
	r.empty("db", "admins", "approved")
	r.empty("spool", "admin", "inbox")
	if _, err := checker.Check(r.vol, r.drops, true, testbed.VerifyAnswer); err != nil {
		t.Error(err)
	}
}

// TestAdminsChange: the administrators change themselves, and cannot do away with
// themselves.
func TestAdminsChange(t *testing.T) {
	r := newRig(t)
	r.cfg.Still = soon // what no administrator has signed is refused then
	r.admins(2)
	r.serve()
	set := func(threshold int, keys ...*testbed.Partner) string {
		var list []string
		for _, k := range keys {
			list = append(list, fmt.Sprintf("%q", k.PublicKey()))
		}
		return fmt.Sprintf(`{"type":"admins.set","admins":[%s],"threshold":%d}`, strings.Join(list, ","), threshold)
	}
	r.command("none.json", set(1), ann, bob)
	r.refusedCommand("none.json", reason.FieldInvalid)
	r.command("high.json", set(3, ann, bob), ann, bob)
	r.refusedCommand("high.json", reason.FieldInvalid)
	r.command("twice.json", set(2, ann, ann), ann, bob)
	r.refusedCommand("twice.json", reason.FieldInvalid)
	r.command("set.json", set(1, carl), ann, bob)
	if got := r.done("set.json"); got.Threshold != 1 || len(got.Admins) != 1 {
		t.Errorf("answer: %+v", got)
	}
	r.command("alone.json", `{"type":"company.list"}`, carl)
	r.done("alone.json")
	r.command("gone.json", `{"type":"company.list","limit":5}`, ann, bob)
	r.refusedCommand("gone.json", reason.SignerUnknown)
	r.check(false)
}

// seal encrypts a request to the rig's appliance.
func (r *rig) seal(text string) []byte {
	r.t.Helper()
	id, err := setup.ReadIdentity(r.root, nil)
	r.ok(err)
	return sealFor(id.Recipient(), text)
}

// TestImport: a key that was made elsewhere comes in encrypted, and signs.
func TestImport(t *testing.T) {
	r := newRig(t)
	r.serve()
	pem, public := testKey(t, "prime256v1")
	address := testbed.Address("from")
	text := fmt.Sprintf(`{"type":"wallet.import","private_key":%q,"address":%q,"wallet_not_after":"2099-01-01T00:00:00Z"}`, pem, address)
	r.drop(r.acme, "in.json.age", r.seal(text))
	got := r.parse(r.wait("spool", "acme", "outbox", "in.result.json"))
	if got.Verdict != "imported" || got.PublicKey != public || got.Address != address || got.NotAfter != "2099-01-01T00:00:00Z" {
		t.Errorf("answer: %+v", got)
	}
	pay := r.answer("pay.json", testbed.Transfer(address, "pay"))
	if pay.PublicKey != public {
		t.Errorf("signed with %s", pay.PublicKey)
	}
	list := r.answer("list.json", []byte(`{"type":"wallet.list"}`))
	if len(list.Wallets) != 1 || list.Wallets[0].Wallet != got.Wallet || list.Wallets[0].Status != "active" || list.Wallets[0].Signed != 1 {
		t.Errorf("list: %+v", list.Wallets)
	}
	r.answer("off.json", fmt.Appendf(nil, `{"type":"wallet.disable","wallet":%q}`, got.Wallet))
	r.drop(r.acme, "pay2.json", testbed.Transfer(address, "pay2"))
	if got := r.reason("pay2"); got.Code != string(reason.WalletDisabled) {
		t.Errorf("refused as %s", got.Code)
	}
	// What was answered stays answered.
	r.drop(r.acme, "in2.json.age", r.seal("{}"))
	if got := r.reason("in2"); got.Code != string(reason.FieldMissing) {
		t.Errorf("refused as %s", got.Code)
	}
	r.drop(r.acme, "in3.json.age", []byte("age-encryption.org/v1\n"))
	if got := r.reason("in3"); got.Code != string(reason.AgeUnreadable) {
		t.Errorf("refused as %s", got.Code)
	}
	// The secret lies nowhere but in its key file.
	r.nowhere(keyBody(pem), "key.pem")
}

// TestSecretInTheClear: a private key in an inbox is refused and wiped, whatever it
// is called and whether or not it is signed.
func TestSecretInTheClear(t *testing.T) {
	r := newRig(t)
	r.cfg.Still, r.cfg.SigWait = soon, soon
	pem, _ := testKey(t, "secp384r1")
	text := []byte(fmt.Sprintf(`{"type":"wallet.import","private_key":%q}`, pem))
	r.put("acme", "a.json.sig", r.acme.Sign(text))
	r.put("acme", "a.json", text)
	r.put("acme", "key.pem", []byte(pem))
	r.put("acme", "unsigned.json", text)
	phrase := []byte(`{"type":"datakey.create","passphrase":"correct horse battery staple"}`)
	r.put("acme", "p.json.sig", r.acme.Sign(phrase))
	r.put("acme", "p.json", phrase)
	line := append([]byte(`{"type":"wallet.create","curve":"P-256"}`+"\n"), phrase...)
	r.put("acme", "b.jsonl.sig", r.acme.Sign(line))
	r.put("acme", "b.jsonl", line)
	stop := r.serve()
	for _, base := range []string{"a", "key.pem", "unsigned", "p", "b"} {
		if got := r.reason(base); got.Code != string(reason.SecretInTheClear) {
			t.Errorf("%s: refused as %s", base, got.Code)
		}
	}
	stop()
	r.empty("work", "acme")
	r.empty("spool", "acme", "inbox")
	if exists(r.path("db", "companies", "acme", "wallets")) {
		t.Error("a wallet was made")
	}
	r.nowhere(keyBody(pem), "")
	r.nowhere("correct horse", "")
}

// TestDataKeys: texts go in, come back as ciphertext, and come out to the asker.
func TestDataKeys(t *testing.T) {
	r := newRig(t)
	var c clock
	r.cfg.Now = c.now
	id := plantDataKey(t, r)
	r.serve()
	me, err := age.GenerateX25519Identity()
	r.ok(err)
	const phrase = "correct horse 12"
	decrypt := func(name, more string, phrase string) *answer.Answer {
		t.Helper()
		r.drop(r.acme, name+".json.age", r.seal(fmt.Sprintf(`{"type":"decrypt","reference":%q,"key":%q,"passphrase":%q,%s}`, name, id, phrase, more)))
		r.until("a verdict on "+name, func() bool {
			return exists(r.path("spool", "acme", "outbox", name+".result.json")) || exists(r.path("spool", "acme", "rejected", name+".reason.json"))
		})
		if exists(r.path("spool", "acme", "outbox", name+".result.json")) {
			return r.parse(r.wait("spool", "acme", "outbox", name+".result.json"))
		}
		return r.reason(name)
	}
	for i, c := range []struct{ in, format, want string }{
		{`"text":"short ✓"`, "rsa-oaep-sha256", "short ✓"},
		{`"text":"short","format":"jwe"`, "jwe", "short"},
		{fmt.Sprintf(`"text":%q`, strings.Repeat("long ", 2000)), "jwe", strings.Repeat("long ", 2000)},
		{`"bytes":"AP8A"`, "rsa-oaep-sha256", "\x00\xff\x00"},
	} {
		ct := r.answer(fmt.Sprintf("e%d.json", i), fmt.Appendf(nil, `{"type":"encrypt","key":%q,%s}`, id, c.in))
		if ct.Format != c.format || ct.Key != id {
			t.Errorf("%s: format %s, key %s", c.in, ct.Format, ct.Key)
		}
		got := decrypt(fmt.Sprintf("d%d", i), fmt.Sprintf(`"format":%q,"ciphertext":%q,"recipient":%q`, ct.Format, ct.Ciphertext, me.Recipient()), phrase)
		out, err := age.Decrypt(armor.NewReader(strings.NewReader(got.Encrypted)), me)
		if err != nil {
			t.Fatalf("%s: %v in %+v", c.in, err, got)
		}
		if plain, _ := io.ReadAll(out); string(plain) != c.want {
			t.Errorf("%s: came back as %q", c.in, plain)
		}
	}
	// The same bytes: the same ciphertext, although each encryption is another.
	same := []byte(fmt.Sprintf(`{"type":"encrypt","key":%q,"text":"same"}`, id))
	if a, b := r.answer("same1.json", same), r.answer("same2.json", same); a.Ciphertext != b.Ciphertext {
		t.Error("the same request was encrypted twice")
	}
	ct := r.answer("ct.json", fmt.Appendf(nil, `{"type":"encrypt","key":%q,"text":"attack at dawn"}`, id))
	sealed := fmt.Sprintf(`"format":%q,"ciphertext":%q,`, ct.Format, ct.Ciphertext)
	// What a walletKMS encrypted.
	old, err := os.ReadFile("../keyfs/datakey/testdata/node.oaep-sha1.base64")
	r.ok(err)
	got := decrypt("old-text", fmt.Sprintf(`"format":"rsa-oaep-sha1","ciphertext":%q,"recipient":%q`, strings.TrimSpace(string(old)), me.Recipient()), phrase)
	if out, err := age.Decrypt(armor.NewReader(strings.NewReader(got.Encrypted)), me); err != nil {
		t.Errorf("old: %v in %+v", err, got)
	} else if plain, _ := io.ReadAll(out); len(plain) == 0 {
		t.Error("old: nothing came back")
	}
	// In the clear only where the policy says so.
	if got := decrypt("clear", sealed+`"clear":true`, phrase); got.Code != string(reason.PolicyForbids) {
		t.Errorf("clear: %+v", got)
	}
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(`{"clear":true}`), 0o600))
	r.until("the policy is read again", func() bool {
		return decrypt(fmt.Sprintf("clear%d", len(r.drops)), sealed+`"clear":true`, phrase).Text == "attack at dawn"
	})
	// Nobody else's key, no such format, another ciphertext.
	for name, c := range map[string]struct {
		text string
		code reason.Code
	}{
		"nokey":  {`{"type":"encrypt","key":"K_000000000000000000000000000000","text":"x"}`, reason.DataKeyUnknown},
		"path":   {`{"type":"encrypt","key":"../acme","text":"x"}`, reason.DataKeyUnknown},
		"old":    {fmt.Sprintf(`{"type":"encrypt","key":%q,"text":"x","format":"rsa-oaep-sha1"}`, id), reason.FieldInvalid},
		"both":   {fmt.Sprintf(`{"type":"encrypt","key":%q,"text":"x","bytes":"eA=="}`, id), reason.FieldInvalid},
		"toobig": {fmt.Sprintf(`{"type":"encrypt","key":%q,"text":%q,"format":"rsa-oaep-sha256"}`, id, strings.Repeat("x", 447)), reason.FieldInvalid},
	} {
		r.drop(r.acme, name+".json", []byte(c.text))
		if got := r.reason(name); got.Code != string(c.code) {
			t.Errorf("%s: refused as %s, want %s", name, got.Code, c.code)
		}
	}
	if got := decrypt("damaged", strings.Replace(sealed, ct.Ciphertext[:4], "AAAA", 1)+fmt.Sprintf(`"recipient":%q`, me.Recipient()), phrase); got.Code != string(reason.CiphertextInvalid) {
		t.Errorf("damaged: %+v", got)
	}
	// Guessing is slowed down, and the right one then has to wait too: for a second,
	// which does not pass while the clock stands.
	c.stop()
	for i := range 5 {
		if got := decrypt(fmt.Sprintf("guess%d", i), sealed+fmt.Sprintf(`"recipient":%q`, me.Recipient()), fmt.Sprintf("guess number %d", i)); got.Code != string(reason.PassphraseWrong) {
			t.Errorf("guess %d: %+v", i, got)
		}
	}
	if got := decrypt("right", sealed+fmt.Sprintf(`"recipient":%q`, me.Recipient()), phrase); got.Code != string(reason.PassphraseWait) || !got.Retry {
		t.Errorf("after five wrong ones: %+v", got)
	}
	r.nowhere(phrase, "")
	r.nowhere("guess number", "")
}

// TestDataKeyCreate: a data key is made, and found again by the same bytes.
func TestDataKeyCreate(t *testing.T) {
	if testing.Short() {
		return // it takes minutes under an emulator; keyfs/datakey has it with a key made before
	}
	r := newRig(t)
	r.serve()
	ask := r.seal(`{"type":"datakey.create","name":"customers","passphrase":"correct horse 12"}`)
	var keys []string
	for _, name := range []string{"one", "two"} {
		r.drop(r.acme, name+".json.age", ask)
		got := r.parse(r.wait("spool", "acme", "outbox", name+".result.json"))
		if got.Verdict != "created" || got.Title != "customers" || !strings.Contains(got.PublicKey, "PUBLIC KEY") {
			t.Errorf("answer: %+v", got)
		}
		keys = append(keys, got.Key)
	}
	if keys[0] != keys[1] {
		t.Errorf("the same request made two keys: %q", keys)
	}
	list, err := os.ReadDir(r.path("db", "companies", "acme", "datakeys"))
	r.ok(err)
	if len(list) != 1 || list[0].Name() != keys[0] {
		t.Errorf("datakeys holds %v", list)
	}
	r.nowhere("correct horse", "")
}

// plantDataKey imports the test key, since making one takes seconds, and minutes
// under an emulator.
func plantDataKey(t *testing.T, r *rig) string {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile("../keyfs/datakey/testdata/" + name)
		r.ok(err)
		return data
	}
	db, err := r.root.Sub("db")
	r.ok(err)
	defer db.Close()
	const id = "K_0123456789abcdef0123456789abcd"
	_, err = datakey.Open(db, nil).Import("acme", datakey.ImportSpec{
		ID: id, Name: "customers", EncryptedPEM: read("node.pem"), PublicPEM: read("node.pub.pem"),
	}, r.vol)
	r.ok(err)
	return id
}
