package appliance_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"signdrop/appliance/auth"
	"signdrop/appliance/checker"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// TestWhoMayAskForWhat is the table of who may ask for what: each type of request,
// asked for by a company's signer, by another company's, by a disabled company's, by
// the administrators, and by nobody.
func TestWhoMayAskForWhat(t *testing.T) {
	r := newRig(t, "beta", "gone")
	r.admins(2)
	key := plantDataKey(t, r)
	r.serve()
	r.command("gone.json", `{"type":"company.disable","company":"gone"}`, ann, bob)
	r.done("gone.json")
	w := r.wallet("P-384")
	coins := r.answer("coins.json", []byte(`{"type":"wallet.create","curve":"secp256k1"}`))
	tree := r.answer("tree.json", []byte(`{"type":"wallet.create","kind":"hd","network":"main"}`)).Wallet
	psbt := func(n int) []byte { return testbed.PSBT(coins.PublicKey, true, fmt.Sprint("roles ", n), 1000) }
	beta, gone := testbed.NewPartner("beta"), testbed.NewPartner("gone")

	const (
		company = 1 << iota // a company asks for it
		admin               // the administrators do
		owned               // it names something of acme's, which beta does not have
		sealed              // it holds a secret
	)
	const document = "%[2]s" // a PSBT as it is
	types := []struct {
		text string // %[1]d makes it different for each asker, %[2]s is a PSBT of its own
		who  int
		code reason.Code // for another company, if owned
	}{
		{`{"type":"sign","reference":"%[1]d","wallet":"` + w + `","data":{"text":"t","hash":"sha256"}}`, company | owned, reason.WalletUnknown},
		{strings.Replace(strings.Replace(string(testbed.EthereumTransfer(coins.Wallet, "%[1]d", 7777)), "7777", "%[1]d", 1), "1000000000000000000", "%[1]d", 1), company | owned, reason.WalletUnknown},
		{`{"type":"sign","reference":"%[1]d","wallet":"` + coins.Wallet + `","ethereum":{"operation":"message","text":"t"}}`, company | owned, reason.WalletUnknown},
		{`{"type":"sign","reference":"%[1]d","bitcoin":{"psbt":"%[2]s"}}`, company | owned, reason.NothingToSign},
		{document, company | owned, reason.NothingToSign},
		{`{"type":"wallet.address","reference":"%[1]d","wallet":"` + tree + `","script":"p2wpkh"}`, company | owned, reason.WalletUnknown},
		{`{"type":"wallet.create","reference":"%[1]d","curve":"P-256"}`, company, ""},
		{`{"type":"wallet.create","reference":"%[1]d","kind":"hd","network":"main"}`, company, ""},
		{`{"type":"wallet.import","reference":"%[1]d","mnemonic":"` + vectorWords + `","network":"main"}`, company | sealed, ""},
		{strings.TrimSuffix(importRequest(t, "roles"), "}") + `,"reference":"%[1]d"}`, company | sealed, ""},
		{`{"type":"wallet.bind","reference":"%[1]d","wallet":"` + w + `","address":"` + testbed.Address("roles w") + `"}`, company | owned, reason.WalletUnknown},
		{`{"type":"wallet.list","reference":"%[1]d"}`, company, ""},
		{`{"type":"encrypt","reference":"%[1]d","key":"` + key + `","text":"t"}`, company | owned, reason.DataKeyUnknown},
		{`{"type":"wallet.disable","reference":"%[1]d","wallet":"` + w + `"}`, company | owned, reason.WalletUnknown},

		{`{"type":"wallet.enable","reference":"%[1]d","company":"acme","wallet":"` + w + `"}`, admin, ""},
		{`{"type":"wallet.disable","reference":"%[1]d","company":"acme","wallet":"` + w + `"}`, admin, ""},
		{`{"type":"wallet.bind","reference":"%[1]d","company":"acme","wallet":"` + w + `","address":"` + testbed.Address("roles w2") + `"}`, admin, ""},
		{strings.Replace(create("new%[1]d", testbed.NewPartner("new")), "The new%[1]d", "x", 1), admin, ""},
		{`{"type":"company.disable","reference":"%[1]d","company":"gone"}`, admin, ""},
		{`{"type":"company.list","reference":"%[1]d"}`, admin, ""},
		{`{"type":"policy.set","reference":"%[1]d","company":"beta","policy":{"data":"any"}}`, admin, ""},
	}
	verdict := func(company, name string) (code string) {
		t.Helper()
		base, _, _ := strings.Cut(name, ".")
		r.until("a verdict on "+company+"/"+name, func() bool {
			return exists(r.path("spool", company, "outbox", base+".result.json")) || exists(r.path("spool", company, "rejected", base+".reason.json"))
		})
		if exists(r.path("spool", company, "outbox", base+".result.json")) {
			return ""
		}
		return r.parse(r.wait("spool", company, "rejected", base+".reason.json")).Code
	}
	n := 0
	for i, c := range types {
		ask := func(who string, p *testbed.Partner, inbox string, want reason.Code) {
			t.Helper()
			n++
			text := []byte(strings.NewReplacer("%[1]d", fmt.Sprint(n), "%[2]s", base64.StdEncoding.EncodeToString(psbt(n))).Replace(c.text))
			name := fmt.Sprintf("q%d-%s.json", i, who)
			if c.text == document {
				name = fmt.Sprintf("q%d-%s.psbt", i, who)
			}
			if c.who&sealed != 0 {
				text, name = r.seal(string(text)), name+".age"
			}
			ns := auth.NamespaceRequest
			if inbox == "admin" {
				ns = auth.NamespaceAdmin
			}
			r.put(inbox, name+".sig", p.SignAs(text, ns))
			if inbox == "admin" {
				r.put(inbox, name+".2.sig", bob.SignAs(text, ns))
			}
			r.put(inbox, name, text)
			r.drops = append(r.drops, checker.Drop{Company: inbox, Name: name, Data: text})
			if got := verdict(inbox, name); got != string(want) {
				t.Errorf("%s by %s: %q, want %q", c.text[:min(28, len(c.text))], who, got, want)
			}
		}
		byCompany, byAdmin, byOther := reason.TypeUnknown, reason.TypeUnknown, reason.TypeUnknown
		if c.who&company != 0 {
			byCompany, byOther = "", c.code
		} else if strings.Contains(c.text, `"company":"acme","wallet"`) && !strings.Contains(c.text, "enable") {
			byCompany, byOther = reason.FieldUnknown, reason.FieldUnknown // it asks for itself
		}
		if c.who&admin != 0 {
			byAdmin = ""
		} else if strings.Contains(c.text, "wallet.bind") || strings.Contains(c.text, "wallet.disable") {
			byAdmin = reason.FieldMissing // of which company?
		}
		ask("signer", r.acme, "acme", byCompany)
		ask("admins", ann, "admin", byAdmin)
		if c.who&sealed == 0 { // the same key again would be the same wallet's
			ask("other", beta, "beta", byOther)
		}
		ask("disabled", gone, "gone", reason.CompanyDisabled)
		// Right people, wrong inbox.
		ask("stranger", beta, "acme", reason.SignerUnknown)
		ask("admin-in-acme", ann, "acme", reason.SignerUnknown)
	}
	r.check(false)
}
