// Package policy decides whether what a company's signer asks for is allowed. It
// is the only maker of Approvals, and nothing is signed without one: what was
// checked is by construction what gets signed.
//
// It knows neither files nor keys. What it must know of a wallet it is told, and
// the past it asks of a Memory.
package policy

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
)

// Policy is a company's policy.json. The zero value is the policy of a company
// that has none: the careful one.
type Policy struct {
	// Replace allows requests with "replace": true, which sign another text for
	// a wallet and nonce that were used.
	Replace bool `json:"replace"`

	// Data says which texts a `data` request may sign: "safe" (default) keeps
	// back texts with | under a curve that Metacoin accepts and texts of 32 bytes
	// under Bitcoin's, since they could be transactions; "any" signs all, as
	// walletKMS did; "none" signs none.
	Data string `json:"data"`

	// MaxAge is how far ahead a request's not_after may lie, as Go writes a
	// duration ("24h"), and then a request must have one: what was signed once
	// cannot be dropped for the first time a year later. Without it: any request.
	MaxAge *string `json:"max_age,omitzero"`

	// Clear allows decrypt requests whose text comes back as it is.
	Clear bool `json:"clear,omitzero"`

	// Ledgers has what the policy says of single ledgers, by their names.
	Ledgers map[string]jsontext.Value `json:",embed"`

	maxAge time.Duration
	rules  map[string]ledger.Rules
}

// Parse reads policy.json. Unknown fields are refused: a misspelt restriction
// would be none.
func Parse(data []byte) (*Policy, error) {
	p := &Policy{}
	if err := json.Unmarshal(data, p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("reading policy.json: %w", err)
	}
	if err := noNull(data); err != nil {
		return nil, fmt.Errorf("reading policy.json: %w", err)
	}
	switch p.Data {
	case "", "safe", "any", "none":
	default:
		return nil, &FieldError{"data", fmt.Errorf("data is %q: use safe, any or none", p.Data)}
	}
	if p.MaxAge != nil {
		var err error
		if p.maxAge, err = time.ParseDuration(*p.MaxAge); err != nil || p.maxAge <= 0 {
			return nil, &FieldError{"max_age", fmt.Errorf("max_age is %q: write a duration such as 24h", *p.MaxAge)}
		}
	}
	for name, raw := range p.Ledgers {
		l := ledgers.Find(name)
		if l == nil || l.Rules == nil {
			return nil, fmt.Errorf("reading policy.json: there is no field %q", name)
		}
		rules, err := l.Rules(raw)
		if err != nil {
			return nil, &FieldError{name, fmt.Errorf("%s: %w", name, err)}
		}
		if p.rules == nil {
			p.rules = map[string]ledger.Rules{}
		}
		p.rules[name] = rules
	}
	return p, nil
}

// FieldError is what is wrong with a field of a policy. Its text may hold the field's
// value.
type FieldError struct {
	Field string // its name, one of those that a policy has
	Err   error
}

func (e *FieldError) Error() string { return "reading policy.json: " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// noNull refuses a null, which would read as a restriction that is left out.
func noNull(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.ReadToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if token.Kind() == 'n' {
			return fmt.Errorf("%s is null: leave it out, or give it a value", d.StackPointer())
		}
	}
}

// Wallet is what policy must know of a wallet.
type Wallet struct {
	Company   string
	ID        string
	Curve     string // "P-256", "P-384", "P-521" or "secp256k1"
	PublicPEM string
	Address   string // bound address, "" for none
	Active    bool

	NotAfter time.Time // from then on it does not sign; zero: never
}

// Plan says what a sign request signs and how. It follows from the request and
// the wallets alone and approves nothing. Only NewPlan makes one.
type Plan struct {
	req      *request.Request
	wallets  []Wallet
	known    []ledger.Wallet // of them, what a ledger knows
	signings []ledger.Signing

	// A batch has 100,000 plans, of one wallet each.
	oneWallet [1]Wallet
	oneKnown  [1]ledger.Wallet
}

// Signings returns what has to be signed. The caller must not change it.
func (p *Plan) Signings() []ledger.Signing { return p.signings }

// Address returns the address that the first wallet is bound to, "" for none.
func (p *Plan) Address() string { return p.wallets[0].Address }

