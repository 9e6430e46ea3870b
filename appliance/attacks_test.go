package appliance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"signdrop/appliance"
	"signdrop/appliance/auth"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// What this file tries was found by a reviewer who meant harm. Each attack must come
// to nothing, and to nothing for the others.

// once runs the appliance until nothing is left to do.
func (r *rig) once() {
	r.t.Helper()
	a, err := appliance.Open(r.vol, r.cfg)
	r.ok(err)
	r.cfg.AllowNew = false
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.ok(a.Once(ctx))
	r.ok(a.Close())
}

// claimed puts a command into work/ as a crash leaves it, with its note or without.
func (r *rig) claimed(name, text string, note bool, signers ...*testbed.Partner) {
	r.t.Helper()
	r.ok(os.MkdirAll(r.path("work", "admin"), 0o700))
	r.ok(os.WriteFile(r.path("work", "admin", name), []byte(text), 0o600))
	for i, s := range signers {
		r.ok(os.WriteFile(r.path("work", "admin", fmt.Sprintf("%s.s%d.sig", name, i)), s.SignAs([]byte(text), auth.NamespaceAdmin), 0o600))
	}
	if note {
		r.ok(os.MkdirAll(r.path("db", "admins", "approved"), 0o700))
		r.ok(os.WriteFile(r.path("db", "admins", "approved", fmt.Sprintf("%x", sha256.Sum256([]byte(text)))), []byte("ann\nSHA256:a\n"), 0o600))
	}
}

func (r *rig) read(elem ...string) string {
	data, _ := os.ReadFile(r.path(elem...))
	return string(data)
}

// TestNoPoison: values that pass every form and fail later refuse the request, and
// do not stop the appliance, now or at each start.
func TestNoPoison(t *testing.T) {
	r := newRig(t)
	r.admins(1)
	key := plantDataKey(t, r)
	r.serve()
	// An age recipient of low order: 32 zero bytes.
	const low = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"
	for i, c := range []struct {
		text string
		want reason.Code
	}{
		{`{"type":"wallet.create","curve":"P-256","wallet_not_after":"1969-01-01T00:00:00Z"}`, reason.FieldInvalid},
		{`{"type":"wallet.create","curve":"P-256","wallet_not_after":"9999-12-31T23:59:59-12:00"}`, reason.FieldInvalid},
		{`{"type":"wallet.create","curve":"P-256","not_after":"0001-01-01T00:00:00Z"}`, reason.FieldInvalid},
		{fmt.Sprintf(`{"type":"decrypt","key":%q,"format":"jwe","ciphertext":"x","passphrase":"correct horse 12","recipient":%q}`, key, low), reason.FieldInvalid},
	} {
		name := fmt.Sprintf("p%d.json.age", i)
		data := r.seal(c.text)
		r.drop(r.acme, name, data)
		if got := r.reason(fmt.Sprintf("p%d", i)); got.Code != string(c.want) {
			t.Errorf("%s: refused as %s (%s)", c.text, got.Code, got.Message)
		}
	}
	// A company whose files are in disorder.
	r.ok(os.MkdirAll(r.path("db", "companies", "broken"), 0o700))
	r.ok(os.WriteFile(r.path("db", "companies", "broken", "company.json"), []byte("{"), 0o600))
	r.command("broken.json", create("broken", ann), ann)
	r.refusedCommand("broken.json", reason.OperatorNeeded)
	// A policy that grows when it is written for people, before another line.
	r.command("two.jsonl", `{"type":"company.create","company":"c1","signers":["`+strings.TrimSpace(ann.PublicKey())+`"],"policy":{"replace":false,"data":"safe","max_age":"24h"}}`+"\n"+
		`{"policy":{"data":"none"},"type":"policy.set","company":"acme"}`+"\n", ann)
	r.wait("spool", "admin", "outbox", "two.result.jsonl")
	if got := r.read("db", "companies", "acme", "policy.json"); !strings.Contains(got, `"none"`) || strings.Contains(got, "max_age") {
		t.Errorf("the second line's policy is %s", got)
	}
	r.answer("alive.json", []byte(`{"type":"wallet.create","curve":"P-256"}`))
}

