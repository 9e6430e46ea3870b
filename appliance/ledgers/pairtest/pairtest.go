// Package pairtest is a ledger for tests whose transactions have several signatures:
//
//	{"operation": "pair", "texts": ["a", "b"], "uses": ["1", "2"]}
//
// Whoever imports it has it on the list of ledgers: it is initialized before the
// packages that read the list, as its import path sorts before theirs and it needs
// nothing that they do not need. The product does not import it.
package pairtest

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/reason"
)

func init() {
	ledgers.All = append(ledgers.All, &ledger.Ledger{
		Name: "pair",
		Parse: func(raw []byte) (ledger.Tx, error) {
			t := &tx{}
			if json.Unmarshal(raw, t, json.RejectUnknownMembers(true)) != nil || len(t.Texts) != len(t.Uses) {
				return nil, reason.New(reason.FieldInvalid, "give texts and uses", "this is no pair")
			}
			return t, nil
		},
		Explain: func(a *answer.Answer) *ledger.Finding {
			return &ledger.Finding{Signed: strings.Count(a.Payload, "|") == strings.Count(a.Signature, " ")}
		},
	})
}

type tx struct {
	Op    string   `json:"operation"`
	Texts []string `json:"texts"`
	Uses  []string `json:"uses"`
}

func (t *tx) Ledger() string    { return "pair" }
func (t *tx) Operation() string { return t.Op }
func (t *tx) Payload() string   { return strings.Join(t.Texts, "|") }

func (t *tx) Signings([]ledger.Wallet) (all []ledger.Signing, err error) {
	for i, text := range t.Texts {
		sum := sha256.Sum256([]byte(text))
		all = append(all, ledger.Signing{
			Text: sum, Digest: sum[:], Scheme: ledger.ECDSA, Algorithm: "ecdsa-p256-sha256",
			Use: ledger.Use{Key: t.Uses[i], Field: "pair.uses[" + strconv.Itoa(i) + "]", Name: "use", Hint: "use another"},
		})
	}
	return all, nil
}

func (t *tx) Answer(a *answer.Signed, _ []ledger.Wallet, sigs []string) {
	a.Signature, a.Own = strings.Join(sigs, " "), []byte(`{}`)
}