// Answer fills in what the answer says beside its head, wallet and public key. sigs
// are the signatures in base64, one for each signing.
func (p *Plan) Answer(a *answer.Signed, sigs []string) {
	a.Algorithm = p.signings[0].Algorithm
	if tx := p.req.Tx; tx != nil {
		a.Ledger, a.Operation, a.Payload = tx.Ledger(), tx.Operation(), tx.Payload()
		tx.Answer(a, p.known, sigs)
		return
	}
	a.Address, a.Payload, a.Signature = p.wallets[0].Address, p.req.Data.Text, sigs[0]
}

// Approval allows the signatures of one plan, each once. Only Policy.Sign makes one,
// and Take gives its content out once.
type Approval struct {
	plan  *Plan
	taken atomic.Bool
	holds []hold
	one   [1]hold // holds, of most
}

// Take returns what to sign. The second call, and any call after Release, reports
// false.
func (a *Approval) Take() (signings []ledger.Signing, ok bool) {
	if a.taken.Swap(true) || a.plan == nil {
		return nil, false
	}
	signings = a.plan.signings
	a.plan = nil // a batch has 100,000 of them
	return signings, true
}

// Release ends the approval's hold on what its signatures use up. It is called when
// they are on record, or when it is certain that there will be none.
func (a *Approval) Release() {
	a.taken.Store(true)
	for _, h := range a.holds {
		h.drop()
	}
	a.holds = nil
}

// hashes are the hash functions by their names in a request.
var hashes = map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// curveNames are the curves' names inside an algorithm's name.
var curveNames = map[string]string{"P-256": "p256", "P-384": "p384", "P-521": "p521", "secp256k1": "secp256k1"}

// Fresh checks what depends on the time and the place: that the request has not
// expired, is not good for longer than the policy allows, and is meant for this
// appliance.
func (p *Policy) Fresh(r *request.Request, appliance string, now time.Time) error {
	if r.Appliance != "" && r.Appliance != appliance {
		return reason.New(reason.ApplianceMismatch, "send it there, or make it anew for this one",
			"the request is meant for another appliance").At("appliance")
	}
	if !r.NotAfter.IsZero() && now.After(r.NotAfter) {
		return reason.New(reason.Expired, "make the request anew", "the request's time is over").At("not_after")
	}
	if p.maxAge == 0 {
		return nil
	}
	if r.NotAfter.IsZero() && r.Document {
		return reason.New(reason.FieldMissing, "put it into a JSON request that says until when it is good, at most "+*p.MaxAge+" from now",
			"the company's policy wants it, and a file that is no JSON has no such field").At("not_after")
	}
	if r.NotAfter.IsZero() {
		return reason.New(reason.FieldMissing, "say until when the request is good, at most "+*p.MaxAge+" from now",
			"the company's policy wants it").At("not_after")
	}
	if r.NotAfter.Sub(now) > p.maxAge {
		return reason.New(reason.PolicyForbids, "give a time at most "+*p.MaxAge+" from now",
			"the request is good for longer than the company's policy allows").At("not_after")
	}
	return nil
}

// Sign approves what a sign request plans, or refuses it. owner is any value that
// tells this request from others that are decided at the same time; the lines of one
// batch share it. now is the time of the decision.
func (p *Policy) Sign(plan *Plan, once *Once, now time.Time, owner any) (*Approval, error) {
	r := plan.req
	for i := range plan.wallets {
		w := &plan.wallets[i]
		if !w.Active {
			return nil, reason.New(reason.WalletDisabled, "ask your administrators", "the wallet is disabled").At("wallet")
		}
		if !w.NotAfter.IsZero() && now.After(w.NotAfter) {
			return nil, reason.New(reason.WalletDisabled, "use another wallet", "the wallet's time is over").At("wallet")
		}
	}
	if err := p.replaces(r); err != nil {
		return nil, err
	}
	if err := p.allow(plan); err != nil {
		return nil, err
	}
	a := &Approval{plan: plan}
	a.holds = a.one[:0]
	for i := range plan.signings {
		s := &plan.signings[i]
		if s.Use.Key == "" {
			continue
		}
		w := &plan.wallets[s.Wallet]
		u := use{w.Company, w.ID, r.Tx.Ledger(), s.Use.Key}
		if s.Use.Shared {
			u.wallet = ""
		}
		h, err := once.hold(u, s, r.Replace, owner)
		if err != nil {
			a.Release()
			return nil, err
		}
		a.holds = append(a.holds, h)
	}
	return a, nil
}

