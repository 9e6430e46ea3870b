package metacoin

import (
	"crypto/sha256"
	"crypto/sha512"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// Ledger is Metacoin, as the appliance knows it.
var Ledger = ledger.Ledger{
	Name: "metacoin",
	Parse: func(raw []byte) (ledger.Tx, error) {
		t, err := Parse(raw)
		if err != nil {
			return nil, err
		}
		return t, nil
	},
	Preview: preview,
}

// Ledger returns "metacoin".
func (t *Tx) Ledger() string { return "metacoin" }

// Payload returns Text.
func (t *Tx) Payload() string { return t.text }

// algorithms by curve. Metacoin takes no other.
var algorithms = map[string]string{"P-256": "ecdsa-p256-sha384", "P-384": "ecdsa-p384-sha384", "P-521": "ecdsa-p521-sha384"}

// Signings returns the one signature that a transaction has.
func (t *Tx) Signings(ws []ledger.Wallet) ([]ledger.Signing, error) {
	w := &ws[0]
	algorithm := algorithms[w.Curve]
	if algorithm == "" {
		return nil, reason.New(reason.CurveUnsuitable, "use a wallet on P-384 (or P-256, P-521)",
			"Metacoin does not accept keys on %s", w.Curve).At("wallet")
	}
	if s := t.Signer(); s != "" && w.Address != "" && s != w.Address {
		return nil, reason.New(reason.AddressMismatch, "name the wallet that is bound to the signer's address",
			"the transaction is signed by another address than the wallet's").At("wallet")
	}
	text := []byte(t.text)
	digest := sha512.Sum384(text)
	s := ledger.Signing{Text: sha256.Sum256(text), Digest: digest[:], Scheme: ledger.ECDSA, Algorithm: algorithm}
	if nonce := t.Nonce(); nonce != "" {
		s.Use = ledger.Use{Key: nonce, Field: "metacoin.nonce", Name: "nonce", Hint: "fetch the wallet's present nonce"}
	}
	return []ledger.Signing{s}, nil
}

// Answer says what the signature covers, and what a node takes.
func (t *Tx) Answer(a *answer.Signed, ws []ledger.Wallet, sigs []string) {
	a.Address, a.Signature = ws[0].Address, sigs[0]
	a.NotCovered, a.AlsoMeans = t.NotCovered(), t.AlsoMeans()
	if sub := t.Submit(sigs[0]); sub != nil {
		a.Submit = sub.AppendJSON(nil)
	}
}
