package appliance

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/reason"
	"signdrop/keyfs"
	"signdrop/spool"
)

func init() { documents[".psbt"] = testDocument }

// testDocument is a kind of document for tests: lines "WALLET", "whole" or "half",
// and a text. What is whole is answered by two further files, what is half by one.
func testDocument(a *Appliance, c *company, t *task, _ *auth.Asker, o *outcome) error {
	wallet, rest, _ := strings.Cut(string(t.text), "\n")
	how, text, ok := strings.Cut(rest, "\n")
	if !ok {
		o.refusal = reason.New(reason.RequestMalformed, "write three lines", "this is no document")
		return nil
	}
	w, err := a.findWallet(c, wallet)
	if err != nil {
		if fault := o.refuseWith(err); fault != nil {
			a.keyTrouble(c, o, fault)
		}
		return nil
	}
	digest := sha256.Sum256([]byte(text))
	sig, err := w.Sign(keyfs.ECDSA, digest[:])
	if err != nil {
		a.keyTrouble(c, o, err)
		return nil
	}
	b64 := base64.StdEncoding.EncodeToString(sig)
	signed := fmt.Appendf(nil, "%s\nsigned %s\n", text, b64)
	if how == "whole" {
		o.files = []spool.File{{Ending: "-signed.psbt", Data: signed}, {Ending: "-final.txn", Data: []byte(b64)}}
	} else {
		o.files = []spool.File{{Ending: "-part.psbt", Data: signed}}
	}
	o.event.Kind, o.event.Type, o.event.Wallet = "signed", "document", w.ID()
	o.event.Algorithm, o.event.Signature, o.event.Text = "ecdsa-p256-sha256", b64, digest
	o.answer = answer.AppendResult(nil, o.head, "document", "signed",
		answer.Member{Name: "wallet", Value: w.ID()}, filesMember(o.files))
	return nil
}