// replaces refuses what the policy does not allow to replace.
func (p *Policy) replaces(r *request.Request) error {
	if r.Replace && !p.Replace {
		return reason.New(reason.PolicyForbids, `ask for "replace": true in the policy, or leave the field out`,
			"the policy does not allow to replace a signed text").At("replace")
	}
	return nil
}

// allow asks what the policy says of what is signed.
func (p *Policy) allow(plan *Plan) error {
	r := plan.req
	if r.Data != nil {
		return p.data(r, plan.wallets[0])
	}
	if rules := p.Rules(r.Tx.Ledger()); rules != nil {
		return rules.Allow(r.Tx)
	}
	return nil
}

// Rules returns what the policy says of a ledger, or the careful rules; nil for a
// ledger that knows none.
func (p *Policy) Rules(name string) ledger.Rules {
	if rules := p.rules[name]; rules != nil {
		return rules
	}
	return careful[name]
}

// careful are the rules of companies whose policy says nothing of a ledger.
var careful = func() map[string]ledger.Rules {
	m := map[string]ledger.Rules{}
	for _, l := range ledgers.All {
		if l.Rules == nil {
			continue
		}
		r, err := l.Rules(nil)
		if err != nil {
			panic("internal error: " + l.Name + " has no careful rules: " + err.Error())
		}
		m[l.Name] = r
	}
	return m
}()

func (p *Policy) data(r *request.Request, w Wallet) error {
	switch p.Data {
	case "none":
		return reason.New(reason.PolicyForbids, "ask for the ledger's own operation", "the policy does not allow data to be signed").At("data")
	case "any":
		return nil
	}
	// Bitcoin signs SHA-256 twice: a text as long as the inner digest could be one.
	if w.Curve == "secp256k1" && r.Data.Hash == "sha256" && len(r.Data.Text) == 32 {
		return reason.New(reason.PolicyForbids, `make the text longer, or ask for "data": "any" in the policy`,
			"a text of 32 bytes could stand for a transaction").At("data.text")
	}
	if w.Curve != "secp256k1" && strings.Contains(r.Data.Text, "|") {
		return reason.New(reason.PolicyForbids, `ask for it as a metacoin operation, or for "data": "any" in the policy`,
			"a text with | could be a transaction").At("data.text")
	}
	return nil
}

// NewPlan says what a sign request signs and how, or why it cannot be signed with
// these wallets.
func NewPlan(r *request.Request, first Wallet, others ...Wallet) (*Plan, error) {
	p := &Plan{req: r}
	p.wallets = append(append(p.oneWallet[:0], first), others...)
	if r.Data != nil {
		s, err := signData(r.Data, first.Curve)
		if err != nil {
			return nil, err
		}
		p.signings = []ledger.Signing{s}
		return p, nil
	}
	p.known = p.oneKnown[:0]
	for i := range p.wallets {
		w := &p.wallets[i]
		p.known = append(p.known, ledger.Wallet{ID: w.ID, Curve: w.Curve, PublicPEM: w.PublicPEM, Address: w.Address})
	}
	var err error
	p.signings, err = r.Tx.Signings(p.known)
	if err != nil {
		return nil, err
	}
	if len(p.signings) == 0 {
		return nil, reason.New(reason.FieldInvalid, "name the wallet that it takes", "there is nothing to sign with this wallet").At("wallet")
	}
	return p, nil
}

func signData(d *request.Data, curve string) (ledger.Signing, error) {
	s := ledger.Signing{Text: sha256.Sum256([]byte(d.Text)), Algorithm: d.Scheme + "-" + curveNames[curve] + "-" + d.Hash}
	hash := hashes[d.Hash]
	switch d.Scheme {
	case "ecdsa-recoverable":
		s.Scheme = ledger.ECDSARecoverable
	case "schnorr":
		s.Scheme = ledger.Schnorr
	}
	if s.Scheme != ledger.ECDSA && curve != "secp256k1" {
		return s, reason.New(reason.CurveUnsuitable, "use a secp256k1 wallet, or ecdsa",
			"the scheme needs the curve secp256k1").At("data.scheme")
	}
	if s.Scheme != ledger.ECDSA && hash != crypto.SHA256 {
		return s, reason.New(reason.FieldInvalid, "use sha256", "the scheme signs 32 bytes").At("data.hash")
	}
	h := hash.New()
	h.Write([]byte(d.Text))
	s.Digest = h.Sum(nil)
	return s, nil
}