// TestConsentCannotBeAvoided: a company's signers change with its consent only, in
// whatever file the command comes.
func TestConsentCannotBeAvoided(t *testing.T) {
	r := newRig(t, "gone")
	r.admins(1)
	r.serve()
	before := r.read("db", "companies", "acme", "allowed_signers")
	update := fmt.Sprintf(`{"type":"company.update","company":"acme","signers":[%q]}`, testbed.Named("acme", "mallory").PublicKey())
	waits := func(name string) {
		t.Helper()
		status := r.wait("spool", "admin", "outbox", name)
		if !bytes.Contains(status, []byte("a signer of company")) && !bytes.Contains(status, []byte("being enabled")) {
			t.Errorf("%s: %s", name, status)
		}
	}
	r.command("plain.json", update, ann)
	waits("plain.status.json")
	r.command("batch.jsonl", `{"type":"batch"}`+"\n"+update+"\n", ann)
	waits("batch.status.json")
	data := r.seal(update)
	r.put("admin", "sealed.json.age.ann.sig", ann.SignAs(data, auth.NamespaceAdmin))
	r.put("admin", "sealed.json.age", data)
	waits("sealed.status.json")
	// An administrator who is a signer too is one person.
	r.ok(os.WriteFile(r.path("db", "companies", "gone", "allowed_signers"), []byte("ann "+ann.PublicKey()), 0o600))
	r.command("both.json", `{"type":"company.update","company":"gone","name":"x"}`, ann)
	r.put("admin", "both.json.gone.sig", ann.SignAs([]byte(`{"type":"company.update","company":"gone","name":"x"}`), auth.NamespaceApprove))
	waits("both.status.json")
	// The company agrees first, and the administrators come later.
	text := `{"type":"company.update","company":"acme","name":"Acme"}`
	r.put("admin", "first.json.acme.sig", r.acme.SignAs([]byte(text), auth.NamespaceApprove))
	r.put("admin", "first.json", []byte(text))
	r.wait("spool", "admin", "outbox", "first.status.json")
	r.put("admin", "first.json.ann.sig", ann.SignAs([]byte(text), auth.NamespaceAdmin))
	r.done("first.json")
	if after := r.read("db", "companies", "acme", "allowed_signers"); after != before {
		t.Errorf("the signers are now\n%s", after)
	}
	for _, name := range []string{"plain.result.json", "batch.result.jsonl", "sealed.result.json", "both.result.json"} {
		if exists(r.path("spool", "admin", "outbox", name)) {
			t.Errorf("%s is there", name)
		}
	}
}

