package proof_test

import (
	"crypto"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384 and crypto.SHA512
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/answer"
	"signdrop/keyfs"
	"signdrop/spool/durable/modelfs"
	"signdrop/tools/signdrop/proof"
)

// wallets makes a wallet on each curve, in the way the appliance does.
func wallets(t *testing.T) map[keyfs.Curve]*keyfs.Wallet {
	t.Helper()
	v := modelfs.New()
	v.MkdirAll("db/companies/acme", 0o700)
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	db, err := root.Sub("db")
	if err != nil {
		t.Fatal(err)
	}
	store, err := keyfs.Open(db, keyfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	byCurve := map[keyfs.Curve]*keyfs.Wallet{}
	for _, c := range []keyfs.Curve{keyfs.P256, keyfs.P384, keyfs.P521, keyfs.Secp256k1} {
		w, err := store.Create("acme", []keyfs.Spec{{ID: "W_" + strings.ReplaceAll(string(c), "-", ""), Curve: c}}, v)
		if err != nil {
			t.Fatal(err)
		}
		byCurve[c] = w[0]
	}
	return byCurve
}

func key(t *testing.T, pem string) *proof.Key {
	t.Helper()
	k, err := proof.ParseKey([]byte(pem))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Everything that the appliance can sign verifies, and with any byte
// changed it does not. The code that signs and the code that verifies share no line.
func TestVerify(t *testing.T) {
	const text = "MTfrom|MTto|0|100|nonce"
	byCurve := wallets(t)
	hashes := map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}
	type way struct {
		curve     keyfs.Curve
		scheme    keyfs.Scheme
		hash      string
		algorithm string
	}
	ways := []way{
		{keyfs.Secp256k1, keyfs.ECDSARecoverable, "sha256", "ecdsa-recoverable-secp256k1-sha256"},
		{keyfs.Secp256k1, keyfs.Schnorr, "sha256", "schnorr-secp256k1-sha256"},
	}
	for hash := range hashes {
		for curve, name := range map[keyfs.Curve]string{keyfs.P256: "p256", keyfs.P384: "p384", keyfs.P521: "p521", keyfs.Secp256k1: "secp256k1"} {
			ways = append(ways, way{curve, keyfs.ECDSA, hash, "ecdsa-" + name + "-" + hash})
		}
	}
	for _, w := range ways {
		t.Run(w.algorithm, func(t *testing.T) {
			wallet := byCurve[w.curve]
			h := hashes[w.hash].New()
			h.Write([]byte(text))
			sig, err := wallet.Sign(w.scheme, h.Sum(nil))
			if err != nil {
				t.Fatal(err)
			}
			pub := key(t, wallet.PublicPEM())
			b64 := base64.StdEncoding.EncodeToString
			if err := proof.Verify(pub, w.algorithm, text, b64(sig)); err != nil {
				t.Fatalf("a good signature: %v", err)
			}
			if err := proof.Verify(pub, w.algorithm, text+" ", b64(sig)); !errors.Is(err, proof.ErrSignature) {
				t.Errorf("another text: %v", err)
			}
			step := 1
			if testing.Short() {
				step = 7
			}
			for i := 0; i < len(sig); i += step {
				bad := slices.Clone(sig)
				bad[i] ^= 1 << (i % 8)
				if err := proof.Verify(pub, w.algorithm, text, b64(bad)); !errors.Is(err, proof.ErrSignature) {
					t.Errorf("byte %d changed: %v", i, err)
				}
			}
			for _, bad := range [][]byte{nil, sig[:len(sig)-1], append(slices.Clone(sig), 0)} {
				if err := proof.Verify(pub, w.algorithm, text, b64(bad)); !errors.Is(err, proof.ErrSignature) {
					t.Errorf("%d bytes of %d: %v", len(bad), len(sig), err)
				}
			}
			if err := proof.Verify(pub, w.algorithm, text, b64(sig)+"\n"); err == nil {
				t.Error("base64 with a line end was taken")
			}
			for curve, other := range byCurve {
				if curve == w.curve {
					continue
				}
				err := proof.Verify(key(t, other.PublicPEM()), w.algorithm, text, b64(sig))
				if err == nil || !strings.Contains(err.Error(), "the key is on "+string(curve)) {
					t.Errorf("a key on %s: %v", curve, err)
				}
			}
		})
	}
}

func TestUnknownAlgorithms(t *testing.T) {
	byCurve := wallets(t)
	for _, c := range []struct {
		curve     keyfs.Curve
		algorithm string
	}{
		{keyfs.P256, ""}, {keyfs.P256, "ecdsa"}, {keyfs.P256, "none"}, {keyfs.P256, "ecdsa-p256-sha1"}, {keyfs.P256, "ECDSA-P256-SHA256"},
		{keyfs.P256, "schnorr-p256-sha256"}, {keyfs.P256, "ecdsa-recoverable-p256-sha256"}, {keyfs.P256, "ecdsa-p256-sha256 "},
		{keyfs.Secp256k1, "schnorr-secp256k1-sha384"}, {keyfs.Secp256k1, "ecdsa-recoverable-secp256k1-sha512"},
	} {
		err := proof.Verify(key(t, byCurve[c.curve].PublicPEM()), c.algorithm, "text", "AAAA")
		if err == nil || !strings.Contains(err.Error(), "is not known") {
			t.Errorf("%q: %v", c.algorithm, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	byCurve := wallets(t)
	for curve, w := range byCurve {
		k := key(t, w.PublicPEM())
		if k.Curve != string(curve) {
			t.Errorf("a key on %s reads as one on %s", curve, k.Curve)
		}
		for other, o := range byCurve {
			if got := k.Equal(key(t, o.PublicPEM())); got != (curve == other) {
				t.Errorf("the keys on %s and %s equal: %v", curve, other, got)
			}
		}
		text := w.PublicPEM()
		for _, bad := range []string{
			"", text[:40], strings.ReplaceAll(text, "PUBLIC", "PRIVATE"),
			strings.Replace(text, "\nM", "\nN", 1), // another tag
		} {
			if _, err := proof.ParseKey([]byte(bad)); err == nil {
				t.Errorf("%s: this reads as a key: %q", curve, bad)
			}
		}
	}
}

func transfer() *answer.Answer {
	return &answer.Answer{
		Type: answer.TypeSign, Verdict: "signed", Operation: "transfer", Payload: "MTfrom|MTto|0|100|nonce",
		Submit: &answer.Submit{Method: "POST", Path: "/transfer", Form: map[string]string{
			"from": "MTfrom", "to": "MTto", "token": "0", "amount": "100", "checkkey": "nonce", "signature": "…",
		}},
	}
}

func sign(t *testing.T, w *keyfs.Wallet, a *answer.Answer) *answer.Answer {
	t.Helper()
	h := crypto.SHA384.New()
	h.Write([]byte(a.Payload))
	sig, err := w.Sign(keyfs.ECDSA, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	a.Algorithm, a.PublicKey, a.Signature = "ecdsa-p384-sha384", w.PublicPEM(), base64.StdEncoding.EncodeToString(sig)
	return a
}

func TestCheck(t *testing.T) {
	byCurve := wallets(t)
	w := byCurve[keyfs.P384]
	f := proof.Check(sign(t, w, transfer()), key(t, w.PublicPEM()))
	if len(f.Problems) > 0 || !f.Signed {
		t.Fatalf("a good answer: %+v", f)
	}
	want := []proof.Field{{"from", "MTfrom"}, {"to", "MTto"}, {"token", "0"}, {"amount", "100"}, {"nonce", "nonce"}}
	if !slices.Equal(f.Fields, want) {
		t.Errorf("the fields are %v, want %v", f.Fields, want)
	}
	// The answer kept silent about these, and nobody signs what it says.
	if !slices.Contains(f.NotCovered, "unlockdate") || !slices.Contains(f.AlsoMeans, "mrc100_payment") {
		t.Errorf("not covered %v, also means %v", f.NotCovered, f.AlsoMeans)
	}
	for _, c := range []struct {
		name   string
		pinned *proof.Key
		change func(*answer.Answer)
		want   string
	}{
		{"another text", nil, func(a *answer.Answer) { a.Payload = "MTfrom|MTthief|0|100|nonce" }, "does not verify"},
		{"another key", nil, func(a *answer.Answer) { a.PublicKey = byCurve[keyfs.P256].PublicPEM() }, "the key is on P-256"},
		{"no key", nil, func(a *answer.Answer) { a.PublicKey = "" }, "not a public key in PEM"},
		{"not the pinned key", key(t, byCurve[keyfs.P256].PublicPEM()), func(*answer.Answer) {}, "another key signed"},
		{"another form", nil, func(a *answer.Answer) { a.Submit.Form["to"] = "MTthief" }, `submit has to "MTthief" and the signed text has "MTto"`},
		{"another operation", nil, func(a *answer.Answer) { a.Operation = "signcheck" }, "the text is not that of a signcheck"},
		{"an operation nobody knows", nil, func(a *answer.Answer) { a.Operation = "give" }, `no operation "give"`},
		{"another verdict", nil, func(a *answer.Answer) { a.Verdict = "refused" }, `the verdict of a sign.result is "refused"`},
		{"an address that nobody signed", nil, func(a *answer.Answer) { a.Addresses = []answer.AddressEntry{{Address: "MTthief"}} }, "it says more than"},
		{"a hint that nobody gave", nil, func(a *answer.Answer) { a.Hint = "send it at once" }, "it says more than"},
		{"another type", nil, func(a *answer.Answer) { a.Type = "sign.promise" }, `the type "sign.promise" is not known`},
	} {
		a := sign(t, w, transfer())
		c.change(a)
		f := proof.Check(a, c.pinned)
		if !strings.Contains(fmt.Sprint(f.Problems), c.want) {
			t.Errorf("%s: the problems are %q, want one with %q", c.name, f.Problems, c.want)
		}
	}
}

// TestCheckEveryAnswer: each answer that the appliance gives is known, with its verdict and
// with no other.
func TestCheckEveryAnswer(t *testing.T) {
	w := wallets(t)[keyfs.P384]
	formats, err := os.ReadFile("../../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	check := func(typ, verdict string) {
		t.Helper()
		known++
		a := &answer.Answer{Type: typ, Verdict: verdict, PublicKey: w.PublicPEM()}
		if f := proof.Check(a, nil); len(f.Problems) > 0 || f.Signed {
			t.Errorf("%s, %s: %q", typ, verdict, f.Problems)
		}
		a.Verdict = "signed"
		if f := proof.Check(a, nil); len(f.Problems) != 1 {
			t.Errorf("%s, signed: %q", typ, f.Problems)
		}
	}
	for _, a := range [][2]string{{answer.TypeCreate, "created"}, {answer.TypeBind, "bound"}, {answer.TypeBatch, "answered"}, {answer.TypeRefusal, "refused"}} {
		check(a[0], a[1])
	}
	// The others have a table: | `wallet.disable`, `wallet.enable` | `disabled`, `enabled` | …
	_, table, _ := strings.Cut(string(formats), "\n| type | verdict | fields beside those of all |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	code := regexp.MustCompile("`([^`]*)`")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		types, verdicts := code.FindAllStringSubmatch(cells[1], -1), code.FindAllStringSubmatch(cells[2], -1)
		if len(types) == 0 || len(types) != len(verdicts) {
			t.Fatalf("the table's line %q cannot be read", line)
		}
		for i := range types {
			check(types[i][1]+".result", verdicts[i][1])
		}
	}
	if known < 20 {
		t.Errorf("only %d answers were found", known)
	}
}
