package policy_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
)

// past is a Memory that a test fills.
type past map[string][32]byte

func (p past) TextFor(company, wallet, ledger, nonce string) (text, pays [32]byte, known bool, err error) {
	if nonce == broken {
		return text, pays, false, errMemory
	}
	text, ok := p[company+wallet+ledger+nonce]
	return text, pays, ok, nil
}

// sign plans and approves.
func sign(p *policy.Policy, r *request.Request, w policy.Wallet, once *policy.Once, now time.Time, owner any) (*policy.Approval, error) {
	plan, err := policy.NewPlan(r, w)
	if err != nil {
		return nil, err
	}
	return p.Sign(plan, once, now, owner)
}

const broken = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

var errMemory = errors.New("the memory cannot be read")

func address(c string) string {
	body := strings.Repeat(c, 30)
	return fmt.Sprintf("MT%s%08x", body, crc32.ChecksumIEEE([]byte(body)))
}

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func nonce(c string) string { return strings.Repeat(c, 40) }

func transfer(t testing.TB, amount, nonce, more string) *request.Request {
	t.Helper()
	return parse(t, fmt.Sprintf(`{"type":"sign","wallet":"W_1"%s,"metacoin":{"operation":"transfer","from":%q,"to":%q,"token":"0","amount":%q,"nonce":%q}}`,
		more, address("a"), address("b"), amount, nonce))
}

func parse(t testing.TB, in string) *request.Request {
	t.Helper()
	r, err := request.Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var wallet = policy.Wallet{Company: "acme", ID: "W_1", Curve: "P-384", Active: true}

func code(err error) reason.Code {
	if ref, ok := reason.As(err); ok {
		return ref.Code
	}
	if err != nil {
		return reason.Code(err.Error())
	}
	return ""
}

func TestSign(t *testing.T) {
	with := func(f func(w *policy.Wallet)) policy.Wallet { w := wallet; f(&w); return w }
	data := func(text, hash, scheme string) string {
		return fmt.Sprintf(`{"type":"sign","wallet":"W_1","data":{"text":%q,"hash":%q,"scheme":%q}}`, text, hash, scheme)
	}
	secp := with(func(w *policy.Wallet) { w.Curve = "secp256k1" })
	cases := []struct {
		name   string
		policy policy.Policy
		req    *request.Request
		wallet policy.Wallet
		want   reason.Code
	}{
		{"transfer", policy.Policy{}, transfer(t, "1", nonce("n"), ""), wallet, ""},
		{"bound to the signer", policy.Policy{}, transfer(t, "1", nonce("n"), ""), with(func(w *policy.Wallet) { w.Address = address("a") }), ""},
		{"bound to another", policy.Policy{}, transfer(t, "1", nonce("n"), ""), with(func(w *policy.Wallet) { w.Address = address("c") }), reason.AddressMismatch},
		{"disabled", policy.Policy{}, transfer(t, "1", nonce("n"), ""), with(func(w *policy.Wallet) { w.Active = false }), reason.WalletDisabled},
		{"metacoin on secp256k1", policy.Policy{}, transfer(t, "1", nonce("n"), ""), secp, reason.CurveUnsuitable},
		{"replace not allowed", policy.Policy{}, transfer(t, "1", nonce("n"), `,"replace":true`), wallet, reason.PolicyForbids},
		{"replace allowed", policy.Policy{Replace: true}, transfer(t, "1", nonce("n"), `,"replace":true`), wallet, ""},
		{"memory out of order", policy.Policy{}, transfer(t, "1", broken, ""), wallet, reason.Code(errMemory.Error())},
		{"data", policy.Policy{}, parse(t, data("hello", "sha256", "ecdsa")), wallet, ""},
		{"data disabled wallet", policy.Policy{}, parse(t, data("hello", "sha256", "ecdsa")), with(func(w *policy.Wallet) { w.Active = false }), reason.WalletDisabled},
		{"data that could be a transaction", policy.Policy{}, parse(t, data("a|b", "sha256", "ecdsa")), wallet, reason.PolicyForbids},
		{"the same where it could not", policy.Policy{}, parse(t, data("a|b", "sha256", "ecdsa")), secp, ""},
		{"any data", policy.Policy{Data: "any"}, parse(t, data("a|b", "sha256", "ecdsa")), wallet, ""},
		{"no data", policy.Policy{Data: "none"}, parse(t, data("hello", "sha256", "ecdsa")), wallet, reason.PolicyForbids},
		{"schnorr", policy.Policy{}, parse(t, data("hello", "sha256", "schnorr")), secp, ""},
		{"schnorr on P-384", policy.Policy{}, parse(t, data("hello", "sha256", "schnorr")), wallet, reason.CurveUnsuitable},
		{"recoverable on P-384", policy.Policy{}, parse(t, data("hello", "sha256", "ecdsa-recoverable")), wallet, reason.CurveUnsuitable},
		{"schnorr over SHA-512", policy.Policy{}, parse(t, data("hello", "sha512", "schnorr")), secp, reason.FieldInvalid},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := sign(&c.policy, c.req, c.wallet, policy.NewOnce(past{}), epoch, t)
			if code(err) != c.want {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if (a == nil) != (err != nil) {
				t.Errorf("approval %v with error %v", a, err)
			}
		})
	}
}