// TestNoteIsNoSignature: what is noted of an approved command serves to finish it
// after a crash, and nobody who drops the same bytes.
func TestNoteIsNoSignature(t *testing.T) {
	const text = `{"type":"company.disable","company":"acme"}`
	for what, prepare := range map[string]func(r *rig){
		"left behind": func(r *rig) { r.claimed("off.json", text, true); r.ok(os.Remove(r.path("work", "admin", "off.json"))) },
		"name taken": func(r *rig) {
			r.claimed("off.json", text, true, ann, bob)
			r.ok(os.WriteFile(r.path("spool", "admin", "outbox", "off.result.json"), []byte("x"), 0o600))
		},
		"refused before": func(r *rig) {
			r.claimed("off.json", text, true, ann, bob)
			r.ok(os.WriteFile(r.path("spool", "admin", "rejected", "off.reason.json"), fmt.Appendf(nil,
				`{"type":"refusal","verdict":"refused","request_sha256":"%x","name":"off.json","code":"operator-needed","message":"m","hint":"h","retry":true}`+"\n", sha256.Sum256([]byte(text))), 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.admins(2)
			prepare(r)
			r.once()
			r.empty("db", "admins", "approved")
			r.put("admin", "evil.json", []byte(text))
			r.put("admin", "evil.json.sig", []byte("garbage"))
			r.once()
			if exists(r.path("spool", "admin", "outbox", "evil.result.json")) || strings.Contains(r.read("db", "companies", "acme", "company.json"), "disabled") {
				t.Error("a command was carried out without a signature")
			}
		})
	}
}

// TestOneVerdictWhateverHappened: what is on record stays the verdict after a crash,
// although those who asked may not ask any more.
func TestOneVerdictWhateverHappened(t *testing.T) {
	r := newRig(t)
	r.admins(1)
	stop := r.serve()
	r.command("set.json", fmt.Sprintf(`{"type":"admins.set","threshold":1,"admins":[%q]}`, testbed.Named("admin", "dora").PublicKey()), ann)
	r.done("set.json")
	w := r.wallet("P-256")
	pay := r.answer("pay.json", testbed.DataRequest(w, "pay"))
	stop()
	// As if the crash had come before they were put away.
	for company, name := range map[string]string{"admin": "set.json", "acme": "pay.json"} {
		files, err := filepath.Glob(r.path("archive", company, "*", "*", "*-"+name+"*"))
		r.ok(err)
		for _, f := range files {
			_, base, _ := strings.Cut(filepath.Base(f), "-")
			r.ok(os.Rename(f, r.path("work", company, base)))
		}
	}
	file := r.path("db", "companies", "acme", "company.json")
	r.ok(os.WriteFile(file, bytes.Replace([]byte(r.read("db", "companies", "acme", "company.json")), []byte("active"), []byte("disabled"), 1), 0o600))
	r.once()
	r.empty("spool", "admin", "rejected")
	r.empty("spool", "acme", "rejected")
	if again := r.parse(r.wait("spool", "acme", "outbox", "pay.result.json")); again.Signature != pay.Signature {
		t.Error("the answer has changed")
	}
}

// TestRedoIsFinished: a command that was begun before a crash is finished, although
// its time is over by now.
func TestRedoIsFinished(t *testing.T) {
	r := newRig(t)
	r.admins(3)
	dora := testbed.Named("admin", "dora")
	past := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	r.claimed("set.json", fmt.Sprintf(`{"type":"admins.set","threshold":1,"admins":[%q],"not_after":%q}`, dora.PublicKey(), past), true, ann, bob, carl)
	// Its first half was done.
	r.ok(os.WriteFile(r.path("db", "admins", "allowed_signers"), []byte("dora "+dora.PublicKey()), 0o600))
	r.once()
	r.done("set.json")
	if got := r.read("db", "admins", "threshold"); got != "1\n" {
		t.Errorf("the threshold is %q", got)
	}
}

// TestAllOrNothing: an all-or-nothing file does nothing that it could not take back.
func TestAllOrNothing(t *testing.T) {
	r := newRig(t, "beta")
	r.admins(1)
	r.serve()
	r.command("run.jsonl", `{"type":"batch","on_error":"abort"}`+"\n"+`{"type":"company.disable","company":"beta"}`+"\n"+create("acme", ann)+"\n", ann)
	r.parse(r.wait("spool", "admin", "rejected", "run.reason.json"))
	if got := r.read("db", "companies", "beta", "company.json"); !strings.Contains(got, "active") {
		t.Errorf("beta is %s", got)
	}
	r.drop(r.acme, "in.jsonl.age", r.seal(`{"type":"batch","on_error":"abort"}`+"\n"+importRequest(t, "a")+"\n"+`{"type":"no"}`+"\n"))
	r.reason("in")
	if exists(r.path("db", "companies", "acme", "wallets")) {
		t.Error("a wallet was made")
	}
}

// TestTooMuchInOne: a batch cannot keep the others waiting with what takes long.
func TestTooMuchInOne(t *testing.T) {
	r := newRig(t)
	r.serve()
	r.drop(r.acme, "lists.jsonl", []byte(strings.Repeat(`{"type":"wallet.list"}`+"\n", 17)))
	r.drop(r.acme, "keys.jsonl.age", r.seal(strings.Repeat(`{"type":"datakey.create","passphrase":"correct horse 12"}`+"\n", 17)))
	for _, base := range []string{"lists", "keys"} {
		if got := r.reason(base); got.Code != string(reason.BatchTooLong) {
			t.Errorf("%s: refused as %s", base, got.Code)
		}
	}
	if exists(r.path("db", "companies", "acme", "datakeys")) {
		t.Error("a data key was made")
	}
}

// TestGuessing: nothing that comes between wrong passphrases makes them free.
func TestGuessing(t *testing.T) {
	r := newRig(t)
	var c clock
	r.cfg.Now = c.now
	key := plantDataKey(t, r)
	r.serve()
	me, err := age.GenerateX25519Identity()
	r.ok(err)
	ct := r.answer("ct.json", fmt.Appendf(nil, `{"type":"encrypt","key":%q,"text":"x"}`, key)).Ciphertext
	guess := func(i int, ciphertext string) string {
		t.Helper()
		name := fmt.Sprintf("g%d", i)
		r.drop(r.acme, name+".json.age", r.seal(fmt.Sprintf(`{"type":"decrypt","key":%q,"format":"rsa-oaep-sha256","ciphertext":%q,"passphrase":"guess %d of many","recipient":%q}`,
			key, ciphertext, i, me.Recipient())))
		return r.reason(name).Code
	}
	c.stop() // or the wait is over before the next guess on a slow machine
	for i := range 5 {
		if got := guess(2*i, ct); got != string(reason.PassphraseWrong) {
			t.Fatalf("guess %d: %s", i, got)
		}
		if got := guess(2*i+1, "AAAA"); got != string(reason.CiphertextInvalid) && got != string(reason.PassphraseWait) {
			t.Fatalf("a ciphertext that is none: %s", got)
		}
	}
	if got := guess(100, ct); got != string(reason.PassphraseWait) {
		t.Errorf("after five wrong ones: %s", got)
	}
}

// TestSecretsDoNotStay: what was encrypted for its secret is wiped when it is
// answered, and what came in the clear whatever else is wrong with it.
func TestSecretsDoNotStay(t *testing.T) {
	r := newRig(t)
	r.cfg.Still, r.cfg.SigWait = soon, soon
	const phrase = `{"type":"datakey.create","passphrase":"correct horse battery staple"`
	for name, text := range map[string]string{
		"typo.json": phrase + `,"titel":"x"}`, "cut.json": phrase, "unsigned.json": phrase + "}", "stranger.json": phrase + "}",
	} {
		switch name {
		case "unsigned.json":
		case "stranger.json":
			r.put("acme", name+".sig", testbed.NewPartner("x").Sign([]byte(text)))
		default:
			r.put("acme", name+".sig", r.acme.Sign([]byte(text)))
		}
		r.put("acme", name, []byte(text))
	}
	pem, _ := testKey(t, "prime256v1")
	r.put("acme", "k.json.age", []byte(pem))
	r.put("acme", "k.json.age.sig", r.acme.Sign([]byte(pem)))
	sealed := r.seal(importRequest(t, "stays"))
	r.drop(r.acme, "in.json.age", sealed)
	stop := r.serve()
	for _, base := range []string{"typo", "cut", "unsigned", "stranger", "k"} { // k: a key that is called encrypted
		if got := r.reason(base); got.Code != string(reason.SecretInTheClear) {
			t.Errorf("%s: refused as %s", base, got.Code)
		}
	}
	r.wait("spool", "acme", "outbox", "in.result.json")
	stop()
	r.nowhere("correct horse", "")
	r.nowhere(keyBody(pem), "")
	r.nowhere(string(sealed[len(sealed)-64:]), "")
	// The same bytes once more are still answered, with the same answer.
	r.put("acme", "in2.json.age", sealed)
	r.put("acme", "in2.json.age.sig", r.acme.Sign(sealed))
	r.once()
	if one, two := r.read("spool", "acme", "outbox", "in.result.json"), r.read("spool", "acme", "outbox", "in2.result.json"); one != two {
		t.Errorf("two answers:\n%s%s", one, two)
	}
}

// TestSameNames: administrators who could not be told apart are not accepted.
func TestSameNames(t *testing.T) {
	r := newRig(t)
	r.admins(1)
	r.serve()
	line := func(name string) string {
		return strings.TrimSpace(testbed.Named("admin", name).PublicKey()) + " root@host"
	}
	r.command("set.json", fmt.Sprintf(`{"type":"admins.set","threshold":2,"admins":[%q,%q]}`, line("d1"), line("d2")), ann)
	r.refusedCommand("set.json", reason.FieldInvalid)
}

// TestEthereumOnce: for one nonce of a chain one payment is signed, however it is asked
// for: side by side, in a batch, after a restart, as another kind of transaction, as an
// authorization, or to be replaced.
func TestEthereumOnce(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.wallet("secp256k1")
	pay := string(testbed.EthereumTransfer(w, "pay", 7))
	change := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(pay) }
	first := r.answer("pay.json", []byte(pay))
	refused := func(name, text string, want reason.Code, field string) {
		t.Helper()
		r.drop(r.acme, name, []byte(text))
		base, _, _ := strings.Cut(name, ".")
		if got := r.reason(base); got.Code != string(want) || got.Field != field {
			t.Errorf("%s: %s at %s (%s), want %s at %s", name, got.Code, got.Field, got.Message, want, field)
		}
		if exists(r.path("spool", "acme", "outbox", base+".result.json")) {
			t.Errorf("%s is answered", name)
		}
	}
	const field = "ethereum.nonce"
	refused("value.json", change(`"value":"1`, `"value":"2`), reason.NonceUsed, field)
	refused("fee.json", change(`"max_fee_per_gas":"3`, `"max_fee_per_gas":"4`), reason.NonceUsed, field)
	refused("kind.json", change("eip1559", "legacy", `"max_fee_per_gas":"30000000000","max_priority_fee_per_gas":"1000000000"`, `"gas_price":"1"`), reason.NonceUsed, field)
	refused("authorization.json", fmt.Sprintf(`{"type":"sign","wallet":%q,"ethereum":{"operation":"authorization","chain_id":"1","nonce":"7","address":"0x3535353535353535353535353535353535353535"}}`, w), reason.NonceUsed, field)
	refused("hex.json", change(`"nonce":"7"`, `"nonce":"0x7"`, `"value":"1`, `"value":"3`), reason.NonceUsed, field)
	refused("forbidden.json", change(`"reference"`, `"replace":true,"reference"`), reason.PolicyForbids, "replace")
	refused("hash.json", fmt.Sprintf(`{"type":"sign","wallet":%q,"ethereum":{"operation":"hash","hash":"0x%064x"}}`, w, 1), reason.PolicyForbids, "ethereum.hash")
	// The same bytes to sign are no second payment, and give the same signature.
	if again := r.answer("same.json", []byte(change(`"nonce":"7"`, `"nonce":"0x7"`))); again.Signature != first.Signature || again.Payload != first.Payload {
		t.Error("the same transaction has another signature")
	}
	// Another chain is another nonce.
	r.answer("chain.json", []byte(change(`"chain_id":"1"`, `"chain_id":"10"`)))

	stop()
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(`{"replace":true,"ethereum":{"chains":["1"],"max_fee":"840000000000000"}}`), 0o600))
	stop = r.serve()
	replace := func(pairs ...string) string {
		return change(append(pairs, `"reference"`, `"replace":true,"reference"`)...)
	}
	refused("to.json", replace("0x3535", "0x3636"), reason.NonceUsed, field)
	refused("more.json", replace(`"value":"1`, `"value":"2`), reason.NonceUsed, field)
	refused("data.json", replace(`"gas_limit"`, `"data":"0x00","gas_limit"`), reason.NonceUsed, field)
	refused("create.json", replace(`"to":"0x3535353535353535353535353535353535353535"`, `"create":true,"data":"0x00"`), reason.NonceUsed, field)
	refused("dear.json", replace(`"max_fee_per_gas":"3`, `"max_fee_per_gas":"5`), reason.PolicyForbids, "ethereum.gas_limit")
	refused("elsewhere.json", replace(`"chain_id":"1"`, `"chain_id":"10"`), reason.PolicyForbids, "ethereum.chain_id")
	bumped := r.answer("bump.json", []byte(replace(`"max_fee_per_gas":"3`, `"max_fee_per_gas":"4`)))
	if bumped.Payload == first.Payload {
		t.Error("nothing was replaced")
	}
	// What was replaced once is compared with as well.
	refused("after.json", replace(`"value":"1`, `"value":"7`), reason.NonceUsed, field)
	// Two at once: one of them is signed, or a batch says which.
	r.drop(r.acme, "two.jsonl", []byte(change(`"nonce":"7"`, `"nonce":"8"`)+change(`"nonce":"7"`, `"nonce":"8"`, `"value":"1`, `"value":"2`)))
	lines := strings.Split(string(r.wait("spool", "acme", "outbox", "two.result.jsonl")), "\n")
	if !strings.Contains(lines[0], `"signed"`) || !strings.Contains(lines[1], "nonce-used") {
		t.Errorf("the batch says\n%s", strings.Join(lines, "\n"))
	}
	stop()
	// A policy with a misspelt restriction serves nobody.
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(`{"ethereum":{"max_fees":"1"}}`), 0o600))
	r.drop(r.acme, "late.json", testbed.EthereumTransfer(w, "late", 9))
	r.once()
	if !strings.Contains(r.log.text.String(), "max_fees") || exists(r.path("spool", "acme", "outbox", "late.result.json")) {
		t.Error("a misspelt restriction is none")
	}
}
