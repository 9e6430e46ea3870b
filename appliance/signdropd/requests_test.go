package main_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// transfer is testbed.Transfer with a nonce and an amount of one's own, and more
// fields where wanted.
func transfer(wallet, reference, nonce, amount string, more ...string) []byte {
	request := testbed.Transfer(wallet, reference)
	request = bytes.Replace(request, []byte(testbed.Nonce(reference)), []byte(testbed.Nonce(nonce)), 1)
	request = bytes.Replace(request, []byte(`"100000000"`), fmt.Appendf(nil, "%q", amount), 1)
	for _, field := range more {
		request = append([]byte("{"+field+","), request[1:]...)
	}
	return request
}

// setPolicy writes the company's policy. A daemon that runs may take a second to
// see it, so it is written before.
func (v *volume) setPolicy(text string) {
	v.t.Helper()
	v.ok(os.WriteFile(v.path("db", "companies", "acme", "policy.json"), []byte(text), 0o600))
}

func (v *volume) want(name string, data []byte, code reason.Code) {
	v.t.Helper()
	got := v.refused(name, data)
	if got.Code != string(code) {
		v.t.Errorf("%s: refused with %s (%s), want %s", name, got.Code, got.Message, code)
	}
	if got.Retry == reason.Final(code) {
		v.t.Errorf("%s: retry is %t with code %s", name, got.Retry, code)
	}
}

var walletForm = regexp.MustCompile(`^W_[0-9a-f]{30}$`)

// TestRequests asks for everything that can be asked for, one request a file.
func TestRequests(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()

	made := v.ask("make.json", walletCreate("P-384", "our wallet"))
	if made.Type != "wallet.create.result" || made.Verdict != "created" || made.Curve != "P-384" ||
		made.Reference != "our wallet" || !walletForm.MatchString(made.Wallet) || made.Address != "" ||
		made.Submit == nil || made.Submit.Path != "/address" || made.Submit.Form["publickey"] != made.PublicKey {
		t.Errorf("wallet.create: %+v", made)
	}
	w := made.Wallet

	// Bound, it is found by its address too.
	from := testbed.Address("from")
	bind := fmt.Appendf(nil, `{"type":"wallet.bind","reference":"b","wallet":%q,"address":%q}`, w, from)
	bound := v.ask("bind.json", bind)
	if bound.Type != "wallet.bind.result" || bound.Verdict != "bound" || bound.Address != from || bound.Wallet != w {
		t.Errorf("wallet.bind: %+v", bound)
	}
	signed := v.ask("by-address.json", testbed.Transfer(from, "by address"))
	if signed.Wallet != w || signed.Address != from || signed.PublicKey != made.PublicKey || signed.Operation != "transfer" ||
		signed.Type != "sign.result" || signed.Verdict != "signed" || signed.Reference != "by address" {
		t.Errorf("sign by address: %+v", signed)
	}
	if !slices.Contains(signed.AlsoMeans, "mrc100_payment") || !slices.Contains(signed.NotCovered, "memo") {
		t.Errorf("the answer does not say what else the text means: %q %q", signed.AlsoMeans, signed.NotCovered)
	}
	data := v.ask("data.json", testbed.DataRequest(w, "d"))
	if data.Payload != "text d" || data.Algorithm != "ecdsa-p384-sha256" || data.Submit != nil {
		t.Errorf("sign data: %+v", data)
	}
	other := v.wallet("P-256")

	field := func(f string) []byte { return append([]byte("{"+f+","), testbed.Transfer(w, f)[1:]...) }
	for name, c := range map[string]struct {
		data []byte
		code reason.Code
	}{
		"not-json":        {[]byte(`type: sign`), reason.RequestMalformed},
		"cut":             {testbed.Transfer(w, "cut")[:80], reason.RequestMalformed},
		"two":             {append(testbed.Transfer(w, "x"), testbed.Transfer(w, "x")...), reason.RequestMalformed},
		"twice":           {field(`"type":"sign"`), reason.RequestMalformed},
		"not-utf8":        {[]byte("{\"type\":\"sign\",\"reference\":\"\xff\"}"), reason.RequestMalformed},
		"unknown-field":   {field(`"priority":"high"`), reason.FieldUnknown},
		"unknown-type":    {[]byte(`{"type":"wallet.export","wallet":"` + w + `"}`), reason.TypeUnknown},
		"no-type":         {[]byte(`{"wallet":"` + w + `"}`), reason.FieldMissing},
		"number":          {bytes.Replace(testbed.Transfer(w, "n"), []byte(`"100000000"`), []byte(`100000000`), 1), reason.FieldInvalid},
		"pipe":            {transfer(w, "pipe", "pipe", "1|2"), reason.FieldInvalid},
		"no-operation":    {bytes.Replace(testbed.Transfer(w, "o"), []byte(`"transfer"`), []byte(`"gift"`), 1), reason.OperationUnknown},
		"no-wallet":       {testbed.Transfer("W_000000000000000000000000000000", "nw"), reason.WalletUnknown},
		"path-wallet":     {testbed.Transfer("../../beta/wallets/x", "pw"), reason.WalletUnknown},
		"no-curve":        {walletCreate("P-224", ""), reason.FieldInvalid},
		"other-address":   {fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w, testbed.Address("to")), reason.WalletBound},
		"taken-address":   {fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, other, from), reason.WalletBound},
		"bad-address":     {fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":"MT00"}`, other), reason.FieldInvalid},
		"another-payer":   {bytes.Replace(testbed.Transfer(w, "ap"), []byte(from), []byte(testbed.Address("third")), 1), reason.AddressMismatch},
		"pipe-in-data":    {fmt.Appendf(nil, `{"type":"sign","wallet":%q,"data":{"text":"a|b","hash":"sha256"}}`, w), reason.PolicyForbids},
		"replace":         {transfer(w, "replace", "by address", "5", `"replace":true`), reason.PolicyForbids},
		"nonce-used":      {transfer(from, "second", "by address", "5"), reason.NonceUsed},
		"batch-as-single": {[]byte(`{"type":"batch","count":0}`), reason.FieldUnknown},
	} {
		v.want(name+".json", c.data, c.code)
	}
	// Under secp256k1 no text is a transaction.
	k1 := v.wallet("secp256k1")
	v.ask("pipe-k1.json", fmt.Appendf(nil, `{"type":"sign","wallet":%q,"data":{"text":"a|b","hash":"sha256"}}`, k1))
	// The same text for a nonce may be signed again, for another request.
	same := v.ask("same-text.json", testbed.Transfer(w, "by address"))
	if same.Signature != signed.Signature {
		t.Error("the same text was signed in another way")
	}
	r.stop()
	v.none(v.inbox())
	v.check(true)
}