// TestApprovalIsTakenOnce: what was checked is what is signed, and once.
func TestApprovalIsTakenOnce(t *testing.T) {
	p := &policy.Policy{}
	req := transfer(t, "1", nonce("n"), "")
	a, err := sign(p, req, wallet, policy.NewOnce(past{}), epoch, t)
	if err != nil {
		t.Fatal(err)
	}
	took, ok := a.Take()
	want := sha512.Sum384([]byte(req.Tx.Payload()))
	if !ok || len(took) != 1 || took[0].Text != textSum(req) || string(took[0].Digest) != string(want[:]) || took[0].Algorithm != "ecdsa-p384-sha384" {
		t.Errorf("took %+v, %t", took, ok)
	}
	if _, ok := a.Take(); ok {
		t.Error("taken twice")
	}
	b, err := sign(p, req, wallet, policy.NewOnce(past{}), epoch, t)
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
	if _, ok := b.Take(); ok {
		t.Error("taken after release")
	}
	if _, ok := (&policy.Approval{}).Take(); ok {
		t.Error("an approval that nobody gave was taken")
	}
}

// TestOnce: one text for a wallet and nonce, whether it is on record or under way.
func TestOnce(t *testing.T) {
	p := &policy.Policy{Replace: true}
	n := nonce("n")
	one, two := transfer(t, "1", n, ""), transfer(t, "2", n, "")
	replaced := transfer(t, "2", n, `,"replace":true`)
	once := policy.NewOnce(past{})

	a, err := sign(p, one, wallet, once, epoch, "first")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign(p, two, wallet, once, epoch, "second"); code(err) != reason.NonceBusy {
		t.Errorf("another text meanwhile: %v", err)
	}
	if _, err := sign(p, two, wallet, once, epoch, "first"); code(err) != reason.NonceUsed {
		t.Errorf("another text in the same file: %v", err)
	}
	if _, err := sign(p, replaced, wallet, once, epoch, "first"); code(err) != reason.NonceUsed || !strings.Contains(err.Error(), "another line") {
		t.Errorf("a replacement in the same file: %v", err)
	} else if ref, _ := reason.As(err); strings.Contains(ref.Hint, `"replace": true`) {
		t.Errorf("the hint is to say what was said: %s", ref.Hint)
	}
	if _, err := sign(p, replaced, wallet, once, epoch, "second"); code(err) != reason.NonceBusy {
		t.Errorf("a replacement meanwhile: %v", err)
	}
	same, err := sign(p, one, wallet, once, epoch, "second")
	if err != nil {
		t.Errorf("the same text meanwhile: %v", err)
	}
	other := wallet
	other.ID = "W_2"
	if _, err := sign(p, two, other, once, epoch, "second"); err != nil {
		t.Errorf("another wallet: %v", err)
	}
	a.Release()
	if _, err := sign(p, two, wallet, once, epoch, "second"); code(err) != reason.NonceBusy {
		t.Errorf("one of two holders has let go: %v", err)
	}
	same.Release()
	b, err := sign(p, two, wallet, once, epoch, "second")
	if err != nil {
		t.Errorf("after all have let go: %v", err)
	}
	b.Release()

	recorded := past{}
	sum := textSum(one)
	recorded["acmeW_1metacoin"+n] = sum
	once = policy.NewOnce(recorded)
	if _, err := sign(p, two, wallet, once, epoch, 1); code(err) != reason.NonceUsed {
		t.Errorf("another text is on record: %v", err)
	}
	if _, err := sign(p, one, wallet, once, epoch, 1); err != nil {
		t.Errorf("the same text is on record: %v", err)
	}
	once = policy.NewOnce(recorded)
	if _, err := sign(p, replaced, wallet, once, epoch, 1); err != nil {
		t.Errorf("a replacement: %v", err)
	}
}

