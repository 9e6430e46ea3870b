// Package policy decides whether what a company's signer asks for is allowed. It
// is the only maker of Approvals, and nothing is signed without one: what was
// checked is by construction what gets signed.
//
// It knows neither files nor keys. What it must know of a wallet it is told, and
// the past it asks of a Memory.
package policy

import (
	"crypto"
	_ "crypto/sha256" // SHA-256
	_ "crypto/sha512" // SHA-384 and SHA-512
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

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
	// back texts with | under a curve that Metacoin accepts, since they could be
	// transactions; "any" signs all, as walletKMS did; "none" signs none.
	Data string `json:"data"`

	// MaxAge is how far ahead a request's not_after may lie, as Go writes a
	// duration ("24h"), and then a request must have one: what was signed once
	// cannot be dropped for the first time a year later. Empty: any request.
	MaxAge string `json:"max_age,omitempty"`

	// Clear allows decrypt requests whose text comes back as it is.
	Clear bool `json:"clear,omitzero"`

	maxAge time.Duration
}

// Parse reads policy.json. Unknown fields are refused: a misspelt restriction
// would be none.
func Parse(data []byte) (*Policy, error) {
	p := &Policy{}
	if err := json.Unmarshal(data, p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("reading policy.json: %w", err)
	}
	switch p.Data {
	case "", "safe", "any", "none":
	default:
		return nil, fmt.Errorf("reading policy.json: data is %q: use safe, any or none", p.Data)
	}
	if p.MaxAge != "" {
		var err error
		if p.maxAge, err = time.ParseDuration(p.MaxAge); err != nil || p.maxAge <= 0 {
			return nil, fmt.Errorf("reading policy.json: max_age is %q: write a duration such as 24h", p.MaxAge)
		}
	}
	return p, nil
}

// Wallet is what policy must know of a wallet.
type Wallet struct {
	Company string
	ID      string
	Curve   string // "P-256", "P-384", "P-521" or "secp256k1"
	Address string // bound address, "" for none
	Active  bool

	NotAfter time.Time // from then on it does not sign; zero: never
}

// Scheme is how a text is signed.
type Scheme int

// The schemes.
const (
	ECDSA Scheme = iota
	ECDSARecoverable
	Schnorr
)

// Plan says what a sign request signs and how. It follows from the request and
// the wallet alone and approves nothing.
type Plan struct {
	Wallet    Wallet
	Text      string // exactly what is signed
	Hash      crypto.Hash
	Scheme    Scheme
	Algorithm string // scheme, curve and hash, such as ecdsa-p384-sha384
}

// Approval allows one signature over one text with one wallet. Only Policy.Sign
// makes one, and Take gives its content out once.
type Approval struct {
	plan    *Plan
	taken   atomic.Bool
	release func()
}

// Take returns what to sign, and its digest. The second call, and any call after
// Release, reports false.
func (a *Approval) Take() (p *Plan, digest []byte, ok bool) {
	if a.plan == nil || a.taken.Swap(true) {
		return nil, nil, false
	}
	h := a.plan.Hash.New()
	h.Write([]byte(a.plan.Text))
	return a.plan, h.Sum(nil), true
}

// Release ends the approval's hold on its wallet and nonce. It is called when the
// signature is on record, or when it is certain that there will be none.
func (a *Approval) Release() {
	a.taken.Store(true)
	if a.release != nil {
		a.release()
		a.release = nil
	}
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
	if r.NotAfter.IsZero() {
		return reason.New(reason.FieldMissing, "say until when the request is good, at most "+p.MaxAge+" from now",
			"the company's policy wants it").At("not_after")
	}
	if r.NotAfter.Sub(now) > p.maxAge {
		return reason.New(reason.PolicyForbids, "give a time at most "+p.MaxAge+" from now",
			"the request is good for longer than the company's policy allows").At("not_after")
	}
	return nil
}

// Sign approves a sign request, or refuses it. owner is any value that tells this
// request from others that are decided at the same time; the lines of one batch
// share it. now is the time of the decision.
func (p *Policy) Sign(r *request.Request, w Wallet, once *Once, now time.Time, owner any) (*Approval, error) {
	plan, err := NewPlan(r, w)
	if err != nil {
		return nil, err
	}
	a := &Approval{plan: plan}
	if !w.Active {
		return nil, reason.New(reason.WalletDisabled, "ask your administrators", "the wallet is disabled").At("wallet")
	}
	if !w.NotAfter.IsZero() && now.After(w.NotAfter) {
		return nil, reason.New(reason.WalletDisabled, "use another wallet", "the wallet's time is over").At("wallet")
	}
	if r.Replace && !p.Replace {
		return nil, reason.New(reason.PolicyForbids, `ask for "replace": true in the policy, or leave the field out`,
			"the policy does not allow to replace a signed text").At("replace")
	}
	if r.Data != nil {
		if err := p.data(r, w); err != nil {
			return nil, err
		}
		return a, nil
	}
	nonce := r.Metacoin.Nonce()
	if nonce == "" {
		return a, nil
	}
	a.release, err = once.hold(use{w.Company, w.ID, "metacoin", nonce}, plan.Text, r.Replace, owner)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (p *Policy) data(r *request.Request, w Wallet) error {
	switch p.Data {
	case "none":
		return reason.New(reason.PolicyForbids, "ask for the ledger's own operation", "the policy does not allow data to be signed").At("data")
	case "any":
		return nil
	}
	if w.Curve != "secp256k1" && strings.Contains(r.Data.Text, "|") {
		return reason.New(reason.PolicyForbids, `ask for it as a metacoin operation, or for "data": "any" in the policy`,
			"a text with | could be a transaction").At("data.text")
	}
	return nil
}

// NewPlan says what a sign request signs and how, or why it cannot be signed with
// this wallet.
func NewPlan(r *request.Request, w Wallet) (*Plan, error) {
	p := &Plan{Wallet: w}
	if r.Data != nil {
		p.Text, p.Hash = r.Data.Text, hashes[r.Data.Hash]
		switch r.Data.Scheme {
		case "ecdsa-recoverable":
			p.Scheme = ECDSARecoverable
		case "schnorr":
			p.Scheme = Schnorr
		}
		if p.Scheme != ECDSA && w.Curve != "secp256k1" {
			return nil, reason.New(reason.CurveUnsuitable, "use a secp256k1 wallet, or ecdsa",
				"the scheme needs the curve secp256k1").At("data.scheme")
		}
		if p.Scheme != ECDSA && p.Hash != crypto.SHA256 {
			return nil, reason.New(reason.FieldInvalid, "use sha256", "the scheme signs 32 bytes").At("data.hash")
		}
		p.Algorithm = r.Data.Scheme + "-" + curveNames[w.Curve] + "-" + r.Data.Hash
		return p, nil
	}
	if w.Curve == "secp256k1" {
		return nil, reason.New(reason.CurveUnsuitable, "use a wallet on P-384 (or P-256, P-521)",
			"Metacoin does not accept keys on secp256k1").At("wallet")
	}
	if s := r.Metacoin.Signer(); s != "" && w.Address != "" && s != w.Address {
		return nil, reason.New(reason.AddressMismatch, "name the wallet that is bound to the signer's address",
			"the transaction is signed by another address than the wallet's").At("wallet")
	}
	p.Text, p.Hash = r.Metacoin.Text(), crypto.SHA384
	p.Algorithm = "ecdsa-" + curveNames[w.Curve] + "-sha384"
	return p, nil
}