// TestPolicy: what the careful policy refuses another one allows, and the other way
// round.
func TestPolicy(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	v.setPolicy(`{"replace":true,"data":"any"}`)
	r := v.serve()
	w := v.wallet("P-384")
	pipe := fmt.Appendf(nil, `{"type":"sign","wallet":%q,"data":{"text":"a|b","hash":"sha384"}}`, w)
	if a := v.ask("pipe.json", pipe); a.Payload != "a|b" {
		t.Errorf("payload is %q", a.Payload)
	}
	v.ask("first.json", transfer(w, "first", "n", "1"))
	v.want("second.json", transfer(w, "second", "n", "2"), reason.NonceUsed)
	a := v.ask("replaced.json", transfer(w, "replaced", "n", "2", `"replace":true`))
	if !strings.Contains(a.Payload, "|2|") {
		t.Errorf("payload is %q", a.Payload)
	}
	// The newest text is the one that counts.
	v.want("first-again.json", transfer(w, "first again", "n", "1"), reason.NonceUsed)
	r.stop()

	v.setPolicy(`{"replace":false,"data":"none"}`)
	r = v.serve()
	v.want("data.json", testbed.DataRequest(w, "d"), reason.PolicyForbids)
	v.want("replace.json", transfer(w, "r", "n", "3", `"replace":true`), reason.PolicyForbids)
	// What was answered is answered in the same way, whatever the policy is now.
	v.ask("pipe-again.json", pipe)
	r.stop()
	if n := v.entries(pipe); n != 1 {
		t.Errorf("the journal has %d entries for a request that came twice", n)
	}

	// A misspelt restriction must not be none: the company waits.
	v.setPolicy(`{"replase":false}`)
	v.drop("waits.json", testbed.Transfer(w, "waits"))
	if status := v.once(); status != 4 {
		t.Errorf("exit status %d with a policy that cannot be read, want 4", status)
	}
	if log := v.runs[len(v.runs)-1].text(); !strings.Contains(log, `"name":"waits.json"`) {
		t.Errorf("the log does not name what waits: %s", log)
	}
	v.setPolicy(`{}`)
	if status := v.once(); status != 0 {
		t.Errorf("exit status %d after the policy was mended", status)
	}
	// Two texts for one nonce are what was asked for here, and what the checker
	// looks for: it is not called.
	v.none(v.path("work", "acme"))
	if got := len(v.list(v.outbox())); got != 6 {
		t.Errorf("%d answers in the outbox, want 6", got)
	}
}