// TestOnceRace: of many that want one nonce at the same time, the texts of those
// that get it are all the same.
func TestOnceRace(t *testing.T) {
	p := &policy.Policy{}
	n := nonce("n")
	once := policy.NewOnce(past{})
	reqs := make([]*request.Request, 16)
	for i := range reqs {
		reqs[i] = transfer(t, fmt.Sprint(i%4+1), n, "")
	}
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i, r := range reqs {
		wg.Go(func() {
			if _, err := sign(p, r, wallet, once, epoch, i); err == nil {
				mu.Lock()
				got[r.Tx.Payload()]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d texts were approved: %v", len(got), got)
	}
}

func TestFresh(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]reason.Code{
		`{"type":"wallet.create","curve":"P-384"}`:                                      "",
		`{"type":"wallet.create","curve":"P-384","appliance":"SD_1"}`:                   "",
		`{"type":"wallet.create","curve":"P-384","appliance":"SD_2"}`:                   reason.ApplianceMismatch,
		`{"type":"wallet.create","curve":"P-384","not_after":"2026-11-22T12:00:00Z"}`:   "",
		`{"type":"wallet.create","curve":"P-384","not_after":"2026-11-22T11:59:59.9Z"}`: reason.Expired,
	} {
		if err := (&policy.Policy{}).Fresh(parse(t, in), "SD_1", now); code(err) != want {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	for in, ok := range map[string]bool{
		`{}`: true, `{"replace":true,"data":"any"}`: true, `{"data":"safe"}`: true, `{"data":"none"}`: true,
		`{"data":"maybe"}`: false, `{"replce":true}`: false, `{"replace":true,"replace":false}`: false, `{"replace":"true"}`: false, ``: false, `{}{}`: false,
	} {
		if _, err := policy.Parse([]byte(in)); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func textSum(r *request.Request) [32]byte { return sha256.Sum256([]byte(r.Tx.Payload())) }

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"replace":true,"data":"any"}`))
	f.Add([]byte(`{"ethereum":{"hash":true,"any_chain":true,"chains":["1"],"max_fee":"0x10"}}`))
	f.Add([]byte(`{"bitcoin":{"max_fee":1,"max_fee_percent":10,"network":"mainnet"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if err == nil && p.Data != "" && p.Data != "safe" && p.Data != "any" && p.Data != "none" {
			t.Errorf("data is %q", p.Data)
		}
	})
}

// TestMaxAge: where the policy wants requests to be fresh, each says until when it is
// good.
func TestMaxAge(t *testing.T) {
	p, err := policy.Parse([]byte(`{"max_age":"24h"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ahead time.Duration // 0: no not_after
		want  reason.Code
	}{
		{0, reason.FieldMissing}, {-time.Second, reason.Expired}, {time.Hour, ""}, {24 * time.Hour, ""},
		{24*time.Hour + time.Second, reason.PolicyForbids},
	} {
		r := &request.Request{Type: request.WalletCreate}
		if c.ahead != 0 {
			r.NotAfter = epoch.Add(c.ahead)
		}
		if got := code(p.Fresh(r, "SD_1", epoch)); got != c.want {
			t.Errorf("%v ahead: %q, want %q", c.ahead, got, c.want)
		}
	}
	for _, bad := range []string{`{"max_age":"1d"}`, `{"max_age":"-1h"}`, `{"max_age":"0s"}`, `{"max_age":24}`, `{"max_age":""}`, `{"max_age":null}`, `null`,
		`{"ethereum":null}`, `{"ethereum":{"max_fee":null}}`, `{"ethereum":{"chains":null}}`, `{"ethereum":{"chains":[null]}}`,
		`{"bitcoin":null}`, `{"bitcoin":{"max_fee":null}}`, `{"bitcoin":{"network":null}}`, `{"bitcoin":{"sighashes":null}}`} {
		if _, err := policy.Parse([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

// TestWalletTime: a wallet signs until its time is over.
func TestWalletTime(t *testing.T) {
	w := policy.Wallet{Company: "acme", ID: "W_1", Curve: "P-384", Active: true, NotAfter: epoch}
	r := &request.Request{Type: request.Sign, Wallet: "W_1", Data: &request.Data{Text: "x", Hash: "sha256", Scheme: "ecdsa"}}
	p := &policy.Policy{}
	if _, err := sign(p, r, w, policy.NewOnce(past{}), epoch, t); err != nil {
		t.Error(err)
	}
	if _, err := sign(p, r, w, policy.NewOnce(past{}), epoch.Add(1), t); code(err) != reason.WalletDisabled {
		t.Errorf("after its time: %v", err)
	}
}

// several is a transaction of a ledger that uses up several things at once.
type several []ledger.Signing

func (several) Ledger() string                                       { return "ledger" }
func (several) Operation() string                                    { return "operation" }
func (several) Payload() string                                      { return "payload" }
func (s several) Signings([]ledger.Wallet) ([]ledger.Signing, error) { return s, nil }
func (several) Answer(*answer.Signed, []ledger.Wallet, []string)     {}
func (s several) request() *request.Request {
	return &request.Request{Type: request.Sign, Wallet: "W_1", Tx: s}
}
func (s several) replacing() *request.Request { r := s.request(); r.Replace = true; return r }
func uses(text, pays byte, wallet int, key string) ledger.Signing {
	return ledger.Signing{Wallet: wallet, Text: [32]byte{text}, Digest: []byte{text},
		Use: ledger.Use{Key: key, Pays: [32]byte{pays}, Field: "ledger.input", Name: "output", Hint: "spend another"}}
}

// TestSeveral: an approval of several signatures holds all that they use up, or none
// of it, and gives them out once.
func TestSeveral(t *testing.T) {
	p := &policy.Policy{}
	once := policy.NewOnce(past{})
	other := wallet
	other.ID = "W_2"
	approve := func(s several, owner string) (*policy.Approval, error) {
		t.Helper()
		plan, err := policy.NewPlan(s.request(), wallet, other)
		if err != nil {
			t.Fatal(err)
		}
		return p.Sign(plan, once, epoch, owner)
	}
	a, err := approve(several{uses(1, 0, 0, "a"), uses(2, 0, 1, "b")}, "first")
	if err != nil {
		t.Fatal(err)
	}
	// "b" of the other wallet is held, "b" of this one is not, and "c" is let go
	// again when it turns out that "b" cannot be had.
	if _, err := approve(several{uses(3, 0, 0, "c"), uses(4, 0, 1, "b")}, "second"); code(err) != reason.NonceBusy {
		t.Errorf("another text for what is held: %v", err)
	}
	b, err := approve(several{uses(5, 0, 0, "c"), uses(6, 0, 0, "b")}, "third")
	if err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	if _, err := approve(several{uses(7, 0, 0, "d"), uses(8, 0, 0, "d")}, "fourth"); code(err) != reason.NonceUsed {
		t.Errorf("two texts for one thing: %v", err)
	}
	signings, ok := a.Take()
	if !ok || len(signings) != 2 || signings[1].Digest[0] != 2 {
		t.Errorf("took %+v, %t", signings, ok)
	}
	if _, ok := a.Take(); ok {
		t.Error("taken twice")
	}
	a.Release()
	b.Release()
	c, err := approve(several{uses(9, 0, 0, "a"), uses(9, 0, 1, "b"), uses(9, 0, 0, "c"), uses(9, 0, 0, "d")}, "fifth")
	if err != nil {
		t.Errorf("after all were let go: %v", err)
	}
	c.Release()

	other.Active = false
	if _, err := approve(several{uses(1, 0, 0, "a")}, "sixth"); code(err) != reason.WalletDisabled {
		t.Errorf("one of the wallets is disabled: %v", err)
	}
	if _, err := policy.NewPlan(several{}.request(), wallet); code(err) != reason.FieldInvalid {
		t.Errorf("nothing to sign: %v", err)
	}
}

// paid is a Memory of one text.
type paid struct{ text, pays byte }

func (p paid) TextFor(company, wallet, ledger, nonce string) (text, pays [32]byte, known bool, err error) {
	return [32]byte{p.text}, [32]byte{p.pays}, true, nil
}

// TestReplacementPaysTheSame: where a ledger can tell who gets what, another text for
// the same use has to say the same of it, and be asked for.
func TestReplacementPaysTheSame(t *testing.T) {
	for _, c := range []struct {
		name    string
		memory  paid
		text    byte
		pays    byte
		replace bool
		want    reason.Code
	}{
		{"the same text", paid{1, 1}, 1, 1, false, ""},
		{"another text", paid{1, 1}, 2, 1, false, reason.NonceUsed},
		{"on purpose", paid{1, 1}, 2, 1, true, ""},
		{"to others", paid{1, 1}, 2, 2, true, reason.NonceUsed},
		{"it is not known to whom", paid{1, 0}, 2, 2, true, reason.NonceUsed},
		{"the ledger cannot tell", paid{1, 1}, 2, 0, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := several{uses(c.text, c.pays, 0, "a")}
			r := s.request()
			if c.replace {
				r = s.replacing()
			}
			plan, err := policy.NewPlan(r, wallet)
			if err != nil {
				t.Fatal(err)
			}
			_, err = (&policy.Policy{Replace: true}).Sign(plan, policy.NewOnce(c.memory), epoch, t)
			if code(err) != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := (&policy.Policy{}).Sign(plan, policy.NewOnce(c.memory), epoch, t); c.replace && code(err) != reason.PolicyForbids {
				t.Errorf("where the policy forbids it: %v", err)
			}
		})
	}
}