// TestBatches asks for many things in one file.
func TestBatches(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-384")
	join := func(lines ...[]byte) []byte {
		for i := range lines {
			lines[i] = append(bytes.TrimSpace(lines[i]), '\n')
		}
		return bytes.Join(lines, nil)
	}

	t.Run("plain", func(t *testing.T) {
		v.t = t
		var lines [][]byte
		for i := range 300 {
			lines = append(lines, testbed.Transfer(w, fmt.Sprintf("plain %d", i)))
		}
		// Refused lines, each with its own reason, and the others are answered.
		lines[7] = []byte(`{"type":"nonsense"}`)
		lines[123] = transfer(w, "again", "plain 5", "7")
		lines[299] = []byte(`{`)
		v.drop("plain.jsonl", join(lines...))
		got := v.lines(v.await(v.outbox("plain.result.jsonl")))
		if len(got) != 300 {
			t.Fatalf("%d lines in the answer, want 300", len(got))
		}
		for i, a := range got {
			code := map[int]reason.Code{7: reason.TypeUnknown, 123: reason.NonceUsed, 299: reason.RequestMalformed}[i]
			if a.Line != i+1 || a.Code != string(code) || code == "" && a.Reference != fmt.Sprintf("plain %d", i) {
				t.Errorf("line %d: %+v", i+1, a)
			}
			if code == "" {
				if err := verifyAnswer(a); err != nil {
					t.Errorf("line %d: %v", i+1, err)
				}
			}
		}
	})
	t.Run("with a header", func(t *testing.T) {
		v.t = t
		v.drop("header.jsonl", join([]byte(`{"type":"batch","count":3}`),
			testbed.Transfer(w, "h1"), walletCreate("P-256", "h2"), testbed.Transfer("W_none", "h3")))
		got := v.lines(v.await(v.outbox("header.result.jsonl")))
		if len(got) != 4 || got[0].Type != "batch.result" || got[0].Count != 3 || got[0].Refused != 1 ||
			got[1].Verdict != "signed" || got[1].Line != 2 || got[2].Verdict != "created" ||
			got[3].Code != string(reason.WalletUnknown) || got[3].Line != 4 {
			t.Errorf("got %+v", got)
		}
		// The wallet that it made can be used.
		v.ask("h-wallet.json", testbed.Transfer(got[2].Wallet, "h-wallet"))
	})
	t.Run("CRLF and no last line end", func(t *testing.T) {
		v.t = t
		data := bytes.ReplaceAll(join(testbed.Transfer(w, "c1"), testbed.Transfer(w, "c2")), []byte("\n"), []byte("\r\n"))
		v.drop("crlf.jsonl", bytes.TrimSuffix(data, []byte("\r\n")))
		if got := v.lines(v.await(v.outbox("crlf.result.jsonl"))); len(got) != 2 || got[1].Verdict != "signed" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("abort", func(t *testing.T) {
		v.t = t
		before := len(v.list(v.path("db", "companies", "acme", "wallets")))
		abort := join([]byte(`{"type":"batch","count":3,"on_error":"abort"}`),
			testbed.Transfer(w, "a1"), walletCreate("P-256", "a2"), testbed.Transfer("W_none", "a3"))
		v.drop("abort.jsonl", abort)
		if got := v.reason("abort.jsonl"); got.Code != string(reason.WalletUnknown) || got.Line != 4 || got.Field != "wallet" {
			t.Errorf("got %+v", got)
		}
		if after := len(v.list(v.path("db", "companies", "acme", "wallets"))); after != before {
			t.Errorf("%d wallets were made by a batch that was refused", after-before)
		}
		// Its first line was not signed: the nonce is free for another text.
		v.ask("a1-other.json", transfer(w, "a1-other", "a1", "77"))
		v.drop("abort-good.jsonl", join([]byte(`{"type":"batch","on_error":"abort"}`), testbed.Transfer(w, "g1"), testbed.Transfer(w, "g2")))
		if got := v.lines(v.await(v.outbox("abort-good.result.jsonl"))); len(got) != 3 || got[0].Count != 2 || got[0].Refused != 0 {
			t.Errorf("got %+v", got)
		}
	})
	for name, c := range map[string]struct {
		data []byte
		code reason.Code
	}{
		"count-more":   {join([]byte(`{"type":"batch","count":3}`), testbed.Transfer(w, "x1"), testbed.Transfer(w, "x2")), reason.BatchCount},
		"count-less":   {join([]byte(`{"type":"batch","count":1}`), testbed.Transfer(w, "x1"), testbed.Transfer(w, "x2")), reason.BatchCount},
		"header-only":  {[]byte(`{"type":"batch"}`), reason.BatchCount},
		"header-field": {join([]byte(`{"type":"batch","size":1}`), testbed.Transfer(w, "x1")), reason.RequestMalformed},
		"on-error":     {join([]byte(`{"type":"batch","on_error":"panic"}`), testbed.Transfer(w, "x1")), reason.FieldInvalid},
		"empty-line":   {append([]byte("\n"), testbed.Transfer(w, "x1")...), reason.RequestMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v.t = t
			v.want(name+".jsonl", c.data, c.code)
		})
	}
	v.t = t
	r.stop()
	for _, name := range v.list(v.outbox()) {
		if data, _ := os.ReadFile(v.outbox(name)); bytes.Contains(data, []byte(`"x1"`)) {
			t.Errorf("a line of a batch that was refused is answered in %s", name)
		}
	}
	v.none(v.inbox())
	v.check(true)
}

// TestAgain: the same request gets the same answer, under the same name and
// another, while the first answer lies there and after it was taken away, and it is
// on record once. Another request cannot have its name.
func TestAgain(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-384")
	requests := map[string][]byte{
		"single.json": testbed.Transfer(w, "single"),
		"wallet.json": walletCreate("P-521", "again"),
		"bind.json":   fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w, testbed.Address("from")),
		"data.json":   testbed.DataRequest(w, "data"),
		"run.jsonl": append(append([]byte("{\"type\":\"batch\",\"count\":2}\n"), testbed.Transfer(w, "l1")...),
			testbed.Transfer("W_none", "l2")...),
	}
	first := map[string][]byte{}
	for name, data := range requests {
		v.drop(name, data)
		first[name] = v.await(v.outbox(answerName(name)))
	}
	v.finished()
	again := func(what string) {
		t.Helper()
		for name, data := range requests {
			v.move(drop{name, data, v.acme.Sign(data)}, drop{"another-" + name, data, v.acme.Sign(data)})
		}
		for name := range requests {
			for _, n := range []string{name, "another-" + name} {
				if got := v.await(v.outbox(answerName(n))); !bytes.Equal(got, first[name]) {
					t.Errorf("%s, %s:\n%s\nwant:\n%s", what, n, got, first[name])
				}
			}
		}
		v.finished()
	}
	again("while the answers lie there")
	for _, name := range v.list(v.outbox()) {
		v.ok(os.Remove(v.outbox(name)))
	}
	again("after the answers were taken away")
	r.stop()
	r = v.serve()
	for _, name := range v.list(v.outbox()) {
		v.ok(os.Remove(v.outbox(name)))
	}
	again("after a restart")

	v.want("single.json", testbed.Transfer(w, "an impostor"), reason.NameTaken)
	v.want("run.jsonl", append([]byte("{\"type\":\"batch\"}\n"), testbed.Transfer(w, "another impostor")...), reason.NameTaken)
	if got := v.await(v.outbox("single.result.json")); !bytes.Equal(got, first["single.json"]) {
		t.Errorf("the first answer was changed to %s", got)
	}
	v.none(v.inbox())
	// With the answer gone the name is free, and the request was not held against.
	v.ok(os.Remove(v.outbox("single.result.json")))
	v.finished()
	v.move(drop{"single.json", testbed.Transfer(w, "an impostor"), v.acme.Sign(testbed.Transfer(w, "an impostor"))})
	if a := v.parse(v.await(v.outbox("single.result.json"))); a.Reference != "an impostor" {
		t.Errorf("the answer is to %q", a.Reference)
	}
	v.finished()

	// A refusal that is for good stays one, and says the same.
	bad := []byte(`{"type":"nonsense","reference":"bad"}`)
	one := v.refused("bad.json", bad)
	v.finished()
	two := v.refused("bad-again.json", bad)
	two.Name = one.Name
	if fmt.Sprintf("%+v", one) != fmt.Sprintf("%+v", two) {
		t.Errorf("refused with %+v, then with %+v", one, two)
	}
	r.stop()
	for name, data := range requests {
		if n := v.entries(data); n != 1 {
			t.Errorf("%s is on record %d times", name, n)
		}
	}
	if n := v.entries(bad); n != 1 {
		t.Errorf("a refusal for good is on record %d times", n)
	}
	v.none(v.inbox())
	v.none(v.path("work", "acme"))
}
